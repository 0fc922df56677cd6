"""Distances, what chance and season explain, and what a window could have seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tasteloop import metrics
from validation.monitor.decision import DecisionSettings, Evidence, decide
from validation.monitor.drift import findings, natural_bounds
from validation.monitor.sampling import DriftSettings, Profile, Sample, Scale, chosen, script_of
from validation.monitor.statistics import (
    Quality,
    compare_classifier,
    compare_kernel,
    compare_means,
    compare_quality,
)

DRAWS = 199
SETTINGS = DriftSettings(draws=999)


def mixes(rng: np.random.Generator, n: int, p: list[float], events: int = 20) -> np.ndarray:
    """z of n users whose acts fall into cells with probabilities p, each user with a taste of their
    own.
    """
    taste = rng.dirichlet(8 * np.array(p), n)
    return np.array([rng.multinomial(events, t) / events for t in taste]) / 2


def test_shares_move_by_the_total_variation() -> None:
    one, other = np.array([[0.5, 0.5, 0.0]]) / 2, np.array([[0.2, 0.5, 0.3]]) / 2
    assert np.abs(one.mean(0) - other.mean(0)).sum() == pytest.approx(0.3)


def test_quantities_move_by_wassersteins_distance_in_deviations() -> None:
    rng = np.random.default_rng(0)
    values, moved = rng.integers(0, 9, 2000) / 8, rng.integers(1, 9, 1500) / 8
    scale = Scale.of(values, 20)
    shares = [
        np.bincount(scale.cell(v), minlength=len(scale.places))[None] / len(v)
        for v in (values, moved)
    ]
    distance = np.abs(scale.z(shares[0]) - scale.z(shares[1])).sum()
    assert distance == pytest.approx(
        stats.wasserstein_distance(values, moved) / values.std(), abs=1e-9
    )


def test_p_values_are_uniform_without_a_shift_and_effects_small() -> None:
    rng = np.random.default_rng(0)
    tested = [
        compare_means(
            mixes(rng, 120, [0.4, 0.3, 0.2, 0.1]),
            mixes(rng, 60, [0.4, 0.3, 0.2, 0.1]),
            DRAWS,
            n,
            0.01,
        )
        for n in range(120)
    ]
    p = np.array([t.p for t in tested])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean([t.effect for t in tested]) < 0.02


def test_the_effect_is_the_shift_and_not_the_noise() -> None:
    rng = np.random.default_rng(1)
    before = mixes(rng, 400, [0.4, 0.3, 0.2, 0.1])
    found = [
        compare_means(before, mixes(rng, 60, [0.2, 0.3, 0.2, 0.3]), DRAWS, n, 0.01).effect
        for n in range(20)
    ]
    assert np.mean(found) == pytest.approx(0.2, abs=0.02)


def test_what_is_called_detectable_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(2)
    level, p = 0.02, np.array([0.4, 0.3, 0.2, 0.1])
    before = mixes(rng, 300, list(p))
    promised = compare_means(before, mixes(rng, 80, list(p)), DRAWS, 0, level).detectable
    shift = promised * np.array([-1.0, 0.0, 0.0, 1.0])
    seen = [
        compare_means(before, mixes(rng, 80, list(p + shift)), DRAWS, n, level).p <= level
        for n in range(60)
    ]
    assert 0.01 < promised < 0.3
    assert np.mean(seen) >= 0.75


def test_the_classifier_tells_apart_what_differs_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    same = [
        compare_classifier(rng.normal(size=(60, 40)), rng.normal(size=(40, 40)), 99, n, 0.05)
        for n in range(40)
    ]
    assert np.mean([t.p <= 0.05 for t in same]) <= 0.15
    assert np.mean([t.effect for t in same]) < 0.15
    far = compare_classifier(rng.normal(size=(60, 40)), rng.normal(size=(40, 40)) + 1, 99, 0, 0.05)
    assert far.effect > 0.9 and far.p == pytest.approx(0.01)


def test_the_classifiers_area_is_that_of_a_fitted_ridge() -> None:
    from sklearn.linear_model import Ridge
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(70, 15)), rng.normal(size=(50, 15)) + 0.4
    x = np.concatenate([a, b])
    x = (x - x.mean(0)) / x.std(0)
    y = np.r_[np.zeros(70), np.ones(50)]
    fold = np.random.default_rng([7, 70, 50, 1]).permutation(120) % 5
    areas = []
    for k in range(5):
        train = fold != k
        centred = x[train] - x[train].mean(0)
        model = Ridge(alpha=float(np.trace(centred @ centred.T)) / 15).fit(x[train], y[train])
        areas.append(roc_auc_score(y[~train], model.predict(x[~train])))
    assert compare_classifier(a, b, 99, 7, 0.05).effect == pytest.approx(
        2 * np.mean(areas) - 1, abs=1e-9
    )


def test_the_kernel_sees_a_change_of_spread_that_keeps_the_mean() -> None:
    rng = np.random.default_rng(5)
    same = compare_kernel(rng.normal(size=(150, 5)), rng.normal(size=(100, 5)), DRAWS, 0, 0.05)
    wide = compare_kernel(rng.normal(size=(150, 5)), 2 * rng.normal(size=(100, 5)), DRAWS, 0, 0.05)
    assert same.p > 0.05 and same.effect < 0.05
    assert wide.p == pytest.approx(1 / (DRAWS + 1)) and wide.effect > 0.15


def quality(rng: np.random.Generator, n: int, rate: float, windows: int = 1) -> Quality:
    asked = rng.integers(1, 6, n)
    right = rng.binomial(asked, rate)
    return Quality(
        np.stack([right, asked], 1).astype(float), rng.integers(0, windows, n), metrics.ratio()
    )


def test_only_getting_worse_counts_as_a_loss_of_quality() -> None:
    rng = np.random.default_rng(6)
    before = quality(rng, 500, 0.6)
    worse = compare_quality(before, quality(rng, 300, 0.4), DRAWS, 0, 0.05)
    assert worse.effect == pytest.approx(0.2, abs=0.05) and worse.p == pytest.approx(
        1 / (DRAWS + 1)
    )
    better = compare_quality(before, quality(rng, 300, 0.8), DRAWS, 0, 0.05)
    assert better.effect == 0 and better.p == 1
    calibration = compare_quality(before, quality(rng, 300, 0.8), DRAWS, 0, 0.05, less=True)
    assert calibration.effect == pytest.approx(0.2, abs=0.05)


def season(rng: np.random.Generator, window: int, shift: float = 0.0) -> np.ndarray:
    """A week's swing between two kinds of behaviour."""
    swing = 0.15 * np.sin(2 * np.pi * window / 7)
    return mixes(rng, 100, [0.5 + swing - shift, 0.3 - swing, 0.2 + shift])


def profile_of(z: np.ndarray, window: np.ndarray | None = None) -> Profile:
    where = np.zeros(len(z), np.int32) if window is None else window.astype(np.int32)
    return {"labels": Sample(z.astype(np.float32), where)}


def test_a_swing_that_the_reference_knows_is_natural_and_a_shift_beyond_it_is_not() -> None:
    rng = np.random.default_rng(8)
    weeks = [season(rng, window) for window in range(21)]
    reference = profile_of(np.concatenate(weeks), np.repeat(np.arange(21), 100))
    natural = natural_bounds(reference, SETTINGS)
    said = {}
    for name, shift in (("swing", 0.0), ("shift", 0.35)):
        evidence, outcomes = [], []
        for day in range(21, 35):
            seen = findings(reference, profile_of(season(rng, day, shift)), natural, {}, SETTINGS)
            evidence.append(
                Evidence(
                    id=str(day),
                    window=f"{day}/{day + 1}",
                    end=day,
                    reference="r",
                    champion="c",
                    findings=seen,
                )
            )
            outcomes.append(decide(evidence, [], 0, DecisionSettings()).outcome)
        said[name] = outcomes
    assert min(f.p for e in evidence for f in e.findings if f.p is not None) == pytest.approx(0.001)
    assert "retrain" not in said["swing"]
    assert "retrain" in said["shift"][:3]
    # the height of the swing
    chance = findings(reference, profile_of(season(rng, 2)), {}, {}, SETTINGS)
    assert chance[0].p == pytest.approx(0.001)  # chance does not explain it: the season does


def test_few_units_are_not_tested() -> None:
    rng = np.random.default_rng(9)
    reference = profile_of(season(rng, 0))
    (found,) = findings(reference, profile_of(season(rng, 0)[:19]), {}, {}, SETTINGS)
    assert (found.effect, found.p, found.n) == (None, None, 19)
    (absent,) = findings(reference, {}, {}, {}, SETTINGS)
    assert (absent.effect, absent.n) == (None, 0)


def test_samples_depend_on_names_only() -> None:
    names = [f"u{n}" for n in range(100)]
    kept = chosen(names, 10, 3)
    assert chosen(names[::-1] + names[:5], 10, 3) == kept and len(kept) == 10
    assert chosen(kept[:4] + names[:2], 100, 3)[:1] and chosen(names, 10, 4) != kept


@pytest.mark.parametrize(
    ("text", "script"),
    [("a delight", "latin"), ("好看的电影", "cjk"), ("хорошо", "cyrillic"), ("42", "none")],
)
def test_scripts(text: str, script: str) -> None:
    assert script_of(text) == script


def test_a_reference_that_is_older_than_a_kind_is_compared_with_it() -> None:
    older, wider = np.eye(8)[[0, 1] * 30] / 2, np.eye(20)[[0, 1] * 30] / 2
    assert compare_means(older, wider, 99, 0, 0.01).effect == 0
    wider[:, 19] = wider[:, 0].copy()
    wider[:, 0] = 0
    moved = compare_means(older, wider, 99, 0, 0.01)
    assert moved.effect > 0.4 and moved.p == 0.01
