"""A model of rules that understands what the tests of understanding ask, and three with a fault.

It knows words of each film label and the words of titles, turns a label round after a word of
negation, and gives each kind of behaviour its sign and its strength. It has no sentiment.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.kinds import KINDS
from tasteloop.evaluation.understanding.phrases import normalise

STEMS = {
    "Action": "action chases explosions hero guns stunts shootouts fights",
    "Adventure": "adventure quest treasure explorers journey swashbuckling voyage jungle expeditions",
    "Animation": "animation cartoons anime pixar cartoon motion claymation",
    "Children's": "children year family little kids toddlers preschoolers",
    "Comedy": "comedy laugh hilarious silly jokes slapstick funny cheer",
    "Crime": "crime mafia bosses gangsters robbers heist crooks mob underworld",
    "Documentary": "documentary true footage facts interviews archive fiction nature",
    "Drama": "drama serious moving emotional tearjerker grief deep characters choices conflict",
    "Fantasy": "fantasy wizards dragons magic sorcery elves spells fairy mythical creatures",
    "Film-Noir": "noir femme fatale boiled shadowy cynicism moody antihero private",
    "Horror": "horror scary haunted ghosts blood gore monsters zombies slashers",
    "Musical": "musical singing dancing broadway tunes burst song dance",
    "Mystery": "mystery whodunit puzzle murderer clues unsolved",
    "Romance": "romance love falling lovers date passionate kisses",
    "Sci-Fi": "sci spaceships aliens robots future galaxies artificial intelligence",
    "Thriller": "thriller edge suspense tense nerve twist psychological nail",
    "War": "war soldiers trenches landing vietnam combat tanks platoons",
    "Western": "western cowboys gunslingers sheriffs outlaws duel noon saloons horses wild",
}
LABELS = sorted(STEMS)
NEGATIONS = {"no", "not", "but", "out", "stand", "except", "without", "sick", "never", "than"}
PRAISE = {
    "loved",
    "masterpiece",
    "best",
    "wonderful",
    "thrilled",
    "brilliant",
    "superb",
    "fantastic",
}
BLAME = {"hated", "disaster", "worst", "awful", "bored", "terrible", "dreadful", "pathetic"}

_PRIOR, _WISH, _HISTORY = -2.0, 6.0, 1.0  # log-odds
_REFUSED, _TITLE = 30.0, 50.0  # of an item's score
_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo")


def make_catalogue(items: int = 200) -> Catalogue:
    """Films of one or two labels, with titles of two made-up words."""
    choices = random.Random(0)
    titles, labels = [], []
    for n in range(items):
        words = (
            "".join(choices.choice(_SYLLABLES) for _ in range(length)).title() for length in (3, 4)
        )
        titles.append(" ".join(words))
        labels.append(sorted({LABELS[n % len(LABELS)], choices.choice(LABELS)}))
    return Catalogue([f"i{n}" for n in range(items)], titles, labels, [None] * items)


def make_histories(catalogue: Catalogue, count: int = 40) -> list[list[Event]]:
    """Histories of ratings from one event to forty."""
    choices = random.Random(1)
    histories = []
    for n in range(1, count + 1):
        items = choices.sample(catalogue.items, n)
        histories.append(
            [
                Event("rate", item, 1_000_000 * at, choices.choice((0.0, 0.5, 1.0)))
                for at, item in enumerate(items)
            ]
        )
    return histories


class RuleReader:
    """What `understand` asks of a session.

    Args:
        reads: whether it reads what is searched and said.
        negates: whether a word of negation turns a wish round.
        signs: whether it counts what is hated and rejected against an item.
    """

    has_interests, has_sentiment, sentiment_threshold = True, False, 0.5

    def __init__(
        self, catalogue: Catalogue, reads: bool = True, negates: bool = True, signs: bool = True
    ) -> None:
        self.catalogue, self.labels = catalogue, LABELS
        self.reads, self.negates, self.signs = reads, negates, signs
        self.thresholds = np.full(len(LABELS), 0.5, np.float32)
        self._membership = catalogue.membership(LABELS)
        self._stems = {stem: k for k, label in enumerate(LABELS) for stem in STEMS[label].split()}
        self._words = {
            word: j for j, title in enumerate(catalogue.titles) for word in normalise(title).split()
        }
        self._find_stem = lru_cache(None)(lambda word: _closest(word, self._stems))
        self._find_word = lru_cache(None)(lambda word: _closest(word, self._words))

    def ranking_interests(self, histories: Sequence[Sequence[Event]]) -> Any:
        wishes, opinions, _ = self._evidence(histories)
        share = opinions @ self._membership / np.maximum(1, np.abs(opinions).sum(1, keepdims=True))
        return 1 / (1 + np.exp(-(_PRIOR + _WISH * wishes + 2 * _HISTORY * share)))

    def scores(self, histories: Sequence[Sequence[Event]], interests: Any) -> Any:
        wishes, opinions, titles = self._evidence(histories)
        by_label = (3 * wishes + 0.2 * opinions @ self._membership) @ self._membership.T
        refused = (wishes < 0).astype(float) @ self._membership.T
        popularity = np.linspace(0.3, 0, len(self.catalogue))
        return popularity + by_label - _REFUSED * refused + _TITLE * titles

    def confident(self, task: str, probabilities: Any) -> Any:
        return probabilities > 0.9

    def sentiment(self, texts: Sequence[str]) -> Any:
        raise AssertionError("it has no sentiment")

    def _evidence(self, histories: Sequence[Sequence[Event]]) -> tuple[Any, Any, Any]:
        """Wishes for labels [n, K], opinions of items [n, J], titles looked for [n, J]."""
        wishes = np.zeros((len(histories), len(LABELS)))
        opinions = np.zeros((len(histories), len(self.catalogue)))
        titles = np.zeros_like(opinions)
        for n, history in enumerate(histories):
            for event in history:
                if event.item is not None:
                    opinions[n, self.catalogue.index[event.item]] += self._opinion(event)
                elif event.text and self.reads:
                    self._read(event.text, wishes[n], titles[n])
        return wishes, opinions, titles

    def _opinion(self, event: Event) -> float:
        """From -1 to 1."""
        opinion = KINDS[event.kind].strength
        if event.value is not None:
            opinion *= 2 * event.value - 1
        elif event.text:
            words = set(normalise(event.text).split())
            opinion *= int(bool(words & PRAISE)) - int(bool(words & BLAME)) if self.reads else 0
        return opinion if self.signs else abs(opinion)

    def _read(self, text: str, wishes: Any, titles: Any) -> None:
        negated = text.lower().rstrip(" !🙏😊🍿").endswith("not for me")
        for word in normalise(text).split():
            if (j := self._find_word(word)) is not None:
                titles[j] += 1
            elif (k := self._find_stem(word)) is not None:
                wishes[k] = -1 if negated and self.negates else 1
            elif word in NEGATIONS or (word == "over" and "take" in text):
                negated = True


def _closest(word: str, words: dict[str, int]) -> int | None:
    """What the word stands for, or a word that one typing error makes of it."""
    if word in words or len(word) < 4:
        return words.get(word)
    return next((value for other, value in words.items() if _one_error(word, other)), None)


def _one_error(word: str, other: str) -> bool:
    if abs(len(word) - len(other)) == 1:
        short, long = sorted((word, other), key=len)
        return any(long[:at] + long[at + 1 :] == short for at in range(len(long)))
    if len(word) != len(other):
        return False
    differs = [at for at in range(len(word)) if word[at] != other[at]]
    return len(differs) == 2 and sorted(word[at] for at in differs) == sorted(
        other[at] for at in differs
    )
