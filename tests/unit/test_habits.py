"""Habits: counts of a history as log-odds, the same in training and in serving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasteloop.calibration import average_precision
from tasteloop.events import Event
from tasteloop.habits import Habits
from tasteloop.snapshots import TEST, Snapshots


@pytest.fixture(scope="module")
def data(tiny_snapshots: Path) -> Snapshots:
    return Snapshots.read(tiny_snapshots)


@pytest.fixture(scope="module")
def habits(data: Snapshots) -> Habits:
    return Habits.fit(data)


def test_save_then_load_changes_nothing(habits: Habits, data: Snapshots, tmp_path: Path) -> None:
    habits.save(tmp_path)
    loaded = Habits.load(tmp_path)
    assert loaded is not None
    histories = data.histories(data.split(TEST))[:20]
    arguments = (histories, data.catalogue, data.labels, data.text)
    assert np.array_equal(loaded.logits(*arguments), habits.logits(*arguments))
    assert Habits.load(tmp_path / "nothing") is None


def test_they_know_more_than_the_base_rates(habits: Habits, data: Snapshots) -> None:
    rows = data.split(TEST)
    truth = data.truth(rows)
    said = habits.logits(data.histories(rows), data.catalogue, data.labels, data.text)
    rates = np.tile(truth.mean(0), (len(rows), 1))
    assert average_precision(said, truth) > average_precision(rates, truth) + 0.05


def test_no_history_and_unknown_items_are_everybodys_average(habits: Habits, data: Snapshots) -> None:
    histories = [[], [Event("click", "an item that no catalogue has")], [Event("search", text="space opera")]]
    features = habits.features(histories, data.catalogue, data.labels, data.text)
    assert features.shape == (3, habits.weights.shape[0])
    assert (features[:, :-1] == 0).all()
    assert np.isfinite(habits.logits(histories, data.catalogue, data.labels, data.text)).all()


def test_liking_a_label_speaks_for_it(habits: Habits, data: Snapshots) -> None:
    for k, label in enumerate(data.labels):
        bear = [
            item for item, labels in zip(data.catalogue.items, data.catalogue.labels, strict=True) if label in labels
        ]
        rest = [item for item in data.catalogue.items if item not in bear]
        histories = [[Event("rate", item, n, 1.0) for n, item in enumerate(items[:8])] for items in (bear, rest)]
        fond, not_fond = habits.logits(histories, data.catalogue, data.labels, data.text)[:, k]
        assert fond > not_fond, label


def test_nothing_after_the_validation_window_began_is_fitted(habits: Habits, data: Snapshots) -> None:
    """The singular vectors of a table without later events are the same."""
    import polars as pl

    from tasteloop.recommend import Past, spectral

    early = data.events.filter(pl.col("time") < data.meta["validation_from"])
    assert len(early) < len(data.events)
    past = Past.before(data.meta["validation_from"], data)
    assert len(past.item) == early["item"].is_not_null().sum()
    vectors, activity = spectral(past.seen, 32)
    assert np.allclose(habits.factors, vectors / np.sqrt(activity)[:, None] * np.sqrt(len(activity)), atol=1e-5)


def test_a_bundles_interests_are_the_sum_of_their_terms(tiny_bundle: Path, data: Snapshots) -> None:
    from tasteloop.runtime import Session

    session = Session.load(tiny_bundle)
    histories = data.histories(data.split(TEST))[:10]
    terms = session.interest_terms(histories)
    assert set(terms) == {"text", "habits"}
    p = session.interests(histories)
    assert np.allclose(np.log(p / (1 - p)), terms["text"] + terms["habits"], atol=1e-4)
    [answer] = session.answer("interests", [{"events": [event.json() for event in histories[0]]}])
    assert all(isinstance(entry["confident"], bool) for entry in answer["interests"])


def test_what_the_recommender_was_fitted_on_is_what_is_served(
    tiny_model: Path, tiny_bundle: Path, data: Snapshots
) -> None:
    """The validation probabilities that finetune wrote, from histories alone."""
    from safetensors.numpy import load_file

    from tasteloop.runtime import Session
    from tasteloop.snapshots import VALIDATION

    session = Session.load(tiny_bundle)
    served = session.interests(data.histories(data.split(VALIDATION)))
    assert np.allclose(load_file(tiny_model / "validation.safetensors")["interests"], served, atol=2e-2)
