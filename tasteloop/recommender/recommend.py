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

import math
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, field, fields
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.text import TextSettings
from tasteloop.bundle.arrays import mapped_arrays
from tasteloop.bundle.card import BundleCard
from tasteloop.bundle.names import RECOMMENDER_FILE
from tasteloop.language.wishes import Origins, Wishes
from tasteloop.recommender.folding import FoldedHistories, Matrix
from tasteloop.recommender.ideas import (
    ALIKE,
    ASKED_FOR,
    COMPANY,
    POPULARITY,
    REFUSED,
    TASTE,
    Idea,
)
from tasteloop.recommender.terms import (
    Factors,
    ListedTerm,
    Positions,
    ProductTerm,
    SharedTerm,
    SparseTerm,
    SumTerm,
    Term,
    Weights,
    centre_length,
    evaluate_weights,
    rows_product,
    standardise,
    standardise_sparse,
)

_BEHAVIOUR: dict[str, Idea] = {
    "interest": TASTE,
    "taste": TASTE,
    "content": ALIKE,
    "collaborative": COMPANY,
    "factors_liked": COMPANY,
    "factors_seen": COMPANY,
    "spectral": COMPANY,
    "nearby": COMPANY,
    "nearby_whole": COMPANY,
    "popularity": POPULARITY,
    "opinion": ALIKE,
}
_WORDS: dict[str, Idea] = {
    "asked_labels": ASKED_FOR,
    "asked_text": ASKED_FOR,
    "asked_titles": ASKED_FOR,
    "asked_kin": COMPANY,
    "refused": REFUSED,
}

TERMS = tuple(_BEHAVIOUR)
"""Terms of what the user did."""
ASKED = tuple(_WORDS)
"""Terms of what the user asked for."""
IDEA_OF_TERM: Mapping[str, Idea] = {**_BEHAVIOUR, **_WORDS}
"""What each term means to a person: a term is declared with the words that it is told in."""
_SURELY = 0.999  # nothing that is said is surer than this
_SURELY_NAMED = 0.6  # from here on a title is named, and not a few words that it shares with a text
_LEAST_SHARE = 0.05  # is added to a label's share beside everybody's, so that its log is finite
_TASTE_OF_ALL = math.log(1 + _LEAST_SHARE)  # of a label whose share is everybody's
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
        sources: [s] labels (of `label_mean` for interest, of `label_share` for taste), positions of
            the history's items, or, of what was asked for, texts (of `Origins.texts`).
        contributions: [s, positions] of each source to the term at each position.
        relation: [s, positions] how the item stands to the source: above 0 where it goes with the
            label, is like the item or means the same, below 0 where it does so less than the
            average item; λ, which says what that is worth, left out.
        leaning: [s] above 0 where the user goes for the label more than everybody, or the act is
            for its item; below 0 where not.
        labels: [s] the label through which a text speaks, -1 where it does not speak through one;
            None of all other sources.
    """

    sources: NDArray[np.int64]
    contributions: NDArray[Any]
    relation: NDArray[Any]
    leaning: NDArray[Any]
    labels: NDArray[np.int64] | None = None


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
        inputs = self._inputs(folded, interests)
        for name, x in inputs.items():
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
        assert terms.keys() <= IDEA_OF_TERM.keys(), "a term is declared with its idea"
        ordered = {name: terms[name] for name in (*TERMS, *ASKED) if name in terms}
        asked = np.zeros(len(known), np.bool_) if wishes is None else wishes.any
        return TermScores(self, ordered, known, asked, folded, inputs, wishes)

    def _asked(self, wishes: Wishes, folded: FoldedHistories) -> dict[str, Term]:
        """The terms of what was asked for."""
        text = self.factors["asked_text"].term(wishes.direction)
        strength = wishes.strength
        named = np.maximum(folded.recent_liked, self.named_titles(wishes))[:, self.compared]
        alike = standardise_sparse(
            rows_product(named, self.ease), self._position_of_item, self.compared
        )
        refused_titles = wishes.refused_titles.copy()
        refused_titles.data = np.log(1 - _SURELY * refused_titles.data)
        refused = np.log(1 - _SURELY * wishes.refused)
        return {
            "asked_labels": self.factors["asked_labels"].plain(wishes.wanted),
            "asked_text": text.times(strength),
            "asked_titles": ListedTerm(wishes.titles),
            "asked_kin": alike.times(strength),
            "refused": SumTerm(
                (self.factors["refused"].plain(refused), ListedTerm(refused_titles))
            ),
        }

    def named_titles(self, wishes: Wishes) -> Matrix:
        """[n, J]: titles that were surely named, whose kin are asked for."""
        titles = wishes.titles.toarray()
        return np.asarray(np.where(titles >= _SURELY_NAMED, titles, 0), np.float32)

    @property
    def opinions_count(self) -> bool:
        """Whether it was fitted with opinions; False of bundles from before there were any."""
        return "opinion" in self.weights

    @property
    def weights_of_new(self) -> dict[str, tuple[float, float]]:
        """(a, b) of λ of items that nobody had met; what was asked for counts as for any item."""
        return {**self.weights, **self.new_weights}

    def weights_at(
        self,
        positions: NDArray[np.int64],
        known: NDArray[np.float64],
        names: Collection[str] = (*TERMS, *ASKED),
    ) -> Weights:
        """λ of one history by term, [1, 1], or [1, positions] where some items are new."""
        is_new = self._is_new[positions]
        own = {name: pair for name, pair in self.weights.items() if name in names}
        weights = evaluate_weights(own, known)
        if self.new_weights and is_new.any():
            of_new = evaluate_weights(self.weights_of_new, known)
            weights = {name: np.where(is_new, of_new[name], own) for name, own in weights.items()}
        return weights

    @cached_property
    def _is_new(self) -> NDArray[np.bool_]:
        """[J] whether nobody had met an item."""
        is_new = np.zeros(len(self.popularity), np.bool_)
        is_new[self.new] = True
        return is_new

    def everybody(self, positions: NDArray[np.int64]) -> tuple[Matrix, NDArray[np.bool_]]:
        """Of items [p] the standardised popularity, and whether nobody had met them."""
        return self._standard_popularity[0, positions], self._is_new[positions]

    @cached_property
    def row_sums(self) -> dict[str, NDArray[np.float64]]:
        """[E] the sum of each compared item's weights, by term."""
        ease, nearby = (each.sum(1, dtype=np.float64) for each in (self.ease, self.nearby))
        return {
            "collaborative": ease,
            "asked_kin": ease,
            "nearby": nearby,
            "nearby_whole": nearby,
        }

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
        ratio: Matrix = np.log(share / np.maximum(self.label_share, 1e-4) + _LEAST_SHARE)
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
        folded, wishes: what the terms were computed from; inputs: of `Recommender.factors`, [n, d].
    """

    recommender: Recommender
    terms: dict[str, Term]
    known: NDArray[np.float64]
    asked: NDArray[np.bool_]
    folded: FoldedHistories
    inputs: dict[str, Matrix]
    wishes: Wishes | None

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

    # --- the parts

    def explain(
        self,
        row: int,
        positions: NDArray[np.int64],
        origins: Origins | None = None,
        names: Set[str] = frozenset({*TERMS, *ASKED}),
    ) -> dict[str, TermParts]:
        """Take terms of one history apart at some positions.

        Args:
            origins: which of the history's texts its wishes come from; None where there are none.
            names: of the terms.

        Returns:
            The parts by term, which add up to `contributions`; popularity has none.
        """
        recommender, folded = self.recommender, self.folded
        weights = recommender.weights_at(positions, self.known[row : row + 1], names)
        explained: dict[str, TermParts] = {}

        # 1. labels
        for name in ("interest", "taste"):
            if name not in names:
                continue
            term, x = self._product(name), self.inputs[name][row]
            scale = _row(term.scale, row) * x
            centred = (
                term.items[:, positions].astype(np.float64)
                - recommender.factors[name].mean[:, None]
            )
            average = _TASTE_OF_ALL if name == "taste" else 0.0
            explained[name] = TermParts(
                np.arange(len(x)), weights[name] * scale.T * centred, centred, x - average
            )

        # 2. terms that are a few numbers of the history's items times a fixed array
        for name, (sources, x) in self._item_inputs(row, names).items():
            term = self._product(name)
            centred = x @ term.items[:, positions] - (x @ recommender.factors[name].mean)[:, None]
            parts = weights[name] * _row(term.scale, row) * centred
            explained[name] = TermParts(sources, parts, centred, np.ones(len(sources)))

        # 3. terms that compare items with those of the history
        place = recommender._position_of_item
        at = place[positions]
        comparisons = recommender._comparisons(folded)
        if self.wishes is not None and self.asked[row] and "asked_kin" in weights:
            kin = np.maximum(folded.recent_liked, recommender.named_titles(self.wishes))
            comparisons = (*comparisons, Comparison(("asked_kin",), (kin,), recommender.ease))
        for comparison in comparisons:
            if not names & set(comparison.terms):
                continue
            # the histories of terms that share weights differ in how much an item counts alone
            first = comparison.histories[0]
            sources = np.flatnonzero(first[row])
            sources = sources[place[sources] >= 0]
            rows = place[sources]
            values = np.where(at >= 0, comparison.weights[rows[:, None], np.maximum(at, 0)], 0)
            mean = recommender.row_sums[comparison.terms[0]][rows, None] / first.shape[1]
            above = values - mean
            for name, history in zip(comparison.terms, comparison.histories, strict=True):
                compared = self.terms[name]
                assert isinstance(compared, SparseTerm), "a comparison is sparse"
                centred = history[row, sources, None] * above
                parts = weights[name] * _row(compared.scale, row) * centred
                explained[name] = TermParts(sources, parts, centred, np.ones(len(sources)))

        # 4. opinions, as they are
        if "opinion" in weights and "opinion" in names:
            sources = np.flatnonzero(folded.opinions[row])
            own = folded.opinions[row, sources]
            alike = recommender.kin[sources] @ recommender.kin[positions].T
            parts = weights["opinion"] * own[:, None] * alike
            explained["opinion"] = TermParts(sources, parts, alike, own)

        # 5. what was asked for
        if origins is not None and self.wishes is not None and self.asked[row]:
            asked = self._asked_parts(row, positions, origins, weights)
            explained |= {name: parts for name, parts in asked.items() if name in names}
        return explained

    def _product(self, name: str) -> ProductTerm:
        term = self.terms[name]
        assert isinstance(term, ProductTerm), f"{name} is a product"
        return term

    def _item_inputs(
        self, row: int, names: Collection[str]
    ) -> dict[str, tuple[NDArray[np.int64], NDArray[Any]]]:
        """By term the items [s] of one history, and what each adds to the term's input [s, d]."""
        recommender, folded = self.recommender, self.folded
        liked, seen = np.flatnonzero(folded.liked[row]), np.flatnonzero(folded.seen[row])
        parts: dict[str, tuple[NDArray[np.int64], NDArray[Any]]] = {}
        if "content" in names:
            profile = folded.recent_liked[row, liked, None] * recommender.vectors[liked]
            length = np.linalg.norm(profile.sum(0))
            parts["content"] = liked, profile / length if length > 0 else 0 * profile
        for name, sources in (("factors_liked", liked), ("factors_seen", seen)):
            if name not in names:
                continue
            # the user's ridge solution is linear in the right-hand side: a column for each item
            alpha, own = recommender.als[0], getattr(recommender, name)[sources]
            gram = recommender.grams[name] + alpha * own.T @ own
            parts[name] = sources, np.linalg.solve(gram, (1 + alpha) * own.T).T
        if "spectral" in names:
            spectral = recommender.spectral[seen] / recommender._root[seen, None]
            parts["spectral"] = seen, spectral
        return parts

    def _asked_parts(
        self, row: int, positions: NDArray[np.int64], origins: Origins, weights: Weights
    ) -> dict[str, TermParts]:
        """The parts of what was asked for: texts, through the labels that they mean, through
        their meaning as a whole, and through the titles that they name.
        """
        wishes = self.wishes
        assert wishes is not None, "somebody asked for something"
        recommender, explained = self.recommender, {}

        def labels(name: str, said: Matrix, texts: NDArray[np.int64]) -> TermParts:
            """Of labels that are said [K], each from one of the texts [K]."""
            found = np.flatnonzero(said)
            items = recommender.factors[name].items[found][:, positions]
            parts = weights[name] * said[found, None] * items
            return TermParts(texts[found], parts, items, np.ones(len(found)), found)

        def titles(name: str, said: Mapping[int, float], texts: Mapping[int, int]) -> TermParts:
            """Of titles that are said, by position, each in one of the texts."""
            named = [n for n, position in enumerate(positions.tolist()) if position in said]
            parts = np.zeros((len(named), len(positions)))
            for each, n in enumerate(named):
                parts[each, n] = said[int(positions[n])]
            sources = np.array([texts[int(positions[n])] for n in named], np.int64)
            none = np.full(len(named), -1)
            return TermParts(
                sources, weights[name] * parts, np.ones_like(parts), np.ones(len(named)), none
            )

        if "asked_labels" in weights:
            explained["asked_labels"] = labels(
                "asked_labels", wishes.wanted[row], origins.wanted_by
            )
        if "asked_text" in weights:
            factors, term = recommender.factors["asked_text"], self._product("asked_text")
            count = len(origins.directions)
            centred = (
                origins.directions @ factors.items[:, positions]
                - (origins.directions @ factors.mean)[:, None]
            )
            explained["asked_text"] = TermParts(
                np.arange(count),
                weights["asked_text"] * _row(term.scale, row) * centred,
                centred,
                np.ones(count),
                np.full(count, -1),
            )
        if "asked_titles" in weights:
            explained["asked_titles"] = titles(
                "asked_titles", _row_of(wishes.titles, row), origins.titles_by
            )
        if "refused" in weights:
            of_labels = labels(
                "refused", np.log(1 - _SURELY * wishes.refused[row]), origins.refused_by
            )
            refused_titles = {
                position: float(np.log(1 - _SURELY * p))
                for position, p in _row_of(wishes.refused_titles, row).items()
            }
            of_titles = titles("refused", refused_titles, origins.refused_titles_by)
            explained["refused"] = _joined(of_labels, of_titles)
        return explained


def _row(numbers: NDArray[np.float64], row: int) -> NDArray[np.float64]:
    """One row of [n, 1], as [1, 1]."""
    return numbers[row : row + 1]


def _row_of(values: Any, row: int) -> dict[int, float]:
    """A row of a sparse matrix by position."""
    begin, end = values.indptr[row], values.indptr[row + 1]
    positions, found = values.indices[begin:end], values.data[begin:end]
    return dict(zip(positions.tolist(), found.tolist(), strict=True))


def _joined(first: TermParts, second: TermParts) -> TermParts:
    """The parts of one term that has two kinds of sources, of texts."""
    assert first.labels is not None and second.labels is not None, "they are of texts"
    return TermParts(
        np.concatenate([first.sources, second.sources]),
        np.concatenate([first.contributions, second.contributions]),
        np.concatenate([first.relation, second.relation]),
        np.concatenate([first.leaning, second.leaning]),
        np.concatenate([first.labels, second.labels]),
    )
