"""From logits to probabilities that mean what they say, and to decisions; fitted on the validation window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def average_precision(logits: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Micro-averaged average precision: area under precision over recall of all decisions; needs no threshold."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth.ravel(), logits.ravel())) if 0 < truth.mean() < 1 else 0.0


def calibrate(logits: NDArray[np.float32], truth: NDArray[np.float32]) -> dict[str, Any]:
    """Platt scaling and decision thresholds, on the validation window.

    `p = σ(slope · logit + intercept)` with one pair for all outputs (Platt 1999): a window of some hundred users does
    not carry a pair for each. Thresholds maximise micro-F1 where there are several outputs. For one it is 0.5, which
    maximises the accuracy of calibrated probabilities: searched for on a thousand reviews it cost 0.3 points on others.

    Args:
        logits, truth: [n, outputs].

    Returns:
        {"slope", "intercept", "thresholds": [outputs]}
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    if not 0 < truth.mean() < 1:
        return {"slope": 1.0, "intercept": 0.0, "thresholds": [0.5] * logits.shape[1]}
    platt = LogisticRegression(C=1e6).fit(logits.reshape(-1, 1), truth.ravel())
    scaling = {"slope": float(platt.coef_[0, 0]), "intercept": float(platt.intercept_[0])}
    if scaling["slope"] <= 0:  # the model orders nothing; keep its own words rather than their opposite
        scaling = {"slope": 1.0, "intercept": 0.0}
    if logits.shape[1] == 1:
        return {**scaling, "thresholds": [0.5]}
    probabilities = apply_calibration(logits, scaling)
    grid = np.linspace(0.05, 0.95, 91)

    def quality(threshold: float) -> tuple[float, float]:
        predicted = probabilities >= threshold
        hit = (predicted & (truth > 0)).sum()
        f1 = 2 * hit / max(predicted.sum() + truth.sum(), 1)
        return float(f1), -abs(threshold - 0.5)

    return {**scaling, "thresholds": [float(max(grid, key=quality))] * logits.shape[1]}


def apply_calibration(logits: NDArray[np.float32], calibration: dict[str, Any]) -> NDArray[np.float32]:
    """Calibrated probabilities of logits, same shape."""
    import numpy as np
    from scipy.special import expit

    z: NDArray[np.float64] = calibration["slope"] * logits.astype(np.float64) + calibration["intercept"]
    probabilities: NDArray[np.float32] = expit(z).astype(np.float32)
    return probabilities
