"""Calibration: probabilities that mean what they say, thresholds for rare labels, and when an
answer is sure.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tasteloop import metrics
from tasteloop.bundle.card import Calibration
from tasteloop.encoder.calibration import (
    apply_calibration,
    calibrate,
    choose_thresholds,
    confidence,
    confident_from,
    log_odds,
    one_vs_rest,
)


def drawn(
    rates: list[float], n: int = 3000, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Calibrated probabilities around each label's rate, and outcomes."""
    rng = np.random.default_rng(seed)
    odds = np.log(np.array(rates) / (1 - np.array(rates))) + rng.normal(0, 1.2, (n, len(rates)))
    p = 1 / (1 + np.exp(-odds))
    return p.astype(np.float32), (rng.random(p.shape) < p).astype(np.float32)


def test_two_witnesses_are_weighed_by_what_they_know() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(0, 1, (6000, 3)).astype(np.float32) for _ in range(2))
    truth = (rng.random(a.shape) < 1 / (1 + np.exp(-(1.5 * a + 0.5 * b - 1)))).astype(np.float32)
    fitted = calibrate(a, truth, b)
    assert fitted.slope == pytest.approx(1.5, abs=0.1)
    assert fitted.habit_slope == pytest.approx(0.5, abs=0.1)
    assert fitted.intercept == pytest.approx(-1, abs=0.1)
    terms = log_odds(a, fitted, b)
    odds = terms["text"] + terms["habits"]
    assert np.allclose(apply_calibration(a, fitted, b), 1 / (1 + np.exp(-odds)), atol=1e-6)
    assert metrics.ece(apply_calibration(a, fitted, b), truth).value < 0.02
    assert calibrate(a, truth).habit_slope is None


def test_a_witness_that_says_the_opposite_is_not_turned_round() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, (2000, 2)).astype(np.float32)
    truth = (rng.random(a.shape) < 1 / (1 + np.exp(-a))).astype(np.float32)
    assert calibrate(-a, truth).slope == 1.0
    opposite = rng.normal(0, 1, a.shape).astype(np.float32) - truth
    beside = calibrate(a, truth, opposite)
    assert beside.habit_slope == 0
    assert beside.slope == pytest.approx(calibrate(a, truth).slope), "the other keeps its own"


def test_rare_labels_get_lower_thresholds_and_micro_f1_keeps() -> None:
    rates = [0.6, 0.4, 0.06, 0.03]
    p, truth = drawn(rates)
    later_p, later = drawn(rates, seed=1)
    thresholds = choose_thresholds(p, truth)
    assert (thresholds[2:] < thresholds[0]).all()
    grid = np.linspace(0.02, 0.95, 94)
    one = max(grid, key=lambda t: metrics.micro_f1((p >= t) * 1.0, truth).value)
    single, several = (((later_p >= t) * 1.0) for t in (one, thresholds))
    assert metrics.macro_f1(several, later).value > metrics.macro_f1(single, later).value + 0.02
    assert metrics.micro_f1(several, later).value > metrics.micro_f1(single, later).value - 0.01


def test_a_label_that_never_occurs_does_not_break_the_choice() -> None:
    p, truth = drawn([0.5, 0.02], n=200)
    truth[:, 1] = 0
    thresholds = choose_thresholds(p, truth)
    assert np.isfinite(thresholds).all()
    assert ((thresholds > 0) & (thresholds < 1)).all()


def test_one_output_is_cut_at_a_half_which_is_right_most_often_on_others() -> None:
    few, truth = drawn([0.5], n=300)
    later, real = drawn([0.5], seed=1)
    assert choose_thresholds(few, truth) == pytest.approx([0.5])
    right = {t: ((later >= t) == (real > 0)).mean() for t in (0.3, 0.4, 0.5, 0.6, 0.7)}
    assert right[0.5] == max(right.values())


def test_sure_statements_are_right_as_often_as_asked() -> None:
    p, truth = drawn([0.6, 0.4, 0.1])
    later_p, later = drawn([0.6, 0.4, 0.1], seed=1)
    thresholds = choose_thresholds(p, truth)
    least = confident_from(p, truth, thresholds, 0.8)
    assert least is not None
    sure = (later_p >= thresholds) & (confidence(later_p, thresholds) >= least)
    assert later[sure].mean() == pytest.approx(0.8, abs=0.03)
    assert 0 < sure.sum() < (later_p >= thresholds).sum()
    assert confident_from(p, truth, thresholds, 0.999) is None, (
        "a precision out of reach is never claimed"
    )
    assert confident_from(p[:13], np.ones_like(truth[:13]), np.zeros(3), 1.0) is None, (
        "few cannot show it"
    )


def test_a_small_window_does_not_claim_what_later_rows_do_not_keep() -> None:
    broken = []
    for seed in range(60):
        p, truth = drawn([0.6], n=500, seed=seed)
        later_p, later = drawn([0.6], n=20_000, seed=1000 + seed)
        least = confident_from(p, truth, np.array([0.5]), 0.9)
        sure = confidence(later_p, np.array([0.5])) >= (np.inf if least is None else least)
        broken.append(sure.any() and ((later_p >= 0.5) == (later > 0))[sure].mean() < 0.9)
    assert np.mean(broken) <= 0.1, "the plain share breaks it in half of the windows"


def test_confidence_is_of_what_is_stated() -> None:
    p = np.array([[0.9, 0.2, 0.35]], np.float32)
    assert confidence(p, np.array([0.5, 0.5, 0.3])) == pytest.approx(np.array([[0.9, 0.8, 0.35]]))


def test_one_vs_rest_finds_the_weights_and_the_penalty() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (4000, 5))
    weights = np.array([[1.0, 0], [0, -2], [0, 0], [0, 0], [0, 0]])
    y = (rng.random((4000, 2)) < 1 / (1 + np.exp(-(x @ weights + [0.5, -1])))).astype(np.float32)
    found, bias = one_vs_rest(x[:3000], y[:3000], x[3000:], y[3000:], (1.0, 1e5))
    assert found == pytest.approx(weights, abs=0.2)
    assert bias == pytest.approx([0.5, -1], abs=0.2)
    y[:, 0] = 1
    found, bias = one_vs_rest(x, y, x, y, (1.0,))
    assert (found[:, 0] == 0).all()
    assert bias[0] > 5


def test_each_domain_gets_the_precision_that_is_claimed() -> None:
    """Two domains that together reach it, one of which does not where it is not sure enough."""
    rng = np.random.default_rng(3)
    p = rng.uniform(0.5, 1, (4000, 1)).astype(np.float32)
    domain = np.repeat(["easy", "hard"], 2000)
    right = np.where(domain == "easy", 0.99, 0.6 + 0.39 * (p[:, 0] >= 0.95))
    truth = (rng.uniform(size=4000) < right).astype(np.float32)[:, None]
    threshold = np.array([0.5])

    together = confident_from(p, truth, threshold, 0.8)
    each = confident_from(p, truth, threshold, 0.8, domain)

    assert together is not None and each is not None
    sure = (domain == "hard") & (p[:, 0] >= each)
    assert truth[sure].mean() >= 0.8 > truth[(domain == "hard") & (p[:, 0] >= together)].mean()
    few = np.array(["easy"] * 3990 + ["rare"] * 10)
    assert confident_from(p, truth, threshold, 0.8, few) == together, "ten rows say too little"


def test_what_is_as_likely_as_not_is_never_sure_however_easy_the_rows_were() -> None:
    truth = (np.arange(400) % 2).astype(np.float32)[:, None]
    easy = np.where(truth > 0, 0.99, 0.01).astype(np.float32)

    least = confident_from(easy, truth, np.array([0.5]), 0.9)

    assert least is not None
    assert (confidence(easy, np.array([0.5])) >= least).all()
    assert not (confidence(np.array([[0.5], [0.7]]), np.array([0.5])) >= least).any()


def test_a_row_that_is_trusted_less_has_a_probability_nearer_to_a_half() -> None:
    logits = np.array([[2.0], [-2.0], [2.0]], np.float32)
    calibration = Calibration(slope=1.5, intercept=0.5, thresholds=(0.5,))

    p = apply_calibration(logits, calibration, trust=np.array([0.5, 0.5, 0.0], np.float32))

    whole = np.log(
        apply_calibration(logits, calibration).astype(float)
        / (1 - apply_calibration(logits, calibration).astype(float))
    )
    assert np.log(p[:2] / (1 - p[:2])) == pytest.approx(whole[:2] / 2, rel=1e-3)
    assert p[2] == 0.5
