"""The behaviour table: columns, kinds, one event, and what counts as a positive one.

| column | type | meaning |
|---|---|---|
| user | str | pseudonym |
| item | str or null | null for a search |
| kind | str | one of `tasteloop.behaviour.kinds.KINDS` |
| time | int64 | microseconds since 1970, UTC: engines differ in timestamps, not in integers |
| value | float32 or null | in [0, 1]: the source's declared scale, normalised |
| text | str or null | query, review |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from reprlib import repr as _shown
from typing import Any, Literal

import narwhals as nw
from pydantic import BaseModel, Field

from tasteloop.behaviour.kinds import KINDS, ROUNDING, words_needing, words_without
from tasteloop.errors import TasteloopError

USER = "user"
ITEM = "item"
KIND = "kind"
TIME = "time"
VALUE = "value"
TEXT = "text"

EVENTS_SCHEMA = nw.Schema(
    {
        USER: nw.String(),
        ITEM: nw.String(),
        KIND: nw.String(),
        TIME: nw.Int64(),
        VALUE: nw.Float32(),
        TEXT: nw.String(),
    }
)

SECOND = 1_000_000  # µs
LATEST = 253_402_300_800 * SECOND - 1  # the last of the year 9999, where datetime ends


def positive(threshold: float = 0.7) -> nw.Expr:
    """True where an event says that its user wants its item; never null.

    The declaration of its kind says whether it does (`Kind.is_positive`). An event without an item
    never does. On a scale of 1 to 5, a threshold of 0.7 means 4 and 5.
    """
    kind, value = nw.col(KIND), nw.col(VALUE)
    words: dict[str, list[str]] = {"ignored": [], "corrects": [], "decides": []}
    for declared in KINDS.values():
        if declared.strength > 0:
            words[declared.value].append(declared.word)

    is_high = (value >= threshold - ROUNDING).fill_null(False)
    wanted = (
        kind.is_in(words["ignored"])
        | (kind.is_in(words["decides"]) & is_high)
        | (kind.is_in(words["corrects"]) & (value.is_null() | is_high))
    )
    return ~nw.col(ITEM).is_null() & wanted.fill_null(False)


@dataclass(frozen=True)
class Event:
    """One act of one user; `time` in µs since 1970 UTC, `value` in [0, 1]."""

    kind: str
    item: str | None = None
    time: int | None = None
    value: float | None = None
    text: str | None = None

    def positive(self, threshold: float = 0.7) -> bool:
        """The same rule as the module's `positive`, for one event.

        >>> Event("rate", "50", value=0.75).positive()
        True
        """
        kind = KINDS.get(self.kind)
        if self.item is None or kind is None:
            return False
        return kind.is_positive(self.value, threshold)

    @property
    def is_act(self) -> bool:
        """Whether the user did something; False for what was merely shown."""
        kind = KINDS.get(self.kind)
        return kind is None or kind.is_act

    @property
    def consumes(self) -> bool:
        """Whether the item is then known to the user, and not recommended again."""
        kind = KINDS.get(self.kind)
        return kind is None or kind.consumes

    def json(self) -> dict[str, Any]:
        """What `parse` reads: without what is absent."""
        return {key: value for key, value in vars(self).items() if value is not None}

    @classmethod
    def parse(cls, event: Any, where: str) -> Event:
        """Check one JSON event.

        Args:
            event: {"kind", "item", "time", "value", "text"}; all but `kind` may be absent or null.
                `time` is an ISO 8601 string (UTC where it names no zone) or an integer in µs.
            where: what the error calls this event, such as `instances[0].events[3]`.

        Raises:
            TasteloopError: a key, kind, type or value that is not allowed.
        """
        if not isinstance(event, Mapping):
            raise TasteloopError(
                f'{where}: an event is an object, not {_shown(event)}; example: {{"kind": "click"}}'
            )
        if unknown := [key for key in event if key not in cls.__dataclass_fields__]:
            raise TasteloopError(
                f"{where}: unknown key {_shown(unknown[0])}; known: {', '.join(cls.__dataclass_fields__)}"
            )
        kind = event.get(KIND)
        if not isinstance(kind, str) or kind not in KINDS:
            raise TasteloopError(
                f"{where}: unknown event kind {_shown(kind)}; known: {', '.join(KINDS)}"
            )
        item, text, value = event.get(ITEM), event.get(TEXT), event.get(VALUE)
        for name, given in ((ITEM, item), (TEXT, text)):
            if not (given is None or (isinstance(given, str) and given.strip())):
                raise TasteloopError(
                    f"{where}: {name} is a string that is not blank, or null, not {_shown(given)}"
                )
        if value is not None:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and 0 <= value <= 1):  # NaN is not in [0, 1] either
                raise TasteloopError(
                    f"{where}: value is a number from 0 to 1 (normalise it by your scale), not {_shown(value)}"
                )
        return cls(
            kind,
            item,
            _parse_time(event.get(TIME), where),
            None if value is None else float(value),
            text,
        )


# ISO 8601, extended or basic, as every reader takes it: this module for a single time,
# `tasteloop.datasets.reading` for a column. The pattern means the same to Python and to Rust.
ISO = (
    r"^(?P<year>[0-9]{4})-?(?P<month>[0-9]{2})-?(?P<day>[0-9]{2})"
    r"(?:[T ](?P<hour>[01][0-9]|2[0-3])(?::?(?P<minute>[0-5][0-9])"
    r"(?::?(?P<second>[0-5][0-9])(?:[.,](?P<fraction>[0-9]{1,6})[0-9]*)?)?)?)?"
    r" ?(?P<offset>Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)?$"
)
_ISO = re.compile(ISO)

Unit = Literal["s", "ms", "us", "ns"]
PER_UNIT: Mapping[Unit, tuple[int, int]] = {
    "s": (1_000_000, 1),
    "ms": (1_000, 1),
    "us": (1, 1),
    "ns": (1, 1_000),
}
"""The factor and the divisor that make µs of a number in a unit."""

UNIT_NAMES: Mapping[Unit, str] = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}
# 1990 to 2100, where nearly all behaviour lies
_FROM, _TO = 631_152_000 * SECOND, 4_102_444_800 * SECOND


def likely_range(unit: Unit) -> tuple[int, int]:
    """The numbers of a unit that are times from 1990 on and before 2100; no number is in the range
    of two units.

    A time in the wrong unit is no error of arithmetic: seconds read as microseconds are the first
    hours of 1970.
    """
    times, per = PER_UNIT[unit]
    return _FROM * per // times, _TO * per // times


def likely_unit(number: float) -> Unit | None:
    """The unit whose `likely_range` a number is in."""
    return next(
        (unit for unit in PER_UNIT if likely_range(unit)[0] <= number < likely_range(unit)[1]), None
    )


def parse_iso(written: str) -> int | None:
    """µs since 1970 UTC of ISO 8601 text, in UTC where it names no zone; None for what is none."""
    match = _ISO.fullmatch(written.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (
        int(part or 0) for part in match.group(1, 2, 3, 4, 5, 6)
    )
    offset = (match["offset"] or "Z").replace(":", "")
    minutes = 0 if offset == "Z" else int(offset[:3]) * 60 + int(f"{offset[0]}{offset[3:] or 0}")
    try:
        moment = datetime(
            year, month, day, hour, minute, second, int((match["fraction"] or "").ljust(6, "0"))
        )
    except ValueError:  # the 30th of February
        return None
    return microseconds(moment) - minutes * 60 * SECOND


def _parse_time(time: Any, where: str) -> int | None:
    if time is None:
        return None
    micros = parse_iso(time) if isinstance(time, str) else whole(time)
    unit = None if isinstance(time, str) or micros is None else likely_unit(micros)
    if micros is None or not 0 <= micros <= LATEST or unit not in (None, "us"):
        guess = (
            f"; it looks like {UNIT_NAMES[unit]}, {in_words(micros, unit)}"
            if unit and micros is not None
            else ""
        )
        raise TasteloopError(
            f"{where}: time is an ISO 8601 string such as '2026-11-24T10:00:00Z' or an integer of "
            f"microseconds since 1970 UTC, not {_shown(time)}{guess}"
        )
    return micros


def in_words(number: float, unit: Unit) -> str:
    """A number of a unit as ISO 8601."""
    times, per = PER_UNIT[unit]
    return f"{datetime.fromtimestamp(number * times / per / SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}"


def whole(number: Any) -> int | None:
    """A number of JSON, which does not tell 3 from 3.0, as an integer; None for what is none, as
    booleans are not.
    """
    if isinstance(number, bool) or not isinstance(number, int | float) or number % 1:
        return None
    return int(number)


def microseconds(moment: datetime) -> int:
    """µs since 1970 UTC; a moment that names no zone is read as UTC."""
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(
        1970, 1, 1, tzinfo=UTC
    )
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds


# Cleaning. Beside the columns of the contract a frame that is being cleaned has these:
ROW = "row"  # the row of the source, counted from 1, the header not counted
TIME_WRITTEN = "time_written"  # as the source wrote it; TIME is null where that could not be read
VALUE_WRITTEN = "value_written"
REASON = "reason"

RULES: Mapping[str, str] = {
    "missing": "user, kind or time is empty",
    "unreadable": "the time or the value is not one, or does not exist in its time zone",
    "unknown_kind": "the kind is none of " + ", ".join(KINDS),
    "impossible_time": "before 1970, before `earliest`, or further ahead than `future_tolerance_hours`",
    "off_scale": "the value is outside the declared scale",
    "incomplete": f"no item (all kinds but {', '.join(words_without('item'))}), "
    f"no value ({', '.join(words_needing('value'))}), no text ({', '.join(words_needing('text'))}), "
    f"neither ({', '.join(words_needing('text', 'value'))})",
    "exact_duplicate": "an earlier row says exactly the same",
    "near_duplicate": "the same user, item and kind within `near_duplicate_seconds` of the one before",
    "few_item_events": "an item with fewer than `min_item_events` events",
    "few_user_events": "a user with fewer than `min_user_events` events",
}
"""What each rule removes, in the order of application: a row counts for the first rule it breaks.
The last two repeat until every user and item that is left has enough."""


class CleaningSettings(BaseModel, frozen=True, extra="forbid"):
    """Limits of the cleaning rules."""

    near_duplicate_seconds: float = Field(default=1.0, ge=0)
    min_user_events: int = Field(default=5, ge=1)
    min_item_events: int = Field(default=1, ge=1)
    earliest: date = date(1990, 1, 1)
    future_tolerance_hours: float = Field(default=24.0, ge=0)


@dataclass(frozen=True)
class Cleaned:
    """Every row that came is in `events` or in `quarantine`, in exactly one of them.

    Attributes:
        events: the behaviour table, ordered by time.
        quarantine: the columns as written (str), `reason` (a key of `RULES`) and `row`, ordered by
            row.
        removed: rows removed by each rule, in the rules' order, zeros too.
    """

    events: nw.DataFrame[Any]
    quarantine: nw.DataFrame[Any]
    removed: dict[str, int]


def clean(
    events: nw.LazyFrame[Any],
    scale: tuple[float, float] = (0.0, 1.0),
    settings: CleaningSettings | None = None,
    now: datetime | None = None,
) -> Cleaned:
    """Apply `RULES` and normalise the values by the scale.

    Args:
        events: the contract's columns, `value` still on the source's scale (float64), with ROW,
            TIME_WRITTEN and VALUE_WRITTEN. Empty strings are null.
        scale: the lowest and highest value there can be.
        now: what the future is measured from; the clock when absent.
    """
    (judged,) = enough([judge(events, scale, settings, now)], settings or CleaningSettings())
    quarantine = rejected(judged).sort(ROW).collect()
    counts = dict(quarantine.group_by(REASON).agg(nw.len()).iter_rows())
    events = accepted(judged, scale).sort(TIME, ROW).select(*EVENTS_SCHEMA)
    return Cleaned(events.collect(), quarantine, {rule: int(counts.get(rule, 0)) for rule in RULES})


def judge(
    events: nw.LazyFrame[Any],
    scale: tuple[float, float] = (0.0, 1.0),
    settings: CleaningSettings | None = None,
    now: datetime | None = None,
) -> nw.LazyFrame[Any]:
    """The rules that look at a row, or at the rows of its user: REASON is null where none is
    broken.

    All rows of a user must be there; of other users any number may be elsewhere. Arguments as of
    `clean`.
    """
    settings = settings or CleaningSettings()
    ahead = timedelta(hours=settings.future_tolerance_hours)
    first = max(0, microseconds(datetime.combine(settings.earliest, datetime.min.time())))
    last = microseconds((now or datetime.now(UTC)) + ahead)
    user, item, kind, time, value, text = (nw.col(c) for c in (USER, ITEM, KIND, TIME, VALUE, TEXT))

    frame = events.with_columns(nw.lit(None, dtype=nw.String()).alias(REASON))
    frame = _mark(
        frame, "missing", user.is_null() | kind.is_null() | nw.col(TIME_WRITTEN).is_null()
    )
    frame = _mark(
        frame, "unreadable", time.is_null() | (value.is_null() & ~nw.col(VALUE_WRITTEN).is_null())
    )
    frame = _mark(frame, "unknown_kind", ~kind.is_in(list(KINDS)))
    frame = _mark(frame, "impossible_time", (time < first) | (time > last))
    frame = _mark(frame, "off_scale", (value < scale[0]) | (value > scale[1]))
    frame = _mark(frame, "incomplete", _incomplete())

    # windows count the rows that are still kept apart from the others
    same = (USER, ITEM, KIND, TIME, VALUE, TEXT, "_kept")
    frame = frame.with_columns(_KEPT.alias("_kept"))
    frame = _mark(frame, "exact_duplicate", nw.col(ROW) > nw.col(ROW).min().over(*same))
    query = nw.when(item.is_null()).then(text)  # two searches are the same when their words are
    frame = frame.with_columns(_KEPT.alias("_kept"), query.alias("_query"))
    window = round(settings.near_duplicate_seconds * SECOND)
    frame = _with_before(frame, (USER, ITEM, KIND, "_query", "_kept"))
    return _mark(frame, "near_duplicate", (time - nw.col("_before")) <= window).drop(
        "_kept", "_query", "_before"
    )


_KEPT = nw.col(REASON).is_null()


def _incomplete() -> nw.Expr:
    """True where a row lacks all columns of a group of which its kind needs one."""
    lacks = []
    for group in dict.fromkeys(group for kind in KINDS.values() for group in kind.needs):
        empty = [nw.col(column).is_null() for column in group]
        lacks.append(
            nw.col(KIND).is_in(words_needing(*group))
            & nw.all_horizontal(*empty, ignore_nulls=False)
        )
    return nw.any_horizontal(*lacks, ignore_nulls=False)


def _mark(frame: nw.LazyFrame[Any], rule: str, broken: nw.Expr) -> nw.LazyFrame[Any]:
    mine = _KEPT & broken.fill_null(False)
    return frame.with_columns(
        nw.when(mine).then(nw.lit(rule)).otherwise(nw.col(REASON)).alias(REASON)
    )


def _with_before(frame: nw.LazyFrame[Any], keys: tuple[str, ...]) -> nw.LazyFrame[Any]:
    """With `_before`: the TIME of the row before, in the order of TIME and ROW, among those of
    equal keys.
    """
    if not frame.implementation.is_polars():
        before = nw.col(TIME).shift(1).over(*keys, order_by=[TIME, ROW])
        return frame.with_columns(before.alias("_before"))
    import polars as pl

    # the same by one sort: Polars sorts each group of a window by itself, which takes three times
    # as long
    ordered = frame.to_native().sort(*keys, TIME, ROW)
    same = pl.all_horizontal(pl.col(key).eq_missing(pl.col(key).shift(1)) for key in keys)
    marked = ordered.with_columns(pl.when(same).then(pl.col(TIME).shift(1)).alias("_before"))
    out: nw.LazyFrame[Any] = nw.from_native(marked)
    return out


Keep = Callable[[nw.LazyFrame[Any], int], nw.LazyFrame[Any]]


def _in_memory(frame: nw.LazyFrame[Any], part: int) -> nw.LazyFrame[Any]:
    return frame.collect().lazy()


def enough(
    parts: Sequence[nw.LazyFrame[Any]], settings: CleaningSettings, keep: Keep = _in_memory
) -> list[nw.LazyFrame[Any]]:
    """The last two rules, which look at all rows that are kept, on `judge`d parts with whole users
    in each.

    Args:
        keep: computes a part and gives what holds the result; its number tells it from the others.
    """
    user, item = nw.col(USER), nw.col(ITEM)
    few_users = (
        ~(_KEPT.cast(nw.Int64()).sum().over(USER) >= settings.min_user_events) & ~user.is_null()
    )
    if settings.min_item_events == 1:  # then no user takes an item along
        return [keep(_mark(part, "few_user_events", few_users), n) for n, part in enumerate(parts)]
    kept, size = [keep(part, n) for n, part in enumerate(parts)], -1
    while size != (size := sum(_size(part) for part in kept)):
        if len(kept) == 1:
            few_items = (
                ~(_KEPT.cast(nw.Int64()).sum().over(ITEM) >= settings.min_item_events)
                & ~item.is_null()
            )
        else:
            few_items = item.is_in(_rare(kept, settings.min_item_events))
        marked = [
            _mark(_mark(part, "few_item_events", few_items), "few_user_events", few_users)
            for part in kept
        ]
        kept = [keep(part, n) for n, part in enumerate(marked)]
    return kept


def _rare(parts: Sequence[nw.LazyFrame[Any]], least: int) -> list[str]:
    """Items with fewer kept events than `least`, over all parts."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(
            dict(
                part.filter(_KEPT, ~nw.col(ITEM).is_null())
                .group_by(ITEM)
                .agg(nw.len())
                .collect()
                .iter_rows()
            )
        )
    return [item for item, count in counts.items() if count < least]


def accepted(judged: nw.LazyFrame[Any], scale: tuple[float, float]) -> nw.LazyFrame[Any]:
    """The rows that are kept, values normalised, with ROW; in no order."""
    low, width = scale[0], scale[1] - scale[0]
    normal = ((nw.col(VALUE) - low) / width).cast(nw.Float32())
    return judged.filter(_KEPT).with_columns(normal.alias(VALUE)).select(*EVENTS_SCHEMA, ROW)


def rejected(judged: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
    """The others, as they were written, with REASON and ROW; in no order."""
    written = {TIME: nw.col(TIME_WRITTEN), VALUE: nw.col(VALUE_WRITTEN)}
    return judged.filter(~_KEPT).select(
        *(written.get(c, nw.col(c)).alias(c) for c in EVENTS_SCHEMA), REASON, ROW
    )


def _size(frame: nw.LazyFrame[Any]) -> int:
    """Rows kept so far."""
    return int(frame.select(_KEPT.cast(nw.Int64()).sum()).collect().item() or 0)
