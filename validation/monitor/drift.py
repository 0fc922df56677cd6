"""How far a window lies from the reference, whether chance explains it, and how small a shift it
could have seen.

The unit is a user in a window: what one user does is not independent, so a user is one row,
whatever they did. Every measure of behaviour and of predictions is a vector z a unit, and the
distance of two windows the L1 norm of the difference of their means:

- shares (kinds, labels, ...): half of it is the total variation, the share of behaviour that moved.
- quantities (value, text length, ...), in cells between the reference's quantiles: with z the
  cumulative shares times the cells' widths it is the first Wasserstein distance, here in standard
  deviations of the reference.

Embeddings have two more: how well a linear classifier tells the windows apart (2 AUC - 1,
cross-fitted ridge), and the maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012).
Qualities are ratios of sums over units, and only getting worse counts.

Each is tested by exchanging units between the two sides (a permutation test, exact under exchange).
From the same draws come:

- effect: distances of small samples are biased upwards, as noise adds in quadrature. So the root of
  what d² has beyond the mean of the null's d², or 0.
- detectable: such a norm is a supremum of linear functionals, none of which deviates by more than
  the root mean square r of the null. So a shift of c + 0.84 r is seen with a probability of about
  0.8 or more, c being the null's quantile at the level that is left to one of all measures.
- natural: the reference is itself made of windows, each of which has an effect against the others.
  The bound for one more such window (a t prediction interval) is what season and weekday explain:
  chance is not the only null.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tasteloop import metrics
from tasteloop.answers import INTERESTS, RECOMMEND
from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE, Event, positive
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.text import TextSettings, behaviour_text
from validation.monitor.decision import LESS_IS_BETTER, Finding, adjusted
from validation.monitor.windows import CLICKED, MODEL, NAMES, NUMBERS, PREDICTED, RELEVANT

if TYPE_CHECKING:
    import polars as pl

    from tasteloop.runtime.session import Session

Matrix = NDArray[np.float32]
Array = NDArray[Any]

AUC, MMD = "embedding.auc", "embedding.mmd"
WINDOW = "window"  # column: which of the reference's windows a row lies in

SCRIPTS = (
    "LATIN",
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "HANGUL",
    "CYRILLIC",
    "GREEK",
    "ARABIC",
    "HEBREW",
    "DEVANAGARI",
    "THAI",
)
# of the reference's items by popularity; an item that it did not have is one more cell
_TENTHS = 10
_CHARACTERS = 2000  # of a text that are looked at
_TEXTS = 20  # of a unit that are looked at
_WORDS = 50_000  # of the vocabulary
_WORD = re.compile(r"[぀-ヿ㐀-鿿]|[^\W\d_]+")
_POWER = 0.8416  # the standard normal's quantile at 0.8
_FOLDS = 5
_FEWEST = 20  # units on each side below which nothing is tested
_TEXTS_A_WINDOW = 40  # of a reference
_FEWEST_WINDOWS = 4  # of the reference for a natural bound


class DriftSettings(BaseModel, frozen=True, extra="forbid"):
    """How much is looked at; samples are fixed by the seed and the ids, not by the order of
    rows.
    """

    seed: int = 0
    units: int = Field(2000, ge=50, description="Users in a window at most, on each side.")
    texts: int = Field(300, ge=50, description="Of those, whose behaviour is read by the encoder.")
    draws: int = Field(
        1999, ge=99, description="Permutations; the least p-value is one over one more."
    )
    cells: int = Field(
        20, ge=2, description="Into which a quantity is cut, at the reference's quantiles."
    )
    label_share: float = Field(
        0.25, gt=0, le=1, description="An interest: so many of the following items bear it."
    )
    minimum_future: int = Field(
        3, ge=1, description="Following items without which an interest is not judged."
    )
    alpha: float = Field(0.01, gt=0, lt=1, description="Level at which `detectable` is stated.")


@dataclass(frozen=True)
class Sample:
    """One measure on one side: z [n, d] and the reference's window of each unit [n] (0 in a current
    window).
    """

    z: Matrix
    window: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.z)


Profile = dict[str, Sample]


@dataclass(frozen=True)
class Scale:
    """Cells of a quantity on the reference: inner edges [d - 1], where each lies [d], and the
    standard deviation.
    """

    edges: tuple[float, ...]
    places: tuple[float, ...]
    deviation: float

    @classmethod
    def of(cls, values: Array, cells: int) -> Scale:
        """Cells between quantiles; fewer where values repeat."""
        edges = np.unique(np.quantile(values, np.linspace(0, 1, cells + 1)[1:-1]))
        cell = np.searchsorted(edges, values, side="left")
        found = [values[cell == k] for k in range(len(edges) + 1)]
        low, high = float(values.min()), float(values.max())
        around = [low, *edges, high]
        places = [
            float(v.mean()) if len(v) else (around[k] + around[k + 1]) / 2
            for k, v in enumerate(found)
        ]
        return cls(tuple(map(float, edges)), tuple(places), max(float(values.std()), 1e-3))

    def cell(self, values: Array) -> Array:
        return np.searchsorted(np.array(self.edges), values, side="left")

    def z(self, shares: Array) -> Array:
        """[n, d] shares of cells -> [n, d - 1], whose L1 distance of means is Wasserstein's in
        deviations.
        """
        return np.cumsum(shares, 1)[:, :-1] * (np.diff(self.places) / self.deviation)


@dataclass(frozen=True)
class Codebook:
    """What the reference fixes for every later window.

    Attributes:
        labels: whose mix is watched.
        tenths: item -> its tenth by popularity, 0 the most popular.
        words: the vocabulary.
        scales: the quantities' cells.
    """

    labels: tuple[str, ...]
    tenths: Mapping[str, int]
    words: frozenset[str]
    scales: Mapping[str, Scale]


@dataclass(frozen=True)
class Reader:
    """The champion as a reader of behaviour: texts as vectors, and as probabilities of being
    positive.
    """

    catalogue: Catalogue
    text: TextSettings
    encode: Callable[[Sequence[str]], Matrix]
    sentiment: Callable[[Sequence[str]], Matrix] | None

    @classmethod
    def of(cls, session: Session) -> Reader:
        encoder = session.reader
        return cls(
            session.catalogue,
            session.text,
            lambda texts: encoder.pool(texts, session.text.max_tokens),
            session.sentiment if session.has_sentiment else None,
        )


# From tables to vectors


def chosen(names: Iterable[str], most: int, seed: int) -> list[str]:
    """At most so many names: always the same of the same names, whatever their order."""
    return sorted(
        set(names), key=lambda name: blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    )[:most]


def codebook(
    events: pl.DataFrame, answers: pl.DataFrame, reader: Reader, settings: DriftSettings
) -> Codebook:
    """From the reference's events and the champion's answers."""
    import polars as pl

    counted = (
        events.filter(pl.col(ITEM).is_not_null())
        .group_by(ITEM)
        .len()
        .sort(["len", ITEM], descending=[True, False])[ITEM]
        .to_list()
    )
    tenths = {item: _TENTHS * rank // len(counted) for rank, item in enumerate(counted)}
    texts = events[TEXT].drop_nulls().to_list()
    counts: dict[str, int] = {}
    for text in texts:
        for word in set(_words(text)):
            counts[word] = counts.get(word, 0) + 1
    words = sorted(counts, key=lambda w: (-counts[w], w))[:_WORDS]
    quantities: dict[str, Array] = {
        "activity": np.log2(1 + events.group_by(USER, WINDOW).len()["len"].to_numpy()),
        "value": events[VALUE].drop_nulls().to_numpy(),
        "text_length": np.log2(1 + np.array([len(text) for text in texts], float)),
    }
    if reader.sentiment is not None and texts:
        quantities["sentiment"] = reader.sentiment(
            [t[:_CHARACTERS] for t in chosen(texts, settings.texts, settings.seed)]
        )
    for name, model in (("prediction.confidence", INTERESTS), ("prediction.scores", RECOMMEND)):
        quantities[name] = _first(answers.filter(pl.col(MODEL) == model))
    return Codebook(
        tuple(reader.catalogue.label_names),
        tenths,
        frozenset(words),
        {
            name: Scale.of(values.astype(float), settings.cells)
            for name, values in quantities.items()
            if len(values)
        },
    )


def profile(
    events: pl.DataFrame,
    answers: pl.DataFrame,
    book: Codebook,
    reader: Reader,
    settings: DriftSettings,
) -> Profile:
    """Every measure of behaviour, embedding and prediction.

    Args:
        events: behaviour with WINDOW, repetitions removed.
        answers: of the journal, with WINDOW; those without a user are units of their own.
    """
    import narwhals as nw
    import polars as pl

    rows, users = _numbered(sampled(events, settings))
    seen = _Measures(book, users)
    kinds = {kind: n for n, kind in enumerate(KINDS)}
    seen.shares(
        "kinds", rows["unit"].to_numpy(), _cells(rows[KIND], kinds, len(KINDS)), len(KINDS) + 1
    )
    counts = rows.group_by("unit").len().sort("unit")
    seen.quantity("activity", counts["unit"].to_numpy(), np.log2(1 + counts["len"].to_numpy()))
    valued = rows.filter(pl.col(VALUE).is_not_null())
    seen.quantity("value", valued["unit"].to_numpy(), valued[VALUE].to_numpy())
    items = rows.filter(pl.col(ITEM).is_not_null())
    if items.height:
        seen.shares(
            "items",
            items["unit"].to_numpy(),
            _cells(items[ITEM], book.tenths, _TENTHS),
            _TENTHS + 1,
        )
    liked = nw.from_native(rows).filter(positive(reader.text.positive)).to_native()
    borne = liked.join(_labelled(reader.catalogue, book), on=ITEM)
    if borne.height:
        unit, cell, weight = (borne[name].to_numpy() for name in ("unit", "cell", "weight"))
        seen.shares("labels", unit, cell, len(book.labels), weight)
    _texts(rows, reader, settings, seen)
    _embeddings(rows, reader, settings, seen)
    said = _predictions(answers, book, settings)
    return {**seen.out, **said.out}


class _Measures:
    """Measures of units that are added one by one: `users` says which user and window each number
    stands for.
    """

    def __init__(self, book: Codebook, users: Mapping[int, tuple[str, int]]) -> None:
        self.book, self.users = book, users
        self.out: Profile = {}

    def shares(
        self, name: str, unit: Array, cell: Array, width: int, weight: Array | None = None
    ) -> None:
        """Of units that have at least one of the measure's rows: in which cells their rows lie."""
        present, position = np.unique(unit, return_inverse=True)
        x = np.zeros((len(present), width))
        np.add.at(x, (position, cell), 1.0 if weight is None else weight)
        x /= np.maximum(x.sum(1, keepdims=True), 1e-12)
        scale = self.book.scales.get(name)
        self.vectors(name, present, scale.z(x) if scale else x / 2)

    def quantity(self, name: str, unit: Array, values: Array) -> None:
        if (scale := self.book.scales.get(name)) and len(values):
            self.shares(name, unit, scale.cell(values), len(scale.places))

    def vectors(self, name: str, unit: Array, z: Array) -> None:
        if len(unit):
            windows = np.array([self.users[int(n)][1] for n in unit], np.int32)
            self.out[name] = Sample(z.astype(np.float32), windows)


def sampled(frame: pl.DataFrame, settings: DriftSettings) -> pl.DataFrame:
    """The rows of the chosen units; which they are depends on the user and the window only."""
    import polars as pl

    units = frame.select(USER, WINDOW).unique()
    if units.height > settings.units:
        names = {f"{user}\0{window}": (user, window) for user, window in units.rows()}
        kept = [names[name] for name in chosen(names, settings.units, settings.seed)]
        keep = pl.DataFrame(kept, schema=units.schema, orient="row")
        frame = frame.join(keep, on=[USER, WINDOW], how="semi")
    return frame.sort(WINDOW, USER, maintain_order=True)


def _numbered(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[int, tuple[str, int]]]:
    """The rows with `unit`, the number of their user and window, and what each number stands
    for.
    """
    units = rows.select(USER, WINDOW).unique(maintain_order=True).with_row_index("unit")
    rows = rows.join(units, on=[USER, WINDOW], how="left", maintain_order="left")
    return rows, {n: (user, window) for n, user, window in units.rows()}


def _labelled(catalogue: Catalogue, book: Codebook) -> pl.DataFrame:
    """A row for each item and label that it bears: which label, and its share of the item."""
    import polars as pl

    cells = {label: n for n, label in enumerate(book.labels)}
    rows = [
        (item, cells[label], 1 / len(known))
        for item, labels in zip(catalogue.items, catalogue.labels, strict=True)
        if (known := [label for label in labels if label in cells])
        for label in known
    ]
    return pl.DataFrame(
        rows, schema={ITEM: pl.String(), "cell": pl.Int64(), "weight": pl.Float64()}, orient="row"
    )


def _cells(values: pl.Series, known: Mapping[str, int], other: int) -> Array:
    import polars as pl

    if not known:
        return np.full(len(values), other)
    return values.replace_strict(dict(known), default=other, return_dtype=pl.Int64).to_numpy()


def _words(text: str) -> list[str]:
    return _WORD.findall(text[:_CHARACTERS].lower())


@cache
def _script(character: str) -> int:
    """The place in SCRIPTS, or one beyond."""
    name = unicodedata.name(character, "").partition(" ")[0]
    return SCRIPTS.index(name) if name in SCRIPTS else len(SCRIPTS)


def script_of(text: str) -> str:
    """The script of most of a text's letters."""
    counts = [0] * (len(SCRIPTS) + 1)
    for character in filter(str.isalpha, text[:_CHARACTERS]):
        counts[_script(character)] += 1
    return "none" if not any(counts) else (*SCRIPTS, "other")[counts.index(max(counts))].lower()


def _texts(rows: pl.DataFrame, reader: Reader, settings: DriftSettings, seen: _Measures) -> None:
    """Length, vocabulary, language and sentiment of what users wrote."""
    import polars as pl

    told = rows.filter(pl.col(TEXT).is_not_null()).select("unit", TEXT)
    written = told.group_by("unit", maintain_order=True).head(_TEXTS)
    if not written.height:
        return
    unit = written["unit"].to_numpy()
    texts = [str(text)[:_CHARACTERS] for text in written[TEXT].to_list()]
    seen.quantity("text_length", unit, np.log2(1 + written[TEXT].str.len_chars().to_numpy()))
    known = [
        (n, word not in seen.book.words)
        for n, text in zip(unit, texts, strict=True)
        for word in _words(text)
    ]
    letters = [
        (n, _script(c)) for n, text in zip(unit, texts, strict=True) for c in text if c.isalpha()
    ]
    if known and seen.book.words:
        seen.shares(
            "vocabulary",
            np.array([n for n, _ in known]),
            np.array([new for _, new in known], int),
            2,
        )
    if letters:
        seen.shares(
            "language",
            np.array([n for n, _ in letters]),
            np.array([s for _, s in letters]),
            len(SCRIPTS) + 1,
        )
    if reader.sentiment is not None and "sentiment" in seen.book.scales:
        first = written.unique("unit", keep="first", maintain_order=True)
        names = {str(n): place for place, n in enumerate(first["unit"].to_list())}
        kept = sorted(names[name] for name in chosen(names, settings.texts, settings.seed))
        read = first[kept]
        probabilities = reader.sentiment([str(t)[:_CHARACTERS] for t in read[TEXT].to_list()])
        seen.quantity("sentiment", read["unit"].to_numpy(), probabilities)


def _embeddings(
    rows: pl.DataFrame, reader: Reader, settings: DriftSettings, seen: _Measures
) -> None:
    """What the encoder makes of each unit's behaviour in the window, told as it is told to the
    model.

    Of a reference only the newest windows, so that each has enough units to be compared with the
    others.
    """
    import polars as pl

    newest = sorted({window for _, window in seen.users.values()})[
        -max(1, settings.texts // _TEXTS_A_WINDOW) :
    ]
    names = {
        f"{user}\0{window}": n for n, (user, window) in seen.users.items() if window >= newest[0]
    }
    kept = sorted(names[name] for name in chosen(names, settings.texts, settings.seed))
    histories: dict[int, list[Event]] = {n: [] for n in kept}
    # a kind that nobody knows has no words; the window's checks tell of it
    readable = pl.col(KIND).is_in(list(KINDS))
    told = rows.filter(pl.col("unit").is_in(kept) & readable).sort(TIME, maintain_order=True)
    for n, kind, item, time, value, text in told.select(
        "unit", KIND, ITEM, TIME, VALUE, TEXT
    ).rows():
        histories[n].append(Event(kind, item, time, value, text))
    if kept:
        vectors = reader.encode(
            [behaviour_text(histories[n], reader.catalogue, reader.text) for n in kept]
        )
        seen.vectors("embedding", np.array(kept), vectors)


def _predictions(answers: pl.DataFrame, book: Codebook, settings: DriftSettings) -> _Measures:
    """What the live model said: interests, its confidence, its best scores, how popular what it
    recommends is.
    """
    import polars as pl

    named_by = answers.with_columns(pl.coalesce(pl.col(USER), "request").alias(USER))
    rows, users = _numbered(sampled(named_by, settings))
    seen = _Measures(book, users)
    # a short answer is no distribution
    whole = pl.lit(True) if "k" not in rows.columns else pl.col("k").is_null()
    interests, recommended = (
        rows.filter((pl.col(MODEL) == INTERESTS) & whole),
        rows.filter(pl.col(MODEL) == RECOMMEND),
    )
    labels = {label: n for n, label in enumerate(book.labels)}
    said = [
        (n, labels[name], float(p))
        for n, names, numbers in interests.select("unit", NAMES, NUMBERS).rows()
        for name, p in zip(names, numbers, strict=True)
        if name in labels
    ]
    if said:
        unit, cell, weight = (np.array(column) for column in zip(*said, strict=True))
        seen.shares("prediction.interests", unit, cell, len(labels), weight)
    for name, table in (("prediction.confidence", interests), ("prediction.scores", recommended)):
        full = table.filter(pl.col(NUMBERS).list.len() > 0)
        seen.quantity(name, full["unit"].to_numpy(), _first(full))
    named = recommended.select("unit", NAMES).explode(NAMES).filter(pl.col(NAMES).is_not_null())
    if named.height:
        cells = _cells(named[NAMES], book.tenths, _TENTHS)
        seen.shares("prediction.items", named["unit"].to_numpy(), cells, _TENTHS + 1)
    return seen


def _first(answers: pl.DataFrame) -> Array:
    """The best number of each answer that has one."""
    return answers[NUMBERS].list.first().drop_nulls().to_numpy().astype(float)


# Qualities


@dataclass(frozen=True)
class Quality:
    """A ratio of sums over units: what each unit adds [n, m], its window [n], and the measure of a
    total.
    """

    sums: Array
    window: NDArray[np.int32]
    reduce: Callable[[Array], Array]

    def __len__(self) -> int:
        return len(self.sums)


def qualities(
    reference: pl.DataFrame, current: pl.DataFrame, catalogue: Catalogue, settings: DriftSettings
) -> dict[str, tuple[Quality, Quality]]:
    """Of both sides' mature answers (`windows.outcomes`, with WINDOW); a quality that one side
    lacks is absent.
    """
    import polars as pl

    both = pl.concat(
        [t.with_columns(pl.lit(side).alias("side")) for side, t in enumerate((reference, current))],
        how="diagonal",
    )
    both = both.with_columns(pl.coalesce(pl.col(USER), "request").alias(USER))
    out: dict[str, tuple[Quality, Quality]] = {}

    def add(name: str, rows: pl.DataFrame, measure: metrics.Measure) -> None:
        keys = rows.select("side", USER, WINDOW).rows()
        units = sorted(set(keys))
        place = {unit: n for n, unit in enumerate(units)}
        sums = np.zeros((len(units), measure.rows.shape[1]))
        np.add.at(sums, [place[key] for key in keys], measure.rows)
        side = np.array([unit[0] for unit in units])
        window = np.array([unit[2] for unit in units], np.int32)
        if (side == 0).any() and (side == 1).any():
            a, b = (Quality(sums[side == s], window[side == s], measure.reduce) for s in (0, 1))
            out[f"quality.{name}"] = (a, b)

    told = both.filter(
        (pl.col(MODEL) == INTERESTS) & (pl.col(RELEVANT).list.len() >= settings.minimum_future)
    )
    if told.height:
        names = sorted({name for found in told[NAMES].to_list() for name in found})
        place = {name: n for n, name in enumerate(names)}
        probability, predicted, truth = (np.zeros((told.height, len(names))) for _ in range(3))
        member = catalogue.membership(names)
        for row, (said, numbers, yes, then) in enumerate(
            told.select(NAMES, NUMBERS, PREDICTED, RELEVANT).rows()
        ):
            at = [place[name] for name in said]
            probability[row, at], predicted[row, at] = numbers, yes
            known = [catalogue.index[item] for item in then if item in catalogue.index]
            if known:
                truth[row] = member[known].mean(0) >= settings.label_share - 1e-9
        for name, measure in (
            ("precision", metrics.precision(predicted, truth)),
            ("recall", metrics.recall(predicted, truth)),
            ("f1", metrics.micro_f1(predicted, truth)),
            ("ece", metrics.ece(probability, truth)),
        ):
            add(name, told, measure)
    recommended = both.filter(pl.col(MODEL) == RECOMMEND)
    followed = recommended.filter(pl.col(RELEVANT).list.len() > 0)
    if followed.height:
        ids: dict[str, int] = {}
        ranked = np.full((followed.height, 10), -1)
        relevant = []
        for row, (said, then) in enumerate(followed.select(NAMES, RELEVANT).rows()):
            for place_of, item in enumerate(said[:10]):
                ranked[row, place_of] = ids.setdefault(item, len(ids))
            relevant.append([ids.setdefault(item, len(ids)) for item in then])
        add("ndcg@10", followed, metrics.ndcg(ranked, relevant))
    if recommended[CLICKED].any():
        clicked = recommended[CLICKED].to_numpy().astype(float)
        add(
            "ctr",
            recommended,
            metrics.Measure(np.stack([clicked, np.ones_like(clicked)], 1), metrics.ratio()),
        )
    return out


# Tests


@dataclass(frozen=True)
class Tested:
    """A distance beside what exchanging units makes of it."""

    effect: float
    p: float
    detectable: float


def _exchanges(reference: int, current: int, draws: int, seed: int) -> Matrix:
    """[draws, reference + current] of 0 and 1: which units stand for the current window."""
    chance = np.random.default_rng([seed, reference, current])
    n = reference + current
    out = np.zeros((draws, n), np.float32)
    for start in range(0, draws, 250):
        keys = chance.random((min(250, draws - start), n), np.float32)
        taken = np.argpartition(keys, current - 1, axis=1)[:, :current]
        np.put_along_axis(out[start : start + len(keys)], taken, np.float32(1), 1)
    return out


def _tested(distance: float, null: Array, level: float, noisy: bool = True) -> Tested:
    """From a distance and the null's draws; `noisy` for norms, whose noise adds in quadrature."""
    null = null[np.isfinite(null)]
    spread = float(np.sqrt(np.mean(null**2)))
    effect = math.sqrt(max(0.0, distance**2 - spread**2)) if noisy else max(0.0, distance)
    p = float((1 + np.sum(null >= distance - 1e-12)) / (1 + len(null)))
    critical = float(np.quantile(null, 1 - level, method="higher"))
    return Tested(effect, p, max(0.0, critical) + _POWER * spread)


def compare_means(
    reference: Matrix, current: Matrix, draws: int, seed: int, level: float
) -> Tested:
    """L1 distance of means of z.

    A reference that is older than the last kind of behaviour has fewer columns; the columns that it
    lacks are those of kinds that it had no event of.
    """
    width = max(reference.shape[1], current.shape[1])
    reference, current = (
        np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in (reference, current)
    )
    z = np.concatenate([reference, current]).astype(np.float32)
    n, m = len(reference), len(current)
    sums, total = _exchanges(n, m, draws, seed) @ z, z.sum(0)
    null = np.abs(sums / m - (total - sums) / n).sum(1)
    return _tested(float(np.abs(current.mean(0) - reference.mean(0)).sum()), null, level)


def compare_kernel(
    reference: Matrix, current: Matrix, draws: int, seed: int, level: float
) -> Tested:
    """Maximum mean discrepancy, Gaussian kernel of the pooled median distance."""
    x = np.concatenate([reference, current]).astype(np.float64)
    n, m = len(reference), len(current)
    square = (x**2).sum(1)
    distance = np.maximum(square[:, None] + square - 2 * x @ x.T, 0)
    kernel = np.exp(-distance / max(float(np.median(distance[np.triu_indices(n + m, 1)])), 1e-12))
    taken = _exchanges(n, m, draws, seed).astype(np.float64)
    weights = np.concatenate(
        [taken / m - (1 - taken) / n, [np.r_[np.full(n, -1 / n), np.full(m, 1 / m)]]]
    )
    found = np.sqrt(np.maximum(((weights @ kernel) * weights).sum(1), 0))
    return _tested(float(found[-1]), found[:-1], level)


def compare_classifier(
    reference: Matrix, current: Matrix, draws: int, seed: int, level: float
) -> Tested:
    """2 AUC - 1 of a ridge classifier on units that it has not seen; its scores are linear in the
    sides, so that every exchange is fitted anew by one product.
    """
    from scipy.stats import rankdata

    x = np.concatenate([reference, current]).astype(np.float64)
    n, m = len(reference), len(current)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    actual = np.r_[np.zeros(n), np.ones(m)][None]
    # [n + m, draws + 1]
    sides = np.concatenate([_exchanges(n, m, draws, seed).astype(np.float64), actual]).T
    fold = np.random.default_rng([seed, n, m, 1]).permutation(n + m) % _FOLDS
    areas = []
    for k in range(_FOLDS):
        train, held = x[fold != k], x[fold == k]
        centre = train.mean(0)
        train, held = train - centre, held - centre
        gram = train @ train.T
        strength = np.trace(gram) / x.shape[1]
        weights = held @ train.T @ np.linalg.inv(gram + strength * np.eye(len(train)))
        side = sides[fold != k]
        ranks = rankdata(weights @ (side - side.mean(0)), axis=0)
        inside = sides[fold == k]
        ones = inside.sum(0)
        zeros = len(inside) - ones
        with np.errstate(invalid="ignore", divide="ignore"):
            areas.append(((ranks * inside).sum(0) - ones * (ones + 1) / 2) / (ones * zeros))
    found = 2 * np.nanmean(np.stack(areas), 0) - 1
    return _tested(float(found[-1]), found[:-1], level, noisy=False)


def compare_quality(
    reference: Quality, current: Quality, draws: int, seed: int, level: float, less: bool = False
) -> Tested:
    """How much worse the current side is; better counts as nothing."""
    sums = np.concatenate([reference.sums, current.sums])
    n, m = len(reference), len(current)
    taken = _exchanges(n, m, draws, seed).astype(np.float64) @ sums
    sign = -1 if less else 1
    null = sign * (reference.reduce(sums.sum(0) - taken) - current.reduce(taken))
    worse = sign * float(
        reference.reduce(reference.sums.sum(0)) - current.reduce(current.sums.sum(0))
    )
    if not math.isfinite(worse):
        raise ValueError("a quality of nothing")
    return _tested(worse, null, level, noisy=False)


# Findings


def natural_bounds(reference: Profile, settings: DriftSettings) -> dict[str, float]:
    """By measure, the effect that one more window like the reference's own could have (99%
    prediction bound).

    Absent where the reference has fewer than four windows with enough units.
    """
    draws = 199
    out: dict[str, float] = {}
    for name, sample in reference.items():
        for measure, test in _tests(name):
            effects = []
            for window in np.unique(sample.window):
                inside = sample.window == window
                if inside.sum() >= _FEWEST <= (~inside).sum():
                    effects.append(
                        test(sample.z[~inside], sample.z[inside], draws, settings.seed, 0.5).effect
                    )
            if (bound := _prediction_bound(effects)) is not None:
                out[measure] = bound
    return out


def _prediction_bound(effects: Sequence[float]) -> float | None:
    from scipy.stats import t

    k = len(effects)
    if k < _FEWEST_WINDOWS:
        return None
    spread = float(np.std(effects, ddof=1))
    return max(
        0.0, float(np.mean(effects)) + float(t.ppf(0.99, k - 1)) * spread * math.sqrt(1 + 1 / k)
    )


def _tests(
    name: str,
) -> tuple[tuple[str, Callable[[Matrix, Matrix, int, int, float], Tested]], ...]:
    return (
        ((AUC, compare_classifier), (MMD, compare_kernel))
        if name == "embedding"
        else ((name, compare_means),)
    )


def findings(
    reference: Profile,
    current: Profile,
    natural: Mapping[str, float],
    quality: Mapping[str, tuple[Quality, Quality]],
    settings: DriftSettings,
) -> tuple[Finding, ...]:
    """Every measure of a window beside the reference, p-values adjusted for all of them."""
    tests = [(measure, name, test) for name in reference for measure, test in _tests(name)]
    level = settings.alpha / (len(tests) + len(quality))
    raw: list[Finding] = []
    for measure, name, test in tests:
        n = len(current[name]) if name in current else 0
        if min(n, len(reference[name])) < _FEWEST:
            raw.append(Finding(measure=measure, n=n, natural=natural.get(measure)))
            continue
        tested = test(reference[name].z, current[name].z, settings.draws, settings.seed, level)
        raw.append(_finding(measure, tested, n, natural.get(measure)))
    for measure, (before, now) in quality.items():
        if len(now) < _FEWEST:
            raw.append(Finding(measure=measure, n=len(now)))
            continue
        interval = metrics.interval(
            metrics.Measure(now.sums, now.reduce), np.arange(len(now)), settings.seed
        )
        shown = {"value": interval.value, "low": interval.low, "high": interval.high}
        if len(before) < _FEWEST:  # nothing to compare with, but a floor can be held against it
            raw.append(Finding(measure=measure, n=len(now), **shown))
            continue
        less = measure in LESS_IS_BETTER
        tested = compare_quality(before, now, settings.draws, settings.seed, level, less)
        bound = _natural_quality(before, settings, less)
        raw.append(_finding(measure, tested, len(now), bound).model_copy(update=shown))
    corrected = adjusted([finding.p for finding in raw])
    return tuple(f.model_copy(update={"p": p}) for f, p in zip(raw, corrected, strict=True))


def _finding(measure: str, tested: Tested, n: int, natural: float | None) -> Finding:
    return Finding(
        measure=measure,
        effect=tested.effect,
        p=tested.p,
        n=n,
        detectable=tested.detectable,
        natural=natural,
    )


def _natural_quality(before: Quality, settings: DriftSettings, less: bool) -> float | None:
    effects = []
    for window in np.unique(before.window):
        inside = before.window == window
        if inside.sum() >= _FEWEST <= (~inside).sum():
            values = [float(before.reduce(before.sums[rows].sum(0))) for rows in (~inside, inside)]
            effects.append((values[1] - values[0]) if less else (values[0] - values[1]))
    return _prediction_bound(effects)
