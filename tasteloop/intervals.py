"""A measured value with its interval, as it is written into JSON and read back from it.

Reading is lenient, since pages show what there is: what is not a finite number becomes None. The
first reason why the numbers cannot be relied on is kept as `fault`. Whoever decides by them, above
all the gate, calls `require`, which returns four sound numbers or raises with that reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class UnsoundInterval(ValueError):
    """A number that is needed cannot be relied on; the text says which, and why."""


@dataclass(frozen=True)
class SoundInterval:
    """A finite value inside or beside its finite 95% interval, measured over n > 0 rows."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Interval:
    """A value with its 95% bootstrap interval over n rows; None for what could not be computed.

    >>> Interval.parse({"value": 0.5, "low": 0.4, "high": 0.6, "n": 120}).require("nDCG@10")
    SoundInterval(value=0.5, low=0.4, high=0.6, n=120)
    >>> Interval.parse({"value": "high", "low": 0.4, "high": 0.6, "n": 120}).fault
    "has no number as its value: 'high'"
    """

    value: float | None
    low: float | None
    high: float | None
    n: int | None
    fault: str | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, raw: object) -> Interval:
        """Read an interval from JSON; it never raises, whatever comes."""
        if not isinstance(raw, Mapping):
            return cls(None, None, None, None, "is missing")
        rows = finite(raw.get("n"))
        return cls(
            value=finite(raw.get("value")),
            low=finite(raw.get("low")),
            high=finite(raw.get("high")),
            n=None if rows is None else int(rows),
            fault=_fault(raw),
        )

    def json(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}

    def require(self, name: str) -> SoundInterval:
        """The interval as four sound numbers.

        Args:
            name: what was measured, which the error begins with.

        Raises:
            UnsoundInterval: a number is missing, not finite, or contradicts another one.
        """
        fault = self.fault or _fault(self.json())
        if fault is not None:
            raise UnsoundInterval(f"{name} {fault}")
        assert self.value is not None and self.low is not None and self.high is not None
        assert self.n is not None
        return SoundInterval(self.value, self.low, self.high, self.n)


MISSING = Interval.parse(None)


def finite(value: object) -> float | None:
    """The value as a float, or None when it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def whole(value: object) -> int | None:
    """The value as an int, or None when it is not a whole number."""
    number = finite(value)
    return int(number) if number is not None and number.is_integer() else None


def _fault(raw: Mapping[str, Any]) -> str | None:
    """The first reason why an interval cannot be relied on, as the predicate of a sentence."""
    for key in ("value", "low", "high"):
        number = raw.get(key)
        if isinstance(number, bool) or not isinstance(number, int | float):
            return f"has no number as its {key}: {repr(number)[:60]}"
        if finite(number) is None:
            return f"is not a finite number ({key}: {number})"
    rows = whole(raw.get("n"))
    if rows is None or rows < 0:
        shown = repr(raw.get("n"))[:60]
        return f"does not say on how many rows it was measured (n: {shown})"
    if rows == 0:
        return "was measured on an empty test set (n = 0)"
    if raw["low"] > raw["high"]:
        return f"has an interval upside down: {float(raw['low'])} to {float(raw['high'])}"
    return None
