"""What a run of the quality benchmark is asked to do, and what it measures by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasteloop import metrics
from tasteloop.behaviour.snapshots import PrepareSettings
from tasteloop.metrics import Array, Measure

ROOT = Path(__file__).parents[2]
K = 10  # what is tuned, sorted by, and shown
CUTOFFS = (5, 10, 20)
SEEDS = (0, 1, 2)
DRAWS = 1000
# Most rows of the validation and of the test window; of more, so many are drawn, the same for all
# methods. ml-100k has fewer of both.
TUNED_ROWS, TESTED_ROWS = 3_000, 5_000
QUICK = ("random", "popularity", "popularity-7d", "itemknn", "ease", "ials", "bm25", "tasteloop")
QUICK_PROTOCOLS = ("time", "stratified", "last_out")
QUICK_EVERY = 3

MEASURES: Mapping[str, Callable[[Array, Sequence[Any]], Measure]] = {
    "ndcg": metrics.ndcg,
    "recall": metrics.recall_at,
    "precision": metrics.precision_at,
    "map": metrics.average_precision,
    "mrr": metrics.reciprocal_rank,
}


@dataclass(frozen=True)
class Options:
    """What is run.

    Attributes:
        out: where results go and what was computed is kept.
        protocols, only: names; empty for the standard ones, for all methods. "main" in `only` is
            `methods.MAIN`.
        quick: few methods, a third of the users, one seed.
        seeds: of methods that draw random numbers; the first one's search serves the others.
        bundle: a bundle of the pipeline to measure too.
        behaviour: the data set, as `tasteloop.datasets.ingest` takes it.
        prepared: settings of its snapshots; those of the profile `local` when absent.
    """

    out: Path
    protocols: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    quick: bool = False
    seeds: tuple[int, ...] = SEEDS
    bundle: Path | None = None
    behaviour: str = "ml-100k"
    prepared: PrepareSettings | None = None

    @property
    def every(self) -> int:
        """One user in so many is asked."""
        return QUICK_EVERY if self.quick else 1
