"""A method as a plug-in: `fit(past, settings)` gives a scorer, `scorer.scores(rows)` a matrix
[n, J] of float32.

Each method states its search; the harness tunes it by nDCG@10 on the validation window and fits it
again before the test window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np

from benchmarks.quality.tasks import Matrix, Past, Rows, Task

Settings = Mapping[str, Any]
Grid = Mapping[str, tuple[Any, ...]]

BOTH = ("liked", "all")


class Scorer(Protocol):
    """What a fit gives."""

    def scores(self, rows: Rows) -> Matrix:
        """[n, J], more is better; the harness hides what may not be recommended."""


@dataclass(frozen=True)
class Method:
    """A way to rank, with its search.

    Attributes:
        about: where it comes from.
        fit: of a past and settings, which hold one value of each grid and `seed`.
        search: stages; each tries every combination of its grid with the best of the stages before,
            and the first value of what only later stages try. A single stage is a full grid.
        random: whether the seed changes anything.
        package: what it stands on, whose version decides whether a kept answer still holds.
        protocols: the only ones it can answer; empty for all.
        ordered: whether the order of the events within a sitting changes anything.
        timed: whether it reads times, so that it says nothing of data without.
        validated: False where the settings come from elsewhere and nothing is to be chosen.
        learn: a choice of its own on the validation rows, with its nDCG@10, instead of the grid
            search.
    """

    name: str
    about: str
    fit: Callable[[Past, Settings], Scorer]
    search: tuple[Grid, ...] = ()
    random: bool = False
    package: str = ""
    protocols: tuple[str, ...] = ()
    ordered: bool = False
    timed: bool = False
    validated: bool = True
    learn: Callable[[Task], tuple[dict[str, Any], float]] | None = None

    def start(self) -> dict[str, Any]:
        """The first value of everything that is searched."""
        return {key: values[0] for grid in reversed(self.search) for key, values in grid.items()}

    def candidates(self, grid: Grid, best: Settings) -> list[dict[str, Any]]:
        """What a stage tries; the best so far is among them where its values are."""
        return [
            {**best, **dict(zip(grid, values, strict=True))} for values in product(*grid.values())
        ]


@dataclass(frozen=True)
class Same:
    """One score an item [J], whoever asks."""

    values: Matrix

    def scores(self, rows: Rows) -> Matrix:
        return np.broadcast_to(self.values.astype(np.float32), rows.shape)


@dataclass(frozen=True)
class Chance:
    """Drawn anew for each user and moment, so that a row's scores do not depend on its block."""

    seed: int

    def scores(self, rows: Rows) -> Matrix:
        scores = np.empty(rows.shape, np.float32)
        for row, (group, seen) in enumerate(zip(rows.group, rows.seen, strict=True)):
            random = np.random.default_rng((self.seed, int(group), int(seen)))
            scores[row] = random.random(rows.shape[1], np.float32)
        return scores


def chance(past: Past, settings: Settings) -> Scorer:
    return Chance(settings["seed"])


def popularity(past: Past, settings: Settings) -> Scorer:
    return Same(past.count(settings["feedback"], settings.get("days", np.inf)))
