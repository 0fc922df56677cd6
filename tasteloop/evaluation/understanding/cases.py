"""What a model is asked, as data: a case, and the material that cases are made of.

Material comes from the snapshots: labels, titles and histories of the test window, and the phrases
of the languages that these texts are in. Choices are spread evenly, so that every label, phrase and
history is used about as often as any other, whatever the seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.evaluation.understanding.testing_phrases import TESTING
from tasteloop.language.phrases import (
    LANGUAGES,
    Phrases,
    languages_of,
    normalise,
)
from tasteloop.language.plots import FEWEST_WORDS, Plots

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

History = tuple[Event, ...]

HISTORIES = 16  # that cases begin with; the first is empty
_A_MINUTE = 60_000_000  # µs between a history and what is then said
_LABEL_ITEMS = 5  # a label that fewer items bear is not asked for: chance would decide
_KIN = 0.5  # two items are kin from this share of their labels in common (Jaccard)
_FEWEST_KIN, _MOST_KIN = 5, 0.25  # items; of the catalogue: kin of all the world say nothing
_TELLING = 400  # items whose kin or texts are looked at; more than any kind of case needs
_TITLE_LETTERS = 4  # a shorter title is no name that can be half remembered
_NAMELESS = {
    "unknown",
    "other",
    "others",
    "misc",
    "none",
    "n/a",
    "no genres listed",
    "其他",
    "未知",
}


@dataclass(frozen=True)
class Case:
    """One question, whose answers to some histories are compared, or a statement's sentiment.

    Attributes:
        kind: the name of its kind in `kinds.KINDS`.
        says: what the user did, as the beginning of a sentence.
        unit: the phrase, or the history; cases of one unit are resampled together.
        language: of the phrase; "" where there are no words.
        histories: what the model is asked about, the one to compare with first.
        label: the label it is about.
        item: the position of the item that must be found; kin_of: of the one whose kin are looked
            at.
        text, favourable: a statement, and the truth about it.
    """

    kind: str
    says: str
    unit: str
    language: str = ""
    histories: tuple[History, ...] = ()
    label: str = ""
    item: int | None = None
    kin_of: int | None = None
    text: str = ""
    favourable: bool = False


@dataclass(frozen=True)
class Material:
    """What cases are made of.

    Attributes:
        labels: the interest labels of the data.
        histories: what cases begin with, the first of them empty.
        phrases: of the languages of the catalogue; foreign_phrases: of all others.
        review_phrases, foreign_review_phrases: the same, of the reviews.
    """

    catalogue: Catalogue
    labels: Sequence[str]
    histories: Sequence[History]
    phrases: Sequence[Phrases]
    foreign_phrases: Sequence[Phrases]
    review_phrases: Sequence[Phrases]
    foreign_review_phrases: Sequence[Phrases]
    seed: int = 0

    @classmethod
    def of(
        cls,
        catalogue: Catalogue,
        labels: Sequence[str],
        histories: Sequence[Sequence[Event]],
        reviews: Sequence[str],
        seed: int,
    ) -> Material:
        """From the test window; `histories` in any order, `reviews` their texts."""
        read = languages_of([*catalogue.titles, *(text for text in catalogue.texts if text)])
        reviewed = languages_of(list(reviews)) if reviews else read
        return cls(
            catalogue=catalogue,
            labels=labels,
            histories=_evenly_by_length(histories, HISTORIES),
            phrases=[TESTING[language] for language in read],
            foreign_phrases=[TESTING[each] for each in LANGUAGES if each not in read],
            review_phrases=[TESTING[language] for language in reviewed],
            foreign_review_phrases=[TESTING[each] for each in LANGUAGES if each not in reviewed],
            seed=seed,
        )

    def random(self, kind: str) -> random.Random:
        """The choices of one kind, so that another kind changes nothing about them."""
        return random.Random(f"{self.seed} {kind}")

    @cached_property
    def membership(self) -> NDArray[np.float32]:
        """[J, K]: 1 where an item bears a label."""
        return self.catalogue.membership(list(self.labels))

    @cached_property
    def named_labels(self) -> list[str]:
        """The labels that say something, and that several items bear."""
        counts = self.membership.sum(0)
        return [
            label
            for label, count in zip(self.labels, counts, strict=True)
            if count >= _LABEL_ITEMS and normalise(label) not in _NAMELESS
        ]

    def kin(self, item: int) -> NDArray[np.int64]:
        """Positions of the other items that share at least half of the labels."""
        import numpy as np

        own = self.membership[item]
        shared = self.membership @ own
        union = self.membership.sum(1) + own.sum() - shared
        kin = np.flatnonzero(shared >= _KIN * np.maximum(union, 1))
        return np.asarray(kin[kin != item], np.int64)

    @cached_property
    def telling_items(self) -> list[int]:
        """Items with some kin and not too many, in random order."""
        positions = [j for j in range(len(self.catalogue)) if self.membership[j].any()]
        self.random("items").shuffle(positions)
        most = _MOST_KIN * len(self.catalogue)
        telling = (j for j in positions if _FEWEST_KIN <= len(self.kin(j)) <= most)
        return [item for item, _ in zip(telling, range(_TELLING), strict=False)]

    @cached_property
    def titled_items(self) -> list[int]:
        """Items with a title that no other bears, in random order."""
        names = [normalise(title or "") for title in self.catalogue.titles]
        counts: dict[str, int] = {}
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        positions = [
            j for j, name in enumerate(names) if len(name) >= _TITLE_LETTERS and counts[name] == 1
        ]
        self.random("titles").shuffle(positions)
        return positions

    @cached_property
    def plots(self) -> Plots:
        """What the items' texts say, for searches by it."""
        return Plots(self.catalogue.titles, self.catalogue.texts)

    @cached_property
    def plotted_items(self) -> list[int]:
        """Items whose text can be told from all others by a few of its words, in random order."""
        positions = [j for j, text in enumerate(self.catalogue.texts) if text]
        self.random("plots").shuffle(positions)
        plotted = (j for j in positions if self.plots.rarest_words(j, FEWEST_WORDS))
        return [item for item, _ in zip(plotted, range(_TELLING), strict=False)]

    @cached_property
    def _items_of_word(self) -> dict[str, set[int]]:
        items: dict[str, set[int]] = {}
        for j, title in enumerate(self.catalogue.titles):
            for word in normalise(title or "").split():
                items.setdefault(word, set()).add(j)
        return items

    def half_title(self, item: int) -> str | None:
        """The fewest neighbouring words of a title, not all, that are in no other; None where there
        are none.
        """
        words = normalise(self.catalogue.titles[item]).split()
        for length in range(1, len(words)):
            for start in range(len(words) - length + 1):
                part = words[start : start + length]
                alone = set.intersection(*(self._items_of_word[word] for word in part)) == {item}
                if alone and len("".join(part)) >= _TITLE_LETTERS:
                    return " ".join(part)
        return None


def _evenly_by_length(histories: Sequence[Sequence[Event]], count: int) -> list[History]:
    """The empty history, and others from short to long, one of each equal part of them; the same
    whatever the seed, so that seeds differ in phrases, labels and items alone.
    """
    choices = random.Random(0)
    lengths = [len(history) for history in histories]
    ordered = sorted(range(len(lengths)), key=lengths.__getitem__)
    parts = count - 1
    chosen: list[History] = [()]
    for part in range(parts):
        within = ordered[len(ordered) * part // parts : len(ordered) * (part + 1) // parts]
        if within:
            chosen.append(tuple(histories[choices.choice(within)]))
    return chosen


def then(history: History, *events: Event) -> History:
    """A history and what is done a minute later; without times where it has none."""
    last = max((event.time for event in history if event.time is not None), default=None)
    timed = last is not None and all(event.time is not None for event in history)
    time = last + _A_MINUTE if timed and last is not None else None
    return (*history, *(replace(event, time=time) for event in events))


def searched(history: History, text: str) -> History:
    return then(history, Event("search", text=text))


def after(history: History) -> str:
    """How a sentence about a history begins."""
    if not history:
        return "Without a history"
    return "After one event" if len(history) == 1 else f"After {len(history)} events"


def spread(choices: random.Random, count: int, *lists: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """`count` combinations of one entry of each list, in which every entry of a list is as frequent
    as any other of it; none where a list is empty.

    >>> pairs = list(spread(random.Random(0), 4, ["a", "b"], [1, 2, 3, 4]))
    >>> sorted(letter for letter, _ in pairs), sorted(number for _, number in pairs)
    (['a', 'a', 'b', 'b'], [1, 2, 3, 4])
    """
    if not all(lists):
        return
    columns = []
    for entries in lists:
        column: list[Any] = []
        while len(column) < count:
            column += choices.sample(list(entries), len(entries))
        column = column[:count]
        choices.shuffle(column)
        columns.append(column)
    yield from zip(*columns, strict=True)
