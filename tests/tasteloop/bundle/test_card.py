"""The card: what answering needs is checked, what another version wrote is left aside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasteloop.bundle.card import BundleCard
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json

TASK = {"model": "m", "slope": 1.0, "intercept": 0.0, "thresholds": [0.5]}
CARD: dict[str, Any] = {
    "labels": ["Drama"],
    "tasks": {"interests": TASK},
    "models": {"m": {"tasks": ["interests"]}},
    "text": {"max_tokens": 96},
}


def test_reading_and_writing_changes_nothing(tiny_bundle: Path) -> None:
    written = read_json(tiny_bundle / "card.json")

    again = BundleCard.parse(written).json_value()

    assert json.dumps(again) == json.dumps(written)
    assert "bag_of_words" in again["tasks"]["sentiment"]
    assert "bag_of_words" not in again["tasks"]["interests"]


def test_keys_of_a_later_version_are_left_aside() -> None:
    later = {**CARD, "modality": "image", "tasks": {"interests": {**TASK, "temperature": 2}}}

    assert BundleCard.parse(later) == BundleCard.parse(CARD)


def test_a_card_from_before_runtimes_and_confidence_is_read() -> None:
    card = BundleCard.parse(CARD)

    assert card.runtime is None
    assert card.tasks["interests"].confident_from is None
    assert card.tasks["interests"].calibration.habit_slope is None
    assert card.reading_model == "m"
    with pytest.raises(TasteloopError, match="the card has no recommender"):
        card.require_recommender()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tasks": {"interests": {"model": "m"}}}, "tasks.interests.slope: Field required"),
        ({"labels": "Drama"}, "labels: Input should be a valid tuple"),
        ({"models": None}, "models: Input should be a valid dictionary"),
    ],
)
def test_what_answering_needs_is_checked_by_name(
    changed: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "card.json").write_text(json.dumps({**CARD, **changed}))

    with pytest.raises(TasteloopError) as refused:
        BundleCard.read(tmp_path)
    assert str(refused.value) == f"{tmp_path}/card.json: {reason}; train the bundle again"


@pytest.mark.parametrize("raw", [None, [], "card", 3])
def test_what_is_no_card_is_refused(raw: object) -> None:
    with pytest.raises(TasteloopError, match="train the bundle again"):
        BundleCard.parse(raw)
