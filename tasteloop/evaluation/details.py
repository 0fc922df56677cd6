"""Details of a candidate for pages: label by label, calibration, ROC, and examples."""

from __future__ import annotations

import numpy as np

from tasteloop import metrics
from tasteloop.behaviour.events import TEXT
from tasteloop.evaluation.answers import Answers
from tasteloop.evaluation.record import (
    Calibration,
    Example,
    ExampleInterest,
    ExampleRecommendation,
    LabelRow,
    Reason,
    ReliabilityBin,
    RocCurve,
)
from tasteloop.evaluation.rows import EvaluatedRows
from tasteloop.metrics import Array
from tasteloop.runtime.session import Recommendation, Session

_ROC_POINTS = 100
_LABELS, _RECOMMENDATIONS = 5, 5  # of an example


def label_rows(
    session: Session, labels: list[str], predicted: Array, truth: Array
) -> tuple[LabelRow, ...]:
    """Support, threshold and quality of each label, of predictions and truth [n, K]."""
    rows = []
    for k, label in enumerate(labels):
        predicted_k, truth_k = predicted[:, [k]], truth[:, [k]]
        threshold = None
        if label in session.labels:
            threshold = float(session.thresholds[session.labels.index(label)])
        rows.append(
            LabelRow(
                label=label,
                support=int(truth_k.sum()),
                frequency=float(truth_k.mean()),
                threshold=threshold,
                precision=_finite(metrics.precision(predicted_k, truth_k).value),
                recall=_finite(metrics.recall(predicted_k, truth_k).value),
                f1=_finite(metrics.micro_f1(predicted_k, truth_k).value),
            )
        )
    return tuple(rows)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def calibration(probabilities: Array, truth: Array) -> Calibration:
    """Calibration error and reliability of probabilities [n, K]."""
    bins = metrics.reliability(probabilities, truth)
    return Calibration(
        ece=metrics.ece(probabilities, truth).value,
        bins=tuple(
            ReliabilityBin(each["confidence"], each["frequency"], int(each["count"]))
            for each in bins
        ),
    )


def confusion_matrix(truth: Array, predicted: Array) -> tuple[tuple[int, int], tuple[int, int]]:
    """Counts of binary decisions: a row for each truth, a column for each prediction, 0 first."""

    def count(real: int, decided: int) -> int:
        return int(((truth == real) & (predicted == decided)).sum())

    return (count(0, 0), count(0, 1)), (count(1, 0), count(1, 1))


def roc_curve(truth: Array, probability: Array) -> RocCurve:
    """At most 100 points of the ROC curve of probabilities [n]."""
    from sklearn.metrics import roc_curve as all_points

    fpr, tpr, threshold = all_points(truth, probability)
    evenly = np.linspace(0, len(fpr) - 1, min(_ROC_POINTS, len(fpr)))
    chosen = np.unique(evenly.round().astype(int))
    return RocCurve(
        fpr=tuple(fpr[chosen].tolist()),
        tpr=tuple(tpr[chosen].tolist()),
        threshold=tuple(np.minimum(threshold[chosen], 1.0).tolist()),
    )


def examples(
    session: Session, rows: EvaluatedRows, answers: Answers, count: int
) -> tuple[Example, ...]:
    """Evenly spaced test snapshots: what was read, answered and recommended, and what really
    followed.
    """
    chosen = np.unique(np.linspace(0, len(rows.table) - 1, count).round().astype(int))
    shown = []
    for row in chosen:
        history = rows.histories[row]
        interests = session.ranking_interests([history])
        [recommendations] = session.rank([history], interests, _RECOMMENDATIONS, details=["for"])
        teller = session.teller({"events": history})
        followed = {rows.data.catalogue.items[position] for position in rows.relevant[row]}
        shown.append(
            Example(
                text=rows.table[TEXT][int(row)],
                interests=_likeliest_interests(rows, answers, row),
                recommendations=tuple(
                    _recommendation(r, teller.speaks_for(r.reasons), followed)
                    for r in recommendations
                ),
            )
        )
    return tuple(shown)


def _likeliest_interests(
    rows: EvaluatedRows, answers: Answers, row: int
) -> tuple[ExampleInterest, ...]:
    if answers.interests is None:
        return ()
    probabilities = answers.interests[row]
    return tuple(
        ExampleInterest(
            label=rows.data.labels[k],
            probability=float(probabilities[k]),
            truth=bool(rows.truth[row, k]),
        )
        for k in np.argsort(-probabilities)[:_LABELS]
    )


def _recommendation(
    recommended: Recommendation, reason: str, followed: set[str]
) -> ExampleRecommendation:
    return ExampleRecommendation(
        item=recommended.item,
        title=recommended.title,
        score=recommended.score,
        relevant=recommended.item in followed,
        reasons=tuple(Reason(term, value) for term, value in recommended.terms.items()),
        reason=reason,
    )
