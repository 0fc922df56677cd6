"""Ranking: a sum of terms, so that the reasons of a score are its parts.

`R(i, j) = Σ_m λ_m(n_i) · s_m(i, j)`, each `s_m` standardised over the catalogue for the user at
hand: λ compare, and `λ_m(n) = a_m + b_m · log(1 + n)` for a history of n events: what to trust
depends on how much is known.

- interest: `Σ_k w_jk · (y_ik - ȳ_k)`, `w` by ridge regression of what followed on which interests
  were there, and for items without a positive event by the mean of their labels' other items;
- taste: the labels of the history against those of everybody, as log-ratios, averaged over the
  item's labels;
- content: cosine of the item's text vector and the history's, both by the fine-tuned encoder, in
  the leading principal components;
- collaborative: EASE (Steck 2019, https://arxiv.org/abs/1905.03375) on liked items, the history
  decayed by rank;
- factors_liked, factors_seen: implicit ALS (Hu, Koren & Volinsky 2008) on liked items, and on all:
  whether a user likes an item, and whether they come upon it;
- spectral: what the leading singular vectors of the normalised matrix keep of a history (Shen et
  al. 2021, GF-CF);
- nearby, nearby_whole: items that stood close together in others' histories, to the newest of the
  history and to all;
- popularity: log of positive events, decayed by age with a half-life.

Ties, factors, spectral vectors and popularity of an item that few have met lean on what its text
lets expect (`tasteloop.recommender.item_text`); one that nobody has met has λ of its own, fitted on
items held out on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings, in_order
from tasteloop.bundle.arrays import mapped_arrays
from tasteloop.bundle.card import BundleCard
from tasteloop.bundle.names import RECOMMENDER_FILE

Matrix = NDArray[np.float32]
Positions = NDArray[np.integer[Any]] | slice
# weight [n, 1] times a standardised term, at some items
Term = Callable[[NDArray[np.float64], Positions], Matrix]
Weights = dict[str, NDArray[np.float64]]  # of each term for each row [n, 1]

TERMS = (
    "interest",
    "taste",
    "content",
    "collaborative",
    "factors_liked",
    "factors_seen",
    "spectral",
    "nearby",
    "nearby_whole",
    "popularity",
)
_MIDDLING = 3.5  # log(1 + n) of a history of middling length, about which λ turn


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
    def of(
        cls,
        histories: Sequence[Sequence[Event]],
        catalogue: Catalogue,
        decay: float,
        text: TextSettings,
    ) -> Folded:
        shape = (len(histories), len(catalogue))
        liked, seen = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for row, history in enumerate(histories):
            for rank, event in enumerate(reversed(in_order(history, text.history_limit))):
                position = catalogue.index.get(event.item or "")
                if position is not None:
                    seen[row, position] = seen[row, position] or decay**rank
                    if event.positive(text.positive):
                        liked[row, position] = liked[row, position] or decay**rank
        return cls.decayed(
            liked,
            seen,
            np.array([sum(event.is_act for event in history) for history in histories], np.int64),
        )

    @classmethod
    def decayed(
        cls, recent_liked: Matrix, recent_seen: Matrix, length: NDArray[np.int64]
    ) -> Folded:
        """From the decayed matrices alone."""
        one = np.float32(1)
        return cls(
            np.where(recent_liked > 0, one, 0),
            np.where(recent_seen > 0, one, 0),
            recent_liked,
            recent_seen,
            length,
        )


@dataclass(frozen=True)
class Recommender:
    """Arrays of the terms over J items and K labels; E of the items are compared with each other.

    Attributes:
        vectors: [J, d] principal components of the item text vectors, by `leading`.
        compared: [E] positions; ease, nearby: [E, E] item-item weights among them.
        ties: [K, J] what a label's presence adds to an item; label_mean [K].
        membership: [J, K] share of each label in an item's labels; label_share [K]: in everybody's
            events.
        factors_liked, factors_seen: [J, f]; spectral: [J, f] singular vectors; activity [J]: users
            of an item.
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

    def read(self, folded: Folded, interests: Matrix) -> Reading:
        """n histories, with this recommender's decay, and their calibrated probabilities [n, K] of
        interests.
        """
        terms = {
            name: self.bases[name].standardised(x)
            for name, x in self._inputs(folded, interests).items()
        }
        for names, histories, between in self._between(folded):
            together = np.concatenate([history[:, self.compared] for history in histories])
            for name, values in zip(
                names, np.split(rows_product(together, between), len(names)), strict=True
            ):
                terms[name] = among(values, self._place, self.compared)
        terms["popularity"] = lambda weight, at: _single(weight) * self._standard_popularity[:, at]
        known = how_much(folded.length)[:, None]
        return Reading(self, {name: terms[name] for name in TERMS}, known)

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

    def _between(
        self, folded: Folded
    ) -> tuple[tuple[tuple[str, ...], tuple[Matrix, ...], Matrix], ...]:
        """The terms that compare items with those of the history: which of it, and with what
        weights.
        """
        return (
            (("collaborative",), (folded.recent_liked,), self.ease),
            (("nearby", "nearby_whole"), (folded.recent_seen, folded.seen), self.nearby),
        )

    def parts(
        self, folded: Folded, interests: Matrix, positions: Sequence[int]
    ) -> dict[str, tuple[NDArray[np.int64], NDArray[Any]]]:
        """What the terms of one history are made of at some positions, exactly: each deviation is
        held fixed.

        Returns:
            By term the sources [p] with their parts [p, positions] of the contribution: labels (of
            `label_mean` for interest, of `label_share` for taste) and positions of the history's
            items for all others but popularity, which has no parts.
        """
        known = how_much(folded.length)[:, None]
        weights = lambdas(self.weights, known)
        if self.new_weights:
            new = np.isin(positions, self.new)
            of_new = lambdas(self.new_weights, known)
            weights = {name: np.where(new, of_new[name], own) for name, own in weights.items()}
        inputs = self._inputs(folded, interests)
        sources: dict[str, tuple[NDArray[np.int64], NDArray[Any]]] = {
            name: (np.arange(inputs[name].shape[1]), np.diag(inputs[name][0]))
            for name in ("interest", "taste")
        }
        liked, seen = np.flatnonzero(folded.liked[0]), np.flatnonzero(folded.seen[0])
        profile = folded.recent_liked[0, liked, None] * self.vectors[liked]
        length = np.linalg.norm(profile.sum(0))
        sources["content"] = liked, profile / length if length > 0 else 0 * profile
        for name, items in (("factors_liked", liked), ("factors_seen", seen)):
            mine = getattr(self, name)[items]
            sources[name] = (
                items,
                np.linalg.solve(
                    self.grams[name] + self.als[0] * mine.T @ mine, (1 + self.als[0]) * mine.T
                ).T,
            )
        sources["spectral"] = seen, self.spectral[seen] / self._root[seen, None]
        out = {}
        for name, (which, x) in sources.items():
            base = self.bases[name]
            scale = weights[name] * base.per_deviation(inputs[name])
            out[name] = which, scale * (x @ base.items[:, positions] - (x @ base.mean)[:, None])
        place = self._place
        at = place[np.asarray(positions, np.int64)]
        compared = [
            (n, h, between)
            for names, hs, between in self._between(folded)
            for n, h in zip(names, hs, strict=True)
        ]
        for name, history, between in compared:
            which = np.flatnonzero((history[0] > 0) & (place >= 0))
            values = history[0, which, None] * between[place[which]]
            scale = weights[name] * among_scale(values.sum(0, keepdims=True), history.shape[1])[0]
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
        """log of the labels' shares in a history over those in all; five events of everybody's are
        mixed in.
        """
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
                users[row] = np.linalg.solve(
                    gram + alpha * mine.T @ mine, (1 + alpha) * mine.sum(0)
                )
        return users

    def save(self, directory: Path) -> None:
        """recommender.safetensors; λ, decay and text settings belong to the card."""
        from safetensors.numpy import save_file

        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {
            name: np.ascontiguousarray(value)
            for name, value in values.items()
            if isinstance(value, np.ndarray)
        }
        save_file(arrays, directory / RECOMMENDER_FILE)

    @classmethod
    def load(cls, directory: Path, card: BundleCard) -> Recommender:
        """From a bundle: its arrays, with λ, decay and text settings of its card."""
        recommender = card.require_recommender()
        return cls(
            **mapped_arrays(directory / RECOMMENDER_FILE),
            weights=recommender.weights,
            new_weights=recommender.new_weights,
            decay=recommender.decay,
            als=recommender.als,
            text=TextSettings.model_validate(card.text),
        )


@dataclass(frozen=True)
class Reading:
    """What n histories say of the items: every term standardised, to be read at all of them or at
    some.

    A history bears few items, so only their rows of the large arrays were read; and mean and
    deviation over the items come from the few numbers that a term multiplies its array with, so
    that no [n, J] is gone over for them.

    Attributes:
        standardised: by term; known: [n, 1], what λ turn with.
    """

    recommender: Recommender
    standardised: dict[str, Term]
    known: NDArray[np.float64]

    def terms(self) -> dict[str, Matrix]:
        """s_m by term, each [n, J]."""
        one = np.ones_like(self.known)
        return {name: term(one, slice(None)) for name, term in self.standardised.items()}

    def contributions(self, positions: NDArray[np.int64] | None = None) -> dict[str, Matrix]:
        """λ_m(n) · s_m by term, each [n, J], or [n, p] at some positions; a row's score is their
        sum.
        """
        of = self.recommender
        out = dict(self._weighted(of.weights, slice(None) if positions is None else positions))
        new = of.new if positions is None else np.flatnonzero(np.isin(positions, of.new))
        if of.new_weights and len(new):
            for name, matrix in self._weighted(
                of.new_weights, new if positions is None else positions[new]
            ):
                out[name][:, new] = matrix
        return out

    def scores(self) -> Matrix:
        """The sum of `contributions`, [n, J], with no matrix kept for each."""
        of = self.recommender
        out = self._sum(of.weights, slice(None))
        if of.new_weights and len(of.new):
            out[:, of.new] = self._sum(of.new_weights, of.new)
        return out

    def _sum(self, weights: Mapping[str, tuple[float, float]], at: Positions) -> Matrix:
        return reduce(np.add, (matrix for _, matrix in self._weighted(weights, at)))

    def _weighted(
        self, weights: Mapping[str, tuple[float, float]], at: Positions
    ) -> Iterator[tuple[str, Matrix]]:
        weight = lambdas(weights, self.known)
        for name, term in self.standardised.items():
            yield name, term(weight[name], at)


@dataclass(frozen=True)
class Base:
    """A fixed array [d, J] that a term multiplies d numbers of a history with, and its moments over
    the J items.
    """

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

    def per_deviation(self, x: Matrix) -> NDArray[np.float64]:
        """1 over the deviation of `x @ items` [n, 1], 0 where that is constant."""
        exact = x.astype(np.float64)
        return inverse_root(((exact @ self.covariance) * exact).sum(1, keepdims=True))

    def standardised(self, x: Matrix) -> Term:
        """`standardise(x @ items)`, x [n, d]."""
        scaled = self.per_deviation(x) * x
        shift = scaled @ self.mean[:, None]
        return lambda weight, at: (
            (weight * scaled).astype(np.float32) @ self.items[:, at] - _single(weight * shift)
        )


def among(values: Matrix, place: NDArray[np.int64], compared: NDArray[np.int32]) -> Term:
    """`standardise` of what is `values` [n, E] at the compared items and 0 at all others.

    Args:
        place: [J] where an item stands among the compared, -1 where it does not.
    """
    scale, shift = among_scale(values, len(place))
    scaled = _single(scale) * values

    def read(weight: NDArray[np.float64], at: Positions) -> Matrix:
        where = place[at]
        out = np.repeat(_single(-weight * shift), len(where), 1)
        there = compared if isinstance(at, slice) else np.flatnonzero(where >= 0)
        out[:, there] += _single(weight) * (
            scaled if isinstance(at, slice) else scaled[:, where[there]]
        )
        return out

    return read


def among_scale(values: Matrix, items: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift [n, 1] with which scale · x - shift is the standardised x over `items` items,
    of which `values` [n, E] are all that are not 0.
    """
    mean = values.mean(1, dtype=np.float64, keepdims=True) * (values.shape[1] / items)
    square = np.einsum("ij,ij->i", values, values, dtype=np.float64)[:, None] / items
    scale = inverse_root(square - mean**2)
    return scale, scale * mean


def inverse_root(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / deviation; 0 where there is none."""
    deviation = np.sqrt(np.maximum(variance, 0))
    return np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-7)


def how_much(length: NDArray[np.int64]) -> NDArray[np.float64]:
    """What is known of histories of so many events: log(1 + n) beside a middling one's."""
    known: NDArray[np.float64] = np.log1p(length) - _MIDDLING
    return known


def lambdas(weights: Mapping[str, tuple[float, float]], known: NDArray[np.float64]) -> Weights:
    """λ of each term for each row [n, 1], by `how_much`."""
    return {name: a + b * known for name, (a, b) in weights.items()}


def _single(x: NDArray[np.float64]) -> Matrix:
    return x.astype(np.float32)


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
    """[n, J]: items of the history that are not recommended again, as the events' kinds say."""
    out = np.zeros((len(histories), len(catalogue)), np.bool_)
    for row, history in enumerate(histories):
        for event in history:
            position = catalogue.index.get(event.item or "")
            if position is not None and event.consumes:
                out[row, position] = True
    return out


# --- fitting
