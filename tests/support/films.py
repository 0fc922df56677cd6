"""Films, and what stands in place of an encoder where it is not the point: texts are compared by
the words that they share, and what a clause does is known of the training phrases, and told by its
cues of others.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np

from tasteloop.behaviour.items import Catalogue
from tasteloop.language.clauses import cues
from tasteloop.language.intents import intent_texts
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


@cache
def catalogue() -> Catalogue:
    return Catalogue(
        [f"f{n}" for n in range(len(FILMS))],
        list(FILMS),
        [[label] for label in FILMS.values()],
        [None] * len(FILMS),
    )


@cache
def learned() -> dict[str, np.ndarray]:
    """What the training phrases do, filled with the films: [2] of 0 and 1."""
    found = intent_texts(catalogue(), LABELS, most=10**6)
    return dict(zip(found.texts, found.does, strict=True))


def intents(clauses: Sequence[str]) -> np.ndarray:
    """[n, 2] what clauses do: what was learned; others refuse by their cues, or want something."""
    refuses = [word and not turn for word, turn in map(cues, clauses)]
    told = [
        learned().get(clause, np.array([not refused, refused]))
        for clause, refused in zip(clauses, refuses, strict=True)
    ]
    return np.clip(np.array(told, np.float32).reshape(-1, 2), 0.03, 0.97)


def position(title: str) -> int:
    return list(FILMS).index(title)
