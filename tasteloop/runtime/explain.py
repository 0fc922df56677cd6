"""Why: an answer taken apart into what it was made of, so that the parts add up to it.

A recommendation's score is the sum of its terms, and each term of what the user did and wrote, but
popularity, is a sum too: of labels (interest, taste), of texts (what was asked for) or of events of
the history (all others). With the deviation by which a term was standardised held fixed, the parts
add up to the term exactly.

An interest's probability is no sum, since BERT reads all events together. Its events are therefore
added one by one and what each changes is counted, in several orders, of which the mean is taken: a
sampled Shapley value (Štrumbelj and Kononenko 2010, https://jmlr.org/papers/v11/strumbelj10a.html).
In every order the changes add up to the difference between the probability and that of a user
without history, so their mean does. What text, counts and wishes add to its log-odds is exact.

A sentiment's words are left out one by one; what each changes alone is told, and adds up to nothing
(occlusion; Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.answers import (
    INTERESTS,
    LANGUAGES,
    RECOMMEND,
    SENTIMENT,
    Answer,
    K,
    explained_models,
)
from tasteloop.behaviour.events import Event
from tasteloop.errors import TasteloopError
from tasteloop.recommender.recommend import TermParts
from tasteloop.runtime.questions import EXCEPTIONS, Question
from tasteloop.runtime.reasons import Ground, positions_in_order
from tasteloop.runtime.sentences import tell_sentiment
from tasteloop.runtime.session import Session, why

Matrix = NDArray[np.float32]
_OF_LABELS = ("interest", "taste")
_LABELS = 5  # that are explained where the question does not say
# The newest events are explained one by one, what is older together: it hardly reaches the text.
_PARTS = 32
_WORDS = 64  # of a text that are left out one by one, or so many neighbours together
# Letters that stand without spaces are words of their own.
_ALONE = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+(?:['’-][^\W{_ALONE}]+)*")


def explain(session: Session, model: str, questions: Sequence[Question]) -> list[Answer]:
    """Explanations of a model's answers, one a question.

    Args:
        session: the bundle's.
        model: interests, recommend or sentiment.
        questions: as `runtime.parse` checked them; `k` is how many labels or items, by default 5
            and 10.

    Returns:
        recommend: {"recommendations": [{"item", "title", "score", "reason", "reasons", "terms":
        [{"term", "contribution", "parts": [{"label" or "event", "contribution"}]}]}]}, and
        "against" where that is asked for; interests: {"interests": [{"label", "probability",
        "baseline", "reason", "parts": [{"events": [..], "contribution"}], "log_odds"}]};
        sentiment: {"sentiment", "probability", "confident", "reason", "words": [{"word", "start",
        "contribution"}]}. An event is named by its position in the question. Parts and words are
        ordered by size. Each `reason` is a sentence in the question's language.

    Raises:
        TasteloopError: a model that has no explanation.
    """
    if model not in explained_models():
        known = ", ".join(explained_models())
        raise TasteloopError(f"{model} has no explanation; those that have: {known}")
    explain_one = EXPLAIN[model]
    return [explain_one(session, question) for question in questions]


# --- interests


def _interests(session: Session, question: Question) -> Answer:
    history, k = question["events"], question["k"]
    positions = positions_in_order(history, session.text.history_limit)
    older, newest = positions[:-_PARTS], positions[-_PARTS:]
    players = ([older] if older else []) + [[position] for position in newest]
    contributions, baseline, probabilities = _shapley(session, history, players)
    terms = session.interest_terms([history])
    teller = session.teller(question)
    explained = []
    for label in np.argsort(-probabilities, kind="stable")[: k or _LABELS]:
        changed = contributions[:, label]
        order = np.argsort(-np.abs(changed), kind="stable")
        parts = [(players[p], float(changed[p])) for p in order]
        now, before = float(probabilities[label]), float(baseline[label])
        explained.append(
            {
                "label": session.labels[label],
                "probability": now,
                "baseline": before,
                "reason": teller.interest(now, before, parts),
                "parts": [{"events": events, "contribution": by} for events, by in parts],
                "log_odds": {name: float(values[0, label]) for name, values in terms.items()},
            }
        )
    return {"interests": explained}


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
    [ranked] = session.rank([history], interests, k or K, [question.get(EXCEPTIONS)], ["all"])
    items = np.array([session.catalogue.index[r.item] for r in ranked], np.int64)
    parts = _parts(session, history, interests, items)
    teller = session.teller(question)
    return {
        "recommendations": [
            {
                "item": r.item,
                "title": r.title,
                "score": r.score,
                **why(teller, r.reasons, question.get("against", False)),
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
    session: Session, history: Sequence[Event], interests: Matrix, items: NDArray[np.int64]
) -> dict[str, list[list[dict[str, Any]]]]:
    """By term, for each item the parts of its contribution, largest first."""
    [history] = session.understood([history])
    ground = session.ground(history)
    scores = session.score_terms([history], interests)
    parts_of: dict[str, list[list[dict[str, Any]]]] = {}
    for term, parts in scores.explain(0, items, ground.origins).items():
        names = _names(session, ground, term, parts)
        parts_of[term] = [
            [
                {**names[p], "contribution": float(column[p])}
                for p in np.argsort(-np.abs(column), kind="stable")
                if column[p] != 0
            ]
            for column in parts.contributions.T
        ]
    return parts_of


def _names(session: Session, ground: Ground, term: str, parts: TermParts) -> list[dict[str, Any]]:
    """What answers call the sources of a term's parts."""
    if term in _OF_LABELS:
        labels = session.labels if term == "interest" else session.catalogue.label_names
        return [{"label": labels[k]} for k in parts.sources]
    if parts.labels is not None:
        return [
            {"event": ground.said[text]} | ({"label": session.labels[k]} if k >= 0 else {})
            for text, k in zip(parts.sources.tolist(), parts.labels.tolist(), strict=True)
        ]
    return [
        {"event": ground.event_of(term, item), "item": session.catalogue.items[item]}
        for item in parts.sources.tolist()
    ]


# --- sentiment


def _sentiment(session: Session, question: Question) -> Answer:
    text, language = question["text"], question.get("language", LANGUAGES[0])
    [answer] = session.compute(SENTIMENT, [question])
    spans = _words(text)
    without = session.sentiment([text[:begin] + text[end:] for begin, end in spans])
    now = answer["probability"]
    words = [
        {"word": text[begin:end], "start": begin, "contribution": now - float(p)}
        for (begin, end), p in zip(spans, without, strict=True)
    ]
    words.sort(key=lambda word: -abs(word["contribution"]))
    told = [(word["word"], now - word["contribution"]) for word in words]
    reason = tell_sentiment(language, answer["sentiment"], now, told)
    return {**answer, "reason": reason, "words": words}


def _words(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end; of a long text so many neighbours together that
    there are at most `_WORDS`.

    >>> _words("a good 电影"), len(_words("word " * 200))
    ([(0, 1), (2, 6), (7, 8), (8, 9)], 50)
    """
    spans = [match.span() for match in _WORD.finditer(text)]
    together = -(-len(spans) // _WORDS)
    return [
        (spans[n][0], spans[min(n + together, len(spans)) - 1][1])
        for n in range(0, len(spans), max(together, 1))
    ]


EXPLAIN: dict[str, Callable[[Session, Question], Answer]] = {
    INTERESTS: _interests,
    RECOMMEND: _recommendations,
    SENTIMENT: _sentiment,
}
"""How each model that is explained (`ServedModel.is_explained`) is: from a session and a question.
"""
