"""Numbers, times and counts as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

from tasteloop.intervals import Interval, finite
from validation.markup.elements import Safe, tag


def number(value: object, digits: int = 3, signed: bool = False) -> str:
    """A number as people write it (1,234 · 0.125 · −0.031), or a dash when there is none.

    >>> number(1234), number(-0.0312, signed=True), number(None)
    ('1,234', '−0.031', '–')
    """
    x = finite(value)
    if x is None:
        return "–"
    if isinstance(value, int) and not signed:
        return f"{value:,}".replace("-", "−")
    text = f"{x:+,.{digits}f}" if signed else f"{x:,.{digits}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")  # neither +0.000 nor -0.000
    return text.replace("-", "−")


def interval_text(interval: Interval, signed: bool = False) -> str:
    """An interval as its two ends, or a dash when one of them is missing."""
    if interval.low is None or interval.high is None:
        return "–"
    return f"{number(interval.low, signed=signed)} to {number(interval.high, signed=signed)}"


def plural(count: int, noun: str, several: str = "") -> str:
    """A count with its noun.

    >>> plural(1, "model"), plural(1234, "model"), plural(2, "entry", "entries")
    ('1 model', '1,234 models', '2 entries')
    """
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def moment(micros: object) -> Safe | str:
    """µs since 1970 UTC as people read it, to the minute; a dash where there is no time."""
    time = _utc(micros)
    if time is None:
        return "–"
    return tag("time", minute(micros), datetime=f"{time:%Y-%m-%dT%H:%M:%SZ}")


def minute(micros: object) -> str:
    """µs since 1970 UTC to the minute, in words; a dash where there is no time."""
    time = _utc(micros)
    return "–" if time is None else f"{time:%Y-%m-%d %H:%M}"


def day(micros: object) -> str:
    """µs since 1970 UTC as a date; a dash where there is no time."""
    time = _utc(micros)
    return "–" if time is None else f"{time:%Y-%m-%d}"


def shortened(text: object, most: int = 280) -> str:
    """The beginning of a text that is longer than so many characters."""
    words = "" if text is None else str(text)
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def duration(seconds: object) -> str:
    """Seconds, minutes or hours; a dash where there is no number."""
    x = finite(seconds)
    if x is None:
        return "–"
    if x < 60:
        return f"{x:.1f} s"
    return f"{x / 60:.0f} min" if x < 5400 else f"{x / 3600:.1f} h"


def _utc(micros: object) -> datetime | None:
    x = finite(micros)
    try:
        return None if x is None else datetime.fromtimestamp(x / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return None
