"""The arrays of the recommender's terms, fitted on what came before a cut.

The terms are fitted on what came before the validation window, λ on that window and on earlier ones
with terms of their own (`tasteloop.recommender.weights`): the likelihood of what followed among
each row's candidates, pulled towards a plain start as strongly as cross-fitting by user says. Then
the terms are fitted again on all events before the test window, λ unchanged. λ of items that nobody
has met come from items held out (`tasteloop.recommender.tuning`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings
from tasteloop.language.reader import unit
from tasteloop.recommender.collaborative import Past, Table, als, ease, mark, nearby, spectral
from tasteloop.recommender.folding import Matrix
from tasteloop.recommender.item_text import expected, features
from tasteloop.recommender.recommend import TERMS, Recommender

if TYPE_CHECKING:
    import polars as pl

_KIN_WIDTH = 32  # components of texts by which items without labels are alike

# λ that terms start from, and are pulled towards: a plain mixture that ranks well by itself
START = {
    "collaborative": 0.5,
    "factors_liked": 0.25,
    "factors_seen": 0.25,
    "nearby": 0.3,
    "popularity": 0.2,
}
# The least λ of an opinion. The next act of somebody who rates films in the order of a page says
# little about what they thought of the last one; they would still be surprised to be shown more of
# what they rejected.
LEAST_OPINION = 0.08
# λ of what is asked for, before data say more: by these a title that is named comes first, a label
# that is wanted before what the history alone would bring, and what is refused last. Kin count as
# they do in the plain mixture, whatever λ of people who rate what they come upon say of them.
ASKED_START = {
    "asked_labels": 2.5,
    "asked_text": 1.0,
    "asked_titles": 10.0,
    "asked_kin": START["collaborative"],
    "refused": 4.0,
}


class RecommenderSettings(BaseModel, frozen=True, extra="forbid"):
    """Grids are searched on the validation window; a single value fixes it."""

    ease_regularisation: tuple[float, ...] = (300, 1000, 3000)
    ease_items: int = Field(
        5_000,
        ge=1,
        description="Most popular items among which items are compared: EASE is square in them.",
    )
    history_decay: tuple[float, ...] = (0.9, 0.95, 0.98, 1.0)
    half_life_days: tuple[float, ...] = (7, 30, 90, 3650)
    interest_regularisation: float = Field(200, gt=0)
    content_width: int = Field(
        64, ge=1, description="Principal components that are kept of the items' text vectors."
    )
    factors: int = Field(32, ge=1, description="Width of the ALS and of the spectral term.")
    als_alpha: float = Field(4, gt=0, description="Weight of an event beside no event.")
    als_regularisation: float = Field(30, gt=0)
    als_iterations: int = Field(12, ge=1)
    nearby_reach: int = Field(
        10,
        ge=0,
        description="Items at most so many places apart in a history are near; 0: none are.",
    )
    familiar: float = Field(
        3,
        gt=0,
        description="Interactions at which what they say of an item counts as much as its text does.",
    )
    text_regularisation: float = Field(
        10, gt=0, description="Of the regression from item text to what interactions teach."
    )
    held_out: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the items that are held out to fit λ of items that nobody has met.",
    )
    candidates: int = Field(
        100, ge=10, description="Items a row, by a plain start, among which λ are fitted."
    )
    weight_rows: int = Field(
        20_000,
        ge=100,
        description="Rows of the validation window on which grids and λ are chosen; of more, so many "
        "are drawn.",
    )
    shrinkage: tuple[float, ...] = Field(
        (0.01, 0.1, 1.0, 10.0),
        description="Pull of λ towards the start; what is below 0.5 / users is not tried.",
    )


@dataclass(frozen=True)
class FittingData:
    """What the terms are fitted on beside the past.

    Attributes:
        vectors: [J, d] of the items' texts, of length 1.
        truth: [n, K] interests of the training rows; future: [n, J] of 0 and 1, what followed them.
        meaning: [J, m] of the items' texts by the encoder as it was published, of length 1; None
            where no words are listened to.
    """

    vectors: Matrix
    catalogue: Catalogue
    labels: list[str]
    truth: Matrix
    future: Table
    text: TextSettings
    meaning: Matrix | None = None


@dataclass(frozen=True)
class TunedSettings:
    """What the validation window chose; `ndcg` is by cross-fitting of λ."""

    regularisation: float
    decay: float
    half_life: float
    shrinkage: float = 0.0
    weights: dict[str, tuple[float, float]] = field(default_factory=dict)
    new_weights: dict[str, tuple[float, float]] = field(default_factory=dict)
    ndcg: float = 0.0


def compared_items(past: Past, settings: RecommenderSettings) -> NDArray[np.int32]:
    """[E] positions of the most popular items, which are compared with each other, ascending."""
    count = np.bincount(past.item, minlength=past.items)
    most = min(settings.ease_items, int((count > 0).sum()))
    return np.sort(np.argsort(-count, kind="stable")[:most]).astype(np.int32)


def fit_terms(
    past: Past, data: FittingData, settings: RecommenderSettings, tuned: TunedSettings
) -> Recommender:
    """Fit every term's arrays; λ are `tuned`'s, or the start's."""
    # 1. what interactions teach of each item [J, .]: ties, factors, spectral vectors, popularity
    columns = compared_items(past, settings)
    singular, activity = spectral(past.seen, settings.factors)
    root = np.sqrt(activity)[:, None]
    taught = (
        fit_ties(data.truth, data.future, settings.interest_regularisation).T,
        _fit_factors(past.matrix, settings),
        _fit_factors(past.seen, settings),
        singular * root,
        past.popularity(tuned.half_life)[:, None],
    )

    # 2. items that few have met lean on what their text lets expect
    met = np.bincount(past.item, minlength=past.items)
    blended = expected(
        features(data.catalogue, data.vectors),
        np.concatenate(taught, 1),
        (met / (met + settings.familiar)).astype(np.float32),
        settings.text_regularisation,
    )
    ends = np.cumsum([part.shape[1] for part in taught])[:-1]
    ties, factors_liked, factors_seen, spread, popular = np.split(blended, ends, axis=1)

    # 3. labels
    meaning = data.meaning
    if meaning is None:
        meaning = np.zeros((past.items, 0), np.float32)
    all_labels = data.catalogue.membership(data.catalogue.label_names).astype(np.float32)
    events_by_label = past.seen.sum(0) @ all_labels
    return Recommender(
        vectors=leading(data.vectors, settings.content_width),
        compared=columns,
        ease=ease(past.matrix[:, columns], tuned.regularisation),
        nearby=nearby(past, settings.nearby_reach, compared=columns),
        ties=np.ascontiguousarray(ties.T),
        label_mean=data.truth.mean(0),
        membership=all_labels / np.maximum(all_labels.sum(1, keepdims=True), 1),
        label_share=(events_by_label / max(float(past.seen.sum()), 1)).astype(np.float32),
        factors_liked=np.ascontiguousarray(factors_liked),
        factors_seen=np.ascontiguousarray(factors_seen),
        spectral=np.asarray(spread / root, np.float32),
        activity=activity,
        popularity=popular[:, 0].copy(),
        kin=_kin(all_labels, meaning),
        bears=data.catalogue.membership(data.labels).copy(),
        meaning=meaning,
        weights={name: (value, 0.0) for name, value in ASKED_START.items()}
        | (tuned.weights or {name: (START.get(name, 0.0), 0.0) for name in TERMS}),
        decay=tuned.decay,
        als=(settings.als_alpha, settings.als_regularisation),
        text=data.text,
        new=np.flatnonzero(met == 0).astype(np.int32),
        new_weights=tuned.new_weights,
    )


def _kin(labels: Matrix, meaning: Matrix) -> Matrix:
    """[J, q] of length 1: an item's labels [J, L], or where there are none the leading components
    of what its text means, about their mean. 0 for an item that has neither.
    """
    centred = meaning - meaning.mean(0, keepdims=True)
    told = labels if labels.shape[1] else leading(centred, _KIN_WIDTH)
    return unit(told)


def mark_futures(futures: Sequence[Sequence[int]] | pl.Series, items: int) -> Table:
    """[n, J] of 0 and 1: what followed each row, of its positions."""
    import polars as pl

    positions = pl.Series(futures, dtype=pl.List(pl.Int32()))
    length = positions.list.len().to_numpy()
    item = positions.explode(empty_as_null=False).to_numpy()
    return mark(np.repeat(np.arange(len(length)), length), item, (len(length), items))


def _fit_factors(table: Table, settings: RecommenderSettings) -> Matrix:
    return als(
        table,
        settings.factors,
        settings.als_alpha,
        settings.als_regularisation,
        settings.als_iterations,
    )


def fit_ties(truth: Matrix, future: Table, regularisation: float) -> Matrix:
    """[K, J]: by ridge regression how much more an item follows where a label's interest is
    there.
    """
    a = truth - truth.mean(0)
    # a is centred, so a sparse future need not be
    is_dense = isinstance(future, np.ndarray)
    moments = a.T @ (future - future.mean(0)) if is_dense else (future.T @ a).T
    ties = np.linalg.solve(a.T @ a + regularisation * np.eye(a.shape[1]), moments)
    return np.asarray(ties, np.float32)


def leading(vectors: Matrix, width: int) -> Matrix:
    """Vectors [J, d] in their first principal axes, [J, min(width, d)]: so few numbers keep the
    products between them best (Eckart & Young 1936). Ranking reads the whole catalogue's for every
    user: their width is what it costs.
    """
    if width >= vectors.shape[1]:
        return vectors
    _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)  # ascending
    components: Matrix = vectors @ axes[:, -width:].astype(np.float32)
    return components
