"""Typing errors: a word that nobody knows, one error away from one that somebody does.

One error is a letter too many, too few or another, or two exchanged (Damerau 1964). Known are the
words of the encoder's vocabulary, the most frequent first, and those of the catalogue, which come
before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SHORTEST = 4  # letters; of a shorter word every second one is an error of another
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Spelling:
    """Known words.

    Attributes:
        own: of the catalogue and its labels, lower case.
        common: of the language, each with its rank, 0 the most frequent.
    """

    own: frozenset[str]
    common: Mapping[str, int]

    @classmethod
    def of(cls, texts: Iterable[str], common: Iterable[str]) -> Spelling:
        """From texts of the catalogue, and the words of a language, the most frequent first."""
        own = {word for text in texts for word in _WORD.findall(text.lower())}
        ranked = dict.fromkeys(word for word in common if word.isascii() and word.isalpha())
        return cls(frozenset(own), {word: rank for rank, word in enumerate(ranked)})

    def correct(self, text: str) -> str:
        """The text in lower case, unknown words replaced by what they are one error away from.

        >>> Spelling.of(["Jurassic Park"], ["find", "the"]).correct("find Jurasisc Park")
        'find jurassic park'
        """
        return _WORD.sub(lambda match: self.word(match[0]), text.lower())

    def word(self, word: str) -> str:
        """A known word that is one error away, or the word itself."""
        if len(word) < _SHORTEST or word in self.own or word in self.common:
            return word
        found = {each for each in _one_error(word) if len(each) >= _SHORTEST - 1}
        if own := sorted(found & self.own):
            return min(own, key=lambda each: (self.common.get(each, len(self.common)), each))
        known = [each for each in found if each in self.common]
        return min(known, key=lambda each: self.common[each], default=word)


def _one_error(word: str) -> Iterator[str]:
    """Every string of letters that is one error away from a word."""
    for n in range(len(word) + 1):
        before, after = word[:n], word[n:]
        if after:
            yield before + after[1:]
            yield from (before + letter + after[1:] for letter in _LETTERS)
        if len(after) > 1:
            yield before + after[1] + after[0] + after[2:]
        yield from (before + letter + after for letter in _LETTERS)
