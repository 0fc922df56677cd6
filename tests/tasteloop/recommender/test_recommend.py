"""Ranking: the closed forms by hand, and that reasons add up."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.kinds import DECLARED, Kind
from tasteloop.behaviour.snapshots import Snapshots
from tasteloop.behaviour.text import TextSettings
from tasteloop.bundle.manifest import verify
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json
from tasteloop.language.wishes import Wishes
from tasteloop.recommender import weights as weights_module
from tasteloop.recommender.collaborative import Past, ease, item_knn, nearby, spectral
from tasteloop.recommender.fitting import (
    LEAST_OPINION,
    FittingData,
    RecommenderSettings,
    TunedSettings,
    fit_terms,
    fit_ties,
    leading,
    mark_futures,
)
from tasteloop.recommender.folding import OPINION_DECAY, FoldedHistories
from tasteloop.recommender.recommend import ASKED, TERMS, Recommender
from tasteloop.recommender.terms import rows_product, standardise
from tasteloop.recommender.tuning import _scale_new, fit_new_weights
from tasteloop.recommender.weights import BlockTerms, ValidationRows, fit_weights
from tasteloop.runtime.session import Recommendation, Session

MATRIX = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], np.float32)


def liked(user: list[int], item: list[int], age: list[float], items: int) -> Past:
    """A past of positive events only."""
    return Past(np.array(user), np.array(item), np.array(age), np.ones(len(user), np.bool_), items)


@dataclass(frozen=True)
class FoldedAlready:
    """Histories whose whole matrices are at hand, whatever the decay."""

    folded: FoldedHistories
    hidden_items: np.ndarray

    @classmethod
    def nothing_hidden(cls, length: np.ndarray, items: int) -> FoldedAlready:
        """Histories of so many events, none of them of a known item."""
        none = np.zeros((len(length), items), np.float32)
        return cls(FoldedHistories.decayed(none, none, none, length), none > 0)

    @property
    def shape(self) -> tuple[int, int]:
        rows, items = self.hidden_items.shape
        return rows, items

    @property
    def length(self) -> np.ndarray:
        return self.folded.length

    def fold(self, decay: float, rows: slice) -> FoldedHistories:
        return FoldedHistories(**{name: value[rows] for name, value in vars(self.folded).items()})

    def hidden(self, rows: slice) -> np.ndarray:
        return self.hidden_items[rows]


def rows_of(terms: dict[str, np.ndarray]) -> BlockTerms:
    """Blocks of terms whose whole matrices are at hand."""
    return lambda rows: {name: values[rows] for name, values in terms.items()}


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return Session.load(tiny_bundle)


def test_ease_is_the_constrained_least_squares_solution() -> None:
    """Against numbers: column j of B minimises |x_j - X b|² + λ|b|² with b_j = 0."""
    weights = ease(MATRIX, 0.5)
    for j in range(3):
        others = [i for i in range(3) if i != j]
        x = MATRIX[:, others].astype(float)
        expected = np.linalg.solve(x.T @ x + 0.5 * np.eye(2), x.T @ MATRIX[:, j])
        assert weights[others, j] == pytest.approx(expected, abs=1e-5)
        assert weights[j, j] == 0


def test_item_knn_by_hand() -> None:
    similarity = item_knn(MATRIX, neighbours=1, shrink=0)
    assert similarity[0, 1] == pytest.approx(2 / np.sqrt(2 * 3), abs=1e-5)
    assert (np.count_nonzero(similarity, axis=0) <= 1).all()


def test_terms_are_standardised() -> None:
    out = standardise(np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    assert out.mean(1) == pytest.approx([0, 0], abs=1e-6)
    assert out[0].std() == pytest.approx(1)
    assert out[1].tolist() == [0, 0, 0]


def test_ties_are_the_ridge_solution() -> None:
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    future = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], np.float32)
    ties = fit_ties(truth, future, 0.1)
    assert ties[0, 0] > 0 > ties[1, 0]
    assert ties[:, 2].tolist() == [0, 0]


def test_popularity_halves_with_age() -> None:
    past = liked([0, 0, 1], [0, 1, 1], [0.0, 10.0, 10.0], 2)
    assert np.expm1(past.popularity(10)) == pytest.approx([1.0, 1.0])
    assert past.count(days=5).tolist() == [1, 0]


def test_history_folds_in_with_decay_and_likes_only(tiny_snapshots: Path) -> None:
    catalogue = Snapshots.read(tiny_snapshots).catalogue
    history = [
        Event("rate", "i3", 1, 1.0),
        Event("rate", "i4", 2, 0.0),
        Event("click", "i5", 3),
        Event("click", "new", 4),
    ]
    folded = FoldedHistories.of([history], catalogue, 0.5, TextSettings())
    assert folded.recent_liked[0, [3, 4, 5]].tolist() == [0.125, 0, 0.5]
    assert folded.recent_liked.sum() == 0.625
    assert folded.recent_seen[0, [3, 4, 5]].tolist() == [0.125, 0, 0.5], (
        "a rejected one is not seen"
    )
    assert folded.liked[0, [3, 4, 5]].tolist() == [1, 0, 1]
    assert folded.seen[0, [3, 4, 5]].tolist() == [1, 0, 1] and folded.seen.sum() == 2
    by_rank = [1.0 * OPINION_DECAY**3, -1.0 * OPINION_DECAY**2, 0.3 * OPINION_DECAY]
    assert folded.opinions[0, [3, 4, 5]] == pytest.approx(by_rank)
    assert np.count_nonzero(folded.opinions) == 3
    assert folded.length.tolist() == [4]


def test_nearby_by_hand() -> None:
    """Users see 0 1 2 and 2 0: e^(-1/3) for neighbours, e^(-2/3) for two places apart, nothing
    across users.
    """
    past = liked([0, 0, 0, 1, 1], [0, 1, 2, 2, 0], [0.0] * 5, 3)
    one, two = np.exp(-1 / 3), np.exp(-2 / 3)
    together = np.array([[0, one, two + one], [one, 0, one], [two + one, one, 0]])
    expected = together / (together.sum(1, keepdims=True) + 2)
    assert nearby(past, reach=5, shrink=2) == pytest.approx(expected, abs=1e-6)


def test_the_spectral_vectors_are_those_of_the_normalised_matrix() -> None:
    matrix = (np.random.default_rng(0).random((30, 12)) < 0.3).astype(np.float32)
    vectors, activity = spectral(matrix, 4)
    normal = matrix / np.sqrt(np.maximum(matrix.sum(1, keepdims=True), 1)) / np.sqrt(activity)
    whole = np.linalg.svd(normal, full_matrices=False)[2][:4].T
    assert vectors @ vectors.T == pytest.approx(whole @ whole.T, abs=1e-4)


def test_weights_find_the_term_that_tells_and_turn_with_activity() -> None:
    """Short histories are told by popularity, long ones by the interest term, everything else is
    noise.
    """
    rng = np.random.default_rng(0)
    n, items = 600, 60
    terms = {name: rng.standard_normal((n, items)).astype(np.float32) for name in TERMS}
    length = np.where(np.arange(n) % 2 == 0, 1, 200)
    telling = np.where((length == 1)[:, None], terms["popularity"], terms["interest"])
    relevant = [list(row) for row in np.argsort(-telling, axis=1)[:, :3]]
    histories = FoldedAlready.nothing_hidden(length, items)
    asked = ValidationRows(histories, np.zeros((n, 1), np.float32), relevant, np.arange(n))
    settings = RecommenderSettings(candidates=60, shrinkage=(0.001, 10.0))
    shrinkage, ndcg, weights = fit_weights(rows_of(terms), asked, settings)
    assert shrinkage == 0.001
    assert ndcg > 0.9
    short, long = (
        {m: a + b * (np.log1p(k) - 3.5) for m, (a, b) in weights.items()} for k in (1, 200)
    )
    assert max(short, key=short.__getitem__) == "popularity"
    assert max(long, key=long.__getitem__) == "interest"


def _liked_among_the_popular() -> tuple[dict[str, np.ndarray], list[list[int]]]:
    """Terms and what follows of 300 rows over 400 items: what `collaborative` says of the popular
    half, nothing of the other half. The start's best are popular, so that among them alone
    popularity tells nothing.
    """
    rng = np.random.default_rng(0)
    n, items = 300, 400
    terms = {name: np.zeros((n, items), np.float32) for name in TERMS}
    popularity = np.where(np.arange(items) % 2, 2.0, -2.0) + rng.standard_normal(items)
    terms["popularity"] = np.tile(standardise(popularity[None]), (n, 1))
    terms["collaborative"] = rng.standard_normal((n, items)).astype(np.float32)
    telling = terms["collaborative"] - 9 * (np.arange(items) % 2 == 0)
    noisy = telling + 0.3 * rng.standard_normal((n, items))
    return terms, [list(row) for row in np.argsort(-noisy, axis=1)[:, :5]]


def test_weights_rank_all_items_as_well_as_their_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """λ of the start's candidates alone put unpopular items first, which they never saw."""
    terms, relevant = _liked_among_the_popular()
    monkeypatch.setitem(weights_module.START, "popularity", 1.0)
    n, items = terms["popularity"].shape
    histories = FoldedAlready.nothing_hidden(np.full(n, 33), items)
    asked = ValidationRows(histories, np.zeros((n, 1), np.float32), relevant, np.arange(n))
    settings = RecommenderSettings(candidates=30, shrinkage=(0.01,))

    def measure() -> tuple[float, float]:
        """nDCG@10 by cross-fitting among the candidates, and of all items."""
        _, ndcg, weights = fit_weights(rows_of(terms), asked, settings)
        known = np.log1p(33) - 3.5
        scores = sum((a + b * known) * terms[name] for name, (a, b) in weights.items())
        return ndcg, asked.ndcg(lambda part: scores[part].astype(np.float32))

    among_candidates, of_all = measure()
    assert of_all == pytest.approx(among_candidates, abs=0.03)
    monkeypatch.setattr(weights_module, "_INTRUDERS", 0)
    among_candidates, of_all = measure()
    assert of_all < among_candidates - 0.1


def test_earlier_windows_tell_weights_what_the_last_one_does_not() -> None:
    """Nothing follows the rows; in an earlier window one term tells."""
    rng = np.random.default_rng(0)
    terms = {name: rng.standard_normal((200, 40)).astype(np.float32) for name in TERMS}
    histories = FoldedAlready.nothing_hidden(np.full(200, 30), 40)
    asked = ValidationRows(histories, np.zeros((200, 1), np.float32), [[]] * 200, np.arange(200))
    told = replace(asked, relevant=[[int(row.argmax())] for row in terms["taste"]])
    settings = RecommenderSettings(candidates=40, shrinkage=(0.01,))

    alone = fit_weights(rows_of(terms), asked, settings)
    both = fit_weights(rows_of(terms), asked, settings, earlier=[(rows_of(terms), told)])

    assert alone.weights["taste"] == (0.0, 0.0)
    assert both.weights["taste"][0] > 1
    assert both.ndcg == 0, "of the rows alone"


def test_few_users_pull_hard() -> None:
    """Three users of whom each likes what a noise term says: λ stay near the start."""
    terms = {
        name: np.random.default_rng(n).standard_normal((3, 20)).astype(np.float32)
        for n, name in enumerate(TERMS)
    }
    relevant = [[int(row.argmax())] for row in terms["content"]]
    asked = ValidationRows(
        FoldedAlready.nothing_hidden(np.ones(3, np.int64), 20),
        np.zeros((3, 1), np.float32),
        relevant,
        np.arange(3),
    )
    shrinkage, _, weights = fit_weights(rows_of(terms), asked, RecommenderSettings(candidates=20))
    assert shrinkage >= 0.5 / 3
    assert abs(weights["content"][0]) < 1


def test_without_anything_to_learn_weights_stay_at_the_start() -> None:
    terms = {name: np.zeros((4, 20), np.float32) for name in TERMS}
    asked = ValidationRows(
        FoldedAlready.nothing_hidden(np.ones(4, np.int64), 20),
        np.zeros((4, 1), np.float32),
        [[]] * 4,
        np.arange(4),
    )
    _, _, weights = fit_weights(rows_of(terms), asked, RecommenderSettings())
    assert weights["collaborative"] == (0.5, 0.0)
    assert weights["content"] == (0.0, 0.0)


def _two_kinds(new: list[int]) -> tuple[Past, FittingData]:
    """30 items of two labels, 40 users who like those of one label; nobody has met `new`."""
    labels = [["War"], ["Love"]] * 15
    user, item = zip(
        *((u, j) for u in range(40) for j in range(30) if j % 2 == u % 2 and (u + j) % 3),
        strict=True,
    )
    past = liked(list(user), list(item), [1.0] * len(user), 30)
    catalogue = Catalogue(
        [str(j) for j in range(30)], [f"t{j}" for j in range(30)], labels, [None] * 30
    )
    vectors, truth = np.zeros((30, 1), np.float32), np.zeros((1, 1), np.float32)
    held = np.isin(np.arange(30), new)
    future = mark_futures([[]], 30)
    ground = FittingData(vectors, catalogue, ["War"], truth, future, TextSettings())
    return past.without(held), ground


def test_a_new_item_is_ranked_by_its_text_with_weights_of_its_own_and_its_reasons_add_up() -> None:
    past, ground = _two_kinds(new=[0, 1])
    own = {name: (3.0 if name == "factors_seen" else 0.0, 0.0) for name in TERMS}
    recommender = fit_terms(
        past, ground, RecommenderSettings(factors=4), TunedSettings(1.0, 1.0, 30, new_weights=own)
    )
    assert recommender.new.tolist() == [0, 1]
    history = np.zeros((2, 30), np.float32)
    history[0, [2, 4]] = history[1, [3, 5]] = 1
    folded = FoldedHistories.decayed(history, history, history, np.array([2, 2]))
    nothing = np.zeros((2, 1), np.float32)
    terms, parts = (
        recommender.score_terms(folded, nothing).standardised(),
        recommender.score_terms(folded, nothing).contributions(),
    )
    score = sum(parts.values())
    _agree(recommender, folded, nothing)
    assert score[0, 0] > score[0, 1] and score[1, 1] > score[1, 0]
    assert score[:, :2] == pytest.approx(3 * terms["factors_seen"][:, :2], abs=1e-5)
    plain = sum(recommender.weights[name][0] * values for name, values in terms.items())
    assert score[:, 2:] == pytest.approx(plain[:, 2:], abs=1e-5)


def test_weights_of_new_items_are_fitted_on_items_held_out() -> None:
    """Users like items of one label: of a held-out item its text tells, and it is ranked by the
    borrowed factors.
    """
    past, ground = _two_kinds(new=[])
    history, length = np.zeros((40, 30), np.float32), np.full(40, 3)
    history[past.user, past.item] = np.isin(past.item % 5, [0])
    relevant = [
        [int(j) for j in range(30) if j % 2 == u % 2 and not history[u, j]] for u in range(40)
    ]
    folded = FoldedHistories.decayed(history, history, history, length)
    asked = ValidationRows(
        FoldedAlready(folded, history > 0), np.zeros((40, 1), np.float32), relevant, np.arange(40)
    )
    weights = fit_new_weights(
        past, ground, asked, RecommenderSettings(factors=4), TunedSettings(1.0, 1.0, 30)
    )
    assert set(weights) == set(TERMS)
    middling = {name: a for name, (a, _) in weights.items()}
    assert middling["factors_seen"] > 0 and middling["factors_liked"] > 0
    nobody = fit_new_weights(
        past,
        ground,
        replace(asked, relevant=[[]] * 40),
        RecommenderSettings(factors=4),
        TunedSettings(1.0, 1.0, 30),
    )
    assert nobody["collaborative"] == (0.5, 0.0)


def test_weights_of_new_items_are_scaled_to_those_of_the_others() -> None:
    """Nobody goes on to choose a new item: the scale that keeps them from the first places is
    taken; where every scale ranks alike, none.
    """
    past, ground = _two_kinds(new=[0, 1])
    recommender = fit_terms(
        past, ground, RecommenderSettings(factors=4), TunedSettings(1.0, 1.0, 30)
    )
    history = np.zeros((2, 30), np.float32)
    history[0, [2, 4]] = history[1, [3, 5]] = 1
    folded = FoldedHistories.decayed(history, history, history, np.array([2, 2]))
    relevant = [list(range(6, 30, 2)), list(range(7, 30, 2))]
    nothing = np.zeros((2, 1), np.float32)
    asked = ValidationRows(FoldedAlready(folded, history > 0), nothing, relevant, np.arange(2))
    loud = {name: (4.0 if name == "factors_seen" else 0.0, 0.0) for name in TERMS}
    silent = dict.fromkeys(TERMS, (0.0, 0.0))

    least = {"opinion": (LEAST_OPINION, 0.0)}  # whatever the scale
    assert _scale_new(recommender, asked, loud)["factors_seen"][0] < 4
    assert _scale_new(recommender, asked, loud)["opinion"] == least["opinion"]
    assert _scale_new(recommender, asked, silent) == {**silent, **least}
    unranked = replace(asked, relevant=[[], []])
    assert _scale_new(recommender, unranked, loud) == {**loud, **least}


def test_the_cautious_take_the_strongest_pull_that_is_not_proven_worse() -> None:
    """What noise prefers is not taken; what a term plainly tells is."""
    rng = np.random.default_rng(1)
    terms = {name: rng.standard_normal((300, 30)).astype(np.float32) for name in TERMS}
    settings = RecommenderSettings(candidates=30, shrinkage=(0.01, 10.0))

    def pull(relevant: list[list[int]]) -> float:
        asked = ValidationRows(
            FoldedAlready.nothing_hidden(np.full(300, 30), 30),
            np.zeros((300, 1), np.float32),
            relevant,
            np.arange(300),
        )
        return fit_weights(rows_of(terms), asked, settings, cautious=True)[0]

    assert pull([[int(j)] for j in rng.integers(0, 30, 300)]) == 10
    assert pull([[int(row.argmax())] for row in terms["content"]]) == 0.01


def _heard(recommender: Recommender, **said: np.ndarray) -> Wishes:
    """What one user asked for, nothing but what is given."""
    items = len(recommender.popularity)
    none = Wishes.none(1, recommender.bears.shape[1], items, recommender.meaning.shape[1])
    sparse = {
        name: csr_array(value[None]) if "titles" in name else value[None]
        for name, value in said.items()
    }
    return replace(none, **sparse)


@pytest.fixture(scope="module")
def two_kinds() -> Recommender:
    """30 items, the even ones of War and the odd ones of Love; what they mean is their label."""
    past, ground = _two_kinds(new=[])
    meaning = np.eye(2, dtype=np.float32)[np.arange(30) % 2]
    ground = replace(ground, labels=["War", "Love"], truth=np.zeros((1, 2), np.float32))
    ground = replace(ground, meaning=meaning)
    return fit_terms(past, ground, RecommenderSettings(factors=4), TunedSettings(1.0, 1.0, 30))


def _terms(
    recommender: Recommender, history: list[Event], wishes: Wishes | None = None
) -> dict[str, np.ndarray]:
    """The contributions [J] of each term for one history, checked to add up to the score."""
    catalogue = Catalogue(
        [str(j) for j in range(30)], [None] * 30, [["War"], ["Love"]] * 15, [None] * 30
    )
    folded = FoldedHistories.of([history], catalogue, recommender.decay, TextSettings())
    scores = recommender.score_terms(folded, np.zeros((1, 2), np.float32), wishes)
    contributions = scores.contributions()
    assert scores.scores() == pytest.approx(sum(contributions.values()), abs=1e-4)
    return {name: values[0] for name, values in contributions.items()}


def test_what_was_asked_adds_the_terms_that_the_docstring_says(two_kinds: Recommender) -> None:
    title, refused_title = np.zeros(30, np.float32), np.zeros(30, np.float32)
    title[4], refused_title[6] = 0.8, 0.5
    wishes = _heard(
        two_kinds,
        wanted=np.array([0.5, 0.1], np.float32),
        refused=np.array([0.0, 0.9], np.float32),
        direction=np.array([0.6, 0.0], np.float32),
        titles=title,
        refused_titles=refused_title,
    )

    terms = _terms(two_kinds, [], wishes)

    assert tuple(terms) == (*TERMS, *ASKED)
    weights = {name: two_kinds.weights[name][0] for name in ASKED}
    even, odd = slice(0, None, 2), slice(1, None, 2)
    assert terms["asked_labels"][even] == pytest.approx(weights["asked_labels"] * 0.5)
    assert terms["asked_labels"][odd] == pytest.approx(weights["asked_labels"] * 0.1)
    # of two values as often as each other, the standardised are 1 and -1
    assert terms["asked_text"][even] == pytest.approx(weights["asked_text"] * 0.6, abs=1e-5)
    assert terms["asked_text"][odd] == pytest.approx(-weights["asked_text"] * 0.6, abs=1e-5)
    assert terms["asked_titles"] == pytest.approx(weights["asked_titles"] * title)
    refused = weights["refused"] * np.log(1 - 0.999 * 0.9)
    assert terms["refused"][odd] == pytest.approx(refused, rel=1e-5)
    assert terms["refused"][6] == pytest.approx(weights["refused"] * np.log(1 - 0.999 * 0.5))
    assert not np.delete(terms["refused"][even], 3).any()


def test_kin_of_what_was_liked_and_surely_named_count_as_much_as_the_wish_is_sure(
    two_kinds: Recommender,
) -> None:
    own = two_kinds.weights["asked_kin"][0]
    one_each = replace(two_kinds, weights={**two_kinds.weights, "collaborative": (own, 0.0)})
    half, sure = np.array([0.5, 0.0], np.float32), np.array([1.0, 0.0], np.float32)
    liked = [Event("like", item) for item in ("0", "2")]

    # 1. of what was liked: what `collaborative` says, as strong as the wish
    terms = _terms(one_each, liked, _heard(one_each, direction=half))
    assert terms["collaborative"].any()
    assert terms["asked_kin"] == pytest.approx(terms["collaborative"] / 2, abs=1e-6)

    # 2. a title that was surely named has kin, one that may have been has none
    def kin_of_title(probability: float) -> np.ndarray:
        titles = np.zeros(30, np.float32)
        titles[2] = probability
        heard = _heard(one_each, direction=sure, titles=titles)
        return np.asarray(_terms(one_each, [], heard)["asked_kin"])

    alone = _terms(one_each, [Event("like", "2")], _heard(one_each, direction=sure))
    assert kin_of_title(1.0) == pytest.approx(alone["asked_kin"], abs=1e-6)
    assert kin_of_title(1.0).any() and not kin_of_title(0.5).any()

    # 3. without a wish there are none
    assert not _terms(one_each, liked, _heard(one_each))["asked_kin"].any()


def test_who_asked_for_nothing_has_terms_of_nothing(two_kinds: Recommender) -> None:
    terms, without = _terms(two_kinds, [], _heard(two_kinds)), _terms(two_kinds, [])

    assert set(without) == set(TERMS)
    assert not any(terms[name].any() for name in ASKED)
    assert all(np.array_equal(terms[name], values) for name, values in without.items())


def test_a_model_without_weights_of_what_was_asked_says_nothing_of_it(
    two_kinds: Recommender,
) -> None:
    earlier = replace(
        two_kinds, weights={n: w for n, w in two_kinds.weights.items() if n not in ASKED}
    )
    wishes = _heard(two_kinds, wanted=np.array([1.0, 0.0], np.float32))

    assert set(_terms(earlier, [], wishes)) == set(TERMS)


ACTS = st.tuples(st.sampled_from(DECLARED), st.one_of(st.none(), st.floats(0, 1)))


@given(ACTS, ACTS)
def test_a_rejection_lowers_kin_and_a_stronger_act_raises_it_more(
    two_kinds: Recommender, one: tuple[Kind, float | None], other: tuple[Kind, float | None]
) -> None:
    recommender = replace(two_kinds, weights={**two_kinds.weights, "opinion": (0.5, 0.0)})

    def kin(act: tuple[Kind, float | None]) -> tuple[float, float]:
        """What the act on item 2 adds to item 8, of the same label, and the act's opinion."""
        event = Event(act[0].word, "2", 1, act[1])
        opinion = _terms(recommender, [event])["opinion"]
        assert not opinion[1::2].any(), "the other label is no kin"
        return float(opinion[8]), event.opinion() if event.is_act else 0.0

    (added, opinion), (added_by_other, other_opinion) = kin(one), kin(other)

    assert added == pytest.approx(0.5 * opinion, abs=1e-6)
    assert np.sign(added) == np.sign(opinion)
    if opinion - other_opinion > 1e-5:
        assert added > added_by_other


def test_the_opinion_of_an_item_is_its_newest_and_fades_with_what_came_after(
    two_kinds: Recommender,
) -> None:
    recommender = replace(two_kinds, weights={**two_kinds.weights, "opinion": (1.0, 0.0)})
    hated = Event("rate", "2", 1, 0.0)
    loved, search = Event("rate", "2", 2, 1.0), Event("search", None, 3, None, "war")

    values = [
        float(_terms(recommender, history)["opinion"][8])
        for history in ([hated], [hated, loved], [hated, search, search])
    ]

    assert values == pytest.approx([-1, 1, -(OPINION_DECAY**2)], abs=1e-6)


def test_opinions_of_an_unlabelled_catalogue_go_by_what_texts_mean() -> None:
    meaning = np.eye(2, dtype=np.float32)[np.arange(30) % 2]
    past, ground = _two_kinds(new=[])
    bare = Catalogue([str(j) for j in range(30)], [None] * 30, [[]] * 30, [None] * 30)
    ground = replace(ground, catalogue=bare, labels=[], truth=np.zeros((1, 0), np.float32))
    ground = replace(ground, meaning=meaning)

    recommender = fit_terms(
        past, ground, RecommenderSettings(factors=4), TunedSettings(1.0, 1.0, 30)
    )

    alike = recommender.kin @ recommender.kin.T
    assert alike[2, 8] == pytest.approx(1, abs=1e-5)
    assert alike[2, 3] == pytest.approx(-1, abs=1e-5)


HISTORIES = [
    [],
    [Event("rate", "i1", 1, 1.0)],
    [Event("rate", f"i{n}", n, (n % 3) / 2) for n in range(20)],
    [Event("click", "no such item", 1), Event("search", None, 2, None, "crime")],
]


def test_reasons_add_up_and_nothing_seen_is_recommended(session: Session) -> None:
    for history, ranked in zip(HISTORIES, session.recommend(HISTORIES, 7), strict=True):
        asks = any(event.text for event in history)
        assert len(ranked) == 7
        assert {r.item for r in ranked}.isdisjoint({e.item for e in history})
        assert [r.score for r in ranked] == sorted((r.score for r in ranked), reverse=True)
        for r in ranked:
            assert tuple(r.terms) == ((*TERMS, *ASKED) if asks else TERMS), "whoever asks beside it"
            assert sum(r.terms.values()) == pytest.approx(r.score, abs=1e-5)


def test_what_was_merely_shown_stays_recommendable_and_changes_no_score(session: Session) -> None:
    history = next(history for history in HISTORIES if history)
    shown = session.recommend([history], 1)[0][0].item
    newest = max(event.time or 0 for event in history)
    impression = Event("impression", shown, newest + 1)

    without, with_impression = (
        session.recommend([one], 5)[0] for one in (history, [*history, impression])
    )

    assert [r.item for r in with_impression] == [r.item for r in without]
    assert [r.score for r in with_impression] == pytest.approx([r.score for r in without])


def test_the_contributions_are_the_plain_formulas(session: Session) -> None:
    """Every term in float64, with whole matrices and standardised over all items but for opinions,
    as the module's docstring says it.
    """
    recommender = session.recommender
    assert recommender
    weights = {name: (0.1 + n / 10, 0.05 * n) for n, name in enumerate(TERMS)}
    recommender = replace(recommender, weights=weights)
    folded = FoldedHistories.of(HISTORIES, session.catalogue, recommender.decay, session.text)
    interests = session.interests(HISTORIES).astype(np.float64)
    plain = plain_terms(recommender, folded, interests)
    for rows in ([0], [1], [2], [0, 1, 2, 3]):
        some = FoldedHistories(**{name: value[rows] for name, value in vars(folded).items()})
        found = recommender.score_terms(some, interests[rows].astype(np.float32)).contributions()
        assert list(found) == list(TERMS)
        known = np.log1p(folded.length[rows])[:, None] - 3.5
        for name, (a, b) in weights.items():
            assert found[name].dtype == np.float32
            assert found[name] == pytest.approx((a + b * known) * plain[name][rows], abs=1e-4), name
        _agree(recommender, some, interests[rows].astype(np.float32))
    terms = recommender.score_terms(folded, interests.astype(np.float32)).standardised()
    for name in TERMS:
        # items' vectors are alike, so digits cancel
        assert terms[name] == pytest.approx(plain[name], abs=1e-4), name


def _agree(recommender: Recommender, folded: FoldedHistories, interests: np.ndarray) -> None:
    """What ranks is the sum of what is told, and what is told of some items is what is told of
    all.
    """
    whole = recommender.score_terms(folded, interests).contributions()
    assert recommender.score_terms(folded, interests).scores() == pytest.approx(
        sum(whole.values()), abs=1e-5
    )
    positions = np.array([0, 3, len(recommender.popularity) - 1])
    for name, values in recommender.score_terms(folded, interests).contributions(positions).items():
        assert values == pytest.approx(whole[name][:, positions], abs=1e-5), name


def test_item_vectors_keep_their_products_in_the_leading_axes() -> None:
    """Vectors of rank 3 lose nothing in 3 numbers; in 2 they lose the least, by the third singular
    value.
    """
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((50, 3)) @ rng.standard_normal((3, 20))).astype(np.float32)
    kept = leading(vectors, 3)
    assert kept.shape == (50, 3) and kept @ kept.T == pytest.approx(vectors @ vectors.T, abs=1e-3)
    short = leading(vectors, 2)
    lost = np.linalg.norm(short @ short.T - vectors @ vectors.T, 2)
    assert lost == pytest.approx(np.linalg.svd(vectors)[1][2] ** 2, rel=1e-3)
    assert leading(vectors, 20) is vectors


def plain_terms(
    recommender: Recommender, folded: FoldedHistories, interests: np.ndarray
) -> dict[str, np.ndarray]:
    exact = {
        n: v.astype(np.float64) for n, v in vars(recommender).items() if isinstance(v, np.ndarray)
    }
    histories = {n: v.astype(np.float64) for n, v in vars(folded).items()}
    alpha, regularisation = recommender.als

    def among(history: np.ndarray, between: np.ndarray) -> np.ndarray:
        out = np.zeros_like(history)
        out[:, recommender.compared] = history[:, recommender.compared] @ between
        return out

    def users(history: np.ndarray, factors: np.ndarray) -> np.ndarray:
        identity = np.eye(factors.shape[1])
        return np.array(
            [
                np.linalg.solve(
                    factors.T @ (factors * (1 + alpha * row[:, None])) + regularisation * identity,
                    factors.T @ ((1 + alpha) * row),
                )
                for row in history
            ]
        )

    profile = histories["recent_liked"] @ exact["vectors"]
    length = np.linalg.norm(profile, axis=1, keepdims=True)
    count = histories["seen"] @ exact["membership"] + 5 * exact["label_share"]
    share = count / (histories["seen"].sum(1, keepdims=True) + 5)
    ratio = np.log(share / np.maximum(exact["label_share"], 1e-4) + 0.05)
    root = np.sqrt(exact["activity"])
    scores = {
        "interest": (interests - exact["label_mean"]) @ exact["ties"],
        "taste": ratio @ exact["membership"].T,
        "content": np.divide(profile, length, out=np.zeros_like(profile), where=length > 0)
        @ exact["vectors"].T,
        "collaborative": among(histories["recent_liked"], exact["ease"]),
        "factors_liked": users(histories["liked"], exact["factors_liked"])
        @ exact["factors_liked"].T,
        "factors_seen": users(histories["seen"], exact["factors_seen"]) @ exact["factors_seen"].T,
        "spectral": ((histories["seen"] / root) @ exact["spectral"]) @ exact["spectral"].T * root,
        "nearby": among(histories["recent_seen"], exact["nearby"]),
        "nearby_whole": among(histories["seen"], exact["nearby"]),
        "popularity": np.tile(exact["popularity"], (len(interests), 1)),
    }
    opinion = histories["opinions"] @ exact["kin"] @ exact["kin"].T
    centred = {name: values - values.mean(1, keepdims=True) for name, values in scores.items()}
    deviation = {name: values.std(1, keepdims=True) for name, values in centred.items()}
    standardised = {
        name: np.divide(
            values, deviation[name], out=np.zeros_like(values), where=deviation[name] > 1e-7
        )
        for name, values in centred.items()
    }
    return {**standardised, "opinion": opinion}


def test_few_rows_of_many_are_read() -> None:
    rng = np.random.default_rng(0)
    weights, rows = np.zeros((3, 50), np.float32), rng.standard_normal((50, 4)).astype(np.float32)
    weights[0, 7], weights[2, 40] = 0.5, -2
    assert rows_product(weights, rows) == pytest.approx(weights @ rows, abs=1e-6)
    assert rows_product(weights[1:2], rows).tolist() == [[0] * 4]


def test_the_catalogue_ends(session: Session) -> None:
    history = [Event("click", f"i{n}", n) for n in range(35)]
    assert len(session.recommend([history], 10)[0]) == 5


def test_alone_or_in_a_batch_the_answer_is_the_same(session: Session) -> None:
    together = session.interests(HISTORIES)
    alone = np.concatenate([session.interests([h]) for h in HISTORIES])
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_bundle_answers_its_own_golden_questions(session: Session, tiny_bundle: Path) -> None:
    questions = read_json(tiny_bundle / "golden.json")["questions"]
    assert {q["model"] for q in questions} == {"interests", "recommend", "sentiment"}
    for q in questions:
        [answer] = session.answer(q["model"], [json.loads(json.dumps(q["instance"]))])
        assert _numbers(answer) == pytest.approx(_numbers(q["answer"]), abs=1e-4)


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [n for v in value.values() for n in _numbers(v)]
    if isinstance(value, list):
        return [n for v in value for n in _numbers(v)]
    return [float(value)] if isinstance(value, float) else []


@pytest.mark.parametrize(
    ("instance", "told"),
    [
        ("text", r"instances\[0\]: an instance is an object"),
        ({}, "'events' is missing"),
        ({"events": {}}, "a list is expected"),
        ({"events": [{"kind": "veiw"}]}, "unknown event kind 'veiw'"),
        ({"events": [], "k": 0}, "whole number from 1"),
        ({"events": [], "k": True}, "whole number from 1"),
        ({"events": [], "top": 3}, "unknown key 'top'"),
    ],
)
def test_a_bad_instance_is_named(session: Session, instance: object, told: str) -> None:
    with pytest.raises(TasteloopError, match=told):
        session.answer("recommend", [instance])


@pytest.mark.parametrize("damage", ["change", "remove", "add", "pickle", "manifest"])
def test_a_damaged_bundle_is_refused(tiny_bundle: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    assert verify(copy) == verify(tiny_bundle)
    if damage == "change":
        with (copy / "recommender.safetensors").open("r+b") as stream:
            stream.seek(-1, 2)
            stream.write(b"\x01")
    elif damage == "remove":
        (copy / "card.json").unlink()
    elif damage == "manifest":
        (copy / "manifest.json").write_text('{"format": 1, "files": []}')
    else:
        (copy / ("extra.json" if damage == "add" else "extra.pkl")).write_text("{}")
    with pytest.raises(TasteloopError):
        Session.load(copy)


def test_k_limits_interests_too(session: Session) -> None:
    whole, short = session.answer("interests", [{"events": []}, {"events": [], "k": 2}])
    assert len(whole["interests"]) == len(session.labels)
    assert short["interests"] == whole["interests"][:2]


def test_each_question_is_ranked_to_its_own_k_whoever_asks_beside_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def items(answers: list[dict[str, Any]]) -> list[list[str]]:
        return [[entry["item"] for entry in answer["recommendations"]] for answer in answers]

    made: list[int] = []
    original = Session._recommendation

    def count(self: Session, item: int, *said: Any) -> Recommendation:
        made.append(item)
        return original(self, item, *said)

    monkeypatch.setattr(Session, "_recommendation", count)
    questions = [
        {"events": [{"kind": "click", "item": f"i{n}"}], "k": k} for n, k in enumerate((2, 30, 1))
    ]

    together = items(session.answer("recommend", questions))

    assert len(made) == 2 + 30 + 1
    assert together == [items(session.answer("recommend", [question]))[0] for question in questions]
