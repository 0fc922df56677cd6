"""A model of rules that understands what the tests of understanding ask, and some with a fault.

It knows words of each film label, the words of titles and of texts, turns a label round after a
word of negation, and gives each kind of behaviour its sign and its strength. Of a statement it
knows words that praise or blame and what turns them round; where it knows none, it is not sure.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tasteloop.answers import SENTIMENT
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.kinds import KINDS
from tasteloop.language.phrases import normalise

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

# of statements: words that decide, and words each of which turns the whole clause round
FAVOURABLE = (
    "like liked worth pleasantly good adore gem praise buy again exceeded great won delightful magnificent redeeming "
    "smiling exciting clever best beautifully treat charm superb enjoyed favourite fun love charming impressive "
    "recommend joy glad entertaining well stunning please pleasure sit"
)
UNFAVOURABLE = (
    "bad dull complain criticise fault regret regrets poor doubts disappointed disappointing weak boring pointless "
    "worst badly letdown shoddy disliked bored lifeless sloppy torture sorry poorly ugly lost hollow dreadful fell "
    "yawning down mess"
)
OPINIONS = dict.fromkeys(FAVOURABLE.split(), 1) | dict.fromkeys(UNFAVOURABLE.split(), -1)
COMPARISONS = {"better": 1, "worse": -1}  # "could not be better" is better than good
TURNING = "not no never nothing nobody isn't can't couldn't didn't don't won't far hard stop fails"
_CLAUSE_ENDS = re.compile(r",|\b(?:but|yet|then)\b")

_PRIOR, _WISH, _HISTORY = -2.0, 6.0, 1.0  # log-odds
_REFUSED, _TITLE, _PLOT = 30.0, 50.0, 20.0  # of an item's score
_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo")
_PLOT_SYLLABLES = ("blor", "drax", "glyn", "hux", "jazz", "quel", "skov", "wynd", "yerm", "zolt")


def make_catalogue(items: int = 200) -> Catalogue:
    """Films of one or two labels, with titles of two made-up words, and texts of a dozen others in
    two clauses, with a name.
    """
    choices, plots = random.Random(0), random.Random(2)
    titles, labels, texts = [], [], []
    for n in range(items):
        words = (
            "".join(choices.choice(_SYLLABLES) for _ in range(length)).title() for length in (3, 4)
        )
        titles.append(" ".join(words))
        labels.append(sorted({LABELS[n % len(LABELS)], choices.choice(LABELS)}))
        plot = ["".join(plots.choices(_PLOT_SYLLABLES, k=3)) for _ in range(12)]
        texts.append(f"{' '.join(plot[:6])}, {' '.join(plot[6:])}. With Harriet.")
    return Catalogue([f"i{n}" for n in range(items)], titles, labels, texts)


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
        remembers: whether it knows what the items' texts say.
        turns: whether a word of negation turns a statement round.
        doubts: whether it is not sure of a statement of which it knows no word.
    """

    has_interests, has_sentiment, sentiment_threshold = True, True, 0.5

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        reads: bool = True,
        negates: bool = True,
        signs: bool = True,
        remembers: bool = True,
        turns: bool = True,
        doubts: bool = True,
    ) -> None:
        self.catalogue, self.labels = catalogue, LABELS
        self.reads, self.negates, self.signs = reads, negates, signs
        self.remembers, self.turns, self.doubts = remembers, turns, doubts
        self.thresholds = np.full(len(LABELS), 0.5, np.float32)
        self._membership = catalogue.membership(LABELS)
        self._stems = {stem: k for k, label in enumerate(LABELS) for stem in STEMS[label].split()}
        self._words = {
            word: j for j, title in enumerate(catalogue.titles) for word in normalise(title).split()
        }
        self._items_of_word: dict[str, list[int]] = {}
        for j, text in enumerate(catalogue.texts):
            for word in set(normalise(text or "").split()):
                self._items_of_word.setdefault(word, []).append(j)
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
        if task == SENTIMENT:
            return (np.abs(probabilities - 0.5) > 0.4) | (not self.doubts)
        return probabilities > 0.9

    def sentiment(self, texts: Sequence[str]) -> Any:
        return np.array([self._favour(text) for text in texts])

    def _favour(self, text: str) -> float:
        """The probability that a statement is favourable: its last clause with a known word says
        it; without any it is taken to be so, and not surely.
        """
        for clause in reversed(_CLAUSE_ENDS.split(text.lower())):
            words = re.findall(r"[a-z']+", clause)
            turns = self.turns and sum(word in TURNING.split() for word in words) % 2
            sign = -1 if turns else 1
            opinion = sign * sum(OPINIONS.get(word, 0) for word in words)
            compared = sum(COMPARISONS.get(word, 0) for word in words)
            opinion += compared * (sign if "never" in words else 1)
            if opinion:
                return 0.99 if opinion > 0 else 0.01
        return 0.6

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
            elif self.remembers and word in self._items_of_word:
                titles[self._items_of_word[word]] += _PLOT / _TITLE
            elif (k := self._find_stem(word)) is not None:
                wishes[k] = -1 if negated and self.negates else 1
            elif word in NEGATIONS or (word == "over" and "take" in text.split()):
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
