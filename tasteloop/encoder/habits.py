"""What a history's own counts say of interests, without a word read; added to the encoder's
log-odds.

`logit P(y_ik) = α · z_ik + β · h_ik + γ` with z from the encoder, `h_ik = b_k + w_k · x_i`, and α,
β, γ fitted on the validation window (`tasteloop.encoder.calibration`). The features x of a history:
the share of every label among its events, all and liked, plain and decayed by rank (a few of
everybody's events mixed in), its position among the users' leading singular vectors, all and
liked, how long it is, and the labels of the items that are likeliest to come next and are not in
it yet (EASE, Steck 2019): who has watched every western will hardly meet another. Everything is a
sum, so the share of each part can be shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import USER, Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings, in_order
from tasteloop.bundle.arrays import mapped_arrays
from tasteloop.bundle.names import HABITS_FILE
from tasteloop.encoder.calibration import MOST_ROWS, one_vs_rest

if TYPE_CHECKING:
    from tasteloop.behaviour.snapshots import Snapshots
    from tasteloop.recommender.collaborative import Past

Matrix = NDArray[np.float32]
_FACTORS = 32
_MIXED_IN = 5.0  # how many of everybody's events are mixed into the shares of a history
_DECAY = 0.93  # of an event by its rank from the newest
_SCALE = 4.0  # of shares, so that one penalty fits all features
_PENALTIES = (30.0, 100.0, 300.0, 1000.0)
_COMPARED = 2000  # items, the most frequent, that can be likely to come next
_LIKELY = 50  # how many of them count as likely
_RIDGE = (300.0, 150.0)  # of EASE on all events, and on liked ones
# of users: features of a training row come from what others did, as those of a later row do
_FOLDS = 5


@dataclass(frozen=True)
class Habits:
    """Arrays over J items, of which I are compared, K labels and D = 7 K + 2 f + 1 features.

    Attributes:
        base: [K] share of each label in everybody's events.
        factors: [J, f] singular vectors of who acted on what, scaled for a history's sum.
        weights: [D, K] of the features for each label.
        bias: [K] log-odds of each label without features.
        compared: [I] positions of the items that can come next; bundles before these features have
            none.
        follows, follows_liked: [I, I] EASE weights of all events, and of liked ones.
    """

    base: Matrix
    factors: Matrix
    weights: Matrix
    bias: Matrix
    compared: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    follows: Matrix = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    follows_liked: Matrix = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @classmethod
    def fit(cls, data: Snapshots) -> Habits:
        """Fitted on the training snapshots; the penalty is the validation window's choice."""
        from tasteloop.behaviour.snapshots import TRAIN, VALIDATION, draw_rows
        from tasteloop.recommender.collaborative import Past, spectral

        # 1. shares and factors of everything before the validation window
        past = Past.before(data.meta["validation_from"], data)
        vectors, activity = spectral(past.seen, _FACTORS)
        factors = vectors / np.sqrt(activity)[:, None] * np.sqrt(len(activity))
        events_of_item = np.bincount(past.item, minlength=past.items)
        base = events_of_item @ data.catalogue.membership(data.labels) / max(len(past.item), 1)
        by_frequency = np.argsort(-past.seen.sum(0), kind="stable")
        compared = np.sort(by_frequency[:_COMPARED]).astype(np.int32)
        none = np.zeros((0, 0), np.float32)
        unfitted = cls(base.astype(np.float32), factors.astype(np.float32), none, none, compared)
        of_everybody = unfitted._with_followers(past, np.ones(len(past.names), np.bool_))

        # 2. training features, each user's from what the users of other folds did
        train, later = (
            rows[draw_rows(len(rows), MOST_ROWS)]
            for rows in (data.split(TRAIN), data.split(VALIDATION))
        )
        fold = train[USER].rank("dense").to_numpy() % _FOLDS
        fold_of_user = dict(zip(train[USER].to_list(), fold.tolist(), strict=True))
        folds = np.array([fold_of_user.get(name, -1) for name in past.names])
        x = np.zeros((len(train), of_everybody.width(len(data.labels))), np.float32)
        for number in np.unique(fold):
            rows = train.filter(fold == number)
            of_others = unfitted._with_followers(past, folds != number)
            x[fold == number] = of_others.of(rows, data)

        # 3. a logistic regression for each label
        weights, bias = one_vs_rest(
            x, data.truth(train), of_everybody.of(later, data), data.truth(later), _PENALTIES
        )
        return replace(of_everybody, weights=weights, bias=bias)

    def _with_followers(self, past: Past, users: NDArray[np.bool_]) -> Habits:
        """With the EASE weights of the users that the mask [U] names."""
        from tasteloop.recommender.collaborative import ease, keep_rows

        tables = (past.seen, past.matrix)
        follows, liked = (
            ease(keep_rows(table[:, self.compared], users), ridge)
            for table, ridge in zip(tables, _RIDGE, strict=True)
        )
        return replace(self, follows=follows, follows_liked=liked)

    def features(
        self,
        histories: Sequence[Sequence[Event]],
        catalogue: Catalogue,
        labels: list[str],
        text: TextSettings,
    ) -> Matrix:
        """[n, D] of histories; one without known items has everybody's average."""
        membership = catalogue.membership(labels)
        column = np.full(len(catalogue), -1, np.int64)  # of a position among the compared items
        column[self.compared] = np.arange(len(self.compared))
        out = np.zeros((len(histories), self.width(len(labels))), np.float32)
        for row, history in enumerate(histories):
            events = [e for e in in_order(history, text.history_limit) if e.item in catalogue.index]
            known = np.array([catalogue.index[e.item or ""] for e in events], np.int64)
            liked = known[np.array([e.positive(text.positive) for e in events], np.bool_)]

            # 1. shares of labels, plain and decayed, beyond everybody's
            parts = []
            for items in (known, liked):
                for decay in (1.0, _DECAY):
                    weight = _decayed(len(items), decay)
                    count = weight @ membership[items] + _MIXED_IN * self.base
                    parts.append(_SCALE * (count / (weight.sum() + _MIXED_IN) - self.base))

            # 2. factors, and how long the history is
            parts += [
                self.factors[items].sum(0) / np.sqrt(len(items) + _MIXED_IN)
                for items in (known, liked)
            ]
            parts.append(np.array([np.log1p(len(known)) - 3], np.float32))

            # 3. labels of the items that are likeliest to come next
            if len(self.compared):
                remaining = ~np.isin(self.compared, list(_consumed(history, catalogue)))
                for items, weights, decay in (
                    (known, self.follows, _DECAY),
                    (liked, self.follows_liked, 1.0),
                    (liked, self.follows_liked, _DECAY),
                ):
                    weight, columns = _decayed(len(items), decay), column[items]
                    is_compared = columns >= 0
                    score = weight[is_compared] @ weights[columns[is_compared]]
                    parts.append(self._expected(score, remaining, membership))
            out[row] = np.concatenate(parts)
        return out

    def _expected(self, score: Matrix, remaining: NDArray[np.bool_], membership: Matrix) -> Matrix:
        """[K]: how far the labels of the likeliest of the remaining items lie from everybody's.

        Args:
            score: [I] how likely a compared item is to come next.
            remaining: [I] whether it is not in the history yet.
            membership: [J, K] of `Catalogue.membership`.
        """
        likely = np.flatnonzero(remaining & (score > 0))
        likely = likely[np.argsort(-score[likely], kind="stable")[:_LIKELY]]
        if not len(likely):
            return np.zeros_like(self.base)
        share: Matrix = score[likely] @ membership[self.compared[likely]] / score[likely].sum()
        return _SCALE * (share - self.base)

    def width(self, labels: int) -> int:
        """D."""
        return (7 if len(self.compared) else 4) * labels + 2 * int(self.factors.shape[1]) + 1

    def of(self, rows: Any, data: Snapshots) -> Matrix:
        """`features` of snapshots."""
        return self.features(data.histories(rows), data.catalogue, data.labels, data.text)

    def logits(
        self,
        histories: Sequence[Sequence[Event]],
        catalogue: Catalogue,
        labels: list[str],
        text: TextSettings,
    ) -> Matrix:
        """[n, K] log-odds."""
        out: Matrix = self.features(histories, catalogue, labels, text) @ self.weights + self.bias
        return out

    def save(self, directory: Path) -> None:
        from safetensors.numpy import save_file

        save_file(
            {f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)},
            directory / HABITS_FILE,
        )

    @classmethod
    def load(cls, directory: Path) -> Habits | None:
        """None where the bundle was trained without."""
        path = directory / HABITS_FILE
        return cls(**mapped_arrays(path)) if path.exists() else None


def _consumed(history: Sequence[Event], catalogue: Catalogue) -> set[int]:
    """Positions of the items that the user knows, and that cannot come next."""
    return {
        catalogue.index[event.item]
        for event in history
        if event.item in catalogue.index and event.consumes
    }


def _decayed(count: int, decay: float) -> Matrix:
    """[count] weights of events, the newest last with 1."""
    return (decay ** np.arange(count)[::-1]).astype(np.float32)
