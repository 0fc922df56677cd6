"""Habits: counts of a history as log-odds, the same in training and in serving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.snapshots import TEST, Snapshots
from tasteloop.encoder.calibration import average_precision
from tasteloop.encoder.habits import Habits


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


def test_of_many_rows_some_are_drawn_to_fit_them(
    habits: Habits, data: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasteloop.encoder.habits.MOST_ROWS", 10**6)
    assert np.array_equal(Habits.fit(data).weights, habits.weights)

    monkeypatch.setattr("tasteloop.encoder.habits.MOST_ROWS", 150)
    fewer = Habits.fit(data)

    rows = data.split(TEST)
    histories, truth = data.histories(rows), data.truth(rows)
    said = fewer.logits(histories, data.catalogue, data.labels, data.text)
    assert not np.array_equal(fewer.weights, habits.weights)
    assert average_precision(said, truth) > average_precision(
        np.tile(truth.mean(0), (len(rows), 1)), truth
    )


def test_no_history_and_unknown_items_are_everybodys_average(
    habits: Habits, data: Snapshots
) -> None:
    histories = [
        [],
        [Event("click", "an item that no catalogue has")],
        [Event("search", text="space opera")],
    ]
    features = habits.features(histories, data.catalogue, data.labels, data.text)
    assert features.shape == (3, habits.weights.shape[0])
    # but the length
    assert (np.delete(features, 4 * len(data.labels) + 2 * habits.factors.shape[1], 1) == 0).all()
    assert np.isfinite(habits.logits(histories, data.catalogue, data.labels, data.text)).all()


def test_liking_a_label_speaks_for_it(habits: Habits, data: Snapshots) -> None:
    for k, label in enumerate(data.labels):
        bear = [
            item
            for item, labels in zip(data.catalogue.items, data.catalogue.labels, strict=True)
            if label in labels
        ]
        rest = [item for item in data.catalogue.items if item not in bear]
        histories = [
            [Event("rate", item, n, 1.0) for n, item in enumerate(items[:8])]
            for items in (bear, rest)
        ]
        fond, not_fond = habits.logits(histories, data.catalogue, data.labels, data.text)[:, k]
        assert fond > not_fond, label


def test_nothing_after_the_validation_window_began_is_fitted(
    habits: Habits, data: Snapshots
) -> None:
    """The singular vectors of a table without later events are the same."""
    import polars as pl

    from tasteloop.recommender.collaborative import Past, spectral

    early = data.events.filter(pl.col("time") < data.meta["validation_from"])
    assert len(early) < len(data.events)
    past = Past.before(data.meta["validation_from"], data)
    assert len(past.item) == early["item"].is_not_null().sum()
    vectors, activity = spectral(past.seen, 32)
    assert np.allclose(
        habits.factors, vectors / np.sqrt(activity)[:, None] * np.sqrt(len(activity)), atol=1e-5
    )


def test_a_bundles_interests_are_the_sum_of_their_terms(tiny_bundle: Path, data: Snapshots) -> None:
    from tasteloop.runtime.session import Session

    session = Session.load(tiny_bundle)
    histories = data.histories(data.split(TEST))[:10]
    terms = session.interest_terms(histories)
    assert set(terms) == {"text", "habits"}
    p = session.interests(histories)
    assert np.allclose(np.log(p / (1 - p)), terms["text"] + terms["habits"], atol=1e-4)
    [answer] = session.answer("interests", [{"events": [event.json() for event in histories[0]]}])
    assert all(isinstance(entry["confident"], bool) for entry in answer["interests"])


def test_what_the_recommender_was_fitted_on_is_what_is_served(
    tiny_model: Path, tiny_bundle: Path, data: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation probabilities that finetune wrote, from histories alone, in blocks too."""
    from safetensors.numpy import load_file

    from tasteloop.behaviour.snapshots import VALIDATION
    from tasteloop.runtime.session import Session

    session = Session.load(tiny_bundle)
    served = session.interests(data.histories(data.split(VALIDATION)))
    assert np.allclose(
        load_file(tiny_model / "validation.safetensors")["interests"], served, atol=2e-2
    )

    monkeypatch.setattr("tasteloop.runtime.session._READ", 7)
    in_blocks = session.interests(data.histories(data.split(VALIDATION)))
    assert np.allclose(in_blocks, served, atol=1e-5)


def test_the_labels_of_what_is_likely_next_by_hand(data: Snapshots) -> None:
    catalogue, text = data.catalogue, data.text
    first, second, third = catalogue.items[:3]
    membership = catalogue.membership(data.labels)
    k = len(data.labels)
    follows = np.array([[0, 3, 1], [3, 0, -1], [1, -1, 0]], np.float32)
    none = np.zeros((0, 0), np.float32)
    habits = Habits(
        np.zeros(k, np.float32),
        np.zeros((len(catalogue), 2), np.float32),
        none,
        np.zeros(0, np.float32),
        np.arange(3, dtype=np.int32),
        follows,
        2 * follows,
    )

    def expected(*history: Event) -> np.ndarray:
        return habits.features([history], catalogue, data.labels, text)[0, -3 * k :].reshape(3, k)

    both = (3 * membership[1] + 1 * membership[2]) / 4
    assert np.allclose(expected(Event("rate", first, 1, 1.0)), 4 * both, atol=1e-6)
    seen = expected(Event("rate", first, 1, 1.0), Event("view", second, 2, 0.0))
    # what is met is not expected again, and what speaks against an item does not make it likely
    assert np.allclose(seen[0], 0) and np.allclose(seen[1], 4 * membership[2], atol=1e-6)
    assert np.allclose(expected(Event("rate", third, 1, 0.0))[1:], 0)  # nothing was liked
    assert np.allclose(
        expected(*(Event("rate", item, 1, 1.0) for item in (first, second, third))), 0
    )
