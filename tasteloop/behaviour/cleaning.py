"""Cleaning: which rows of a source become behaviour, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import narwhals as nw
from pydantic import BaseModel, Field

from tasteloop.behaviour.events import EVENTS_SCHEMA, ITEM, KIND, TEXT, TIME, USER, VALUE
from tasteloop.behaviour.kinds import KINDS, words_needing, words_without
from tasteloop.behaviour.times import SECOND, microseconds

# Beside the columns of the contract a frame that is being cleaned has these:
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
    groups = dict.fromkeys(group for kind in KINDS.values() for group in kind.needs)
    lacks = []
    for group in groups:
        needs_one = nw.col(KIND).is_in(words_needing(*group))
        empty = [nw.col(column).is_null() for column in group]
        lacks.append(needs_one & nw.all_horizontal(*empty, ignore_nulls=False))
    return nw.any_horizontal(*lacks, ignore_nulls=False)


def _mark(frame: nw.LazyFrame[Any], rule: str, broken: nw.Expr) -> nw.LazyFrame[Any]:
    """Give the rule as the reason to the rows that break it, and that no earlier rule has
    removed.
    """
    breaks_first = _KEPT & broken.fill_null(False)
    reason = nw.when(breaks_first).then(nw.lit(rule)).otherwise(nw.col(REASON))
    return frame.with_columns(reason.alias(REASON))


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
    """Apply the last two rules, which look at all rows that no rule has removed.

    Args:
        parts: results of `judge`; all rows of a user are in the same part.
        keep: computes a part, of this number, and returns a frame of the result.
    """
    user, item = nw.col(USER), nw.col(ITEM)
    few_users = (
        ~(_KEPT.cast(nw.Int64()).sum().over(USER) >= settings.min_user_events) & ~user.is_null()
    )
    if settings.min_item_events == 1:  # then no user takes an item along
        return [keep(_mark(part, "few_user_events", few_users), n) for n, part in enumerate(parts)]
    remaining = [keep(part, n) for n, part in enumerate(parts)]
    size_before, size = -1, sum(_size(part) for part in remaining)
    while size != size_before:  # each round may leave others with too little
        if len(remaining) == 1:
            few_items = (
                ~(_KEPT.cast(nw.Int64()).sum().over(ITEM) >= settings.min_item_events)
                & ~item.is_null()
            )
        else:
            few_items = item.is_in(_rare(remaining, settings.min_item_events))
        marked = [
            _mark(_mark(part, "few_item_events", few_items), "few_user_events", few_users)
            for part in remaining
        ]
        remaining = [keep(part, n) for n, part in enumerate(marked)]
        size_before, size = size, sum(_size(part) for part in remaining)
    return remaining


def _rare(parts: Sequence[nw.LazyFrame[Any]], least: int) -> list[str]:
    """Items with fewer kept events than `least`, over all parts."""
    counts: Counter[str] = Counter()
    for part in parts:
        with_item = part.filter(_KEPT, ~nw.col(ITEM).is_null())
        counts_of_part = with_item.group_by(ITEM).agg(nw.len()).collect()
        counts.update(dict(counts_of_part.iter_rows()))
    return [item for item, count in counts.items() if count < least]


def accepted(judged: nw.LazyFrame[Any], scale: tuple[float, float]) -> nw.LazyFrame[Any]:
    """The rows that are kept, values normalised, with ROW; in no order."""
    low, width = scale[0], scale[1] - scale[0]
    normal = ((nw.col(VALUE) - low) / width).cast(nw.Float32())
    return judged.filter(_KEPT).with_columns(normal.alias(VALUE)).select(*EVENTS_SCHEMA, ROW)


def rejected(judged: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
    """The others, as they were written, with REASON and ROW; in no order."""
    as_written = {TIME: TIME_WRITTEN, VALUE: VALUE_WRITTEN}
    columns = [nw.col(as_written.get(name, name)).alias(name) for name in EVENTS_SCHEMA]
    return judged.filter(~_KEPT).select(*columns, REASON, ROW)


def _size(frame: nw.LazyFrame[Any]) -> int:
    """Rows kept so far."""
    return int(frame.select(_KEPT.cast(nw.Int64()).sum()).collect().item() or 0)
