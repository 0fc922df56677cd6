"""Times: microseconds since 1970 UTC, and how they are read and shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from reprlib import repr as show_briefly
from typing import Any, Literal

from tasteloop.errors import TasteloopError

SECOND = 1_000_000  # µs
LATEST = 253_402_300_800 * SECOND - 1  # the last of the year 9999, where datetime ends

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
    for unit in PER_UNIT:
        low, high = likely_range(unit)
        if low <= number < high:
            return unit
    return None


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


def parse_time(time: Any, where: str) -> int | None:
    """µs since 1970 UTC of a time in JSON, ISO 8601 text or an integer of µs; None for null.

    Raises:
        TasteloopError: it is neither, before 1970, after the year 9999, or likely in another unit.
    """
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
            f"microseconds since 1970 UTC, not {show_briefly(time)}{guess}"
        )
    return micros


def in_words(number: float, unit: Unit) -> str:
    """A number of a unit as ISO 8601."""
    times, per = PER_UNIT[unit]
    return f"{datetime.fromtimestamp(number * times / per / SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}"


def whole(number: Any) -> int | None:
    """A number of JSON as an integer, 3.0 as well as 3; None for anything else, booleans too."""
    if isinstance(number, bool) or not isinstance(number, int | float) or number % 1:
        return None
    return int(number)


def microseconds(moment: datetime) -> int:
    """µs since 1970 UTC; a moment that names no zone is read as UTC."""
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(
        1970, 1, 1, tzinfo=UTC
    )
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds
