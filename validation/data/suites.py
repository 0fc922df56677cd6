"""The suites: each table's contract, made from its schema, and its rules.

A rule is an error, which stops the pipeline, or a warning, which is reported. Some are both, at two
levels: one unlisted item is a warning, a tenth of all events is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tasteloop.behaviour import events as ev
from tasteloop.behaviour import items as it
from tasteloop.behaviour.kinds import KINDS, words_needing
from tasteloop.behaviour.times import microseconds
from validation.data.checks import Severity
from validation.data.settings import ValidationSettings
from validation.data.tables import (
    FOREIGN,
    IS,
    LABEL,
    LEARNABLE,
    LONG_SEARCHES,
    LOST,
    NONE,
    POSITIVE,
    REJECTED,
    REQUIRED,
    SCHEMAS,
    SINCE,
    TYPES,
    UNCATALOGUED,
    UNLABELLED,
    UNLISTED,
    UNREADABLE_OPINIONS,
    UNREADABLE_SEARCHES,
)

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

PSEUDONYM = r"^[0-9a-f]{32}$"  # what tasteloop.privacy.pseudonyms makes of a user id

_ROWS, _DISTINCT = "ExpectTableRowCountToBeBetween", "ExpectColumnUniqueValueCountToBeBetween"
_MAX, _MEAN, _SUM = (
    "ExpectColumnMaxToBeBetween",
    "ExpectColumnMeanToBeBetween",
    "ExpectColumnSumToBeBetween",
)
_TYPE, _COLUMNS = "ExpectColumnValuesToBeOfType", "ExpectTableColumnsToMatchSet"
_PRESENT, _NULL = "ExpectColumnValuesToNotBeNull", "ExpectColumnValuesToBeNull"
_BETWEEN, _IN, _REGEX = (
    "ExpectColumnValuesToBeBetween",
    "ExpectColumnValuesToBeInSet",
    "ExpectColumnValuesToMatchRegex",
)
_NAMES = "ExpectColumnDistinctValuesToBeInSet"
_UNIQUE, _UNIQUE_ROWS = "ExpectColumnValuesToBeUnique", "ExpectCompoundColumnsToBeUnique"


def _expect(
    rule: str, about: str, kind: str, severity: Severity = "error", **bounds: Any
) -> Expectation:
    """An expectation that carries its rule's name and meaning; bounds are its own arguments."""
    from great_expectations import expectations
    from great_expectations.expectations.metadata_types import FailureSeverity

    level = FailureSeverity.CRITICAL if severity == "error" else FailureSeverity.WARNING
    expectation: Expectation = getattr(expectations, kind)(
        meta={"rule": rule, "about": about}, severity=level, **bounds
    )
    return expectation


def _mostly(rule: str, about: str, kind: str, most: float, **bounds: Any) -> Iterator[Expectation]:
    """A rule at two levels: a warning from the first row that breaks it, an error above the share
    `most`.
    """
    yield _expect(
        rule,
        f"{about}, at least {1 - most:.4%} of them".replace(".0000%", "%"),
        kind,
        mostly=1 - most,
        **bounds,
    )
    yield _expect(rule, about, kind, "warning", **bounds)


def contract(
    name: str, columns: Sequence[str], types: Mapping[str, str] | None = None
) -> Iterator[Expectation]:
    """Columns, types and nulls from the schema. A column that is missing is reported as missing,
    and its type and nulls are not checked.

    Args:
        columns: those of the table.
        types: the names that an engine other than pandas has for the types.
    """
    required = [column for column in SCHEMAS[name] if column not in SINCE.get(name, ())]
    about = f"there are the columns {', '.join(required)}"
    yield _expect("columns", about, _COLUMNS, column_set=required, exact_match=False)
    for column, dtype in SCHEMAS[name].items():
        if column in columns:
            kind = TYPES[dtype]
            type_name = types[kind] if types else kind
            yield _expect(
                f"{column} type", f"{column} is {kind}", _TYPE, column=column, type_=type_name
            )
    for column in REQUIRED[name]:
        if column in columns:
            yield _expect(f"{column} present", f"every row has {column}", _PRESENT, column=column)


def rules_of_events(
    s: ValidationSettings, before: Mapping[str, int], listed: bool
) -> Iterator[Expectation]:
    from great_expectations.expectations.row_conditions import Column

    now = datetime.now(UTC)
    first = microseconds(datetime(s.earliest.year, s.earliest.month, s.earliest.day, tzinfo=UTC))
    last = microseconds(now + timedelta(hours=s.future_hours))
    rate = Column(ev.KIND).is_in(words_needing("value"))
    search = Column(ev.KIND).is_in(words_needing("text"))
    yield _expect(
        "enough events", f"at least {s.min_events:,} events", _ROWS, min_value=s.min_events
    )
    about = f"at least {s.min_users:,} users"
    yield _expect("enough users", about, _DISTINCT, column=ev.USER, min_value=s.min_users)
    about = f"at least {s.min_positive_events:,} events say that a user wants an item"
    yield _expect("enough positives", about, _SUM, column=POSITIVE, min_value=s.min_positive_events)
    about = f"kind is one of {', '.join(KINDS)}"
    yield _expect("kind known", about, _IN, column=ev.KIND, value_set=list(KINDS))
    about = f"time lies after {s.earliest} and not in the future"
    yield _expect("time possible", about, _BETWEEN, column=ev.TIME, min_value=first, max_value=last)
    about = "value lies in [0, 1]"
    yield _expect("value range", about, _BETWEEN, column=ev.VALUE, min_value=0.0, max_value=1.0)
    about = "no event stands there twice"
    columns = {"column_list": list(ev.EVENTS_SCHEMA), "ignore_row_if": "never"}
    yield from _mostly("no duplicates", about, _UNIQUE_ROWS, s.max_duplicates, **columns)
    about = "ratings have a value"
    yield from _mostly(about, about, _PRESENT, s.max_valueless, column=ev.VALUE, row_condition=rate)
    about = "searches have a text"
    yield _expect(about, about, _PRESENT, "warning", column=ev.TEXT, row_condition=search)
    if s.pseudonyms:
        about = "users are pseudonyms, 32 hexadecimal digits as ingest makes them"
        yield _expect("pseudonyms", about, _REGEX, column=ev.USER, regex=PSEUDONYM)
    if listed:
        about = "events name only items of the catalogue"
        yield from _mostly("items listed", about, _NULL, s.max_unlisted, column=UNLISTED)
    for kind, (low, high) in s.kind_shares.items():
        about = f"the share of {kind} events lies in [{low:g}, {high:g}]"
        yield _expect(
            f"share of {kind}", about, _MEAN, column=IS + kind, min_value=low, max_value=high
        )
    if s.max_age_days is not None:
        about = f"the newest event is at most {s.max_age_days:g} days old"
        oldest = microseconds(now - timedelta(days=s.max_age_days))
        yield _expect("fresh", about, _MAX, column=ev.TIME, min_value=oldest)
    yield from _volume("events", s, before, _ROWS)
    yield from _volume("users", s, before, _DISTINCT, column=ev.USER)


def rules_of_items(
    s: ValidationSettings, before: Mapping[str, int], labelled: bool
) -> Iterator[Expectation]:
    yield _expect("enough items", f"at least {s.min_items:,} items", _ROWS, min_value=s.min_items)
    yield _expect("item unique", "an item is listed once", _UNIQUE, column=it.ITEM)
    yield _expect("item not blank", "item ids are not blank", _REGEX, column=it.ITEM, regex=r"\S")
    yield from _mostly("titled", "items have a title", _PRESENT, s.max_untitled, column=it.TITLE)
    blank = {"column": it.TITLE, "regex": r"\S"}
    yield from _mostly("title not blank", "titles are not blank", _REGEX, s.max_untitled, **blank)
    if labelled:
        yield from _mostly(
            "labelled", "items carry a label", _NULL, s.max_unlabelled, column=UNLABELLED
        )
    yield from _volume("items", s, before, _ROWS)


def rules_of_labels(s: ValidationSettings) -> Iterator[Expectation]:
    yield _expect("label not blank", "labels are not blank", _REGEX, column=LABEL, regex=r"\S")
    about = "an item carries a label once"
    yield _expect("label once", about, _UNIQUE_ROWS, "warning", column_list=[it.ITEM, LABEL])
    about = f"at least {s.min_labels} labels are carried by {s.min_label_items} or more items and not by all"
    yield _expect("enough labels", about, _DISTINCT, column=LEARNABLE, min_value=s.min_labels)


def rules_of_reviews(s: ValidationSettings, before: Mapping[str, int]) -> Iterator[Expectation]:
    low, high = s.sentiment_balance
    yield _expect(
        "enough reviews", f"at least {s.min_reviews:,} reviews", _ROWS, min_value=s.min_reviews
    )
    yield _expect("review unique", "a review id stands there once", _UNIQUE, column=it.REVIEW)
    yield _expect("text not blank", "texts are not blank", _REGEX, column=it.TEXT, regex=r"\S")
    yield _expect("text unique", "a text stands there once", _UNIQUE, "warning", column=it.TEXT)
    yield _expect(
        "sentiment known", "sentiment is 0 or 1", _IN, column=it.SENTIMENT, value_set=[0, 1]
    )
    about = f"the share of positive reviews lies in [{low:g}, {high:g}]"
    yield _expect("balance", about, _MEAN, column=it.SENTIMENT, min_value=low, max_value=high)
    yield from _volume("reviews", s, before, _ROWS)


def rules_of_texts(s: ValidationSettings, column: str) -> Iterator[Expectation]:
    """The rules of one column of `text_columns`."""
    if column == FOREIGN:
        about = (
            f"at most {s.max_foreign:g} of the texts are mostly in letters in which the catalogue "
            "is not written"
        )
        rule = "in the catalogue's letters"
        yield _expect(rule, about, _MAX, "warning", max_value=s.max_foreign, column=column)
    elif column == LONG_SEARCHES:
        about = (
            f"at most {s.max_long:g} of the searches have over {s.search_characters:,} characters"
        )
        yield _expect("searches short", about, _MAX, "warning", max_value=s.max_long, column=column)
    else:
        what = _WRITTEN[column]
        rule, warn_at = f"{what} readable", s.max_unreadable / 5
        about = f"at most {{:g}} of the {what} cannot be read (empty, wordless, or damaged)"
        yield _expect(
            rule, about.format(s.max_unreadable), _MAX, max_value=s.max_unreadable, column=column
        )
        yield _expect(
            rule, about.format(warn_at), _MAX, "warning", max_value=warn_at, column=column
        )


_WRITTEN = {UNREADABLE_SEARCHES: "searches", UNREADABLE_OPINIONS: "texts about items"}


def rules_of_ingest(s: ValidationSettings, column: str) -> Iterator[Expectation]:
    """The rules of one column of `ingest_columns`."""
    if column == REJECTED:
        most, about = s.max_rejected, "ingest removed at most {:g} of the rows that it read"
        rule, warn_at = "few rejected", most / 5
        yield _expect(rule, about.format(most), _MAX, max_value=most, column=column)
        yield _expect(
            rule, about.format(warn_at), _MAX, "warning", max_value=warn_at, column=column
        )
    elif column == UNCATALOGUED:
        most = s.max_uncatalogued
        about = "at most {:g} of the events name an item that the source's catalogue lacks"
        rule, warn_at = "items catalogued", most / 10
        yield _expect(rule, about.format(most), _MAX, max_value=most, column=column)
        yield _expect(
            rule, about.format(warn_at), _MAX, "warning", max_value=warn_at, column=column
        )
    elif column == LOST:
        about = f"no rule of the cleaning removed more than {s.max_lost:g} of a kind's rows"
        yield _expect("kinds kept", about, _NAMES, "warning", column=column, value_set=[NONE])
    else:
        about = "no id is a word that programs write for a missing value"
        yield _expect("no null words", about, _NAMES, "warning", column=column, value_set=[NONE])


def _volume(
    what: str, s: ValidationSettings, before: Mapping[str, int], kind: str, **where: Any
) -> Iterator[Expectation]:
    """Against the last accepted data set: too few is an error, too many a warning."""
    count = before.get(what)
    if not count:
        return
    low, high = s.volume
    last = f"the {count:,} {what} of the last accepted data set"
    least, most = math.ceil(low * count), math.floor(high * count)
    about = f"at least {low:g} of {last}"
    yield _expect(f"{what} kept", about, kind, min_value=least, **where)
    about = f"at most {high:g} times {last}"
    yield _expect(f"{what} grown", about, kind, "warning", max_value=most, **where)
