"""Films, and what stands in place of an encoder where it is not the point: texts are compared by
the words that they share, and what a clause does is told by its cues.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np

from tasteloop.language.clauses import cues
from tasteloop.language.phrases import normalise

LABELS = ["Comedy", "Crime", "Horror", "Western"]
FILMS = {
    "Airplane!": "Comedy",
    "Groundhog Day": "Comedy",
    "Dumb and Dumber": "Comedy",
    "Some Like It Hot": "Comedy",
    "The Big Lebowski": "Comedy",
    "Heat": "Crime",
    "Pulp Fiction": "Crime",
    "No Country for Old Men": "Crime",
    "Reservoir Dogs": "Crime",
    "Carlito's Way": "Crime",
    "Scream": "Horror",
    "The Shining": "Horror",
    "Poltergeist": "Horror",
    "Night of the Living Dead": "Horror",
    "Unforgiven": "Western",
    "Dances with Wolves": "Western",
    "Stagecoach": "Western",
    "Once Upon a Time in the West": "Western",
}
WIDTH = 96


@cache
def vector_of(word: str) -> np.ndarray:
    """[96] the direction of a word, the same everywhere."""
    stem = word.removesuffix("s")
    return np.random.default_rng(zlib.crc32(stem.encode())).standard_normal(WIDTH)


def embed(texts: Sequence[str]) -> np.ndarray:
    """[n, 96] of length 1: texts that share words are near."""
    rows = [
        np.sum([vector_of(word) for word in normalise(text).split()] or [np.ones(WIDTH)], 0)
        for text in texts
    ]
    vectors = np.array(rows, np.float32).reshape(-1, WIDTH)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def intents(clauses: Sequence[str]) -> np.ndarray:
    """[n, 2] what clauses do: they refuse by their cues, and want something else."""
    refuses = np.array([word and not turn for word, turn in map(cues, clauses)], bool)
    wants = np.where(refuses, 0.03, 0.97)
    return np.stack([wants, 1 - wants], 1).astype(np.float32)


def position(title: str) -> int:
    return list(FILMS).index(title)
