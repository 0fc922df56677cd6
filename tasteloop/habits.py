"""What a history's own counts say of interests, without a word read; added to the encoder's log-odds.

`logit P(y_ik) = α · z_ik + β · h_ik + γ` with z from the encoder, `h_ik = b_k + w_k · x_i`, and α, β, γ fitted on the
validation window (`tasteloop.calibration`). The features x of a history: the share of every label among its events, all
and liked, plain and decayed by rank (a few of everybody's events mixed in), its place among the users' leading singular
vectors, all and liked, and how long it is. Everything is a sum, so what each part says can be shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasteloop.bundle import HABITS, mapped_arrays
from tasteloop.calibration import one_vs_rest
from tasteloop.events import Event
from tasteloop.items import Catalogue
from tasteloop.text import TextSettings, in_order

if TYPE_CHECKING:
    from tasteloop.snapshots import Snapshots

Matrix = NDArray[np.float32]
_FACTORS = 32
_MIXED_IN = 5.0  # events of everybody's in the shares of a history
_DECAY = 0.93  # of an event by its rank from the newest
_SCALE = 4.0  # of shares, so that one penalty fits all features
_PENALTIES = (30.0, 100.0, 300.0)


@dataclass(frozen=True)
class Habits:
    """Arrays over J items, K labels and D = 4 K + 2 f + 1 features.

    Attributes:
        base: [K] share of each label in everybody's events.
        factors: [J, f] singular vectors of who met what, scaled for a history's sum.
        weights: [D, K]; bias: [K].
    """

    base: Matrix
    factors: Matrix
    weights: Matrix
    bias: Matrix

    @classmethod
    def fit(cls, data: Snapshots) -> Habits:
        """Fitted on the training snapshots; the penalty is the validation window's choice."""
        from tasteloop.recommend import Past, spectral
        from tasteloop.snapshots import TRAIN, VALIDATION

        past = Past.before(data.meta["validation_from"], data)
        vectors, activity = spectral(past.seen, _FACTORS)
        factors = vectors / np.sqrt(activity)[:, None] * np.sqrt(len(activity))
        base = data.catalogue.membership(data.labels)[past.item].mean(0)
        none = np.zeros((0, 0), np.float32)
        empty = cls(base.astype(np.float32), factors.astype(np.float32), none, none)
        rows = [data.split(name) for name in (TRAIN, VALIDATION)]
        (x, y), (x_later, y_later) = (
            (empty.features(data.histories(r), data.catalogue, data.labels, data.text), data.truth(r)) for r in rows
        )
        weights, bias = one_vs_rest(x, y, x_later, y_later, _PENALTIES)
        return cls(empty.base, empty.factors, weights, bias)

    def features(
        self, histories: Sequence[Sequence[Event]], catalogue: Catalogue, labels: list[str], text: TextSettings
    ) -> Matrix:
        """[n, D] of histories; one without known items is everybody's average."""
        membership = catalogue.membership(labels)
        out = np.zeros((len(histories), 4 * len(labels) + 2 * self.factors.shape[1] + 1), np.float32)
        for row, history in enumerate(histories):
            events = [e for e in in_order(history, text.history_limit) if e.item in catalogue.index]
            met = np.array([catalogue.index[e.item or ""] for e in events], np.int64)
            liked = met[np.array([e.positive(text.positive) for e in events], np.bool_)]
            parts = []
            for items in (met, liked):
                for decay in (1.0, _DECAY):
                    weight = (decay ** np.arange(len(items))[::-1]).astype(np.float32)
                    count = weight @ membership[items] + _MIXED_IN * self.base
                    parts.append(_SCALE * (count / (weight.sum() + _MIXED_IN) - self.base))
            parts += [self.factors[items].sum(0) / np.sqrt(len(items) + _MIXED_IN) for items in (met, liked)]
            out[row] = np.concatenate([*parts, [np.log1p(len(met)) - 3]])
        return out

    def logits(
        self, histories: Sequence[Sequence[Event]], catalogue: Catalogue, labels: list[str], text: TextSettings
    ) -> Matrix:
        """[n, K] log-odds."""
        out: Matrix = self.features(histories, catalogue, labels, text) @ self.weights + self.bias
        return out

    def save(self, directory: Path) -> None:
        from safetensors.numpy import save_file

        save_file({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}, directory / HABITS)

    @classmethod
    def load(cls, directory: Path) -> Habits | None:
        """None where the bundle was trained without."""
        return cls(**mapped_arrays(directory / HABITS)) if (directory / HABITS).exists() else None
