"""The shifts that a simulation can inject, what the monitor is expected to do about each, and the
options of a simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.simulation.world import NEW_FROM
from tasteloop.errors import TasteloopError

SEASON = 4  # weeks of the seasonal swing


@dataclass(frozen=True)
class Shift:
    """One way in which behaviour or its log changes.

    Attributes:
        description: what changes.
        expected: what the monitor is expected to do: nothing, retrain or alert-human.
        unit: what a severity is a number of.
        severity: the default.
        talks: whether visitors search in words and write reviews, before the shift too; the
            champion has learned among such visitors.
    """

    description: str
    expected: str
    unit: str = "not used"
    severity: float = 1.0
    talks: bool = False


SHIFTS: dict[str, Shift] = {
    "stationary": Shift("nothing", "nothing"),
    "seasonal": Shift(
        f"who comes and how many, in a swing of {SEASON} weeks that the reference has seen",
        "nothing",
        "swing of the number of visitors and of who they are",
        0.3,
    ),
    "new-catalogue": Shift(
        f"films from {NEW_FROM.year} on appear", "retrain", "share of their real events that happen"
    ),
    "taste-change": Shift(
        "visitors turn to other films of like popularity, with rarer labels",
        "retrain",
        "share of visitors",
    ),
    "bots": Shift(
        "two users flood the log", "alert-human", "events of each, in the busiest user's", 4.0
    ),
    "broken-field": Shift(
        "a field comes empty: values, or items where the seed is odd",
        "alert-human",
        "share of rows",
        0.5,
    ),
    "language": Shift("searches in Cyrillic letters", "alert-human", "share of visitors"),
    "delayed-labels": Shift(
        "events and feedback arrive late, out of order and twice",
        "nothing",
        "share that is up to two days late",
        0.3,
    ),
    "words": Shift("nothing; visitors search in words and write reviews", "nothing", talks=True),
    "new-wishes": Shift(
        "visitors who search in words ask for what the catalogue lacks",
        "alert-human",
        "share of visitors",
        0.6,
        talks=True,
    ),
    "irony": Shift(
        "reviews say in words the opposite of their value",
        "alert-human",
        "share of visitors",
        0.6,
        talks=True,
    ),
}


@dataclass(frozen=True)
class Options:
    """One simulation.

    Attributes:
        shift: a name of `SHIFTS`.
        seed: decides who comes when, and whom the shift hits.
        weeks: how many weeks are replayed.
        start: the first week with the shift; the weeks before are as the reference.
        visitors: how many come in a usual week.
        severity: in the shift's unit; None for its default.
        serve: ask a real server over HTTP; False: the same session and journal in this process.
        retrain: carry a retraining out; False: the replay ends with the decision.
    """

    shift: str = "stationary"
    seed: int = 0
    weeks: int = 6
    start: int = 2
    visitors: int = 100
    severity: float | None = None
    serve: bool = True
    retrain: bool = True

    def __post_init__(self) -> None:
        if self.shift not in SHIFTS:
            raise TasteloopError(f"no shift {self.shift!r}; known: {', '.join(SHIFTS)}")
        if not (0 <= self.start < self.weeks and self.visitors >= 1 and self.seed >= 0):
            raise TasteloopError(
                "weeks count from 0: the shift starts before the last; visitors are 1 or more"
            )
        if not 0 < self.size < float("inf"):
            raise TasteloopError(
                f"a severity is above 0 (here: {SHIFTS[self.shift].unit}), not {self.severity}"
            )

    @property
    def talks(self) -> bool:
        """Whether visitors search in words and write reviews."""
        return SHIFTS[self.shift].talks

    @property
    def size(self) -> float:
        """The severity, or the shift's default where none is set."""
        return SHIFTS[self.shift].severity if self.severity is None else self.severity
