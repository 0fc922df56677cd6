"""From logits to probabilities that mean what they say, and to decisions; fitted on the validation
window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasteloop.bundle.card import Calibration

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MACRO = 0.25  # weight of macro-F1 beside micro-F1 where thresholds are chosen
_TRUST = 0.75  # weight of the probabilities beside the outcomes of the validation window there
_SURE = 0.95  # how sure a claim of precision is
_LEAST_SURE = (
    0.8  # probability of what a single output states: what two domains need of a third, measured
)
_FEW = 60  # rows of a group: with fewer its own precision says too little to be asked
# Rows that the regressions of `one_vs_rest` are fitted on; of more, its callers draw so many. ml-1m
# has 74,916: some hundred weights a label need no more.
MOST_ROWS = 100_000


def average_precision(logits: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Micro-averaged average precision: area under precision over recall of all decisions; needs no
    threshold.
    """
    from sklearn.metrics import average_precision_score

    if not 0 < truth.mean() < 1:
        return 0.0
    return float(average_precision_score(truth.ravel(), logits.ravel()))


def calibrate(
    logits: NDArray[np.float32],
    truth: NDArray[np.float32],
    habits: NDArray[np.float32] | None = None,
    precision: float = 0.8,
    trust: NDArray[np.float32] | None = None,
    groups: NDArray[Any] | None = None,
) -> Calibration:
    """Fit Platt scaling, decision thresholds and the bound of sure statements on the validation
    window.

    `p = σ(slope · logit + habit_slope · habits + intercept)` with one set for all outputs (Platt
    1999): a window of some hundred users does not carry a set for each. The threshold of a single
    output is 0.5, which maximises the accuracy of calibrated probabilities: searched for on a
    thousand reviews it cost 0.3 points on others.

    Args:
        logits, truth: [n, outputs]; habits: [n, outputs] log-odds of `tasteloop.encoder.habits`, or
            None.
        precision: share of sure statements that shall be right.
        trust: [n], what the log-odds of a row are multiplied by after scaling; None: by 1.
        groups: [n], such as the domain of a row: sure statements shall be right so often in each.

    Returns:
        The calibration; `confident_from` is None where that precision is never reached.

    >>> import numpy as np
    >>> logits = np.array([[-3], [-1], [0], [1], [3]], np.float32)
    >>> truth = np.array([[0], [1], [0], [0], [1]], np.float32)
    >>> calibration = calibrate(logits, truth)
    >>> bool(0 < calibration.slope < 1)  # the logits were too sure
    True
    >>> calibration.thresholds
    (0.5,)
    >>> apply_calibration(logits, calibration).ravel().astype(float).round(1).tolist()
    [0.1, 0.3, 0.4, 0.5, 0.7]
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    parts = [logits] if habits is None else [logits, habits]
    names = ("slope", "habit_slope")[: len(parts)]
    scaling = dict.fromkeys(names, 1 / len(parts)) | {"intercept": 0.0}
    if not 0 < truth.mean() < 1:
        return Calibration(**scaling, thresholds=(0.5,) * logits.shape[1], confident_from=None)
    # a part that says nothing beside the other would count against its own order: it gets no weight
    x, used = np.stack([part.ravel() for part in parts], 1), list(range(len(parts)))
    while used:
        fitted = LogisticRegression(C=1e6).fit(x[:, used], truth.ravel())
        least = int(fitted.coef_[0].argmin())
        if fitted.coef_[0][least] > 0:
            slopes = dict(zip(used, fitted.coef_[0].tolist(), strict=True))
            scaling = {name: slopes.get(n, 0.0) for n, name in enumerate(names)}
            scaling["intercept"] = float(fitted.intercept_[0])
            break
        del used[least]
    scaled = Calibration(**scaling, thresholds=())
    probabilities = apply_calibration(logits, scaled, habits, trust)
    thresholds = choose_thresholds(probabilities, truth)
    return Calibration(
        **scaling,
        thresholds=tuple(thresholds.tolist()),
        confident_from=confident_from(probabilities, truth, thresholds, precision, groups),
    )


def apply_calibration(
    logits: NDArray[np.float32],
    calibration: Calibration,
    habits: NDArray[np.float32] | None = None,
    trust: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Calibrated probabilities of logits, same shape; `trust` as in `calibrate`."""
    terms = log_odds(logits, calibration, habits)
    if trust is not None:
        terms = {name: term * trust[:, None] for name, term in terms.items()}
    return from_log_odds(terms)


def log_odds(
    logits: NDArray[np.float32],
    calibration: Calibration,
    habits: NDArray[np.float32] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """The terms of the text and of the habits, which add up to the calibrated log-odds."""
    import numpy as np

    terms = {"text": calibration.slope * logits.astype(np.float64) + calibration.intercept}
    if habits is not None:
        assert calibration.habit_slope is not None, "calibrated with habits"
        terms["habits"] = calibration.habit_slope * habits.astype(np.float64)
    return terms


def from_log_odds(terms: dict[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    """What `log_odds` adds up to, as probabilities, same shape."""
    import numpy as np
    from scipy.special import expit

    out: NDArray[np.float32] = expit(sum(terms.values())).astype(np.float32)
    return out


def choose_thresholds(
    probabilities: NDArray[np.float32], truth: NDArray[np.float32]
) -> NDArray[np.float64]:
    """[outputs] from which probability on an output is predicted.

    One output: 0.5. Several: from the one threshold that maximises micro-F1, each output's is moved
    to where micro-F1 + macro-F1 / 4 is highest, three rounds. Rare labels have a handful of
    positives in the window, so an output's outcomes are counted by a quarter and its probabilities,
    which are calibrated, by three (the threshold of a calibrated model that maximises F1 follows
    from its probabilities alone: Lipton et al. 2014).
    """
    import numpy as np

    grid = np.linspace(0.02, 0.95, 94).round(2)
    outputs = truth.shape[1]
    if outputs == 1:
        return np.array([0.5])
    # 1. [outputs, thresholds]: hits by outcome, predictions, and hits as they are expected
    hit, predicted, expected_hit = (np.zeros((outputs, len(grid))) for _ in range(3))
    for k in range(outputs):
        beyond = probabilities[:, [k]] >= grid
        expected = (1 - _TRUST) * truth[:, k] + _TRUST * probabilities[:, k]
        hit[k] = truth[:, k] @ beyond
        predicted[k] = beyond.sum(0)
        expected_hit[k] = expected @ beyond
    positives, outcomes = (1 - _TRUST) * truth.sum(0) + _TRUST * probabilities.sum(0), truth.sum()

    # 2. one threshold for all outputs
    micro = 2 * hit.sum(0) / np.maximum(predicted.sum(0) + outcomes, 1)
    start = max(range(len(grid)), key=lambda i: (micro[i], -abs(grid[i] - 0.5)))

    # 3. each output's own, the others held
    chosen = np.full(outputs, start)
    every = np.arange(outputs)
    for _ in range(3):
        for k in range(outputs):
            others = every != k
            hits = expected_hit[every, chosen][others].sum() + expected_hit[k]
            total = predicted[every, chosen][others].sum() + predicted[k] + positives.sum()
            own = 2 * expected_hit[k] / np.maximum(predicted[k] + positives[k], 1e-9)
            quality = 2 * hits / total + _MACRO * own / outputs - 1e-6 * np.abs(grid - grid[start])
            chosen[k] = int(quality.argmax())
    return np.asarray(grid[chosen])


def confidence(probabilities: NDArray[np.float32], thresholds: NDArray[Any]) -> NDArray[np.float32]:
    """How probable it is that what is stated of each output, yes or no, is right: same shape."""
    import numpy as np

    return np.where(probabilities >= thresholds, probabilities, 1 - probabilities)


def confident_from(
    probabilities: NDArray[np.float32],
    truth: NDArray[np.float32],
    thresholds: NDArray[np.float64],
    precision: float,
    groups: NDArray[Any] | None = None,
) -> float | None:
    """The least confidence from which on statements are right as often as `precision` says; None
    where there is none.

    That share is counted of these rows and claimed of later ones, so its lower 95% bound has to
    reach `precision` (Clopper and Pearson 1934, one-sided; selection with guaranteed risk: Geifman
    and El-Yaniv 2017). Statements are the labels that are predicted; of a single output also its
    absence. They count as independent, which the labels of one user are not quite.

    Of rows [n] in groups, the bound has to be reached in each group of sixty rows or more, and in
    all together: a precision that one domain pays for is not claimed of another. What a single
    output states has to be probable by itself too: on easy rows any bound is reached by all, and
    a text of another kind, or one that says nothing, would be as sure.
    """
    import numpy as np
    from scipy.stats import beta

    def reaches(right: NDArray[np.bool_]) -> bool:
        hits = int(right.sum())
        return bool(hits and beta.ppf(1 - _SURE, hits, len(right) - hits + 1) >= precision)

    predicted = probabilities >= thresholds
    is_statement = predicted if truth.shape[1] > 1 else np.ones_like(predicted)
    confidences = confidence(probabilities, thresholds)[is_statement]
    is_right = (predicted == (truth > 0))[is_statement]
    parts = [np.ones(len(is_right), np.bool_)]
    if groups is not None:
        group_of = np.broadcast_to(groups[:, None], truth.shape)[is_statement]
        members = [group_of == group for group in np.unique(groups)]
        parts += [part for part in members if part.sum() >= _FEW]
    grid = np.linspace(0, 1, 101).round(2)
    for least in grid[grid >= _LEAST_SURE] if truth.shape[1] == 1 else grid:
        beyond = confidences >= least
        if all(reaches(is_right[beyond & part]) for part in parts):
            return float(least)
    return None


def one_vs_rest(
    x: Any,
    y: NDArray[np.float32],
    x_later: Any,
    y_later: NDArray[np.float32],
    penalties: Sequence[float],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A logistic regression for each label, all with the ridge penalty of the least log-loss on
    later rows.

    Args:
        x: [n, D] features, dense or sparse.
        y: [n, K] labels.
        x_later, y_later: the later rows, which choose the penalty.

    Returns:
        weights [D, K], bias [K]. A label that all rows or none have has weights of 0 and the
        log-odds of its rate.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    dense = isinstance(x, np.ndarray)
    best: tuple[float, Any, Any] | None = None
    for penalty in penalties:
        weights = np.zeros((x.shape[1], y.shape[1]), np.float32)
        bias = np.zeros(y.shape[1], np.float32)
        for k in range(y.shape[1]):
            rate = float(y[:, k].mean())
            if not 0 < rate < 1:
                rate = min(max(rate, 0.5 / len(y)), 1 - 0.5 / len(y))
                bias[k] = np.log(rate / (1 - rate))
                continue
            solver = "newton-cholesky" if dense else "lbfgs"
            fitted = LogisticRegression(C=1 / penalty, solver=solver, max_iter=200).fit(x, y[:, k])
            weights[:, k], bias[k] = fitted.coef_[0], fitted.intercept_[0]
        z = x_later @ weights + bias
        loss = float((np.logaddexp(0, z) - y_later * z).mean())
        if best is None or loss < best[0]:
            best = (loss, weights, bias)
    assert best is not None
    return best[1], best[2]
