"""The path from snapshots to an evaluation, on the tiny data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasteloop.bundle.card import BundleCard
from tasteloop.encoder.bag_of_words import BagOfWords
from tasteloop.evaluation.evaluate import evaluate
from tasteloop.evaluation.settings import EvaluationSettings
from tasteloop.files import read_json
from tasteloop.runtime.session import Session


@pytest.fixture(scope="module")
def report(
    tiny_bundle: Path, tiny_snapshots: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    out = tmp_path_factory.mktemp("evaluation") / "out"
    evaluate(tiny_bundle, tiny_snapshots, EvaluationSettings(bootstrap=200), out)
    return read_json(out / "evaluation.json")


def test_the_candidate_beats_the_majority_on_behaviour_with_a_pattern(report: Any) -> None:
    assert report["tasks"] == ["interests", "recommend", "sentiment"]
    assert report["champion"] is None
    assert report["metrics"]["sentiment.accuracy"]["n"] > 0
    assert report["differences"]["majority"]["sentiment.accuracy"]["value"] > 0
    assert report["baselines"]["bag_of_words"]["sentiment.accuracy"]["value"] > 0.9
    assert {"interests.micro_f1", "sentiment.accuracy"} < set(report["differences"]["bag_of_words"])
    assert not any(name.startswith("recommend.") for name in report["differences"]["bag_of_words"])
    assert report["differences"]["popularity"]["recommend.ndcg@10"]["value"] > 0


def test_differences_are_of_the_values_beside_them(report: Any) -> None:
    for name, measures in report["differences"].items():
        for metric, difference in measures.items():
            ours, theirs = (
                report["metrics"][metric]["value"],
                report["baselines"][name][metric]["value"],
            )
            # precision of a method that never says anything
            undefined = ours is None or theirs is None
            assert difference["value"] == (None if undefined else pytest.approx(ours - theirs))
            assert difference["n"] == report["metrics"][metric]["n"]


def test_a_candidate_is_not_compared_with_itself(
    tiny_bundle: Path, tiny_snapshots: Path, tmp_path: Path
) -> None:
    settings = EvaluationSettings(bootstrap=100)
    evaluate(tiny_bundle, tiny_snapshots, settings, tmp_path / "out", champion=tiny_bundle)
    report = read_json(tmp_path / "out" / "evaluation.json")
    assert report["champion"]["digest"] == report["lineage"]["bundle"]
    assert "champion" not in report["differences"]


def test_sentiment_is_the_encoder_with_a_bag_of_words_in_it(tiny_bundle: Path) -> None:
    """Without the share in the card the same bundle says something else, with it the calibrated
    sum.
    """
    card = read_json(tiny_bundle / "card.json")
    task, texts = card["tasks"]["sentiment"], ["good film 3", "bad film 3", "没有"]
    assert task["bag_of_words"] > 0
    # What these few reviews give leaves no probability but 0 and 1.
    task |= {"slope": 0.5, "intercept": 0.1, "bag_of_words": 0.2, "familiar": None}
    whole = Session.open(tiny_bundle, BundleCard.parse(card))
    without = {name: value for name, value in task.items() if name != "bag_of_words"}
    other = card | {"tasks": card["tasks"] | {"sentiment": without}}
    alone = Session.open(tiny_bundle, BundleCard.parse(other))
    bag = BagOfWords.load(tiny_bundle / "models" / task["model"])
    z = {
        session: np.log(p / (1 - p))
        for session in (whole, alone)
        for p in [session.sentiment(texts).astype(float)]
    }
    assert np.allclose(z[whole] - z[alone], 0.5 * 0.2 * bag.logits(texts), atol=1e-3)


def test_nothing_is_sure_about_a_text_in_unknown_words(
    tiny_bundle: Path,
) -> None:
    session = Session.load(tiny_bundle)

    known, foreign = session.answer("sentiment", [{"text": "good film"}, {"text": "没有"}])

    assert known["sentiment"] == "positive" and known["probability"] > 0.5
    assert not foreign["confident"]


def test_sentiment_is_measured_on_each_source_of_reviews(report: Any) -> None:
    [*parts] = (part for part in report["slices"] if part["slice"] == "reviews=mine")

    measured = {part["metric"]: part["value"] for part in parts}
    all_rows = report["metrics"]
    assert measured.keys() == {name for name in all_rows if name.startswith("sentiment.")}
    assert (
        measured["sentiment.balanced_accuracy"] == all_rows["sentiment.balanced_accuracy"]["value"]
    )
    assert measured["sentiment.confident_share"] == all_rows["sentiment.confident_share"]["value"]
