"""Why: an answer taken apart into what it was made of, so that the parts add up to it.

A recommendation's score is the sum of its terms, and each term of what the user did, but
popularity, is a sum too: of labels (interest, taste) or of events of the history (all others). With
the deviation by which a term was standardised held fixed, the parts add up to the term exactly.

An interest's probability is no sum, since BERT reads all events together. Its events are therefore
added one by one and what each changes is counted, in several orders, of which the mean is taken: a
sampled Shapley value (Štrumbelj and Kononenko 2010, https://jmlr.org/papers/v11/strumbelj10a.html).
In every order the changes add up to the difference between the probability and that of a user
without history, so their mean does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.answers import INTERESTS, RECOMMEND, Answer, K, explained_models
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.text import in_order
from tasteloop.errors import TasteloopError
from tasteloop.language.wishes import is_saying
from tasteloop.recommender.folding import FoldedHistories
from tasteloop.runtime.questions import EXCEPTIONS, Question
from tasteloop.runtime.session import Session

Matrix = NDArray[np.float32]
_OF_LABELS = ("interest", "taste", "asked_labels")
_OF_INTERESTS = ("interest", "asked_labels")  # not of every label of the catalogue
_OF_LIKED = ("content", "collaborative", "factors_liked")
_LABELS = 5  # that are explained where the question does not say
# The newest events are explained one by one, what is older together: it hardly reaches the text.
_PARTS = 32


def explain(session: Session, model: str, questions: Sequence[Question]) -> list[Answer]:
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
        "contribution"}]}]}. An event is named by its position in the question. Parts are ordered by
        size.

    Raises:
        TasteloopError: a model that has no explanation.
    """
    if model not in explained_models():
        known = ", ".join(explained_models())
        raise TasteloopError(f"{model} has no explanation; those that have: {known}")
    explain_one = EXPLAIN[model]
    return [explain_one(session, question) for question in questions]


def _positions(history: Sequence[Event], limit: int) -> list[int]:
    """Positions in the question of the events that count as the history, oldest first."""
    position = {id(event): n for n, event in enumerate(history)}
    return [position[id(event)] for event in in_order(history, limit)]


# --- interests


def _interests(session: Session, question: Question) -> Answer:
    history, k = question["events"], question["k"]
    positions = _positions(history, session.text.history_limit)
    older, newest = positions[:-_PARTS], positions[-_PARTS:]
    players = ([older] if older else []) + [[position] for position in newest]
    contributions, baseline, probabilities = _shapley(session, history, players)
    return {
        "interests": [
            {
                "label": session.labels[label],
                "probability": float(probabilities[label]),
                "baseline": float(baseline[label]),
                "parts": [
                    {"events": players[p], "contribution": float(contributions[p, label])}
                    for p in np.argsort(-np.abs(contributions[:, label]), kind="stable")
                ],
            }
            for label in np.argsort(-probabilities, kind="stable")[: k or _LABELS]
        ]
    }


def _shapley(
    session: Session, history: Sequence[Event], players: Sequence[Sequence[int]]
) -> tuple[NDArray[np.float64], Matrix, Matrix]:
    """Contributions [players, K], and the probabilities [K] without and with all of them.

    A player is an event, or the older ones together, as positions in the history. The orders are as
    it happened, backwards, and a seeded shuffle in both directions.
    """
    # 1. the orders, each as the growing sets of players that it goes through
    count = len(players)
    shuffled = np.random.default_rng(0).permutation(count)
    orders = [np.arange(count), np.arange(count)[::-1], shuffled, shuffled[::-1]]
    paths = [
        [frozenset(int(player) for player in order[:n]) for n in range(count + 1)]
        for order in orders
    ]

    # 2. the probabilities of every set, computed once
    row_of: dict[frozenset[int], int] = {}
    histories: list[list[Event]] = []
    for path in paths:
        for chosen in path:
            if chosen not in row_of:
                row_of[chosen] = len(histories)
                positions = [position for player in sorted(chosen) for position in players[player]]
                histories.append([history[position] for position in positions])
    probabilities = session.interests(histories)

    # 3. what each player changes, in the mean of the orders
    contributions = np.zeros((count, len(session.labels)))
    for order, path in zip(orders, paths, strict=True):
        along = probabilities[[row_of[chosen] for chosen in path]].astype(np.float64)
        contributions[order] += np.diff(along, axis=0) / len(orders)
    nobody, everybody = row_of[frozenset()], row_of[frozenset(range(count))]
    return contributions, probabilities[nobody], probabilities[everybody]


# --- recommend


def _recommendations(session: Session, question: Question) -> Answer:
    history, k = question["events"], question["k"]
    interests = session.ranking_interests([history])
    [ranked] = session.rank([history], interests, k or K, [question.get(EXCEPTIONS)])
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
    [understood] = session.understood([history])
    folded = FoldedHistories.of(
        [understood],
        session.catalogue,
        recommender.decay,
        session.text,
        recommender.opinions_count,
    )
    liked, visited, judged = _events(session, understood)
    parts_of: dict[str, list[list[dict[str, Any]]]] = {}
    wishes = session.wishes([history])
    for term, parts in recommender.explain(folded, interests, positions, wishes).items():
        if term in _OF_LABELS:
            labels = session.labels if term in _OF_INTERESTS else session.catalogue.label_names
            names: list[dict[str, Any]] = [{"label": labels[k]} for k in parts.sources]
        else:
            events = judged if term == "opinion" else liked if term in _OF_LIKED else visited
            if term == "asked_kin":
                events = {**_naming(session, understood), **liked}
            names = [{"event": events[int(item)]} for item in parts.sources]
        parts_of[term] = [
            [
                {**names[p], "contribution": float(column[p])}
                for p in np.argsort(-np.abs(column), kind="stable")
                if column[p] != 0
            ]
            for column in parts.contributions.T
        ]
    return parts_of


def _naming(session: Session, history: Sequence[Event]) -> dict[int, int]:
    """By item of the catalogue, the position in the history of the newest text that names it."""
    naming: dict[int, int] = {}
    for position in reversed(_positions(history, session.text.history_limit)):
        if session.listens and is_saying(history[position]):
            [reading] = session.readings([history[position].text or ""])
            for item in reading.titles:
                naming.setdefault(item, position)
    return naming


def _events(
    session: Session, history: Sequence[Event]
) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """By item of the catalogue, the position in the history of its newest positive event, of its
    newest event that does not reject it, and of its newest event with an opinion, as
    `FoldedHistories` weighs them.
    """
    opinions_count = session.recommender is None or session.recommender.opinions_count
    liked: dict[int, int] = {}
    visited: dict[int, int] = {}
    judged: dict[int, int] = {}
    for position in reversed(_positions(history, session.text.history_limit)):
        event = history[position]
        item = session.catalogue.index.get(event.item or "")
        if item is not None:
            opinion = event.opinion(session.text.positive, session.text.negative)
            if opinion >= 0 or not opinions_count:
                visited.setdefault(item, position)
            if opinion:
                judged.setdefault(item, position)
            if event.positive(session.text.positive):
                liked.setdefault(item, position)
    return liked, visited, judged


EXPLAIN: dict[str, Callable[[Session, Question], Answer]] = {
    INTERESTS: _interests,
    RECOMMEND: _recommendations,
}
"""How each model that is explained (`ServedModel.is_explained`) is: from a session, a history and
how many entries are wanted.
"""
