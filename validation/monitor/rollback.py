"""Whether the live champion is worse than the one before it, beyond doubt.

Both are judged by mature truth: what each one's answers led to in the windows in which it was live.
No window of both has the same users, and windows differ for reasons of their own; so one bad window
is not enough, and the comparison is with the worst of the previous champion's last windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, Field

from validation.monitor.decision import LESS_IS_BETTER, Evidence

ERRORS = "errors"  # share of requests that failed


class RollbackSettings(BaseModel, frozen=True, extra="forbid"):
    """When the champion before is made live again."""

    automatic: bool = True
    measures: tuple[str, ...] = Field(
        ("quality.f1", "quality.ndcg@10", "quality.ctr", ERRORS),
        description="Any of them is enough.",
    )
    windows: int = Field(
        2, ge=1, description="Newest windows of each side; the live one must be worse in each."
    )
    minimum: int = Field(
        50, ge=1, description="Users or requests below which a window says nothing."
    )


@dataclass(frozen=True)
class Interval:
    """A measure in one window: its value, its 95% interval, and the users or requests behind it."""

    value: float
    low: float
    high: float
    n: int


Window = Mapping[str, Interval]


def worse(
    live: Sequence[Window], previous: Sequence[Window], settings: RollbackSettings
) -> list[str]:
    """A sentence for each measure in which the live champion is worse than the previous one; none
    where it is not.

    It is worse when in each of its newest windows the whole interval lies on the wrong side of
    every interval of the previous champion's last windows. Fewer windows than `settings.windows` of
    the live one say nothing.

    Args:
        live, previous: windows in which each was the champion, oldest first.
    """
    out = []
    for name in settings.measures:
        mine, theirs = (
            [w[name] for w in side if name in w and w[name].n >= settings.minimum][
                -settings.windows :
            ]
            for side in (live, previous)
        )
        if len(mine) < settings.windows or not theirs:
            continue
        less = name == ERRORS or name in LESS_IS_BETTER
        best, bound = (
            (min(i.low for i in mine), max(i.high for i in theirs))
            if less
            else (max(i.high for i in mine), min(i.low for i in theirs))
        )
        if best > bound if less else best < bound:
            side, least = ("above", "least") if less else ("below", "most")
            out.append(
                f"{name} is {best:.4f} at {least} in the last {len(mine)} windows, which lies {side} the previous "
                f"champion's {bound:.4f}"
            )
    return out


def windows_of(evidence: Sequence[Evidence], champion: str) -> dict[str, dict[str, Interval]]:
    """What the evidence says of one champion's qualities, by window, oldest first; void windows are
    left out.
    """
    mine = {
        e.window: e for e in sorted(evidence, key=lambda e: (e.end, e.id)) if e.champion == champion
    }
    return {
        window: {
            f.measure: Interval(f.value, f.low, f.high, f.n)
            for f in e.findings
            if f.value is not None and f.low is not None and f.high is not None
        }
        for window, e in mine.items()
        if not e.problems
    }


def share(count: int, n: int) -> Interval:
    """A share of n with Wilson's 95% interval (1927); n is at least 1."""
    from tasteloop.metrics import wilson

    return Interval(count / n, *wilson(count, n), n)
