"""Ranking: a sum of terms, so that the reasons of a score are its parts.

`R(i, j) = Σ_m λ_m(n_i) · s_m(i, j)`, each `s_m` standardised over the catalogue for the user at hand: λ compare, and
`λ_m(n) = a_m + b_m · log(1 + n)` for a history of n events: what to trust depends on how much is known.

- interest: `Σ_k w_jk · (y_ik - ȳ_k)`, `w` by ridge regression of what followed on which interests were there, and for
  items without a positive event by the mean of their labels' other items;
- taste: the labels of the history against those of everybody, as log-ratios, averaged over the item's labels;
- content: cosine of the item's text vector and the history's, both by the fine-tuned encoder, in the leading principal
  components;
- collaborative: EASE (Steck 2019, https://arxiv.org/abs/1905.03375) on liked items, the history decayed by rank;
- factors_liked, factors_seen: implicit ALS (Hu, Koren & Volinsky 2008) on liked items, and on all: whether a user
  likes an item, and whether they come upon it;
- spectral: what the leading singular vectors of the normalised matrix keep of a history (Shen et al. 2021, GF-CF);
- nearby, nearby_whole: items that stood close together in others' histories, to the newest of the history and to all;
- popularity: log of positive events, decayed by age with a half-life.

λ are fitted on the validation window, with every term fitted on what came before it: the likelihood of what followed
among each row's candidates, pulled towards a plain start as strongly as cross-fitting by user says. Then the terms are
fitted again on all events before the test window, λ unchanged.

Ties, factors, spectral vectors and popularity of an item that few have met lean on what its text lets expect
(`tasteloop.item_text`); one that nobody has met has λ of its own, fitted on items held out on purpose.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tasteloop import metrics
from tasteloop.bundle import CARD, GOLDEN, HABITS, ITEMS, MODELS, README, RECOMMENDER, code_version, mapped_arrays, seal
from tasteloop.engines import precisions
from tasteloop.events import ITEM, SECOND, TEXT, TIME, USER, Event, positive
from tasteloop.files import atomic_directory, atomic_write, read_json, write_json
from tasteloop.item_text import expected, features
from tasteloop.items import SENTIMENT, Catalogue
from tasteloop.snapshots import FUTURE, SPLIT, TRAIN, VALIDATION, Snapshots
from tasteloop.text import TextSettings, in_order

if TYPE_CHECKING:
    import polars as pl

    from tasteloop.export import Judged

log = logging.getLogger(__name__)

Matrix = NDArray[np.float32]
Positions = NDArray[np.integer[Any]] | slice
Weights = dict[str, NDArray[np.float64]]  # of each term for each row [n, 1]
_DAY = 86_400 * SECOND
_START = {"collaborative": 0.5, "factors_liked": 0.25, "factors_seen": 0.25, "nearby": 0.3, "popularity": 0.2}
TERMS = (
    "interest", "taste", "content", "collaborative", "factors_liked", "factors_seen", "spectral", "nearby",
    "nearby_whole", "popularity",
)  # fmt: skip
_MEDIUM = 3.5  # log(1 + n) of a history of middling length, about which λ turn


class RecommenderSettings(BaseModel, frozen=True, extra="forbid"):
    """Grids are searched on the validation window; a single value fixes it."""

    ease_regularisation: tuple[float, ...] = (300, 1000, 3000)
    ease_items: int = Field(
        5_000, ge=1, description="Most popular items among which items are compared: EASE is square in them."
    )
    history_decay: tuple[float, ...] = (0.9, 0.95, 0.98, 1.0)
    half_life_days: tuple[float, ...] = (7, 30, 90, 3650)
    interest_regularisation: float = Field(200, gt=0)
    content_width: int = Field(64, ge=1, description="Principal components that are kept of the items' text vectors.")
    factors: int = Field(32, ge=1, description="Width of the ALS and of the spectral term.")
    als_alpha: float = Field(4, gt=0, description="Weight of an event beside no event.")
    als_regularisation: float = Field(30, gt=0)
    als_iterations: int = Field(12, ge=1)
    nearby_reach: int = Field(10, ge=1, description="Items at most so many places apart in a history are near.")
    familiar: float = Field(
        3, gt=0, description="Interactions at which what they say of an item counts as much as its text does."
    )
    text_regularisation: float = Field(
        10, gt=0, description="Of the regression from item text to what interactions teach."
    )
    held_out: float = Field(
        0.2, gt=0, lt=1, description="Share of the items that are held out to fit λ of items that nobody has met."
    )
    candidates: int = Field(100, ge=10, description="Items a row, by a plain start, among which λ are fitted.")
    shrinkage: tuple[float, ...] = Field(
        (0.01, 0.1, 1.0, 10.0), description="Pull of λ towards the start; what is below 0.5 / users is not tried."
    )


@dataclass(frozen=True)
class RecommenderResult:
    """λ by term at a middling history, validation nDCG@10 by cross-fitting, digest of the bundle."""

    weights: dict[str, float]
    validation_ndcg: float
    digest: str
    seconds: float


@dataclass(frozen=True)
class Folded:
    """Histories as rows over the J items, whatever else of the history is left out.

    Attributes:
        liked, seen: [n, J] of 0 and 1: positive events, and any.
        recent_liked, recent_seen: [n, J]: the decay to the power of how many events came after.
        length: [n] events.
    """

    liked: Matrix
    seen: Matrix
    recent_liked: Matrix
    recent_seen: Matrix
    length: NDArray[np.int64]

    @classmethod
    def of(cls, histories: Sequence[Sequence[Event]], catalogue: Catalogue, decay: float, text: TextSettings) -> Folded:
        shape = (len(histories), len(catalogue))
        liked, seen = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for row, history in enumerate(histories):
            for rank, event in enumerate(reversed(in_order(history, text.history_limit))):
                position = catalogue.index.get(event.item or "")
                if position is not None:
                    seen[row, position] = seen[row, position] or decay**rank
                    if event.positive(text.positive):
                        liked[row, position] = liked[row, position] or decay**rank
        return cls.decayed(liked, seen, np.array([len(history) for history in histories]))

    @classmethod
    def decayed(cls, recent_liked: Matrix, recent_seen: Matrix, length: NDArray[np.int64]) -> Folded:
        """From the decayed matrices alone."""
        one = np.float32(1)
        return cls(
            np.where(recent_liked > 0, one, 0), np.where(recent_seen > 0, one, 0), recent_liked, recent_seen, length
        )


@dataclass(frozen=True)
class Recommender:
    """Arrays of the terms over J items and K labels; E of the items are compared with each other.

    Attributes:
        vectors: [J, d] principal components of the item text vectors, by `leading`.
        compared: [E] positions; ease, nearby: [E, E] item-item weights among them.
        ties: [K, J] what a label's presence adds to an item; label_mean [K].
        membership: [J, K] share of each label in an item's labels; label_share [K]: in everybody's events.
        factors_liked, factors_seen: [J, f]; spectral: [J, f] singular vectors; activity [J]: users of an item.
        popularity: [J].
        weights: (a, b) of λ by term; decay: of a history event by its rank from the newest.
        als: alpha and regularisation.
        new: positions of items that nobody had met, for which new_weights hold in place of weights.
    """

    vectors: Matrix
    compared: NDArray[np.int32]
    ease: Matrix
    nearby: Matrix
    ties: Matrix
    label_mean: Matrix
    membership: Matrix
    label_share: Matrix
    factors_liked: Matrix
    factors_seen: Matrix
    spectral: Matrix
    activity: Matrix
    popularity: Matrix
    weights: dict[str, tuple[float, float]]
    decay: float
    als: tuple[float, float]
    text: TextSettings
    new: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    new_weights: dict[str, tuple[float, float]] = field(default_factory=dict)

    def contributions(
        self, folded: Folded, interests: Matrix, positions: NDArray[np.int64] | None = None
    ) -> dict[str, Matrix]:
        """λ_m(n) · s_m by term, each [n, J], or [n, p] at some positions; a row's score is their sum.

        Args:
            folded: n histories, with this recommender's decay.
            interests: [n, K] calibrated probabilities.
        """
        where: Positions = slice(None) if positions is None else positions
        inputs, values = self._inputs(folded, interests), self._values(folded)
        out = dict(self._weighted(inputs, values, self._lambda(folded, self.weights), where))
        new = self.new if positions is None else np.flatnonzero(np.isin(positions, self.new))
        if self.new_weights and len(new):
            where = new if positions is None else positions[new]
            for name, matrix in self._weighted(inputs, values, self._lambda(folded, self.new_weights), where):
                out[name][:, new] = matrix
        return out

    def scores(self, folded: Folded, interests: Matrix) -> Matrix:
        """The sum of `contributions`, [n, J], with no matrix kept for each."""
        inputs, values = self._inputs(folded, interests), self._values(folded)

        def total(weights: Mapping[str, tuple[float, float]], where: Positions) -> Matrix:
            terms = self._weighted(inputs, values, self._lambda(folded, weights), where)
            return reduce(np.add, (matrix for _, matrix in terms))

        out = total(self.weights, slice(None))
        if self.new_weights and len(self.new):
            out[:, self.new] = total(self.new_weights, self.new)
        return out

    @staticmethod
    def _lambda(folded: Folded, weights: Mapping[str, tuple[float, float]]) -> Weights:
        known = np.log1p(folded.length)[:, None] - _MEDIUM
        return {name: a + b * known for name, (a, b) in weights.items()}

    def terms(self, folded: Folded, interests: Matrix) -> dict[str, Matrix]:
        """s_m by term, each [n, J], standardised."""
        one = np.ones((len(folded.length), 1))
        return dict(self._weighted(self._inputs(folded, interests), self._values(folded), dict.fromkeys(TERMS, one)))

    def _weighted(
        self, inputs: dict[str, Matrix], values: dict[str, Matrix], weights: Weights, positions: Positions = slice(None)
    ) -> Iterator[tuple[str, Matrix]]:
        """Weight [n, 1] times the standardised term by name, [n, J] or only at some positions.

        A history bears few items, so only their rows of the large arrays are read; and mean and deviation over the
        items come from the few numbers that a term multiplies its array with, so that no [n, J] is gone over again.
        """
        for name in TERMS:
            if name in inputs:
                yield name, self.bases[name].weighted(inputs[name], weights[name], positions)
            elif name in values:
                yield name, self._among(values[name], weights[name], positions)
            else:
                yield name, weights[name].astype(np.float32) * self._standard_popularity[:, positions]

    def _among(self, values: Matrix, weight: NDArray[np.float64], positions: Positions) -> Matrix:
        """weight · standardise of what is `values` [n, E] at the compared items and 0 at all others."""
        scale, shift = (x.astype(np.float32) for x in among_scale(values, len(self.popularity), weight))
        place = self._place[positions]
        out = np.repeat(-shift, len(place), 1)
        there = np.flatnonzero(place >= 0)
        out[:, there] += scale * (values if len(there) == values.shape[1] == len(place) else values[:, place[there]])
        return out

    @cached_property
    def _place(self) -> NDArray[np.int64]:
        """[J] where an item stands among the compared; -1 where it does not."""
        place = np.full(len(self.popularity), -1)
        place[self.compared] = np.arange(len(self.compared))
        return place

    def _inputs(self, folded: Folded, interests: Matrix) -> dict[str, Matrix]:
        """What each of `bases` is multiplied with, [n, d]."""
        profile = rows_product(folded.recent_liked, self.vectors)
        norm = np.linalg.norm(profile, axis=1, keepdims=True)
        return {
            "interest": interests - self.label_mean,
            "taste": self._taste(folded.seen),
            "content": np.divide(profile, norm, out=np.zeros_like(profile), where=norm > 0),
            "factors_liked": self._fold(folded.liked, "factors_liked"),
            "factors_seen": self._fold(folded.seen, "factors_seen"),
            "spectral": rows_product(folded.seen / self._root, self.spectral),
        }

    def _values(self, folded: Folded) -> dict[str, Matrix]:
        """[n, E] of those terms that compare items."""
        between = self._between(folded)
        return {name: rows_product(history[:, self.compared], weights) for name, (history, weights) in between.items()}

    def _between(self, folded: Folded) -> dict[str, tuple[Matrix, Matrix]]:
        """The terms that compare items with those of the history: which of it, and with what weights."""
        return {
            "collaborative": (folded.recent_liked, self.ease),
            "nearby": (folded.recent_seen, self.nearby),
            "nearby_whole": (folded.seen, self.nearby),
        }

    def parts(
        self, folded: Folded, interests: Matrix, positions: Sequence[int]
    ) -> dict[str, tuple[NDArray[np.int64], NDArray[Any]]]:
        """What the terms of one history are made of at some positions, exactly: each deviation is held fixed.

        Returns:
            By term the sources [p] with their parts [p, positions] of the contribution: labels (of `label_mean` for
            interest, of `label_share` for taste) and positions of the history's items for all others but popularity,
            which has no parts.
        """
        weights = self._lambda(folded, self.weights)
        if self.new_weights:
            new = np.isin(positions, self.new)
            of_new = self._lambda(folded, self.new_weights)
            weights = {name: np.where(new, of_new[name], own) for name, own in weights.items()}
        inputs = self._inputs(folded, interests)
        sources: dict[str, tuple[NDArray[np.int64], NDArray[Any]]] = {
            name: (np.arange(inputs[name].shape[1]), np.diag(inputs[name][0])) for name in ("interest", "taste")
        }
        liked, seen = np.flatnonzero(folded.liked[0]), np.flatnonzero(folded.seen[0])
        profile = folded.recent_liked[0, liked, None] * self.vectors[liked]
        length = np.linalg.norm(profile.sum(0))
        sources["content"] = liked, profile / length if length > 0 else 0 * profile
        for name, items in (("factors_liked", liked), ("factors_seen", seen)):
            mine = getattr(self, name)[items]
            sources[name] = (
                items,
                np.linalg.solve(self.grams[name] + self.als[0] * mine.T @ mine, (1 + self.als[0]) * mine.T).T,
            )
        sources["spectral"] = seen, self.spectral[seen] / self._root[seen, None]
        out = {}
        for name, (which, x) in sources.items():
            base = self.bases[name]
            scale = base.scale(inputs[name], weights[name])
            out[name] = which, scale * (x @ base.items[:, positions] - (x @ base.mean)[:, None])
        place = self._place
        at = place[np.asarray(positions, np.int64)]
        for name, (history, between) in self._between(folded).items():
            which = np.flatnonzero((history[0] > 0) & (place >= 0))
            values = history[0, which, None] * between[place[which]]
            scale, _ = among_scale(values.sum(0, keepdims=True), history.shape[1], weights[name])
            there = np.where(at >= 0, values[:, np.maximum(at, 0)], 0)
            out[name] = which, scale * (there - values.sum(1, keepdims=True) / history.shape[1])
        return out

    @cached_property
    def bases(self) -> dict[str, Base]:
        """The terms that are a few numbers of the history times a fixed array."""
        return {
            "interest": Base.of(self.ties),
            "taste": Base.of(self.membership.T),
            "content": Base.of(self.vectors.T),
            "factors_liked": Base.of(self.factors_liked.T),
            "factors_seen": Base.of(self.factors_seen.T),
            "spectral": Base.of((self.spectral * self._root[:, None]).T),
        }

    @cached_property
    def _standard_popularity(self) -> Matrix:
        return standardise(self.popularity[None])

    @cached_property
    def _root(self) -> Matrix:
        return np.sqrt(self.activity)

    def _taste(self, seen: Matrix) -> Matrix:
        """log of the labels' shares in a history over those in all; five events of everybody's are mixed in."""
        count = rows_product(seen, self.membership) + 5 * self.label_share
        share = count / (seen.sum(1, keepdims=True) + 5)
        ratio: Matrix = np.log(share / np.maximum(self.label_share, 1e-4) + 0.05)
        return ratio

    @cached_property
    def grams(self) -> dict[str, Matrix]:
        """What every user's ridge solution shares, by term."""
        diagonal = self.als[1] * np.eye(self.factors_liked.shape[1], dtype=np.float32)
        factors = {"factors_liked": self.factors_liked, "factors_seen": self.factors_seen}
        return {name: items.T @ items + diagonal for name, items in factors.items()}

    def _fold(self, history: Matrix, name: str) -> Matrix:
        """A user's ridge solution given the items' factors (Hu et al. 2008, eq. 4)."""
        alpha, factors, gram = self.als[0], getattr(self, name), self.grams[name]
        users = np.zeros((len(history), factors.shape[1]), np.float32)
        for row, weights in enumerate(history):
            mine = factors[np.flatnonzero(weights)]
            if len(mine):
                users[row] = np.linalg.solve(gram + alpha * mine.T @ mine, (1 + alpha) * mine.sum(0))
        return users

    def save(self, directory: Path) -> None:
        """recommender.safetensors; λ, decay and text settings belong to the card."""
        from safetensors.numpy import save_file

        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {name: np.ascontiguousarray(value) for name, value in values.items() if isinstance(value, np.ndarray)}
        save_file(arrays, directory / RECOMMENDER)

    @classmethod
    def load(cls, directory: Path, card: dict[str, Any]) -> Recommender:
        recommender = card["recommender"]
        return cls(
            **mapped_arrays(directory / RECOMMENDER),
            weights={name: (a, b) for name, (a, b) in recommender["weights"].items()},
            new_weights={name: (a, b) for name, (a, b) in recommender.get("new_weights", {}).items()},
            decay=recommender["decay"],
            als=tuple(recommender["als"]),
            text=TextSettings.model_validate(card["text"]),
        )


@dataclass(frozen=True)
class Base:
    """A fixed array [d, J] that a term multiplies d numbers of a history with, and its moments over the J items."""

    items: Matrix
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, items: Matrix) -> Base:
        mean = items.mean(1, dtype=np.float64)
        covariance = np.zeros((len(items), len(items)))
        for start in range(0, items.shape[1], 8192):
            centred = items[:, start : start + 8192] - mean[:, None]
            covariance += centred @ centred.T
        return cls(items, mean, covariance / items.shape[1])

    def scale(self, x: Matrix, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weight over the deviation of `x @ items`, 0 where that is constant; as many columns as the weight."""
        exact = x.astype(np.float64)
        return over_deviation(weight, ((exact @ self.covariance) * exact).sum(1, keepdims=True))

    def weighted(self, x: Matrix, weight: NDArray[np.float64], positions: Positions) -> Matrix:
        """weight · standardise(x @ items) at some positions, [n, d] -> [n, positions]."""
        scaled = self.scale(x, weight) * x
        out: Matrix = scaled.astype(np.float32) @ self.items[:, positions]
        out -= (scaled @ self.mean).astype(np.float32)[:, None]
        return out


def among_scale(
    values: Matrix, items: int, weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift [n, 1] with which scale · x - shift is weight times the standardised x over `items` items, of
    which `values` [n, E] are all that are not 0."""
    mean = values.mean(1, dtype=np.float64, keepdims=True) * (values.shape[1] / items)
    square = np.einsum("ij,ij->i", values, values, dtype=np.float64)[:, None] / items
    scale = over_deviation(weight, square - mean**2)
    return scale, scale * mean


def over_deviation(weight: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """weight / deviation; 0 where there is none."""
    deviation = np.sqrt(np.maximum(variance, 0))
    shape = np.broadcast_shapes(weight.shape, deviation.shape)
    return np.divide(weight, deviation, out=np.zeros(shape), where=deviation > 1e-7)


def rows_product(weights: Matrix, rows: Matrix) -> Matrix:
    """`weights @ rows`, [n, m] by [m, d]; where few rows have a weight only those are read."""
    used = np.flatnonzero(weights.any(0))
    if 4 * len(used) > weights.shape[1]:
        return weights @ rows
    product: Matrix = weights[:, used] @ rows[used]
    return product


def standardise(scores: NDArray[Any]) -> Matrix:
    """Mean 0 and deviation 1 over each row's items; a constant row becomes 0."""
    centred: Matrix = scores.astype(np.float32)
    centred = centred - centred.mean(1, keepdims=True)
    deviation = centred.std(1, keepdims=True)
    out: Matrix = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-7)
    return out


def seen(histories: Sequence[Sequence[Event]], catalogue: Catalogue) -> NDArray[np.bool_]:
    """[n, J]: items of the history, whatever the act; they are not recommended again."""
    out = np.zeros((len(histories), len(catalogue)), np.bool_)
    for row, history in enumerate(histories):
        for event in history:
            position = catalogue.index.get(event.item or "")
            if position is not None:
                out[row, position] = True
    return out


# --- fitting ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Past:
    """Events with an item before a cut, by user and time.

    Attributes:
        user: [m] from 0; item: [m] positions; age: [m] days before the cut; positive: [m].
        items: J.
        names: [U] of the users, where they come from snapshots.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    age: NDArray[np.float64]
    positive: NDArray[np.bool_]
    items: int
    names: Sequence[str] = ()

    @classmethod
    def before(cls, cut: int, data: Snapshots) -> Past:
        import narwhals as nw

        past = nw.from_native(data.events).filter(nw.col(TIME) < cut, nw.col(ITEM).is_in(data.catalogue.items))
        events: pl.DataFrame = past.with_columns(positive=positive(data.text.positive)).to_native()
        names, user = np.unique(events[USER].to_numpy(), return_inverse=True)
        return cls(
            user.astype(np.int64),
            np.array([data.catalogue.index[i] for i in events[ITEM].to_list()], np.int64),
            (cut - events[TIME].to_numpy()) / _DAY,
            events["positive"].to_numpy().astype(np.bool_),
            len(data.catalogue),
            names.tolist(),
        )

    @cached_property
    def seen(self) -> Matrix:
        """[U, J] of 0 and 1: any event."""
        return self._matrix(np.ones(len(self.user), np.bool_))

    @cached_property
    def matrix(self) -> Matrix:
        """[U, J] of 0 and 1: positive events."""
        return self._matrix(self.positive)

    def _matrix(self, which: NDArray[np.bool_]) -> Matrix:
        users = int(self.user.max()) + 1 if len(self.user) else 1
        out = np.zeros((users, self.items), np.float32)
        out[self.user[which], self.item[which]] = 1
        return out

    def without(self, new: NDArray[np.bool_]) -> Past:
        """As if nobody had met these items [J]."""
        kept = ~new[self.item]
        return Past(self.user[kept], self.item[kept], self.age[kept], self.positive[kept], self.items)

    def popularity(self, half_life: float) -> Matrix:
        """[J]: log(1 + positive events), each halved in weight every `half_life` days."""
        weight = 0.5 ** (self.age[self.positive] / half_life)
        return np.log1p(np.bincount(self.item[self.positive], weight, minlength=self.items)).astype(np.float32)

    def count(self, days: float = np.inf) -> Matrix:
        """[J]: positive events of the last days."""
        which = self.positive & (self.age <= days)
        return np.bincount(self.item[which], minlength=self.items).astype(np.float32)


def leading(vectors: Matrix, width: int) -> Matrix:
    """Vectors [J, d] in their first principal axes, [J, min(width, d)]: so few numbers keep the products between them
    best (Eckart & Young 1936). Ranking reads the whole catalogue's for every user: their width is what it costs."""
    if width >= vectors.shape[1]:
        return vectors
    _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)  # ascending
    kept: Matrix = vectors @ axes[:, -width:].astype(np.float32)
    return kept


def ease(matrix: Matrix, regularisation: float) -> Matrix:
    """Item-item weights [J, J] with zero diagonal, in closed form (Steck 2019, eq. 8).

    With fewer users than items the inverse is taken of [U, U]: by Woodbury's identity the weights are
    `Q_ij / (1 - Q_jj)` of `Q = Xᵀ (X Xᵀ + λ)⁻¹ X`.
    """
    if len(matrix) < matrix.shape[1]:
        users = matrix.astype(np.float64) @ matrix.T
        users[np.diag_indices(len(users))] += regularisation
        root = np.linalg.solve(np.linalg.cholesky(users), matrix)
        explained: Matrix = (root.T @ root).astype(np.float32)
        explained /= (1 - (root**2).sum(0)).astype(np.float32)
        explained[np.diag_indices(len(explained))] = 0
        return explained
    gram = matrix.T.astype(np.float64) @ matrix
    gram[np.diag_indices(len(gram))] += regularisation
    precision = np.linalg.inv(gram)
    weights = precision / -np.diag(precision)
    weights[np.diag_indices(len(weights))] = 0
    return weights.astype(np.float32)


def item_knn(matrix: Matrix, neighbours: int, shrink: float) -> Matrix:
    """Item-item weights [J, J]: shrunk cosine, each item's `neighbours` strongest kept (Deshpande & Karypis 2004)."""
    together = matrix.T @ matrix
    norm = np.sqrt(np.diag(together))
    similarity = together / (np.outer(norm, norm) + shrink + 1e-9)
    similarity[np.diag_indices(len(similarity))] = 0
    if neighbours < len(similarity):
        cut = np.partition(similarity, -neighbours, axis=0)[-neighbours]
        similarity[similarity < cut] = 0
    return similarity.astype(np.float32)


def fit_ties(truth: Matrix, future: Matrix, regularisation: float) -> Matrix:
    """[K, J]: by ridge regression how much more an item follows where a label's interest is there."""
    a, b = truth - truth.mean(0), future - future.mean(0)
    ties = np.linalg.solve(a.T @ a + regularisation * np.eye(a.shape[1]), a.T @ b)
    return np.asarray(ties, np.float32)


def nearby(past: Past, reach: int, shrink: float = 20) -> Matrix:
    """Item-item weights [J, J]: how often two items stood near each other in a history, d places apart counting
    exp(-d/3), as a share of everything that stood near the first."""
    together = np.zeros((past.items, past.items), np.float32)
    for places in range(1, reach + 1):
        first, second = past.item[:-places], past.item[places:]
        one = (past.user[:-places] == past.user[places:]) & (first != second)
        np.add.at(together, (first[one], second[one]), np.float32(np.exp(-places / 3)))
    together += together.T
    share: Matrix = together / (together.sum(1, keepdims=True) + np.float32(shrink))
    return share


def als(matrix: Matrix, settings: RecommenderSettings) -> Matrix:
    """Item factors [J, f] of implicit ALS."""
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):  # it has threads of its own
        model = AlternatingLeastSquares(
            settings.factors, settings.als_regularisation, settings.als_alpha,
            iterations=settings.als_iterations, random_state=0,
        )  # fmt: skip
        model.fit(csr_matrix(matrix), show_progress=False)
    return np.asarray(model.item_factors, np.float32)


def spectral(matrix: Matrix, width: int) -> tuple[Matrix, Matrix]:
    """The leading right singular vectors [J, f] of D_u^-½ X D_j^-½, and D_j [J], at least 1."""
    from scipy.sparse.linalg import svds

    users, activity = np.maximum(matrix.sum(1, keepdims=True), 1), np.maximum(matrix.sum(0), 1)
    normal = matrix / np.sqrt(users) / np.sqrt(activity)
    smallest = min(normal.shape)
    if width < smallest:
        vectors = svds(normal, width, random_state=0)[2].T
    else:
        vectors = np.linalg.svd(normal, full_matrices=False)[2].T
    return np.ascontiguousarray(vectors, np.float32), activity.astype(np.float32)


def fit_recommender(model: Path, snapshots: Path, settings: RecommenderSettings, out: Path) -> RecommenderResult:
    """Fit the terms and λ, and put everything that answers into a bundle.

    Args:
        model: what `finetune` wrote.
        snapshots: what `prepare` wrote.
        settings: grids.
        out: the bundle directory.
    """
    from safetensors.numpy import load_file

    from tasteloop.export import compile_bundle
    from tasteloop.runtime import Session
    from tasteloop.training import PREDICTIONS, TRAINING

    began = time.monotonic()
    data, training = Snapshots.read(snapshots), read_json(model / TRAINING)
    validation = data.split(VALIDATION)
    with atomic_directory(out) as directory:
        shutil.copytree(model / MODELS, directory / MODELS)
        shutil.copyfile(snapshots / ITEMS, directory / ITEMS)
        if (model / HABITS).exists():
            shutil.copyfile(model / HABITS, directory / HABITS)
        card = _card(data, training)
        predictions = load_file(model / PREDICTIONS)
        card["runtime"] = compile_bundle(directory, card, _judged(data, predictions))
        session = Session.open(directory, card)
        vectors = session.item_vectors()
        histories = data.histories(validation)
        train = data.split(TRAIN)
        truth = data.truth(train)
        interests = predictions.get("interests")
        if interests is None:
            interests = np.tile(truth.mean(0), (len(validation), 1)).astype(np.float32)
        asked = Asked(
            lambda decay: Folded.of(histories, data.catalogue, decay, data.text),
            interests,
            validation[FUTURE].to_list(),
            seen(histories, data.catalogue),
            validation[USER].to_numpy(),
        )
        ground = Ground(vectors, data.catalogue, data.labels, truth, train[FUTURE].to_list(), data.text)
        tuned = tune(Past.before(data.meta["validation_from"], data), ground, asked, settings)
        final = fit_terms(Past.before(data.meta["test_from"], data), ground, settings, tuned)
        final.save(directory)
        card["recommender"] = {
            "weights": tuned.weights, "new_weights": tuned.new_weights, "decay": tuned.decay, "als": final.als,
            "regularisation": tuned.regularisation,
            "half_life": tuned.half_life, "shrinkage": tuned.shrinkage, "settings": settings.model_dump(mode="json"),
        }  # fmt: skip
        card["validation"] |= {"recommend.ndcg@10": tuned.ndcg}
        write_json(directory / CARD, card)
        write_json(directory / GOLDEN, _golden(directory, card, data, histories))
        atomic_write(directory / README, _readme(card))
        digest = seal(directory)
    middling = {name: a for name, (a, _) in tuned.weights.items()}
    return RecommenderResult(middling, tuned.ndcg, digest, time.monotonic() - began)


@dataclass(frozen=True)
class Asked:
    """The validation rows: histories by decay, interests [n, K], relevant positions, hidden [n, J], users [n]."""

    folded: Callable[[float], Folded]
    interests: Matrix
    relevant: Sequence[Sequence[int]]
    hidden: NDArray[np.bool_]
    users: NDArray[Any]

    def ndcg(self, scores: Matrix) -> float:
        return self.measure(scores).value

    def measure(self, scores: Matrix) -> metrics.Measure:
        return metrics.ndcg(metrics.top_k(np.where(self.hidden, -np.inf, scores), 10), self.relevant)


@dataclass(frozen=True)
class Ground:
    """What the terms are fitted on beside the past: item vectors [J, d], and training rows' interests and futures."""

    vectors: Matrix
    catalogue: Catalogue
    labels: list[str]
    truth: Matrix
    futures: Sequence[Sequence[int]]
    text: TextSettings


@dataclass(frozen=True)
class Tuned:
    """What the validation window chose; `ndcg` is by cross-fitting of λ."""

    regularisation: float
    decay: float
    half_life: float
    shrinkage: float = 0.0
    weights: dict[str, tuple[float, float]] = field(default_factory=dict)
    new_weights: dict[str, tuple[float, float]] = field(default_factory=dict)
    ndcg: float = 0.0


def tune(past: Past, ground: Ground, asked: Asked, settings: RecommenderSettings) -> Tuned:
    """EASE's regularisation with the decay of the history, popularity's half-life, each by its own nDCG; then λ."""
    columns = _compared(past, settings)
    best = (-1.0, 0.0, 0.0)
    folded = {decay: asked.folded(decay) for decay in settings.history_decay}
    for regularisation in settings.ease_regularisation:
        weights = ease(past.matrix[:, columns], regularisation)
        for decay, histories in folded.items():
            scores = np.zeros_like(histories.liked)
            scores[:, columns] = histories.recent_liked[:, columns] @ weights
            best = max(best, (asked.ndcg(scores), regularisation, decay))
    half_life = max(
        settings.half_life_days, key=lambda days: asked.ndcg(np.broadcast_to(past.popularity(days), asked.hidden.shape))
    )
    chosen = Tuned(best[1], best[2], half_life)
    fitted = fit_terms(past, ground, settings, chosen)
    terms = fitted.terms(folded[chosen.decay], asked.interests)
    shrinkage, ndcg, weights_ = fit_weights(terms, folded[chosen.decay].length, asked, settings)
    middling = {name: round(a, 3) for name, (a, _) in weights_.items()}
    log.info("λ of a middling history %s, validation nDCG@10 %.4f", middling, ndcg)
    new_weights = fit_new_weights(past, ground, asked, settings, chosen)
    return replace(chosen, shrinkage=shrinkage, weights=weights_, new_weights=new_weights, ndcg=ndcg)


def fit_new_weights(
    past: Past, ground: Ground, asked: Asked, settings: RecommenderSettings, chosen: Tuned
) -> dict[str, tuple[float, float]]:
    """λ of items that nobody has met: some are held out of what is fitted and folded in, and new ones alone ranked."""
    held = np.random.default_rng(0).random(past.items) < settings.held_out
    fitted = fit_terms(past.without(held), ground, settings, chosen)
    new = np.zeros(past.items, np.bool_)
    new[fitted.new] = True
    folded = asked.folded(chosen.decay)
    folded = Folded.decayed(np.where(new, 0, folded.recent_liked), np.where(new, 0, folded.recent_seen), folded.length)
    wanted = [[j for j in relevant if new[j]] for relevant in asked.relevant]
    asked = replace(asked, hidden=asked.hidden | ~new, relevant=wanted)
    shrinkage, ndcg, weights = fit_weights(
        fitted.terms(folded, asked.interests), folded.length, asked, settings, cautious=True
    )
    middling = {name: round(a, 3) for name, (a, _) in weights.items()}
    log.info("λ of a new item %s, validation nDCG@10 %.4f", middling, ndcg)
    return weights


def _compared(past: Past, settings: RecommenderSettings) -> NDArray[np.int32]:
    count = np.bincount(past.item, minlength=past.items)
    return np.sort(np.argsort(-count, kind="stable")[: min(settings.ease_items, int((count > 0).sum()))]).astype(
        np.int32
    )


def fit_terms(past: Past, ground: Ground, settings: RecommenderSettings, tuned: Tuned) -> Recommender:
    """Every term's arrays; λ are `tuned`'s, or the start's."""
    columns = _compared(past, settings)
    future = np.zeros((len(ground.futures), past.items), np.float32)
    for row, items in enumerate(ground.futures):
        future[row, items] = 1
    all_labels = ground.catalogue.membership(ground.catalogue.label_names).astype(np.float32)
    every = past.seen.sum(0) @ all_labels
    singular, activity = spectral(past.seen, settings.factors)
    root = np.sqrt(activity)[:, None]
    met = np.bincount(past.item, minlength=past.items)
    known = (
        fit_ties(ground.truth, future, settings.interest_regularisation).T,
        als(past.matrix, settings), als(past.seen, settings), singular * root,
        past.popularity(tuned.half_life)[:, None],
    )  # fmt: skip
    borrowed = expected(
        features(ground.catalogue, ground.vectors), np.concatenate(known, 1),
        (met / (met + settings.familiar)).astype(np.float32), settings.text_regularisation,
    )  # fmt: skip
    ties, liked, seen_, passed, popular = np.split(borrowed, np.cumsum([part.shape[1] for part in known])[:-1], axis=1)
    return Recommender(
        vectors=leading(ground.vectors, settings.content_width),
        compared=columns,
        ease=ease(past.matrix[:, columns], tuned.regularisation),
        nearby=nearby(past, settings.nearby_reach)[np.ix_(columns, columns)],
        ties=np.ascontiguousarray(ties.T),
        label_mean=ground.truth.mean(0),
        membership=all_labels / np.maximum(all_labels.sum(1, keepdims=True), 1),
        label_share=(every / max(float(past.seen.sum()), 1)).astype(np.float32),
        factors_liked=np.ascontiguousarray(liked),
        factors_seen=np.ascontiguousarray(seen_),
        spectral=np.asarray(passed / root, np.float32),
        activity=activity,
        popularity=popular[:, 0].copy(),
        weights=tuned.weights or {name: (_START.get(name, 0.0), 0.0) for name in TERMS},
        decay=tuned.decay,
        als=(settings.als_alpha, settings.als_regularisation),
        text=ground.text,
        new=np.flatnonzero(met == 0).astype(np.int32),
        new_weights=tuned.new_weights,
    )


def fit_weights(
    terms: dict[str, Matrix],
    length: NDArray[np.int64],
    asked: Asked,
    settings: RecommenderSettings,
    cautious: bool = False,
) -> tuple[float, float, dict[str, tuple[float, float]]]:
    """λ: the softmax likelihood of the relevant among each row's candidates, rows alike, shrunk towards the start.

    Args:
        cautious: take the strongest pull that is not proven worse than the best, for few rows.

    Returns:
        The shrinkage that ranks best by cross-fitting in three folds of users, that nDCG@10, and λ fitted on all.
    """
    start = np.array([_START.get(name, 0.0) for name in TERMS] + [0.0] * len(TERMS))
    size = min(settings.candidates, int((~asked.hidden).sum(1).min()))
    plain = sum((np.float32(w) * terms[n] for n, w in _START.items()), np.zeros_like(terms[TERMS[0]]))
    picked = metrics.top_k(np.where(asked.hidden, -np.inf, plain), max(size, 1))
    known = (np.log1p(length) - _MEDIUM)[:, None, None]
    features = np.stack([np.take_along_axis(terms[name], picked, 1) for name in TERMS], 2).astype(np.float64)
    features = np.concatenate([features, features * known], 2)
    wanted = metrics.hits(picked, asked.relevant)
    _, user = np.unique(asked.users, return_inverse=True)
    fold = user % 3

    def cross_fitted(shrinkage: float) -> metrics.Measure:
        scores = np.full(asked.hidden.shape, -1e9, np.float32)
        for k in range(3):
            rows = fold == k
            others = features[~rows], wanted[~rows]
            weights = _maximise(*others, start, shrinkage) if len(others[0]) else start
            part = scores[rows]
            np.put_along_axis(part, picked[rows], (features[rows] @ weights).astype(np.float32), 1)
            scores[rows] = part
        return asked.measure(scores)

    # A weak pull is not tried on few users: what so few cross-fitted rows prefer is chance.
    strong = [shrinkage for shrinkage in settings.shrinkage if shrinkage * (user.max() + 1) >= 0.5]
    measured = {shrinkage: cross_fitted(shrinkage) for shrinkage in strong or [max(settings.shrinkage)]}
    best = shrinkage = max(measured, key=lambda s: (measured[s].value, s))
    if cautious:
        worse = {s: metrics.difference(measured[best], m, asked.users).low or 0.0 for s, m in measured.items()}
        shrinkage = max(s for s, gap in worse.items() if gap <= 0)
    weights = _maximise(features, wanted, start, shrinkage)
    both = weights.reshape(2, len(TERMS)).T
    found = {name: (float(a), float(b)) for name, (a, b) in zip(TERMS, both, strict=True)}
    return shrinkage, measured[shrinkage].value, found


def _maximise(
    features: NDArray[np.float64], wanted: NDArray[np.float64], start: NDArray[np.float64], shrinkage: float
) -> NDArray[np.float64]:
    """argmin over w of the mean cross-entropy of rows' softmax(features w) plus shrinkage · |w - start|²."""
    from scipy.optimize import minimize

    count = wanted.sum(1)
    if not (count > 0).any():
        return start
    x, share = features[count > 0], wanted[count > 0] / count[count > 0, None]

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = x @ w
        scores -= scores.max(1, keepdims=True)
        total = np.log(np.exp(scores).sum(1, keepdims=True))
        gap = np.exp(scores - total) - share
        value = float((total[:, 0] - (share * scores).sum(1)).mean()) + shrinkage * float(((w - start) ** 2).sum())
        return value, np.einsum("nk,nkd->d", gap, x) / len(x) + 2 * shrinkage * (w - start)

    found: NDArray[np.float64] = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 60}).x
    return found


def _judged(data: Snapshots, predictions: dict[str, Matrix]) -> dict[str, Judged]:
    """The validation window of each task, on which a runtime is judged."""
    from tasteloop.export import Judged

    validation = data.split(VALIDATION)
    out = {}
    if "interests" in predictions:
        out["interests"] = Judged(data.histories(validation), data.truth(validation), predictions["interests"])
    if "sentiment" in predictions:
        reviews = data.reviews()
        assert reviews is not None, "sentiment was learned from them"
        reviews = reviews.filter(reviews[SPLIT] == VALIDATION)
        truth = reviews[SENTIMENT].to_numpy().astype(np.float32)[:, None]
        out["sentiment"] = Judged(reviews[TEXT].to_list(), truth, predictions["sentiment"])
    return out


def _card(data: Snapshots, training: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "tasteloop", "labels": training["labels"], "tasks": training["tasks"], "models": training["models"],
        "text": training["text"], "review_max_tokens": training["settings"]["review_max_tokens"],
        "encoder": training["encoder"], "data": data.meta["data"], "source": data.meta["source"],
        "code": code_version(),
        "settings": {"prepare": data.meta["settings"], "training": training["settings"]},
        "snapshots": data.meta["snapshots"], "reviews": data.meta["reviews"],
        "validation": {f"{name}.average_precision": task["quality"] for name, task in training["tasks"].items()},
    }  # fmt: skip


# --- what goes with it --------------------------------------------------------------------------------------------

_SENTENCES = (
    "A delight from the first scene to the last.",
    "Two hours that feel like five, and nobody to care about.",
    "It has its moments, but not many.",
)


def _golden(directory: Path, card: dict[str, Any], data: Snapshots, histories: list[list[Event]]) -> dict[str, Any]:
    """Questions with this trainer's own answers: a server that answers otherwise is not serving this model.

    A server on another processor may choose another runtime, and another precision answers otherwise; so `others` has
    the answers to the same questions by each other precision that is good enough.
    """
    from tasteloop.runtime import Session

    (precision, runtime), *others = precisions(card["runtime"]).items()
    session = Session.open(directory, card, runtime)
    lengths = sorted({len(h): h for h in histories}.items())
    picked = [[], *(h for _, h in lengths[:: max(1, len(lengths) // 6)][:6])]
    unknown = [
        {"kind": "click", "item": "an item that no catalogue has"},
        {"kind": "search", "text": "space opera"},
    ]
    instances: list[dict[str, Any]] = [
        *({"events": [event.json() for event in history], "k": 5} for history in picked),
        {"events": unknown, "k": 3},
    ]
    asked = {"interests": [{"events": i["events"]} for i in instances], "recommend": instances}
    if session.has_sentiment:
        asked["sentiment"] = [{"text": sentence} for sentence in _SENTENCES]

    def answers(session: Session) -> list[dict[str, Any]]:
        return [answer for model, questions in asked.items() for answer in session.answer(model, questions)]

    told = [(model, instance) for model, questions in asked.items() for instance in questions]
    return {
        "questions": [
            {"model": model, "instance": instance, "answer": answer}
            for (model, instance), answer in zip(told, answers(session), strict=True)
        ],
        "precision": precision,
        "others": {other: answers(Session.open(directory, card, name)) for other, name in others},
    }


def _readme(card: dict[str, Any]) -> str:
    measured = "\n".join(f"| {name} | {value:.4f} |" for name, value in card["validation"].items())
    runtimes = "\n".join(
        f"| {name} | {', '.join(f'{s} {v:.0f}' for s, v in c['texts_per_second'].items())} | {c['difference']:.1g} "
        f"| {'yes' if c['good'] else 'no'} |"
        for name, c in card["runtime"]["candidates"].items()
    )
    return f"""# Tasteloop model card

Reads a user's behaviour as text and answers with interests ({len(card["labels"])} labels), recommendations with their
reasons, and, where it was trained on reviews, the sentiment of a text.

- Encoder: {card["encoder"]}, fine-tuned; code {card["code"]}
- Data: {card["source"]}, SHA-256 {card["data"]}
- Snapshots: {card["snapshots"]}; reviews: {card["reviews"]}
- Recommender: λ = a + b · (log(1 + events) - 3.5), (a, b): {card["recommender"]["weights"]}

Measured on the validation window, on which calibration, thresholds and λ were chosen too (the test window's numbers are
in the run's evaluation):

| measure | value |
|---|---|
{measured}

Runtime: {card["runtime"]["chosen"]} on {card["runtime"]["processor"]}, {card["runtime"]["threads"]} threads; texts/s by
batch x tokens, and the largest difference of a probability from the trainer's, of all that were measured:

| runtime | texts/s | difference | good enough |
|---|---|---|---|
{runtimes}

Intended use: ranking and describing content by what its own users did. Not for decisions about persons. It knows only
the catalogue and the behaviour that it was trained on, and their biases: popular items are favoured.
"""
