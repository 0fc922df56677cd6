"""What a user remembers of an item's text: words that say what it is about, without any name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from tasteloop.language.phrases import normalise

FEWEST_WORDS, MOST_WORDS = 3, 6  # that are remembered; fewer say little of a plot
_CLAUSE_WORDS = 12  # of a clause: a search is seldom longer
_LETTERS = 4  # shorter words are mostly those that every text has
_CLAUSE_ENDS = re.compile(r"[,.;:!?()\"“”—–]| - ")
_WORD = re.compile(r"[^\W\d_]+")


class Plots:
    """The texts of all items, for phrases that point at one of them.

    A name is a word that no text writes in lower case. Words of languages that put no spaces
    between them cannot be told apart: of such texts nothing is remembered.

    >>> texts = ["A cowboy doll meets Woody.", "A doll house burns down.", "The cowboy rides west."]
    >>> plots = Plots(["Toy Story", "Inferno", "Ride"], texts)
    >>> plots.rarest_words(0, 3), plots.first_clause(1), plots.rarest_words(2, 3)
    ('cowboy doll meets', 'doll house burns down', 'cowboy rides west')
    """

    def __init__(self, titles: Sequence[str], texts: Sequence[str | None]) -> None:
        self._titles = titles
        self._texts = [text or "" for text in texts]

    def rarest_words(self, item: int, count: int) -> str | None:
        """The `count` words of a text that the fewest others have, in its order, or as many more as
        no other text has together; None where `MOST_WORDS` do not suffice.
        """
        words = [
            word for word in self._plain_words(self._texts[item], item) if len(word) >= _LETTERS
        ]
        words = list(dict.fromkeys(words))
        rarest = sorted(words, key=lambda word: len(self._items_of_word[word]))  # stable
        for length in range(count, MOST_WORDS + 1):
            chosen = set(rarest[:length])
            if len(chosen) == length and self._is_alone(chosen, item):
                return " ".join(word for word in words if word in chosen)
        return None

    def first_clause(self, item: int) -> str | None:
        """The first clause of a text that is left with enough words, if no other text has them all;
        None otherwise.
        """
        for clause in _CLAUSE_ENDS.split(self._texts[item]):
            words = self._plain_words(clause, item)[:_CLAUSE_WORDS]
            if len({word for word in words if len(word) >= _LETTERS}) >= FEWEST_WORDS:
                return " ".join(words) if self._is_alone(set(words), item) else None
        return None

    def _plain_words(self, text: str, item: int) -> list[str]:
        """Words in lower case, without names and without those of the item's title."""
        title = set(normalise(self._titles[item] or "").split())
        words = [word.lower() for word in _WORD.findall(text)]
        return [
            word for word in words if word in self._items_of_word and normalise(word) not in title
        ]

    def _is_alone(self, words: set[str], item: int) -> bool:
        return set.intersection(*(self._items_of_word[word] for word in words)) == {item}

    @cached_property
    def _items_of_word(self) -> dict[str, set[int]]:
        """By word, of those that a text writes in lower case: the items whose texts have it."""
        items: dict[str, set[int]] = {}
        plain: set[str] = set()
        for item, text in enumerate(self._texts):
            for word in _WORD.findall(text):
                items.setdefault(word.lower(), set()).add(item)
                if word == word.lower():
                    plain.add(word)
        return {word: items[word] for word in plain}
