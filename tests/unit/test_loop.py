"""The path from snapshots to an evaluation, on the tiny data set: shapes, laws, equalities."""

from __future__ import annotations

from pathlib import Path

from tasteloop.evaluation import EvaluationSettings, evaluate
from tasteloop.files import read_json


def test_the_candidate_beats_the_majority_on_behaviour_with_a_pattern(
    tiny_bundle: Path, tiny_snapshots: Path, tmp_path: Path
) -> None:
    evaluate(tiny_bundle, tiny_snapshots, EvaluationSettings(bootstrap=200), tmp_path / "e")
    report = read_json(tmp_path / "e" / "evaluation.json")
    assert report["tasks"] == ["interests", "sentiment"]
    assert report["champion"] is None
    assert report["metrics"]["sentiment.accuracy"]["n"] > 0
    print(report["metrics"])
