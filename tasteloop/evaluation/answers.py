"""What a bundle answers on the rows that are evaluated, and how good that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasteloop import metrics
from tasteloop.behaviour.events import TEXT
from tasteloop.behaviour.items import SENTIMENT
from tasteloop.evaluation.rows import (
    EvaluatedRows,
    K,
    Measures,
    interest_measures,
    rank_measures,
    sentiment_measures,
)
from tasteloop.metrics import Array
from tasteloop.runtime.session import Session

_ROWS = 2048  # rows whose recommendations are held at once, each with its reasons


@dataclass(frozen=True)
class Answers:
    """A bundle's answers on n snapshots and on reviews; None for a task that is not measured.

    Attributes:
        ranked: [n, 10] positions of the recommended items in the data's catalogue, -1 for none.
        interests: [n, K] probabilities of the data's labels; predicted: [n, K] of 0 and 1.
        sentiment: [reviews] probabilities; positive: [reviews], whether that is predicted; sure:
            [reviews], whether the bundle is confident of it.
    """

    ranked: Array
    interests: Array | None = None
    predicted: Array | None = None
    sentiment: Array | None = None
    positive: Array | None = None
    sure: Array | None = None


def answer_rows(session: Session, rows: EvaluatedRows) -> Answers:
    """Ask a bundle for its answers on all rows.

    Labels are matched by name: one of the data's that the bundle does not know is never predicted.
    """
    labels, own = rows.data.labels, session.ranking_interests(rows.histories)
    interests = predicted = sentiment = positive = sure = None
    if labels and session.has_interests:
        interests = _align(session, own, labels, absent=0.0)
        thresholds = _align(session, session.thresholds[None, :], labels, absent=2.0)
        predicted = (interests >= thresholds).astype(np.float32)
    ranked = _rank(session, rows, own)
    if rows.reviews is not None and session.has_sentiment:
        sentiment = session.sentiment(rows.reviews[TEXT].to_list())
        positive = sentiment >= session.sentiment_threshold
        sure = session.confident(SENTIMENT, sentiment)
    return Answers(ranked, interests, predicted, sentiment, positive, sure)


def measure_answers(answers: Answers, rows: EvaluatedRows) -> Measures:
    """Measures of a bundle's answers, by name."""
    measures: Measures = {}
    if answers.interests is not None and answers.predicted is not None:
        measures |= interest_measures(answers.predicted, rows.truth)
        measures["interests.ece"] = metrics.ece(answers.interests, rows.truth)
    measures |= rank_measures(answers.ranked, rows.relevant)
    if answers.positive is not None and rows.reviews is not None:
        measures |= sentiment_measures(
            answers.positive, answers.sentiment, rows.reviews, answers.sure
        )
    return measures


def _align(session: Session, values: Array, labels: list[str], absent: float) -> Array:
    """Columns of the bundle's labels [n, K'] -> columns of the data's labels [n, K]; `absent` for
    one that the bundle does not know.
    """
    aligned = np.full((len(values), len(labels)), absent, np.float32)
    for k, label in enumerate(labels):
        if label in session.labels:
            aligned[:, k] = values[:, session.labels.index(label)]
    return aligned


def _rank(session: Session, rows: EvaluatedRows, interests: Array) -> Array:
    """[n, 10] positions in the data's catalogue; an item that the data does not have becomes -1, a
    miss.
    """
    index = rows.data.catalogue.index
    ranked = np.full((len(rows.histories), K), -1)
    for start in range(0, len(ranked), _ROWS):
        part = slice(start, start + _ROWS)
        recommended = session.rank(rows.histories[part], interests[part], K)
        for row, recommendations in enumerate(recommended, start):
            ranked[row, : len(recommendations)] = [index.get(r.item, -1) for r in recommendations]
    return ranked
