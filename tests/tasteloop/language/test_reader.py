"""What one text says: of labels, of titles, and whether it wants or refuses them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasteloop.behaviour.items import Catalogue
from tasteloop.language.fitting import fit_reader
from tasteloop.language.reader import LABEL_FEATURES, Reader, plain
from tasteloop.language.training_phrases import TRAINING
from tests.support.films import FILMS, LABELS, WIDTH, embed, intents, position

COMEDY, CRIME, HORROR, WESTERN = range(4)
TEXTS = [
    "comedy",
    "no horror",
    "a western, but no comedy",
    "anything but crime",
    "where is my order",
    "no country for old men",
    "scream",
    "",
    "🤠",
]


@pytest.mark.parametrize(
    ("text", "wanted", "refused"),
    [
        ("comedy", {COMEDY}, set()),
        ("find me westerns please", {WESTERN}, set()),
        ("westren 🤠", {WESTERN}, set()),
        ("no horror", set(), {HORROR}),
        ("anything but horror", set(), {HORROR}),
        ("a western, but no comedy", {WESTERN}, {COMEDY}),
        ("crime rather than horror", {CRIME}, {HORROR}),
        ("", set(), set()),
        ("!?", set(), set()),
    ],
)
def test_labels_are_wanted_and_refused_clause_by_clause(
    reader: Reader, text: str, wanted: set[int], refused: set[int]
) -> None:
    [reading] = reader.read([text], embed, intents)

    assert set(np.flatnonzero(reading.wanted > 0.5)) == wanted
    assert set(np.flatnonzero(reading.refused > 0.5)) == refused
    assert np.delete(reading.wanted, list(wanted)).max() < 0.3
    assert np.delete(reading.refused, list(refused)).max() < 0.3


@pytest.mark.filterwarnings("error")
def test_of_a_catalogue_without_labels_titles_are_read(films: Catalogue) -> None:
    unlabelled = replace(films, labels=[[] for _ in films.items])
    reader = fit_reader(unlabelled, [], embed(list(FILMS)), embed, intents, most=300)

    [reading] = reader.read(["no country for old men"], embed, intents)

    assert reading.wanted.shape == reading.refused.shape == (0,)
    best = max(reading.titles, key=lambda item: reading.titles[item])
    assert best == position("No Country for Old Men")


def test_every_phrase_that_means_a_label_means_it_most(reader: Reader) -> None:
    phrases = TRAINING["en"]
    for k, label in enumerate(LABELS):
        texts = [label, *phrases.subjects[label]]
        assert set(reader.means(texts, embed(texts)).argmax(1)) == {k}, label


def test_a_refused_title_is_not_wanted(reader: Reader) -> None:
    wants, refuses = reader.read(["scream", "not scream"], embed, intents)

    scream = position("Scream")
    assert wants.titles[scream] > 0.5 and scream not in wants.refused_titles
    assert refuses.refused_titles[scream] > refuses.titles.get(scream, 0)


def test_the_direction_of_a_wish_is_that_of_its_wanting_clauses(reader: Reader) -> None:
    wish, mixed, refusal = (
        reading.wish
        for reading in reader.read(
            ["western", "western, but no comedy", "no comedy"], embed, intents
        )
    )

    [western] = embed(["western"])
    assert wish / np.linalg.norm(wish) == pytest.approx(western, abs=1e-6)
    assert mixed @ western > 0.9 * np.linalg.norm(mixed)
    assert 3 * np.linalg.norm(refusal) < np.linalg.norm(wish) <= 1, "as sure as it is wanted"


@given(st.lists(st.one_of(st.sampled_from(TEXTS), st.text(max_size=40)), max_size=4))
def test_readings_are_probabilities_and_the_same_in_any_batch(
    reader: Reader, texts: list[str]
) -> None:
    together = reader.read(texts, embed, intents)

    for text, reading in zip(texts, together, strict=True):
        [alone] = reader.read([text], embed, intents)
        assert alone.wanted == pytest.approx(reading.wanted, abs=1e-6)
        assert alone.refused == pytest.approx(reading.refused, abs=1e-6)
        assert alone.titles == pytest.approx(reading.titles, abs=1e-6)
        assert alone.refused_titles == pytest.approx(reading.refused_titles, abs=1e-6)
        probabilities = [
            *reading.wanted,
            *reading.refused,
            *reading.titles.values(),
            *reading.refused_titles.values(),
        ]
        assert all(0 <= p <= 1 for p in probabilities)
        assert np.linalg.norm(reading.wish) <= 1 + 1e-5


def test_a_label_may_be_read_that_no_weight_was_fitted_on(reader: Reader) -> None:
    """Features and weights are of a label and a text, whichever label it is."""
    texts = ["western", "cowboys"]

    features = reader.label_features(texts, embed(texts))

    assert features.shape == (2, len(LABELS), len(LABEL_FEATURES))
    assert reader.label_weights.shape == (len(LABEL_FEATURES) + 1,)
    named = features[0, :, LABEL_FEATURES.index("name")]
    assert named.tolist() == [0, 0, 0, 1]


def test_a_phrase_that_is_left_out_is_not_compared_with_itself(reader: Reader) -> None:
    phrase = int(np.flatnonzero(reader.label_of_phrase == WESTERN)[0])
    text = ["western"]

    itself = reader.label_features(text, embed(text))[0, WESTERN, 0]
    others = reader.label_features(text, embed(text), [phrase])[0, WESTERN, 0]

    assert itself == pytest.approx(1, abs=1e-5) and others < 0.95


def test_a_reader_is_saved_and_loaded(reader: Reader, films: Catalogue, tmp_path: Path) -> None:
    reader.save(tmp_path)

    again = Reader.load(tmp_path, films, LABELS, list(reader.spelling.common))

    assert again is not None
    for before, after in zip(
        reader.read(TEXTS, embed, intents), again.read(TEXTS, embed, intents), strict=True
    ):
        assert np.array_equal(before.wanted, after.wanted)
        assert np.array_equal(before.refused, after.refused)
        assert before.titles == after.titles


def test_a_bundle_that_was_made_without_has_none(films: Catalogue, tmp_path: Path) -> None:
    assert Reader.load(tmp_path, films, LABELS, []) is None


def test_a_fitted_reader_has_the_catalogue_s_shapes(reader: Reader, films: Catalogue) -> None:
    assert reader.items.shape == (len(LABELS), WIDTH)
    assert reader.phrases.shape == (len(reader.label_of_phrase), WIDTH)
    assert set(reader.label_of_phrase) == set(range(len(LABELS)))
    assert len(reader.titles.names) == len(films) == len(FILMS)


def test_signs_that_are_no_words_are_no_words() -> None:
    assert plain("westerns 🤠\tplease™").split() == ["westerns", "please"]
