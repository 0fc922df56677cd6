"""Clauses from which an encoder learns what a clause does: want something, refuse it, or neither.

They are phrases of our own writing (`tasteloop.language.training_phrases`), filled with labels,
with what people say who mean them, with titles of the catalogue, and with things that no catalogue
needs to hold, so that it is the phrase that is learned and not what it is about.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasteloop.behaviour.items import Catalogue
from tasteloop.language.clauses import clauses
from tasteloop.language.phrases import CHINESE, ENGLISH, Phrases, languages_of
from tasteloop.language.training_phrases import TRAINING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WANTS, REFUSES, NEITHER = range(3)

# Things of each sort that a phrase is filled with; there are more phrases that refuse.
_FILLED = {WANTS: 4, REFUSES: 3}
_BARE = 500  # things of each sort that are a wish by themselves
_REPEATS = 3  # of what is neither: there are fewer phrases of it
_VALIDATED = 10  # one template of so many is held out, to calibrate on
_THINGS = {
    ENGLISH: (
        "comic books",
        "running shoes",
        "football news",
        "board games",
        "cooking videos",
        "cats",
        "long films",
        "sad endings",
        "subtitles",
        "sequels",
        "superheroes",
        "anything violent",
        "slow ones",
        "politics",
        "garden chairs",
        "that actor",
        "the old ones",
        "Tom Hanks",
        "jazz",
        "toys",
        "strategy games",
        "celebrity gossip",
        "spicy food",
        "bright colours",
    ),
    CHINESE: ("漫画", "跑鞋", "足球", "猫", "悲剧结尾", "续集", "政治", "老电影", "游戏", "音乐"),
}


@dataclass(frozen=True)
class IntentTexts:
    """Clauses with what each does.

    Attributes:
        does: [n, 2] of 0 and 1: whether it wants something, whether it refuses it.
        is_validation: [n] clauses of phrases that are held out.
    """

    texts: list[str]
    does: NDArray[np.float32]
    is_validation: NDArray[np.bool_]


def spoken_in(catalogue: Catalogue) -> list[Phrases]:
    """The training phrases of the languages that a catalogue is in."""
    texts = [text or "" for text in (*catalogue.titles, *catalogue.texts)]
    return [TRAINING[language] for language in languages_of(texts)]


def intent_texts(
    catalogue: Catalogue, labels: Sequence[str], most: int = 12000, seed: int = 0
) -> IntentTexts:
    """The clauses for a catalogue, at most so many, the same for the same seed.

    >>> catalogue = Catalogue(["1"], ["Heat"], [["Crime"]], [None])
    >>> found = intent_texts(catalogue, ["Crime"])
    >>> {tuple(row) for row in found.does.astype(int).tolist()} == {(1, 0), (0, 1), (0, 0)}
    True
    """
    import numpy as np

    choices = random.Random(seed)
    titles = [title for title in catalogue.titles if title]
    rows: list[tuple[str, int, bool]] = []
    for phrases in spoken_in(catalogue):
        subjects = [each for label in labels for each in phrases.subjects.get(label, ())]
        names = [phrases.label(label) for label in labels]
        sorts = [each for each in (names, subjects, titles, _THINGS[phrases.language]) if each]
        for said in _said(phrases, sorts, titles, choices):
            is_validation = choices.randrange(_VALIDATED) == 0
            rows += [(text, does, is_validation) for text, does in said]
        bare = [
            thing for sort in sorts for thing in choices.sample(list(sort), min(_BARE, len(sort)))
        ]
        rows += [(thing, WANTS, choices.randrange(_VALIDATED) == 0) for thing in bare]
    if len(rows) > most:
        rows = choices.sample(rows, most)
    does = np.zeros((len(rows), 2), np.float32)
    for n, (_, what, _) in enumerate(rows):
        if what != NEITHER:
            does[n, what] = 1
    return IntentTexts([text for text, *_ in rows], does, np.array([held for *_, held in rows]))


def _said(
    phrases: Phrases, sorts: Sequence[Sequence[str]], titles: Sequence[str], choices: random.Random
) -> Iterator[list[tuple[str, int]]]:
    """For each phrase the clauses that are made of it, and what they do."""

    def filled(template: str, most: int) -> Iterator[str]:
        for sort in sorts:
            for thing in choices.sample(list(sort), min(most, len(sort))):
                other = choices.choice(choices.choice(sorts))
                yield template.format(label=thing, other=other, title=thing)

    for templates, does in ((phrases.wishes, WANTS), (phrases.refusals, REFUSES)):
        for template in templates:
            # of a text of several clauses nobody knows which of them does it
            texts = filled(template, _FILLED[does])
            yield [(text, does) for text in texts if len(clauses(text)) == 1]
    for template in phrases.contrasts:
        wants_first = template.index("{other}") < template.index("{label}")
        texts = filled(template, _FILLED[REFUSES])
        both = [cut for text in texts if len(cut := clauses(text)) == 2]
        first, second = (WANTS, REFUSES) if wants_first else (REFUSES, WANTS)
        yield [pair for cut in both for pair in ((cut[0], first), (cut[1], second))]
    for template in (*phrases.titles, *phrases.half_titles):
        chosen = choices.sample(list(titles), min(_FILLED[WANTS], len(titles)))
        yield [(template.format(title=title), WANTS) for title in chosen]
    for errand in phrases.errands:
        yield [(errand, NEITHER)] * _REPEATS
