"""An evaluation as the KFP page draws it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kfp import dsl

from tasteloop.answers import SENTIMENT

if TYPE_CHECKING:
    from tasteloop.evaluation.record import Evaluation


def draw(
    evaluation: Evaluation, metrics: dsl.Metrics, sentiment: dsl.ClassificationMetrics
) -> None:
    """Log the metrics, and where sentiment was evaluated its confusion matrix and ROC curve."""
    for name, interval in evaluation.metrics.items():
        if interval.value is not None:
            metrics.log_metric(name, interval.value)

    matrix = evaluation.confusion.get(SENTIMENT)
    if matrix:
        sentiment.log_confusion_matrix(["negative", "positive"], [list(row) for row in matrix])

    curve = evaluation.roc.get(SENTIMENT)
    if curve:
        points = zip(curve.fpr, curve.tpr, curve.threshold, strict=True)
        # the threshold of the first point is infinite, which the record has as None
        complete = [point for point in points if None not in point]
        fpr, tpr, thresholds = (list(column) for column in zip(*complete, strict=True))
        sentiment.log_roc_curve(fpr, tpr, thresholds)

    # they live in metadata; kfp's local cache wants a file as well
    for artifact in (metrics, sentiment):
        Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
        Path(artifact.path).touch()
