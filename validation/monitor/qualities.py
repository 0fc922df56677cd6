"""The measures of how good answers were, once it is known what followed.

A quality is a ratio of sums over units of mature answers, and only getting worse counts. To add
one, write a `QualityMeasure` into QUALITIES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tasteloop import metrics
from tasteloop.answers import INTERESTS, PREDICTED, RECOMMEND
from tasteloop.behaviour.items import Catalogue
from tasteloop.journal import MODEL, NAMES, NUMBERS
from validation.monitor.measure import Severity
from validation.monitor.sampling import DriftSettings
from validation.monitor.statistics import Array
from validation.monitor.windows import CLICKED, RELEVANT

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Mature:
    """Both sides' answers whose truth is known (`windows.outcomes`), with `side` (0 or 1) and
    WINDOW.
    """

    answers: pl.DataFrame
    catalogue: Catalogue
    settings: DriftSettings

    @cached_property
    def interests(self) -> tuple[pl.DataFrame, Array, Array, Array] | None:
        """Answers that enough followed, and by label [n, labels]: probability, whether it was
        predicted, and whether it came true.
        """
        import polars as pl

        enough = pl.col(RELEVANT).list.len() >= self.settings.minimum_future
        rows = self.answers.filter((pl.col(MODEL) == INTERESTS) & enough)
        if not rows.height:
            return None
        labels = sorted({name for names in rows[NAMES].to_list() for name in names})
        column_of = {label: number for number, label in enumerate(labels)}
        member = self.catalogue.membership(labels)
        probability, predicted, truth = (np.zeros((rows.height, len(labels))) for _ in range(3))
        answers = rows.select(NAMES, NUMBERS, PREDICTED, RELEVANT).rows()
        for row, (names, numbers, yes, items) in enumerate(answers):
            columns = [column_of[name] for name in names]
            probability[row, columns], predicted[row, columns] = numbers, yes
            known = [self.catalogue.index[item] for item in items if item in self.catalogue.index]
            if known:
                truth[row] = member[known].mean(0) >= self.settings.label_share - 1e-9
        return rows, probability, predicted, truth

    @cached_property
    def recommended(self) -> pl.DataFrame:
        import polars as pl

        return self.answers.filter(pl.col(MODEL) == RECOMMEND)


QualityRows = tuple["pl.DataFrame", metrics.Measure]


@dataclass(frozen=True)
class QualityMeasure:
    """A measure of how good answers were, once it is known what followed.

    Attributes:
        read: from both sides' mature answers to the rows that it is measured on, and what each adds
            to the ratio; None where there are none.
        severity: how far below the reference it is watched and acted upon by default.
    """

    name: str
    about: str
    read: Callable[[Mature], QualityRows | None]
    severity: Severity | None = None
    less_is_better: bool = False


def _of_interests(
    measure: Callable[[Array, Array, Array], metrics.Measure],
) -> Callable[[Mature], QualityRows | None]:
    """From a measure of probability, prediction and truth to one of mature answers."""

    def read(mature: Mature) -> QualityRows | None:
        if mature.interests is None:
            return None
        rows, probability, predicted, truth = mature.interests
        return rows, measure(probability, predicted, truth)

    return read


def _ndcg(mature: Mature) -> QualityRows | None:
    import polars as pl

    rows = mature.recommended.filter(pl.col(RELEVANT).list.len() > 0)
    if not rows.height:
        return None
    ids: dict[str, int] = {}
    ranked = np.full((rows.height, 10), -1)
    relevant = []
    for row, (names, items) in enumerate(rows.select(NAMES, RELEVANT).rows()):
        for rank, item in enumerate(names[:10]):
            ranked[row, rank] = ids.setdefault(item, len(ids))
        relevant.append([ids.setdefault(item, len(ids)) for item in items])
    return rows, metrics.ndcg(ranked, relevant)


def _click_rate(mature: Mature) -> QualityRows | None:
    rows = mature.recommended
    if not rows[CLICKED].any():
        return None
    clicked = rows[CLICKED].to_numpy().astype(float)
    return rows, metrics.Measure(np.stack([clicked, np.ones_like(clicked)], 1), metrics.ratio())


_LOSS = Severity(watch=0.03, act=0.08)

QUALITIES: tuple[QualityMeasure, ...] = (
    QualityMeasure(
        "quality.precision",
        "Predicted interests that came true.",
        _of_interests(lambda _, predicted, truth: metrics.precision(predicted, truth)),
        _LOSS,
    ),
    QualityMeasure(
        "quality.recall",
        "Interests that came true and were predicted.",
        _of_interests(lambda _, predicted, truth: metrics.recall(predicted, truth)),
        _LOSS,
    ),
    QualityMeasure(
        "quality.f1",
        "Precision and recall of interests in one number.",
        _of_interests(lambda _, predicted, truth: metrics.micro_f1(predicted, truth)),
        _LOSS,
    ),
    QualityMeasure(
        "quality.ndcg@10",
        "Where the items that users went on to like stood among ten.",
        _ndcg,
        Severity(watch=0.02, act=0.05),
    ),
    QualityMeasure(
        "quality.ctr",
        "Answers of which an item was clicked.",
        _click_rate,
        Severity(watch=0.02, act=0.05),
    ),
    QualityMeasure(
        "quality.ece",
        "How far probabilities lie from what came true.",
        _of_interests(lambda probability, _, truth: metrics.ece(probability, truth)),
        _LOSS,
        less_is_better=True,
    ),
)
