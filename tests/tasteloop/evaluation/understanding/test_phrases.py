"""The phrase lists of the tests of understanding."""

from __future__ import annotations

import pytest

from tasteloop.evaluation.understanding.testing_phrases import TESTING
from tasteloop.language.phrases import LANGUAGES, Phrases, normalise
from tasteloop.language.training_phrases import TRAINING

EVERY = [*TESTING.values(), *TRAINING.values()]


def test_no_phrase_is_for_training_and_for_testing() -> None:
    testing = {normalise(phrase) for phrases in TESTING.values() for phrase in phrases.all()}
    training = {normalise(phrase) for phrases in TRAINING.values() for phrase in phrases.all()}

    assert not testing & training
    assert min(len(testing), len(training)) > 200


@pytest.mark.parametrize("purpose", [TESTING, TRAINING])
def test_each_purpose_has_phrases_of_every_language(purpose: dict[str, Phrases]) -> None:
    assert tuple(purpose) == LANGUAGES
    for language, phrases in purpose.items():
        assert phrases.language == language


@pytest.mark.parametrize("phrases", EVERY)
def test_no_list_has_a_phrase_twice(phrases: Phrases) -> None:
    for phrases_of_list in (phrases.wishes, phrases.refusals, phrases.praise + phrases.blame):
        normalised = [normalise(phrase) for phrase in phrases_of_list]
        assert len(set(normalised)) == len(normalised)


@pytest.mark.parametrize("phrases", EVERY)
def test_every_template_has_its_place_for_what_it_is_about(phrases: Phrases) -> None:
    for template in (*phrases.wishes, *phrases.refusals):
        assert template.format(label="horror", other="comedy").count("horror") == 1
    for template in phrases.contrasts:
        filled = template.format(label="horror", other="comedy")
        assert "horror" in filled and "comedy" in filled
    for template in phrases.plots:
        assert "lost kite" in template.format(plot="lost kite")
    for template in (*phrases.titles, *phrases.half_titles):
        assert "Heat" in template.format(title="Heat")


def test_a_subject_does_not_name_its_label() -> None:
    for phrases in TESTING.values():
        for label, subjects in phrases.subjects.items():
            for subject in subjects:
                assert phrases.label(label) not in normalise(subject).split(), subject
