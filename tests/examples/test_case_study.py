"""The case study's measures by hand, and one tiny run of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    import importlib.util

    spec = importlib.util.spec_from_file_location("case_study", ROOT / "examples" / "case_study.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["case_study"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_rank_correlation(study: ModuleType) -> None:
    truth = np.array([[0.5, 0.3, 0.2]] * 4)
    said = np.array([[0.9, 0.5, 0.1], [0.1, 0.5, 0.9], [0.5, 0.9, 0.1], [0.4, 0.4, 0.4]])
    assert study._spearman(said, truth) == pytest.approx([1, -1, 0.5, np.nan], nan_ok=True)


def test_the_first_labels_in_common(study: ModuleType) -> None:
    truth = np.array([[0.4, 0.3, 0.2, 0.1, 0.0]])
    assert study._overlap(np.array([[0.9, 0.0, 0.8, 0.7, 0.1]]), truth) == pytest.approx([2 / 3])


def test_area_under_the_curve_is_that_of_sklearn(study: ModuleType) -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    score, present = rng.integers(0, 8, 200) / 8, rng.random(200) < 0.3
    weights = rng.integers(0, 4, (3, 200)).astype(float)
    expected = [roc_auc_score(present, score, sample_weight=w) for w in weights]
    assert study._weighted_auc(score, present, weights) == pytest.approx(expected)
    assert study._weighted_auc(np.ones(200), present, weights) == pytest.approx([0.5] * 3)


def test_graded_gain(study: ModuleType) -> None:
    gains = np.array([[1.0, 0.5, 0.0, 0.25]])
    best, worse = np.array([[0, 1]]), np.array([[3, 2]])
    assert study._gain_ndcg(best, gains) == pytest.approx([1])
    assert study._gain_ndcg(worse, gains) == pytest.approx([0.25 / (1 + 0.5 / np.log2(3))])
    assert study._mean_gain(worse, gains) == pytest.approx([0.125])


@pytest.mark.slow
def test_a_tiny_run(tiny_encoder: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "examples/case_study.py",
        "--users",
        "120",
        "--items",
        "300",
        "--encoder",
        str(tiny_encoder),
        "--layers",
        "1",
        "--epochs",
        "1",
        "--snapshots-an-epoch",
        "100",
        "--draws",
        "100",
        "--json",
        "--out",
        str(tmp_path / "out"),
    ]
    environment = os.environ | {"TASTELOOP_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {(r["measure"], r["users"]): r["values"] for r in json.loads(done.stdout)["rows"]}
    gain = rows["recommended: mean true affinity", "all"]
    assert gain["oracle"]["value"] >= gain["tasteloop"]["value"] > gain["random"]["value"]
    tastes = rows["interests: rank correlation with true tastes", "all"]
    assert tastes["tasteloop"]["value"] > tastes["everyone's"]["value"]
    for values in rows.values():
        for e in values.values():
            assert e["value"] is None or e["low"] <= e["value"] <= e["high"]
    assert {users for _, users in rows} >= {"all", "taste changed", "taste kept"}


def test_a_mistake_is_one_message(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "examples/case_study.py",
        "--items",
        "5",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "error: 5 items cannot bear 20 labels" in done.stderr
    assert "Traceback" not in done.stderr
