"""A reader fitted to a catalogue, on searches made of phrases of our own writing.

The phrases are those of `tasteloop.language.training_phrases`, filled with the catalogue's labels
and titles. Nothing here knows of users, and no phrase that a model is tested with is read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.items import Catalogue
from tasteloop.language.intents import IntentTexts, intent_texts, spoken_in
from tasteloop.language.phrases import Phrases, normalise, search_for_title
from tasteloop.language.reader import (
    LABEL_FEATURES,
    Embed,
    Intents,
    Matrix,
    Reader,
    intent_features,
    label_names,
    spelling_of,
    unit,
)
from tasteloop.language.titles import FEATURES as TITLE_FEATURES
from tasteloop.language.titles import TitleIndex

_TITLES = 600  # searches for titles that their weights are fitted on
_TEMPLATES = 4  # that each phrase which means a label is said with
_STRENGTH = 10.0  # inverse regularisation


@dataclass(frozen=True)
class _Search:
    """A text with what it means.

    Attributes:
        label: the number of the label that is meant, and phrase: that of the phrase that says so;
            -1 where it means none.
        item: the position of the item whose title is named; -1 where none is.
    """

    text: str
    label: int = -1
    phrase: int = -1
    item: int = -1


def fit_reader(
    catalogue: Catalogue,
    labels: Sequence[str],
    vectors: Matrix,
    embed: Embed,
    intents: Intents,
    words: Sequence[str] = (),
    most: int = 6000,
    seed: int = 0,
) -> Reader:
    """Fit a reader of texts about a catalogue.

    Args:
        labels: the K interests.
        vectors: [J, d] of the items' texts by `embed`, of length 1.
        embed: texts -> vectors of length 1, by the encoder that texts will be read with.
        intents: clauses -> what they do, by the head that learned it from the other phrases.
        words: of the language, the most frequent first.
        most, seed: how many phrases the head learned, and with which seed they were chosen.
    """
    choices = random.Random(seed)
    spoken = spoken_in(catalogue)

    # 1. phrases that mean a label, and the items that bear it
    meant = [(k, phrase) for k, label in enumerate(labels) for phrase in _meaning(spoken, label)]
    membership = catalogue.membership(list(labels))
    share = membership / np.maximum(membership.sum(1, keepdims=True), 1)
    width = vectors.shape[1]
    said = embed([phrase for _, phrase in meant]) if meant else np.zeros((0, width), np.float32)
    reader = Reader(
        phrases=said,
        label_of_phrase=np.array([k for k, _ in meant], np.int32),
        items=unit(share.T @ vectors),
        label_weights=_deaf(len(LABEL_FEATURES)),
        intent_weights=_intent_weights(intent_texts(catalogue, labels, most, seed), intents),
        title_weights=_deaf(len(TITLE_FEATURES)),
        names=label_names(catalogue, labels),
        titles=TitleIndex.of(catalogue.titles),
        spelling=spelling_of(catalogue, labels, words),
    )

    # 2. how near is near: weights of the features of labels and of titles
    of_labels = list(_label_searches(spoken, meant, choices))
    of_titles = list(_title_searches(spoken, catalogue, choices))
    errands = [_Search(errand) for phrases in spoken for errand in phrases.errands]
    return replace(
        reader,
        label_weights=_label_weights(reader, [*of_labels, *errands], meant, embed),
        title_weights=_title_weights(reader, [*of_titles, *of_labels, *errands]),
    )


def _deaf(features: int) -> Matrix:
    """Weights by which nothing is probable."""
    return np.append(np.zeros(features, np.float32), np.float32(-20))


def _meaning(spoken: Sequence[Phrases], label: str) -> Iterator[str]:
    """The label's name, and what people say who mean it."""
    for phrases in spoken:
        yield phrases.label(label)
        yield from phrases.subjects.get(label, ())


def _label_searches(
    spoken: Sequence[Phrases], meant: Sequence[tuple[int, str]], choices: random.Random
) -> Iterator[_Search]:
    """Each phrase that means a label, alone and in searches that want or refuse it."""
    for phrases in spoken:
        templates = [*phrases.wishes, *phrases.refusals]
        for n, (k, phrase) in enumerate(meant):
            chosen = choices.sample(templates, min(_TEMPLATES, len(templates)))
            for template in ("{label}", *chosen):
                yield _Search(template.format(label=phrase), label=k, phrase=n)


def _title_searches(
    spoken: Sequence[Phrases], catalogue: Catalogue, choices: random.Random
) -> Iterator[_Search]:
    """Titles, whole, half or mistyped, alone and in searches for them."""
    titled = [item for item, title in enumerate(catalogue.titles) if title]
    for phrases in spoken:
        for _ in range(_TITLES if titled else 0):
            item = choices.choice(titled)
            text = search_for_title(catalogue.titles[item], phrases, choices)
            yield _Search(text, item=item)


def _intent_weights(found: IntentTexts, intents: Intents) -> Matrix:
    """[5, 2] of what the head says and of cues, fitted on phrases that the head did not learn."""
    held = np.flatnonzero(found.is_validation)
    texts, does = [found.texts[n] for n in held], found.does[held]
    if not texts or (does.min(0) == does.max(0)).any():
        plain = np.zeros((5, 2), np.float32)  # the head's own log-odds
        plain[0, 0] = plain[1, 1] = 1
        return plain
    x = intent_features(texts, intents(texts))
    return np.stack([_logistic(x, does[:, n]) for n in range(2)], 1)


def _label_weights(
    reader: Reader, searches: Sequence[_Search], meant: Sequence[tuple[int, str]], embed: Embed
) -> Matrix:
    """[F + 1] of a label's features, shared by all labels.

    A phrase is not compared with itself, as what people say is seldom one of ours. A label's name
    is, and so it is read both ways.
    """
    if not reader.names:
        return reader.label_weights
    is_name = [normalise(phrase) in reader.names for _, phrase in meant]
    named = [replace(s, phrase=-1) for s in searches if s.phrase >= 0 and is_name[s.phrase]]
    read = [*searches, *named]
    texts = [search.text for search in read]
    x = reader.label_features(texts, embed(texts), [search.phrase for search in read])
    y = np.array([s.label for s in read])[:, None] == np.arange(len(reader.names))
    return _logistic(x.reshape(-1, x.shape[2]), y.ravel())


def _title_weights(reader: Reader, searches: Sequence[_Search]) -> Matrix:
    """[F + 1] of a title's features."""
    x: list[Matrix] = []
    y: list[NDArray[np.bool_]] = []
    for search in searches:
        positions, features = reader.titles.compare(reader.spelling.correct(search.text))
        x.append(features)
        y.append(positions == search.item)
    is_named = np.concatenate(y)
    return _logistic(np.concatenate(x), is_named) if is_named.any() else reader.title_weights


def _logistic(x: Matrix, y: NDArray[Any]) -> Matrix:
    """[F + 1] weights of a logistic regression, the intercept last."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=_STRENGTH, max_iter=500).fit(x, y)
    return np.append(fitted.coef_[0], fitted.intercept_[0]).astype(np.float32)
