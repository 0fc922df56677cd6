"""Synthetic behaviour with a known truth: users whose tastes, and how they change, were drawn from
a stated model.

docs/case-study.md has the model as formulas. What is true of users goes to tables of its own, which
nothing but a comparison with the truth may read; events and items hold only what a real shop would
have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tasteloop.behaviour.cleaning import ROW, TIME_WRITTEN, VALUE_WRITTEN
from tasteloop.behaviour.events import EVENTS_SCHEMA, ITEM, KIND, TEXT, TIME, USER, VALUE
from tasteloop.behaviour.items import DOMAIN, ITEMS_SCHEMA, LABELS, RELEASED, TITLE
from tasteloop.behaviour.times import SECOND, microseconds
from tasteloop.datasets.reading import Behaviour
from tasteloop.errors import TasteloopError
from tasteloop.files import read_parquet

NAME = "synthetic"
TASTES, APPEAL = "truth/tastes.parquet", "truth/appeal.parquet"
LABEL, SINCE, TASTE = "label", "since", "taste"

VOCABULARY = {
    "Astronomy": "comet galaxy telescope nebula orbit eclipse planet pulsar meteor observatory",
    "Baking": "bread oven flour pastry yeast dough cake crust biscuit icing",
    "Chess": "bishop rook gambit checkmate endgame pawn castling opening grandmaster knight",
    "Cycling": "bicycle pedal peloton saddle sprint gears chain handlebar velodrome tyre",
    "Dance": "ballet tango choreography waltz rhythm salsa pirouette ballroom troupe steps",
    "Fishing": "trout angler bait hook reel salmon lure tackle rod stream",
    "Gardening": "seed soil rose compost pruning tulip greenhouse weeds bulb hedge",
    "History": "empire archive medieval dynasty treaty monarch chronicle revolution ancient relic",
    "Jazz": "saxophone swing trumpet improvisation bebop quartet blues bassist horn syncopation",
    "Knitting": "wool yarn needle stitch sweater scarf crochet cardigan mittens pattern",
    "Mountaineering": "summit glacier rope ridge climber altitude crampon avalanche basecamp cliff",
    "Opera": "soprano aria tenor libretto overture diva baritone recital chorus maestro",
    "Painting": "canvas brush watercolour portrait pigment easel fresco palette landscape sketch",
    "Photography": "camera lens shutter aperture exposure tripod negative darkroom flash zoom",
    "Politics": "election senate campaign minister ballot parliament debate vote coalition policy",
    "Robotics": "robot sensor actuator drone servo android circuit automaton gripper algorithm",
    "Sailing": "yacht mast harbour regatta anchor keel rudder skipper tide jib",
    "Tennis": "racket serve volley court backhand wimbledon deuce umpire forehand ace",
    "Travel": "passport itinerary hotel journey backpack airport tourist island voyage souvenir",
    "Wildlife": "elephant safari penguin predator habitat wolf migration rainforest falcon otter",
}
NEUTRAL = (
    "morning window letter number simple market mirror story river paper village corner bridge winter summer "
    "secret silver quiet little great modern classic second first final hidden golden short long true"
)
PRAISE = "wonderful superb delightful brilliant charming excellent"
BLAME = "dreadful boring clumsy awful tedious disappointing"

# What is done with an item that is liked, and with one that is not: the columns of `ACTS` add up to
# 1.
KINDS_OF_ACT = ("view", "click", "rate", "review", "share", "purchase")
ACTS = {True: (0.30, 0.22, 0.22, 0.08, 0.06, 0.12), False: (0.55, 0.10, 0.25, 0.10, 0.0, 0.0)}
# of a rating or a review: stars, how often
STARS = {True: ((4, 5), (0.5, 0.5)), False: ((1, 2, 3), (0.3, 0.4, 0.3))}
WATCHED = {True: (8.0, 2.0), False: (2.0, 6.0)}  # Beta of the share of an item that a view lasts
LABELS_AN_ITEM = (0.5, 0.35, 0.15)  # one, two, three

_TERMS = "Synthetic: drawn from a random generator, no person and no product stands behind it. Free to use."
_TRIES = 50  # draws of an item that the user has not met, before one is met again


class SyntheticSettings(BaseModel, frozen=True, extra="forbid"):
    """The size and the parameters of the generating model; one seed decides everything."""

    users: int = Field(1000, ge=1)
    items: int = Field(10_000, ge=1, description="At least as many as labels.")
    labels: int = Field(20, ge=3, le=len(VOCABULARY))
    seed: int = 0
    start: date = date(2025, 1, 1)
    days: int = Field(180, ge=2)
    mean_events: float = Field(
        60, ge=1, description="Mean of the log-normal number of events of a user."
    )
    events_spread: float = Field(0.6, ge=0, description="Deviation of the log of that number.")
    session_events: float = Field(5, gt=1, description="Mean events of a session.")
    label_skew: float = Field(
        0.5, ge=0, description="The k-th label is k^-skew as common among items and tastes."
    )
    concentration: float = Field(
        2.0, gt=0, description="Of the Dirichlet of tastes: small means few, strong tastes."
    )
    drift_share: float = Field(
        0.3, ge=0, le=1, description="Of users, whose taste is drawn anew in the middle."
    )
    drift_at: float = Field(0.5, gt=0, lt=1, description="When, as a share of the period.")
    zipf: float = Field(
        0.9, ge=0, description="An item's appeal is its rank to the power of minus this."
    )
    exploration: float = Field(
        0.15, ge=0, le=1, description="Share of items met for their appeal alone."
    )
    searches: float = Field(0.08, ge=0, lt=1, description="Share of events that are searches.")
    liking_slope: float = Field(6.0, ge=0)
    liking_middle: float = Field(0.4, description="Affinity at which half of the items are liked.")
    label_words: float = Field(
        0.5, ge=0, le=1, description="Share of an item's words that speak of its labels."
    )


def affinity(tastes: NDArray[np.float64], membership: NDArray[Any]) -> NDArray[np.float64]:
    """What a user of these tastes feels for an item: tastes [n, K], membership [J, K] of 0 and 1 ->
    [n, J] in [0, 1].

    The mean taste of the item's labels, as a share of the user's strongest taste: 1 where the item
    is about nothing but that. 0 for an item without labels.
    """
    share = membership / np.maximum(membership.sum(1, keepdims=True), 1)
    return np.asarray((tastes / tastes.max(1, keepdims=True)) @ share.T)


def liking(affinities: NDArray[np.float64], settings: SyntheticSettings) -> NDArray[np.float64]:
    """The probability that an item that was met is liked."""
    return np.asarray(
        1 / (1 + np.exp(-settings.liking_slope * (affinities - settings.liking_middle)))
    )


def meeting(
    tastes: NDArray[np.float64],
    membership: NDArray[Any],
    appeal: NDArray[np.float64],
    settings: SyntheticSettings,
) -> NDArray[np.float64]:
    """The probability that an item is the next that a user meets, before those are left out that it
    met: [n, J].
    """
    shelves = membership * appeal[:, None]
    by_label = tastes @ (shelves / shelves.sum(0)).T
    return np.asarray(
        settings.exploration * appeal / appeal.sum() + (1 - settings.exploration) * by_label
    )


def drift_time(settings: SyntheticSettings) -> int:
    """µs since 1970 at which tastes change."""
    return _start(settings) + round(settings.days * 86_400 * settings.drift_at) * SECOND


@dataclass(frozen=True)
class Truth:
    """The truth of a data set directory: tastes [lives, K] of each user (pseudonym) from a time on.

    Attributes:
        labels: the K names.
        since: user -> times (µs, ascending) from which each of its tastes holds.
        tastes: user -> [times, K].
    """

    labels: list[str]
    since: dict[str, NDArray[np.int64]]
    tastes: dict[str, NDArray[np.float64]]

    @classmethod
    def read(cls, dataset: Path) -> Truth:
        """Raises TasteloopError where the data set has none: it is not synthetic."""
        if not (dataset / TASTES).is_file():
            raise TasteloopError(
                f"{dataset} has no {TASTES}: the truth is known of synthetic data only"
            )
        table = read_parquet(dataset / TASTES)
        labels = sorted(table[LABEL].unique())
        wide = table.pivot(LABEL, index=[USER, SINCE], values=TASTE).sort(USER, SINCE)
        since, tastes = {}, {}
        for (user,), lives in wide.group_by(USER, maintain_order=True):
            since[str(user)] = lives[SINCE].to_numpy()
            tastes[str(user)] = lives.select(labels).to_numpy()
        return cls(labels, since, tastes)

    def at(self, users: Sequence[str], times: Sequence[int]) -> NDArray[np.float64]:
        """[n, K]: the tastes of users at times, µs."""
        rows = []
        for user, time in zip(users, times, strict=True):
            life = int(np.searchsorted(self.since[user], time, side="right")) - 1
            rows.append(self.tastes[user][max(life, 0)])
        return np.array(rows).reshape(len(rows), len(self.labels))

    def changed(self, users: Sequence[str]) -> NDArray[np.bool_]:
        """[n]: whose taste changes at some time."""
        return np.array([len(self.since[user]) > 1 for user in users], np.bool_)


def generate(settings: SyntheticSettings) -> Behaviour:
    """Draw items, users and what they do; equal settings give equal data."""
    if settings.items < settings.labels:
        raise TasteloopError(
            f"{settings.items} items cannot bear {settings.labels} labels; give ingest.synthetic.items at least as many"
        )
    # a stream each, so that another number of users leaves the items as they were
    of_items, of_users, of_events = (
        np.random.default_rng((settings.seed, stream)) for stream in range(3)
    )
    shop = _Shop.draw(settings, of_items)
    people = _People.draw(settings, of_users)
    rows: list[tuple[Any, ...]] = []
    for user in range(settings.users):
        rows += _life(user, shop, people, settings, of_events)
    events = pl.DataFrame(rows, schema=_WRITTEN, orient="row").sort(TIME, maintain_order=True)
    return Behaviour(
        events.select(
            pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(ROW),
            USER,
            ITEM,
            KIND,
            TEXT,
            TIME,
            VALUE,
            pl.col(TIME).cast(pl.String).alias(TIME_WRITTEN),
            pl.col(VALUE).cast(pl.String).alias(VALUE_WRITTEN),
        ).lazy(),
        shop.table(settings),
        (0.0, 1.0),
        _TERMS,
        {TASTES: people.table(shop.labels, settings), APPEAL: shop.truth()},
    )


_WRITTEN = dict(EVENTS_SCHEMA.to_polars()) | {VALUE: pl.Float64()}


def _start(settings: SyntheticSettings) -> int:
    return microseconds(datetime.combine(settings.start, datetime.min.time()))


def _prevalence(settings: SyntheticSettings) -> NDArray[np.float64]:
    """[K] how common each label is, adding up to 1."""
    weight = np.arange(1, settings.labels + 1) ** -settings.label_skew
    return np.asarray(weight / weight.sum())


@dataclass(frozen=True)
class _Shelf:
    """Items to draw from, and the running sum of their appeal."""

    items: NDArray[np.int64]
    cumulative: NDArray[np.float64]


@dataclass(frozen=True)
class _Shop:
    """The items: labels' names, which item bears which [J, K], appeal [J], and their words."""

    labels: list[str]
    membership: NDArray[np.int8]
    appeal: NDArray[np.float64]
    titles: list[str]
    texts: list[str]
    released: list[date]

    @cached_property
    def words(self) -> list[str]:
        """Each label's own."""
        return [VOCABULARY[label] for label in self.labels]

    @cached_property
    def shelves(self) -> list[_Shelf]:
        """One a label, and last all items."""
        borne = [*self.membership.T, np.ones(len(self.appeal))]
        places = [np.flatnonzero(column) for column in borne]
        return [_Shelf(items, np.cumsum(self.appeal[items])) for items in places]

    @classmethod
    def draw(cls, settings: SyntheticSettings, rng: np.random.Generator) -> _Shop:
        labels = list(VOCABULARY)[: settings.labels]
        prevalence = _prevalence(settings)
        membership = np.zeros((settings.items, settings.labels), np.int8)
        titles, texts, released = [], [], []
        for item in range(settings.items):
            count = 1 + int(rng.choice(3, p=LABELS_AN_ITEM))
            # the first K items bear the K labels, so that no label is without an item
            borne = (
                [item]
                if item < settings.labels
                else rng.choice(settings.labels, count, False, prevalence).tolist()
            )
            membership[item, borne] = 1
            label_words = [
                VOCABULARY[labels[borne[int(rng.integers(len(borne)))]]] for _ in range(12)
            ]
            spoken = rng.random(12) < settings.label_words
            spoken[0] = True  # a title begins with a word of its label
            words = [_one(label_words[n] if spoken[n] else NEUTRAL, rng) for n in range(12)]
            titles.append(" ".join(words[:2]).capitalize())
            texts.append(" ".join(words[2:]))
            released.append(settings.start - timedelta(days=int(rng.integers(1, 2000))))
        appeal = (1.0 + rng.permutation(settings.items)) ** -settings.zipf
        return cls(labels, membership, appeal / appeal.sum(), titles, texts, released)

    def table(self, settings: SyntheticSettings) -> pl.DataFrame:
        labels = [[self.labels[k] for k in np.flatnonzero(row)] for row in self.membership]
        columns = {
            ITEM: _items(0, settings.items),
            TITLE: self.titles,
            LABELS: labels,
            TEXT: self.texts,
            DOMAIN: [NAME] * settings.items,
            RELEASED: self.released,
        }
        return pl.DataFrame(columns, schema=dict(ITEMS_SCHEMA.to_polars()))

    def truth(self) -> pl.DataFrame:
        return pl.DataFrame({ITEM: _items(0, len(self.appeal)), "appeal": self.appeal})


@dataclass(frozen=True)
class _People:
    """Tastes before and after the change [U, K] (the same for most), and when each came, in seconds
    from the start.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    drifted: NDArray[np.bool_]
    came: NDArray[np.float64]
    events: NDArray[np.int64]

    @classmethod
    def draw(cls, settings: SyntheticSettings, rng: np.random.Generator) -> _People:
        alpha = settings.concentration * _prevalence(settings)
        before = rng.dirichlet(alpha, settings.users)
        anew = rng.dirichlet(alpha, settings.users)
        drifted = rng.random(settings.users) < settings.drift_share
        log = np.log(settings.mean_events) - settings.events_spread**2 / 2
        return cls(
            before,
            np.where(drifted[:, None], anew, before),
            drifted,
            rng.random(settings.users) * 0.8 * settings.days * 86_400,
            np.ceil(rng.lognormal(log, settings.events_spread, settings.users)).astype(np.int64),
        )

    def table(self, labels: Sequence[str], settings: SyntheticSettings) -> pl.DataFrame:
        """user, since, label, taste: a user's tastes from a time on."""
        rows = []
        for user in range(settings.users):
            lives = [(_start(settings), self.before[user])]
            if self.drifted[user]:
                lives.append((drift_time(settings), self.after[user]))
            rows += [
                (_user(user), since, label, float(taste))
                for since, tastes in lives
                for label, taste in zip(labels, tastes, strict=True)
            ]
        schema = {USER: pl.String, SINCE: pl.Int64, LABEL: pl.String, TASTE: pl.Float64}
        return pl.DataFrame(rows, schema=schema, orient="row")


def _life(
    user: int, shop: _Shop, people: _People, settings: SyntheticSettings, rng: np.random.Generator
) -> list[tuple[Any, ...]]:
    """The rows of one user's events, session by session."""
    rows: list[tuple[Any, ...]] = []
    met: set[int] = set()
    changed = settings.days * 86_400 * settings.drift_at
    for second in _times(float(people.came[user]), int(people.events[user]), settings, rng):
        tastes = people.after[user] if second >= changed else people.before[user]
        time = _start(settings) + int(second) * SECOND
        if rng.random() < settings.searches:
            word = _one(shop.words[int(rng.choice(len(tastes), p=tastes))], rng)
            rows.append((_user(user), None, "search", time, None, f"{word} {_one(NEUTRAL, rng)}"))
            continue
        item = _meet(tastes, met, shop, settings, rng)
        met.add(item)
        chance = liking(affinity(tastes[None], shop.membership[[item]]), settings)[0, 0]
        kind, value, text = _act(bool(rng.random() < chance), item, shop, rng)
        rows.append((_user(user), _items(item, item + 1)[0], kind, time, value, text))
    return rows


def _times(
    came: float, count: int, settings: SyntheticSettings, rng: np.random.Generator
) -> NDArray[np.float64]:
    """[count] seconds from the start: sessions on random days, most in the evening, a minute or two
    between events.
    """
    times: list[float] = []
    first, last = int(came // 86_400), settings.days
    while len(times) < count:
        clock = rng.normal(20, 3) % 24 * 3600
        session = rng.integers(first, last) * 86_400 + clock
        length = min(1 + rng.poisson(settings.session_events - 1), count - len(times))
        times += (session + np.cumsum(5 + rng.exponential(90, length))).tolist()
    return np.sort(times)


def _meet(
    tastes: NDArray[np.float64],
    met: set[int],
    shop: _Shop,
    settings: SyntheticSettings,
    rng: np.random.Generator,
) -> int:
    """An item by its appeal: of all, or of those of a label drawn from the tastes; not one that was
    met, if it can.
    """
    for _ in range(_TRIES):
        wander = rng.random() < settings.exploration
        shelf = shop.shelves[-1 if wander else int(rng.choice(len(tastes), p=tastes))]
        item = int(
            shelf.items[
                np.searchsorted(shelf.cumulative, rng.random() * shelf.cumulative[-1], side="right")
            ]
        )
        if item not in met:
            break
    return item


def _act(
    liked: bool, item: int, shop: _Shop, rng: np.random.Generator
) -> tuple[str, float | None, str | None]:
    """kind, value and text of what is done with an item."""
    kind = KINDS_OF_ACT[int(rng.choice(len(KINDS_OF_ACT), p=ACTS[liked]))]
    value = text = None
    if kind == "view":
        value = float(rng.beta(*WATCHED[liked]))
    elif kind in ("rate", "review"):
        stars, odds = STARS[liked]
        value = (int(rng.choice(stars, p=odds)) - 1) / 4
    if kind == "review":
        about = shop.words[int(rng.choice(np.flatnonzero(shop.membership[item])))]
        opinion = PRAISE if liked else BLAME
        text = " ".join(
            _one(words, rng) for words in (opinion, about, NEUTRAL, about, NEUTRAL, opinion)
        )
    return kind, value, text


def _user(user: int) -> str:
    return f"{NAME} user {user}"


def _items(first: int, end: int) -> list[str]:
    return [f"{NAME}-{item:05d}" for item in range(first, end)]


def _one(words: str, rng: np.random.Generator) -> str:
    """One word of a vocabulary."""
    choices = words.split()
    return choices[int(rng.integers(len(choices)))]
