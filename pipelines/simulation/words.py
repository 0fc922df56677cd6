"""What people write in a simulation whose visitors talk: searches in words, and reviews.

The phrases are those that a model may learn from (`tasteloop.language.training_phrases`); none that
a model is tested with is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipelines.simulation.world import Life
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.text import TextSettings
from tasteloop.language.phrases import ENGLISH, Phrases
from tasteloop.language.training_phrases import TRAINING

LACKING = (
    "hiking boots",
    "a toaster",
    "train tickets",
    "gluten free recipes",
    "guitar lessons",
    "crossword puzzles",
    "a winter coat",
    "phone cases",
    "garden furniture",
    "vegetable seeds",
    "a used bicycle",
    "washing powder",
)
"""What people ask a shop of films for, and never find: no label and no title."""

_WISHES, _REFUSALS = 0.5, 0.15  # of the searches; the others are words of a title
_REVIEWED = 0.1  # of the acts with a value that is for or against the film
_SPOKEN = TRAINING[ENGLISH]


def search_in_words(
    life: Life, labels: Mapping[str, Sequence[str]], chance: np.random.Generator, lacking: bool
) -> Life:
    """The life in which most searches are wishes for a label of the film that follows, or refuse a
    label that it does not have.

    Args:
        labels: of each film.
        lacking: all searches are wishes for what no catalogue of films has.
    """
    names = sorted({label for each in labels.values() for label in each})
    acts = list(life)
    for n, event in enumerate(acts):
        if event.kind != "search":
            continue
        following = next((labels[e.item] for e in acts[n:] if e.item), ())
        usual = _usual_search(event.text or "", following, names, chance)
        wanted = _say(chance, _SPOKEN.wishes, _one_of(chance, LACKING))
        acts[n] = replace(event, text=wanted if lacking else usual)
    return tuple(acts)


def _usual_search(
    title: str, following: Sequence[str], names: Sequence[str], chance: np.random.Generator
) -> str:
    """Words of the title, a wish for a label of the film that follows, or a refusal of another."""
    way = chance.random()
    others = [name for name in names if name not in following]
    if way < _WISHES and following:
        label = _one_of(chance, following)
        ways_to_mean_it = (_SPOKEN.label(label), *_SPOKEN.subjects.get(label, ()))
        return _say(chance, _SPOKEN.wishes, _one_of(chance, ways_to_mean_it))
    if _WISHES <= way < _WISHES + _REFUSALS and others:
        return _say(chance, _SPOKEN.refusals, _SPOKEN.label(_one_of(chance, others)))
    return title


def review_in_words(
    life: Life, chance: np.random.Generator, ironic: bool, text: TextSettings | None = None
) -> Life:
    """The life in which some ratings are reviews, at least one where one is for or against a film:
    with words that say what the value does, or, where they are ironic, the opposite.
    """
    settings = text or TextSettings()
    is_for = [_is_for(event, settings) for event in life]
    clear = [n for n, side in enumerate(is_for) if side is not None]
    is_reviewed = chance.random(len(life)) < _REVIEWED
    if clear:
        is_reviewed[clear[int(chance.integers(len(clear)))]] = True
    acts = list(life)
    for n in clear:
        if is_reviewed[n]:
            said = _one_of(chance, _opinions(_SPOKEN, bool(is_for[n]) != ironic))
            acts[n] = replace(acts[n], kind="review", text=said)
    return tuple(acts)


def _is_for(event: Event, text: TextSettings) -> bool | None:
    """Whether a rating is for its film; None where it is no rating, or neither for nor against."""
    if event.kind != "rate" or event.value is None:
        return None
    if event.value >= text.positive:
        return True
    return False if event.value < text.negative else None


def _opinions(phrases: Phrases, favourable: bool) -> tuple[str, ...]:
    loved, hated = (*phrases.loves, *phrases.praise), (*phrases.hates, *phrases.blame)
    return loved if favourable else hated


def _say(chance: np.random.Generator, templates: Sequence[str], meant: str) -> str:
    return _one_of(chance, templates).format(label=meant)


def _one_of(chance: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(chance.integers(len(options)))]
