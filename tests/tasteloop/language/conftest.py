"""A reader of texts about a few films, fitted in a second."""

from __future__ import annotations

import pytest

from tasteloop.behaviour.items import Catalogue
from tasteloop.language.fitting import fit_reader
from tasteloop.language.reader import Reader
from tests.support.films import FILMS, LABELS, catalogue, embed, intents


@pytest.fixture(scope="session")
def films() -> Catalogue:
    return catalogue()


@pytest.fixture(scope="session")
def reader(films: Catalogue) -> Reader:
    texts = [f"{title} {label}" for title, label in FILMS.items()]
    words = ["find", "watch", "something", "tonight", "please", "the", "movie", "show"]
    return fit_reader(films, LABELS, embed(texts), embed, intents, words, most=1500)
