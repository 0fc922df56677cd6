"""An evaluation as the KFP page draws it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp import dsl


def draw(
    evaluation: Mapping[str, Any], metrics: dsl.Metrics, sentiment: dsl.ClassificationMetrics
) -> None:
    """Log the metrics, and where sentiment was evaluated its confusion matrix and ROC curve."""
    for name, interval in evaluation["metrics"].items():
        value = interval.get("value") if interval else None
        if value is not None and math.isfinite(value):
            metrics.log_metric(name, value)
    if matrix := (evaluation.get("confusion") or {}).get("sentiment"):
        sentiment.log_confusion_matrix(["negative", "positive"], matrix)
    if curve := (evaluation.get("roc") or {}).get("sentiment"):
        points = zip(curve["fpr"], curve["tpr"], curve["threshold"], strict=True)
        # the first is infinite
        finite = [p for p in points if all(v is not None and math.isfinite(v) for v in p)]
        sentiment.log_roc_curve(*(list(column) for column in zip(*finite, strict=True)))
    # they live in metadata; kfp's local cache wants a file as well
    for artifact in (metrics, sentiment):
        Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
        Path(artifact.path).touch()
