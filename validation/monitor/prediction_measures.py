"""The measures of what the model answers, each declared once.

What the model answers changes because what it reads does, so these only explain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasteloop.answers import INTERESTS, RECOMMEND
from tasteloop.journal import NAMES, NUMBERS
from validation.monitor.cells import TENTHS, cells_of, names_of_labels, names_of_tenths
from validation.monitor.measure import Measure, Severity, Side, best_numbers
from validation.monitor.sampling import UNIT, Sample

if TYPE_CHECKING:
    import polars as pl


def _predicted_interests(side: Side) -> Sample | None:
    cells = {label: number for number, label in enumerate(side.book.labels)}
    rows = []
    for unit, names, numbers in side.interests.select(UNIT, NAMES, NUMBERS).rows():
        for name, probability in zip(names, numbers, strict=True):
            if name in cells:
                rows.append((unit, cells[name], float(probability)))
    if not rows:
        return None
    unit, cell, weight = (np.array(column) for column in zip(*rows, strict=True))
    return side.predictions.shares(unit, cell, len(cells), weight)


def _predicted_items(side: Side) -> Sample | None:
    import polars as pl

    rows = side.recommended.select(UNIT, NAMES).explode(NAMES).filter(pl.col(NAMES).is_not_null())
    if not rows.height:
        return None
    cells = cells_of(rows[NAMES], side.book.tenths, TENTHS)
    return side.predictions.shares(rows[UNIT].to_numpy(), cells, TENTHS + 1)


def _confidence(side: Side) -> Sample | None:
    return _best_of(side, side.interests, "prediction.confidence")


def _scores(side: Side) -> Sample | None:
    return _best_of(side, side.recommended, "prediction.scores")


def _best_of(side: Side, answers: pl.DataFrame, name: str) -> Sample | None:
    import polars as pl

    rows = answers.filter(pl.col(NUMBERS).list.len() > 0)
    return side.predictions.quantity(
        rows[UNIT].to_numpy(), best_numbers(rows), side.book.scales.get(name)
    )


PREDICTIONS: tuple[Measure, ...] = (
    Measure(
        "prediction.interests",
        "Share of the answered probability by label.",
        _predicted_interests,
        Severity(watch=0.1, act=0.2, answer="watch"),
        names_of_labels,
    ),
    Measure(
        "prediction.items",
        "Share of recommended items by the popularity that they had in the reference.",
        _predicted_items,
        Severity(watch=0.15, act=0.3, answer="watch"),
        names_of_tenths,
    ),
    Measure(
        "prediction.confidence",
        "Probability of the most probable interest of an answer.",
        _confidence,
        Severity(watch=0.3, act=0.6, answer="watch"),
        quantity=lambda recorded: recorded.best_numbers(INTERESTS),
    ),
    Measure(
        "prediction.scores",
        "Score of the best recommendation of an answer.",
        _scores,
        Severity(watch=0.3, act=0.6, answer="watch"),
        quantity=lambda recorded: recorded.best_numbers(RECOMMEND),
    ),
)
