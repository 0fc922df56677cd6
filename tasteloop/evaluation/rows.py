"""The rows that are evaluated, and the measures that are taken of answers on them.

The candidate, the champion and every baseline are measured by the functions of this module, so
their numbers may be compared. A measure's name begins with the task that it is of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tasteloop import metrics
from tasteloop.behaviour.events import USER, Event
from tasteloop.behaviour.items import SENTIMENT
from tasteloop.behaviour.snapshots import FUTURE, Snapshots
from tasteloop.evaluation.record import UNDERSTANDING
from tasteloop.evaluation.understanding.cases import Case
from tasteloop.evaluation.understanding.measure import units_of
from tasteloop.metrics import Array, Measure

if TYPE_CHECKING:
    import polars as pl

K = 10  # recommendations of a snapshot that are measured
Measures = dict[str, Measure]


@dataclass(frozen=True)
class EvaluatedRows:
    """Snapshots with their histories, reviews (None where no sentiment is measured), and the cases
    of the tests of understanding.
    """

    data: Snapshots
    table: pl.DataFrame
    histories: Sequence[list[Event]]
    reviews: pl.DataFrame | None
    cases: Sequence[Case] = ()

    @cached_property
    def users(self) -> Array:
        """[n] the user of each snapshot."""
        return self.table[USER].to_numpy()

    @cached_property
    def truth(self) -> Array:
        """[n, K] of 0 and 1: the labels of what followed."""
        return self.data.truth(self.table)

    @cached_property
    def relevant(self) -> list[list[int]]:
        """The positions of the items that the user went on to like, by snapshot."""
        futures: list[list[int]] = self.table[FUTURE].to_list()
        return futures

    def groups(self, metric: str) -> Array:
        """Which rows are drawn together: a user's snapshots; each review alone; the cases of one
        phrase.
        """
        if metric.partition(".")[0] == UNDERSTANDING:
            return units_of(self.cases, metric)
        if metric.startswith("sentiment."):
            assert self.reviews is not None
            return np.arange(len(self.reviews))
        return self.users


def interest_measures(predicted: Array, truth: Array) -> Measures:
    """Measures of predicted labels; both [n, K] of 0 and 1."""
    return {
        "interests.micro_f1": metrics.micro_f1(predicted, truth),
        "interests.macro_f1": metrics.macro_f1(predicted, truth),
        "interests.precision": metrics.precision(predicted, truth),
        "interests.recall": metrics.recall(predicted, truth),
        "interests.accuracy": metrics.accuracy(predicted, truth),
    }


def rank_measures(ranked: Array, relevant: Sequence[Sequence[int]]) -> Measures:
    """Measures of ranked positions [n, 10]; the position -1 is a miss."""
    return {
        "recommend.ndcg@10": metrics.ndcg(ranked, relevant),
        "recommend.precision@10": metrics.precision_at(ranked, relevant),
        "recommend.recall@10": metrics.recall_at(ranked, relevant),
        "recommend.f1@10": metrics.f1_at(ranked, relevant),
    }


def sentiment_measures(
    positive: Array,
    probability: Array | None,
    reviews: pl.DataFrame,
    sure: Array | None = None,
) -> Measures:
    """Measures of reviews that are called positive [n], by a probability [n] and with a word on
    whether that is sure [n], where there are these.
    """
    truth = reviews[SENTIMENT].to_numpy().astype(np.float32)[:, None]
    predicted = positive.astype(np.float32)[:, None]
    measures = {
        "sentiment.accuracy": metrics.accuracy(predicted, truth),
        "sentiment.precision": metrics.precision(predicted, truth),
        "sentiment.recall": metrics.recall(predicted, truth),
        "sentiment.f1": metrics.micro_f1(predicted, truth),
        "sentiment.negative_f1": metrics.micro_f1(1 - predicted, 1 - truth),
        "sentiment.balanced_accuracy": metrics.balanced_accuracy(predicted, truth),
    }
    if probability is not None:
        measures["sentiment.ece"] = metrics.ece(probability[:, None], truth)
    if sure is not None:
        is_right = (predicted == truth)[:, 0]
        measures["sentiment.confident_precision"] = metrics.share_of(is_right, sure)
        measures["sentiment.confident_share"] = metrics.share_of(sure, np.ones_like(sure))
    return measures
