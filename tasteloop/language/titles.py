"""Titles that a text names, whole, half remembered or mistyped.

Titles and texts are compared by their words and by the runs of three letters in them, so that one
typing error leaves most of a title in common. Rare runs count for more (inverse document frequency:
Spärck Jones 1972). How probable it is that a text means a title follows from how much of each is
found in the other, by a logistic regression on searches made of other titles
(`tasteloop.language.fitting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasteloop.language.phrases import normalise

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Matrix = NDArray[np.float32]

CANDIDATES = 16  # titles that share the most with a text, which alone are looked at
_ARTICLES = frozenset({"the", "a", "an", "le", "la", "les", "il", "el", "das", "der", "die"})
_GRAM = 3
FEATURES = ("of the title", "of the text", "whole words", "ahead of the next", "length")


@dataclass(frozen=True)
class TitleIndex:
    """The titles of a catalogue, ready to be compared with texts.

    Attributes:
        gram_of: number of each gram; idf: [G] how rare it is among the titles.
        by_gram: [G, J] sparse, 1 where a title holds a gram.
        total: [J] the sum of a title's idf.
        names: [J] the titles, normalised; "" where there is none.
    """

    gram_of: dict[str, int]
    idf: Matrix
    by_gram: csr_array
    total: Matrix
    names: Sequence[str]

    @classmethod
    def of(cls, titles: Sequence[str | None]) -> TitleIndex:
        from scipy.sparse import csr_array

        names = [name_of(title or "") for title in titles]
        grams = [sorted(_grams(name)) for name in names]
        gram_of = {gram: n for n, gram in enumerate(sorted({g for each in grams for g in each}))}
        columns = np.array([gram_of[gram] for each in grams for gram in each], np.int64)
        rows = np.repeat(np.arange(len(grams)), [len(each) for each in grams])
        count = np.bincount(columns, minlength=len(gram_of))
        idf = np.log1p(len(titles) / np.maximum(count, 1)).astype(np.float32)
        shape = (len(gram_of), len(titles))
        by_gram = csr_array((np.ones(len(rows), np.float32), (columns, rows)), shape=shape)
        total = np.bincount(rows, idf[columns], minlength=len(titles)).astype(np.float32)
        return cls(gram_of, idf, by_gram, total, names)

    def compare(self, text: str) -> tuple[NDArray[np.int64], Matrix]:
        """The titles that share the most with a text: positions [c], and `FEATURES` [c, 5]."""
        words = name_of(text)
        grams = _grams(words)
        found = [self.gram_of[gram] for gram in grams if gram in self.gram_of]
        unknown = len(grams) - len(found)
        if not found:
            return np.zeros(0, np.int64), np.zeros((0, len(FEATURES)), np.float32)

        # 1. the idf that each title shares with the text
        picked = self.by_gram[found]
        shared = np.asarray(self.idf[found] @ picked, np.float32)
        most = min(CANDIDATES, len(self.names))
        score = shared**2 / np.maximum(self.total, 1e-9)
        best = np.argpartition(-score, most - 1)[:most]
        best = best[np.lexsort((best, -score[best]))]
        best = best[shared[best] > 0]

        # 2. how much that is of the title, and of the text
        rare = float(np.log1p(len(self.names)))  # a gram that no title holds
        of_text = shared[best] / (self.idf[found].sum() + rare * unknown)
        of_title = shared[best] / self.total[best]
        padded = f" {words} "
        whole = [f" {self.names[j]} " in padded for j in best]
        ahead = np.array(
            [of_title[n] - np.delete(of_title, n).max(initial=0) for n in range(len(best))]
        )
        length = np.log1p(self.total[best])
        features = np.stack([of_title, of_text, np.array(whole, float), ahead, length], 1)
        return best, features.astype(np.float32)


def name_of(title: str) -> str:
    """A title as it is compared: normalised, without its article.

    >>> name_of("The Matrix"), name_of("Matrix, The")
    ('matrix', 'matrix')
    """
    words = normalise(title).split()
    if len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    if len(words) > 1 and words[-1] in _ARTICLES:
        words = words[:-1]
    return " ".join(words)


def _grams(name: str) -> set[str]:
    """The words of a name, and the runs of three letters in each with its borders."""
    grams = set(name.split())
    for word in list(grams):
        padded = f"^{word}$"
        grams.update(f"~{padded[n : n + _GRAM]}" for n in range(len(padded) - _GRAM + 1))
    return grams
