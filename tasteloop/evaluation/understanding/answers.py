"""A model's answers to all cases: every history is asked once, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tasteloop.answers import INTERESTS, SENTIMENT
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.evaluation.understanding.cases import Case, History, Material
from tasteloop.metrics import Array, top_k
from tasteloop.recommender.folding import mark_seen

FIRST = 10  # items of a history that are looked at, as many as are served
_SCORES = 2**22  # of one block of histories and items


class Model(Protocol):
    """What is asked of a model: a part of `tasteloop.runtime.session.Session`."""

    @property
    def labels(self) -> list[str]: ...
    @property
    def catalogue(self) -> Catalogue: ...
    @property
    def has_interests(self) -> bool: ...
    @property
    def has_sentiment(self) -> bool: ...
    @property
    def thresholds(self) -> Any: ...
    @property
    def sentiment_threshold(self) -> float: ...
    def ranking_interests(self, histories: Sequence[Sequence[Event]]) -> Any: ...
    def scores(self, histories: Sequence[Sequence[Event]], interests: Any) -> Any: ...
    def sentiment(self, texts: Sequence[str]) -> Any: ...
    def confident(self, task: str, probabilities: Any) -> Any: ...


class Answers:
    """What a model answers to n different histories and to statements, in the data's terms.

    Attributes:
        probabilities: [n, K] of the data's labels; 0 for one that the model does not know.
        sure: [n, K]: whether the model is sure that the label is an interest.
        first: [n, 10] positions of the recommended items in the data's catalogue, -1 for none.
    """

    def __init__(self, model: Model, material: Material, cases: Sequence[Case]) -> None:
        self.material = material
        self._rows: dict[History, int] = {}
        self._rows_of_case = [
            tuple(self._rows.setdefault(history, len(self._rows)) for history in case.histories)
            for case in cases
        ]
        self._cases = cases
        histories = list(self._rows)

        own = np.asarray(model.ranking_interests(histories))
        self.probabilities, self.sure = self._interests(model, own)
        self._standing: dict[tuple[int, int], float] = {}
        self.first = self._rank(model, histories, own)
        self._sentiment = self._statements(model)

    def __iter__(self) -> Any:
        """The answers to each case, in the order of the cases."""
        return (
            CaseAnswers(case, rows, self)
            for case, rows in zip(self._cases, self._rows_of_case, strict=True)
        )

    def _interests(self, model: Model, own: Array) -> tuple[Array, Array]:
        labels = list(self.material.labels)
        probabilities = np.zeros((len(own), len(labels)), np.float32)
        sure = np.zeros((len(own), len(labels)), np.bool_)
        if model.has_interests and len(own):
            stated = (own >= model.thresholds) & model.confident(INTERESTS, own)
            for k, label in enumerate(labels):
                if label in model.labels:
                    at = model.labels.index(label)
                    probabilities[:, k], sure[:, k] = own[:, at], stated[:, at]
        return probabilities, sure

    def _rank(self, model: Model, histories: Sequence[History], own: Array) -> Array:
        # 1. where each of the model's items stands in the data's catalogue, and the reverse
        index = self.material.catalogue.index
        theirs = np.array([index.get(item, -1) for item in model.catalogue.items], np.int64)
        position = np.full(len(self.material.catalogue), -1, np.int64)
        position[theirs[theirs >= 0]] = np.flatnonzero(theirs >= 0)

        # 2. the items whose kin are looked at after each history
        items: dict[int, set[int]] = {}
        for case, rows in zip(self._cases, self._rows_of_case, strict=True):
            if case.kin_of is not None:
                for row in rows:
                    items.setdefault(row, set()).add(case.kin_of)
        kin = {item: position[self.material.kin(item)] for item in set().union(*items.values())}

        # 3. the first ten, and how high the kin stand, block by block
        first = np.full((len(histories), FIRST), -1, np.int64)
        size = max(1, _SCORES // max(len(model.catalogue), 1))
        for start in range(0, len(histories), size):
            block = histories[start : start + size]
            scores = np.array(model.scores(block, own[start : start + size]), np.float32)
            for n, row_scores in enumerate(scores):
                if wanted := items.get(start + n):
                    below = _shares_below(row_scores)
                    for item in wanted:
                        known = kin[item][kin[item] >= 0]
                        self._standing[start + n, item] = float(below[known].sum()) / max(
                            len(known), 1
                        )
            scores[mark_seen(block, model.catalogue)] = -np.inf
            best = top_k(scores, FIRST)
            first[start : start + len(block), : best.shape[1]] = theirs[best]
        return first

    def _statements(self, model: Model) -> dict[str, tuple[bool, bool]]:
        """By text: whether it is called favourable, and whether the model is sure."""
        texts = list(dict.fromkeys(case.text for case in self._cases if case.text))
        if not texts or not model.has_sentiment:
            return {}
        probabilities = np.asarray(model.sentiment(texts))
        sure = np.asarray(model.confident(SENTIMENT, probabilities))
        favourable = probabilities >= model.sentiment_threshold
        return {
            text: (bool(good), bool(certain))
            for text, good, certain in zip(texts, favourable, sure, strict=True)
        }


@dataclass(frozen=True)
class CaseAnswers:
    """The answers to one case; `n` is the number of one of its histories."""

    case: Case
    rows: tuple[int, ...]
    answers: Answers

    @property
    def _label(self) -> int:
        return list(self.answers.material.labels).index(self.case.label)

    def probability(self, n: int) -> float:
        """Of the case's label."""
        return float(self.answers.probabilities[self.rows[n], self._label])

    def place(self, n: int) -> int:
        """Of the case's label among all, 1 for the likeliest."""
        row = self.answers.probabilities[self.rows[n]]
        return 1 + int((row > row[self._label]).sum())

    def items(self, n: int) -> list[int]:
        """The first ten recommended items."""
        return [int(item) for item in self.answers.first[self.rows[n]] if item >= 0]

    def label_items(self, n: int) -> int:
        """How many of the first ten items bear the case's label."""
        membership = self.answers.material.membership
        return int(sum(membership[item, self._label] for item in self.items(n)))

    def standing(self, n: int) -> float:
        """The mean share of the catalogue that stands below the kin of the case's item."""
        assert self.case.kin_of is not None
        return self.answers._standing[self.rows[n], self.case.kin_of]

    def shift(self, n: int, m: int) -> tuple[float, str]:
        """By how much the probability that differs most does, and of which label."""
        rows = self.answers.probabilities
        difference = np.abs(rows[self.rows[n]] - rows[self.rows[m]])
        if not len(difference):
            return 0.0, ""
        most = int(difference.argmax())
        return float(difference[most]), self.answers.material.labels[most]

    def newly_sure(self, n: int, m: int) -> list[str]:
        """The labels that the model is sure of after history m, and not after n."""
        sure = self.answers.sure
        new = sure[self.rows[m]] & ~sure[self.rows[n]]
        return [self.answers.material.labels[k] for k in np.flatnonzero(new).tolist()]

    @property
    def favourable(self) -> bool:
        """Whether the case's statement is called favourable."""
        return self.answers._sentiment[self.case.text][0]

    @property
    def is_sure(self) -> bool:
        """Whether the model is sure of that."""
        return self.answers._sentiment[self.case.text][1]


def _shares_below(scores: Array) -> Array:
    """[J] scores -> the share of all items with a lower score; equals share their place."""
    ordered = np.sort(scores)
    lower = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return np.asarray(lower / (2 * len(scores)))
