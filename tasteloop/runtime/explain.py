"""Why: an answer taken apart into what it was made of, so that the parts add up to it.

A recommendation's score is the sum of its terms, and each term but popularity is a sum too: of
labels (interest, taste) or of events of the history (all others). With the deviation by which a
term was standardised held fixed, the parts add up to the term exactly.

An interest's probability is no sum, since BERT reads all events together. Its events are therefore
added one by one and what each changes is counted, in several orders, of which the mean is taken: a
sampled Shapley value (Štrumbelj and Kononenko 2010, https://jmlr.org/papers/v11/strumbelj10a.html).
In every order the changes add up to the difference between the probability and that of a user
without history, so their mean does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.answers import INTERESTS, RECOMMEND, K, explained_models
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.text import in_order
from tasteloop.errors import TasteloopError
from tasteloop.recommender.folding import FoldedHistories
from tasteloop.runtime.session import Session

Matrix = NDArray[np.float32]
_OF_LABELS = ("interest", "taste")
_OF_LIKED = ("content", "collaborative", "factors_liked")
_LABELS = 5  # that are explained where the question does not say
# the newest events are told one by one, what is older together: it hardly reaches the text
_PARTS = 32


def explain(
    session: Session, model: str, questions: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Explanations of a model's answers, one a question.

    Args:
        session: the bundle's.
        model: interests or recommend.
        questions: as `runtime.parse` checked them; `k` is how many labels or items, by default 5
            and 10.

    Returns:
        recommend: {"recommendations": [{"item", "title", "score", "terms": [{"term",
        "contribution", "parts": [{"label" or "event", "contribution"}]}]}]}; interests:
        {"interests": [{"label", "probability", "baseline", "parts": [{"events": [..],
        "contribution"}]}]}. An event is told by its place in the question. Parts are ordered by
        size.

    Raises:
        TasteloopError: a model that has no explanation.
    """
    if model not in explained_models():
        known = ", ".join(explained_models())
        raise TasteloopError(f"{model} has no explanation; those that have: {known}")
    explain_one = EXPLAIN[model]
    return [explain_one(session, question["events"], question["k"]) for question in questions]


def _places(history: Sequence[Event], limit: int) -> list[int]:
    """Where the events that count as the history are in the question, oldest first."""
    place = {id(event): n for n, event in enumerate(history)}
    return [place[id(event)] for event in in_order(history, limit)]


# --- interests


def _interests(session: Session, history: Sequence[Event], k: int | None) -> dict[str, Any]:
    places = _places(history, session.text.history_limit)
    older, newest = places[:-_PARTS], places[-_PARTS:]
    players = ([older] if older else []) + [[place] for place in newest]
    contributions, baseline, whole = _shapley(session, history, players)
    return {
        "interests": [
            {
                "label": session.labels[label],
                "probability": float(whole[label]),
                "baseline": float(baseline[label]),
                "parts": [
                    {"events": players[p], "contribution": float(contributions[p, label])}
                    for p in np.argsort(-np.abs(contributions[:, label]), kind="stable")
                ],
            }
            for label in np.argsort(-whole, kind="stable")[: k or _LABELS]
        ]
    }


def _shapley(
    session: Session, history: Sequence[Event], players: Sequence[Sequence[int]]
) -> tuple[NDArray[np.float64], Matrix, Matrix]:
    """Contributions [players, K], and the probabilities [K] without and with all of them.

    The orders are as it happened, backwards, and a seeded shuffle in both directions.
    """
    count = len(players)
    shuffled = np.random.default_rng(0).permutation(count)
    orders = [np.arange(count), np.arange(count)[::-1], shuffled, shuffled[::-1]]
    steps = [frozenset(int(p) for p in order[:n]) for order in orders for n in range(count + 1)]
    sets = {step: n for n, step in enumerate(dict.fromkeys(steps))}
    probabilities = session.interests(
        [[history[place] for p in sorted(chosen) for place in players[p]] for chosen in sets]
    )
    contributions = np.zeros((count, len(session.labels)))
    for order in orders:
        path = probabilities[[sets[frozenset(int(p) for p in order[:n])] for n in range(count + 1)]]
        contributions[order] += np.diff(path.astype(np.float64), axis=0) / len(orders)
    return (
        contributions,
        probabilities[sets[frozenset()]],
        probabilities[sets[frozenset(range(count))]],
    )


# --- recommend


def _recommendations(session: Session, history: Sequence[Event], k: int | None) -> dict[str, Any]:
    interests = session.ranking_interests([history])
    [ranked] = session.rank([history], interests, k or K)
    positions = [session.catalogue.index[r.item] for r in ranked]
    parts = _parts(session, history, interests, positions)
    return {
        "recommendations": [
            {
                "item": r.item,
                "title": r.title,
                "score": r.score,
                "terms": [
                    {
                        "term": term,
                        "contribution": value,
                        "parts": parts[term][n] if term in parts else [],
                    }
                    for term, value in sorted(r.terms.items(), key=lambda pair: -pair[1])
                ],
            }
            for n, r in enumerate(ranked)
        ]
    }


def _parts(
    session: Session, history: Sequence[Event], interests: Matrix, positions: Sequence[int]
) -> dict[str, list[list[dict[str, Any]]]]:
    """By term, for each position the parts of its contribution, largest first."""
    recommender = session.recommender
    assert recommender is not None, "a sealed bundle has a recommender"
    folded = FoldedHistories.of([history], session.catalogue, recommender.decay, session.text)
    liked, seen = _events(session, history)
    out = {}
    for term, parts in recommender.explain(folded, interests, positions).items():
        if term in _OF_LABELS:
            labels = session.labels if term == "interest" else session.catalogue.label_names
            names: list[dict[str, Any]] = [{"label": labels[k]} for k in parts.sources]
        else:
            events = liked if term in _OF_LIKED else seen
            names = [{"event": events[int(item)]} for item in parts.sources]
        out[term] = [
            [
                {**names[p], "contribution": float(column[p])}
                for p in np.argsort(-np.abs(column), kind="stable")
                if column[p] != 0
            ]
            for column in parts.contributions.T
        ]
    return out


def _events(session: Session, history: Sequence[Event]) -> tuple[dict[int, int], dict[int, int]]:
    """Position of each item -> place of its newest positive event, and of its newest event, as
    `FoldedHistories` weighs it.
    """
    liked: dict[int, int] = {}
    seen: dict[int, int] = {}
    for place in reversed(_places(history, session.text.history_limit)):
        event = history[place]
        position = session.catalogue.index.get(event.item or "")
        if position is not None:
            seen.setdefault(position, place)
            if event.positive(session.text.positive):
                liked.setdefault(position, place)
    return liked, seen


EXPLAIN: dict[str, Callable[[Session, Sequence[Event], int | None], dict[str, Any]]] = {
    INTERESTS: _interests,
    RECOMMEND: _recommendations,
}
"""How each model that is explained (`ServedModel.is_explained`) is: from a session, a history and
how many entries are wanted.
"""
