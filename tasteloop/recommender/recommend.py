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
- popularity: log of positive events, decayed by age with a half-life;
- opinion: `Σ_e o_e · kin(j, e)` over the events e of the history, with `o_e` from -1 to 1 what the
  event says of its item (`tasteloop.behaviour.kinds`) and kin the cosine of two items' labels, or
  of their texts where the catalogue has no labels. It is not standardised: a stronger act weighs
  more, and a rejection lowers what is alike.

And what the user asked for in words (`tasteloop.language`), 0 where they asked for nothing:

- asked_labels: `Σ_k q_k · b_jk / √(labels of j)` with `q_k` how probable it is that label k is
  wanted and b_jk whether j bears it;
- asked_text: cosine of what was asked for and the item's text, both by the encoder as it was
  published, standardised and as strong as the wish is sure;
- asked_titles: how probable it is that the item's title was named;
- asked_kin: as collaborative, of what was liked and of titles that were surely named, as strong as
  the wish is sure: who asks for something has an aim, and what they like and name says more of it
  than λ know that are fitted on what people come upon next;
- refused: `Σ_k b_jk · log(1 - r_k)` with `r_k` how probable it is that label k is refused, and the
  same of a title: the log of the probability that nothing that j bears is refused.

Ties, factors, spectral vectors and popularity of an item that few have met lean on what its text
lets expect (`tasteloop.recommender.item_text`); one that nobody has met has λ of its own, fitted on
items held out on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.text import TextSettings
from tasteloop.bundle.arrays import mapped_arrays
from tasteloop.bundle.card import BundleCard
from tasteloop.bundle.names import RECOMMENDER_FILE
from tasteloop.language.wishes import Wishes
from tasteloop.recommender.folding import FoldedHistories, Matrix
from tasteloop.recommender.terms import (
    Factors,
    ListedTerm,
    Positions,
    SharedTerm,
    SumTerm,
    Term,
    Weights,
    as_single,
    centre_length,
    evaluate_weights,
    rows_product,
    sparse_scale,
    standardise,
    standardise_sparse,
)

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
    "opinion",
)
"""Terms of what the user did."""
ASKED = ("asked_labels", "asked_text", "asked_titles", "asked_kin", "refused")
"""Terms of what the user asked for."""
_SURELY = 0.999  # nothing that is said is surer than this
_SURELY_NAMED = 0.6  # from here on a title is named, and not a few words that it shares with a text
_MIXED_IN = 5  # events of everybody's in the label shares of a history


@dataclass(frozen=True)
class Comparison:
    """Terms that compare items with those of the history, by the same item-item weights.

    Attributes:
        terms: names; histories: [n, J] for each of them, how much an item of the history counts.
        weights: [E, E] between the compared items.
    """

    terms: tuple[str, ...]
    histories: tuple[Matrix, ...]
    weights: Matrix


@dataclass(frozen=True)
class TermParts:
    """What one term of one history is made of, exactly: its deviation over the items is held fixed.

    Attributes:
        sources: [s] labels (of `label_mean` for interest, of `label_share` for taste), or positions
            of the history's items.
        contributions: [s, positions] of each source to the term at each position.
    """

    sources: NDArray[np.int64]
    contributions: NDArray[Any]


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
        kin: [J, q] of length 1 or 0, what `opinion` compares items by.
        bears: [J, K] of 0 and 1; meaning: [J, m] of the items' texts by the encoder as it was
            published, of length 1. Both have no column in a model that hears nothing.
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
    kin: Matrix
    bears: Matrix
    meaning: Matrix
    weights: dict[str, tuple[float, float]]
    decay: float
    als: tuple[float, float]
    text: TextSettings
    new: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    new_weights: dict[str, tuple[float, float]] = field(default_factory=dict)

    def score_terms(
        self, folded: FoldedHistories, interests: Matrix, wishes: Wishes | None = None
    ) -> TermScores:
        """Compute every term of n histories, ready to be weighed and summed at any items.

        Args:
            folded: the histories, with this recommender's decay.
            interests: [n, K] their calibrated probabilities.
            wishes: what their users asked for; None where none asked for anything.

        >>> import numpy as np
        >>> from tasteloop.behaviour.text import TextSettings
        >>> one, none = np.ones((3, 1), np.float32), np.zeros((0, 3), np.float32)
        >>> recommender = Recommender(
        ...     vectors=one, compared=np.array([0, 1], np.int32), ease=np.eye(2, dtype=np.float32),
        ...     nearby=np.eye(2, dtype=np.float32), ties=none, label_mean=none[:, 0],
        ...     membership=none.T, label_share=none[:, 0], factors_liked=one, factors_seen=one,
        ...     spectral=one, activity=one[:, 0], popularity=np.array([0, 1, 5], np.float32),
        ...     kin=one, bears=none.T, meaning=none.T,
        ...     weights={name: (float(name == "popularity"), 0.0) for name in TERMS}, decay=1.0,
        ...     als=(4, 30), text=TextSettings(),
        ... )
        >>> nothing = np.zeros((1, 3), np.float32)
        >>> folded = FoldedHistories.decayed(nothing, nothing, nothing, np.array([0]))
        >>> scores = recommender.score_terms(folded, np.zeros((1, 0), np.float32))
        >>> scores.scores().astype(float).round(2).tolist()  # popularity alone has a weight
        [[-0.93, -0.46, 1.39]]
        """
        terms: dict[str, Term] = {}

        # 1. a few numbers of the history times a fixed array
        for name, x in self._inputs(folded, interests).items():
            terms[name] = self.factors[name].term(x)

        # 2. item-item weights, for terms that share them at once
        for comparison in self._comparisons(folded):
            together = np.concatenate([rows[:, self.compared] for rows in comparison.histories])
            product = rows_product(together, comparison.weights)
            by_term = np.split(product, len(comparison.terms))
            for name, values in zip(comparison.terms, by_term, strict=True):
                terms[name] = standardise_sparse(values, self._position_of_item, self.compared)

        # 3. the same for everybody
        terms["popularity"] = SharedTerm(self._standard_popularity)

        # 4. what is as strong as the acts and words are
        opinions = rows_product(folded.opinions, self.kin)
        terms["opinion"] = self.factors["opinion"].plain(opinions)
        if wishes is not None:
            terms |= self._asked(wishes, folded)
        known = centre_length(folded.length)[:, None]
        ordered = {name: terms[name] for name in (*TERMS, *ASKED) if name in terms}
        asked = np.zeros(len(known), np.bool_) if wishes is None else wishes.any
        return TermScores(self, ordered, known, asked)

    def _asked(self, wishes: Wishes, folded: FoldedHistories) -> dict[str, Term]:
        """The terms of what was asked for."""
        text = self.factors["asked_text"].term(wishes.direction)
        strength = wishes.strength
        named = self._named(wishes, folded)[:, self.compared]
        alike = standardise_sparse(
            rows_product(named, self.ease), self._position_of_item, self.compared
        )
        refused_titles = wishes.refused_titles.copy()
        refused_titles.data = np.log(1 - _SURELY * refused_titles.data)
        refused = np.log(1 - _SURELY * wishes.refused)
        return {
            "asked_labels": self.factors["asked_labels"].plain(wishes.wanted),
            "asked_text": replace(text, scaled=strength * text.scaled, shift=strength * text.shift),
            "asked_titles": ListedTerm(wishes.titles),
            "asked_kin": replace(
                alike,
                scaled=as_single(strength) * alike.scaled,
                shift=strength * alike.shift,
            ),
            "refused": SumTerm(
                (self.factors["refused"].plain(refused), ListedTerm(refused_titles))
            ),
        }

    def _named(self, wishes: Wishes, folded: FoldedHistories) -> Matrix:
        """[n, J]: what was liked, and titles that were surely named, whose kin are asked for."""
        titles = wishes.titles.toarray()
        return np.maximum(folded.recent_liked, np.where(titles >= _SURELY_NAMED, titles, 0))

    def explain(
        self,
        folded: FoldedHistories,
        interests: Matrix,
        positions: Sequence[int],
        wishes: Wishes | None = None,
    ) -> dict[str, TermParts]:
        """Take the terms of one history apart at some positions.

        Returns:
            The parts by term; popularity, the meaning of a wish and named titles have none.
        """
        weights = self._weights_at(positions, folded)
        inputs = self._inputs(folded, interests)
        explained = {}

        # 1. terms that are a few numbers of the history times a fixed array
        for name, (sources, x) in self._input_parts(folded, inputs).items():
            factors = self.factors[name]
            scale = weights[name] * factors.per_deviation(inputs[name])
            centred = x @ factors.items[:, positions] - (x @ factors.mean)[:, None]
            explained[name] = TermParts(sources, scale * centred)

        # 2. opinions, as they are
        sources = np.flatnonzero(folded.opinions[0])
        own = folded.opinions[0, sources, None] * self.kin[sources]
        if "opinion" in weights:
            alike = own @ self.kin[positions].T
            explained["opinion"] = TermParts(sources, weights["opinion"] * alike)

        # 3. labels that were asked for
        if wishes is not None and "asked_labels" in weights:
            wanted = np.flatnonzero(wishes.wanted[0])
            items = self.factors["asked_labels"].items[wanted][:, positions]
            asked = wishes.wanted[0, wanted, None] * items
            explained["asked_labels"] = TermParts(wanted, weights["asked_labels"] * asked)

        # 4. terms that compare items with those of the history
        place = self._position_of_item
        place_asked = place[np.asarray(positions, np.int64)]
        comparisons = self._comparisons(folded)
        if wishes is not None and "asked_kin" in weights:
            weights["asked_kin"] = wishes.strength * weights["asked_kin"]
            kin = Comparison(("asked_kin",), (self._named(wishes, folded),), self.ease)
            comparisons = (*comparisons, kin)
        for comparison in comparisons:
            for name, history in zip(comparison.terms, comparison.histories, strict=True):
                items = history.shape[1]
                sources = np.flatnonzero((history[0] > 0) & (place >= 0))
                values = history[0, sources, None] * comparison.weights[place[sources]]
                scale = weights[name] * sparse_scale(values.sum(0, keepdims=True), items)[0]
                at = np.where(place_asked >= 0, values[:, np.maximum(place_asked, 0)], 0)
                mean = values.sum(1, keepdims=True) / items
                explained[name] = TermParts(sources, scale * (at - mean))
        return explained

    @property
    def opinions_count(self) -> bool:
        """Whether it was fitted with opinions; False of bundles from before there were any."""
        return "opinion" in self.weights

    @property
    def weights_of_new(self) -> dict[str, tuple[float, float]]:
        """(a, b) of λ of items that nobody had met; what was asked for counts as for any item."""
        return {**self.weights, **self.new_weights}

    def _weights_at(self, positions: Sequence[int], folded: FoldedHistories) -> Weights:
        """λ of one history by term, [1, 1], or [1, positions] where some items are new."""
        known = centre_length(folded.length)[:, None]
        weights = evaluate_weights(self.weights, known)
        if not self.new_weights:
            return weights
        is_new = np.isin(positions, self.new)
        of_new = evaluate_weights(self.weights_of_new, known)
        return {name: np.where(is_new, of_new[name], own) for name, own in weights.items()}

    def _input_parts(
        self, folded: FoldedHistories, inputs: Mapping[str, Matrix]
    ) -> dict[str, tuple[NDArray[np.int64], NDArray[Any]]]:
        """By term the sources [s] of one history's inputs, and what each adds to them [s, d]."""
        liked, seen = np.flatnonzero(folded.liked[0]), np.flatnonzero(folded.seen[0])
        parts: dict[str, tuple[NDArray[np.int64], NDArray[Any]]] = {}
        for name in ("interest", "taste"):
            parts[name] = np.arange(inputs[name].shape[1]), np.diag(inputs[name][0])
        profile = folded.recent_liked[0, liked, None] * self.vectors[liked]
        length = np.linalg.norm(profile.sum(0))
        parts["content"] = liked, profile / length if length > 0 else 0 * profile
        for name, sources in (("factors_liked", liked), ("factors_seen", seen)):
            # the user's ridge solution is linear in the right-hand side: a column for each item
            alpha, own = self.als[0], getattr(self, name)[sources]
            gram = self.grams[name] + alpha * own.T @ own
            parts[name] = sources, np.linalg.solve(gram, (1 + alpha) * own.T).T
        parts["spectral"] = seen, self.spectral[seen] / self._root[seen, None]
        return parts

    @cached_property
    def _position_of_item(self) -> NDArray[np.int64]:
        """[J] where an item stands among the compared; -1 where it does not."""
        position = np.full(len(self.popularity), -1)
        position[self.compared] = np.arange(len(self.compared))
        return position

    def _inputs(self, folded: FoldedHistories, interests: Matrix) -> dict[str, Matrix]:
        """What each of `factors` is multiplied with, [n, d]."""
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

    def _comparisons(self, folded: FoldedHistories) -> tuple[Comparison, ...]:
        return (
            Comparison(("collaborative",), (folded.recent_liked,), self.ease),
            Comparison(("nearby", "nearby_whole"), (folded.recent_seen, folded.seen), self.nearby),
        )

    @cached_property
    def factors(self) -> dict[str, Factors]:
        """The terms that are a few numbers of the history times a fixed array."""
        count = np.maximum(self.bears.sum(1), 1)  # labels of an item
        return {
            "interest": Factors.of(self.ties),
            "taste": Factors.of(self.membership.T),
            "content": Factors.of(self.vectors.T),
            "factors_liked": Factors.of(self.factors_liked.T),
            "factors_seen": Factors.of(self.factors_seen.T),
            "spectral": Factors.of((self.spectral * self._root[:, None]).T),
            "opinion": Factors.of(self.kin.T),
            "asked_labels": Factors.of((self.bears / np.sqrt(count)[:, None]).T),
            "asked_text": Factors.of(self.meaning.T),
            "refused": Factors.of(self.bears.T),
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
        count = rows_product(seen, self.membership) + _MIXED_IN * self.label_share
        share = count / (seen.sum(1, keepdims=True) + _MIXED_IN)
        ratio: Matrix = np.log(share / np.maximum(self.label_share, 1e-4) + 0.05)
        return ratio

    @cached_property
    def grams(self) -> dict[str, Matrix]:
        """What every user's ridge solution shares, by term."""
        diagonal = self.als[1] * np.eye(self.factors_liked.shape[1], dtype=np.float32)
        factors = {"factors_liked": self.factors_liked, "factors_seen": self.factors_seen}
        return {name: items.T @ items + diagonal for name, items in factors.items()}

    def _fold(self, history: Matrix, name: str) -> Matrix:
        """A user's ridge solution given the items' factors (Hu et al. 2008, eq. 4):
        x_u = (YᵀY + α Y_uᵀY_u + λI)⁻¹ (1 + α) Σ y_i over the items i of the history, with Y [J, f]
        all items' factors, Y_u those of the history, and YᵀY + λI in `grams`.
        """
        alpha, factors, gram = self.als[0], getattr(self, name), self.grams[name]
        users = np.zeros((len(history), factors.shape[1]), np.float32)
        for row, weights in enumerate(history):
            own = factors[np.flatnonzero(weights)]
            if len(own):
                users[row] = np.linalg.solve(gram + alpha * own.T @ own, (1 + alpha) * own.sum(0))
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
        arrays = mapped_arrays(directory / RECOMMENDER_FILE)
        # what bundles before these terms do not have
        none = np.zeros((len(arrays["popularity"]), 0), np.float32)
        return cls(
            **{"kin": none, "bears": none, "meaning": none, **arrays},
            weights=recommender.weights,
            new_weights=recommender.new_weights,
            decay=recommender.decay,
            als=recommender.als,
            text=TextSettings.model_validate(card.text),
        )


@dataclass(frozen=True)
class TermScores:
    """The terms of n histories, to be weighed and summed at all items or at some.

    A history bears few items, so only their rows of the large arrays were read.

    Attributes:
        terms: standardised, by name; known: [n, 1], what λ turn with.
        asked: [n] whether the user asked for something; of one who did not, the terms of what was
            asked for are 0 and say nothing.
    """

    recommender: Recommender
    terms: dict[str, Term]
    known: NDArray[np.float64]
    asked: NDArray[np.bool_]

    def standardised(self) -> dict[str, Matrix]:
        """s_m by term, each [n, J]."""
        one = np.ones_like(self.known)
        return {name: term(one, slice(None)) for name, term in self.terms.items()}

    def contributions(self, positions: NDArray[np.int64] | None = None) -> dict[str, Matrix]:
        """λ_m(n) · s_m by term, each [n, J], or [n, p] at some positions; a row's score is their
        sum.
        """
        own = self.recommender.weights
        new: NDArray[np.integer[Any]] = self.recommender.new
        columns, new_positions = new, new
        if positions is None:
            contributions = dict(self._weighed(own, slice(None)))
        else:
            contributions = dict(self._weighed(own, positions))
            columns = np.flatnonzero(np.isin(positions, new))
            new_positions = positions[columns]
        if self.recommender.new_weights and len(columns):
            for name, values in self._weighed(self.recommender.weights_of_new, new_positions):
                contributions[name][:, columns] = values
        return contributions

    def scores(self) -> Matrix:
        """The sum of `contributions`, [n, J], with no matrix kept for each."""
        new, new_weights = self.recommender.new, self.recommender.new_weights
        scores = self._sum(self.recommender.weights, slice(None))
        if new_weights and len(new):
            scores[:, new] = self._sum(self.recommender.weights_of_new, new)
        return scores

    def _sum(self, weights: Mapping[str, tuple[float, float]], at: Positions) -> Matrix:
        return reduce(np.add, (values for _, values in self._weighed(weights, at)))

    def _weighed(
        self, weights: Mapping[str, tuple[float, float]], at: Positions
    ) -> Iterator[tuple[str, Matrix]]:
        """Each term at some items, times its λ; a term that the model has no λ for says nothing."""
        weight = evaluate_weights(weights, self.known)
        for name, term in self.terms.items():
            if name in weight:
                yield name, term(weight[name], at)
