"""The measures of drift, each declared once.

A measure of behaviour or of predictions is a vector z a unit (a user in a window), and the distance
of two windows the L1 norm of the difference of their means:

- shares (kinds, labels, ...): half of it is the total variation, the share of behaviour that moved.
- quantities (value, text length, ...), in cells between the reference's quantiles: with z the
  cumulative shares times the cells' widths it is the first Wasserstein distance, here in standard
  deviations of the reference.

Embeddings have two more: how well a linear classifier tells the windows apart (2 AUC - 1,
cross-fitted ridge), and the maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012).
A quality is a ratio of sums over units of mature answers, and only getting worse counts.

To add one, write a `Measure` into MEASURES or a `QualityMeasure` into QUALITIES. The reference
stores what MEASURES computes, and is made again where the declared set is another one. Findings,
the default severities of the decision and the page of a window read the declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, model_validator

from tasteloop import metrics
from tasteloop.answers import INTERESTS, RECOMMEND
from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE, Event, positive
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.text import behaviour_text
from validation.monitor.sampling import (
    CHARACTERS,
    SCRIPTS,
    UNIT,
    WINDOW,
    Codebook,
    DriftSettings,
    Reader,
    Sample,
    Units,
    chosen,
    script,
    words,
)
from validation.monitor.statistics import (
    Array,
    Compare,
    compare_classifier,
    compare_kernel,
    compare_means,
)
from validation.monitor.windows import CLICKED, MODEL, NAMES, NUMBERS, PREDICTED, RELEVANT

if TYPE_CHECKING:
    import polars as pl

Effect = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Answer = Literal["watch", "retrain", "alert-human"]

# of the reference's items by popularity; an item that it did not have is one more cell
TENTHS = 10
_TEXTS = 20  # of a unit that are looked at
_TEXTS_A_WINDOW = 40  # of a reference


class Severity(BaseModel, frozen=True, extra="forbid"):
    """From which effect on a measure is watched and acted upon, and what the act is."""

    watch: Effect
    act: Effect
    answer: Answer = "retrain"

    @model_validator(mode="after")
    def _in_order(self) -> Severity:
        if self.watch > self.act:
            raise ValueError(f"watch ({self.watch:g}) must not lie above act ({self.act:g})")
        return self


@dataclass(frozen=True)
class Recorded:
    """The rows of one side, before units are chosen: those of the reference, or of a window.

    Attributes:
        events: behaviour with WINDOW, repetitions removed.
        answers: of the journal, with WINDOW; those without a user are units of their own.
    """

    events: pl.DataFrame
    answers: pl.DataFrame
    reader: Reader
    settings: DriftSettings

    @property
    def texts(self) -> list[str]:
        return [str(text) for text in self.events[TEXT].drop_nulls().to_list()]

    def best_numbers(self, model: str) -> Array:
        """The best number of each answer of a served model that has one."""
        import polars as pl

        return _best(self.answers.filter(pl.col(MODEL) == model))


@dataclass(frozen=True)
class Side(Recorded):
    """One side as measures read it: the rows of its chosen units.

    Attributes:
        book: what the reference fixes.
    """

    book: Codebook

    @cached_property
    def behaviour(self) -> Units:
        return Units.of(self.events, self.settings)

    @cached_property
    def predictions(self) -> Units:
        import polars as pl

        named = self.answers.with_columns(pl.coalesce(pl.col(USER), "request").alias(USER))
        return Units.of(named, self.settings)

    @cached_property
    def interests(self) -> pl.DataFrame:
        """Answers with all labels: of a short one nobody knows the rest."""
        import polars as pl

        rows = self.predictions.rows.filter(pl.col(MODEL) == INTERESTS)
        return rows.filter(pl.col("k").is_null()) if "k" in rows.columns else rows

    @cached_property
    def recommended(self) -> pl.DataFrame:
        import polars as pl

        return self.predictions.rows.filter(pl.col(MODEL) == RECOMMEND)

    @cached_property
    def written(self) -> pl.DataFrame:
        """The first texts of each unit."""
        import polars as pl

        texts = self.behaviour.rows.filter(pl.col(TEXT).is_not_null()).select(UNIT, TEXT)
        return texts.group_by(UNIT, maintain_order=True).head(_TEXTS)


Cells = Callable[[Codebook], Sequence[str]]


@dataclass(frozen=True)
class Measure:
    """A measure of behaviour or of predictions.

    Attributes:
        name: in reports, in the ledger, and in settings of the decision.
        about: what the page says below its distribution.
        read: from a side to z [n, d] of its units; None where the side has nothing to read.
        severity: from which effect on it is watched and acted upon by default; None: it is only
            reported.
        cells: names of the cells of shares, for the page.
        quantity: the reference's values, which fix the cells of a quantity.
        compare: how two sides are compared.
        sample: the name under which the reference stores z; two measures may read the same.
    """

    name: str
    about: str
    read: Callable[[Side], Sample | None]
    severity: Severity | None = None
    cells: Cells | None = None
    quantity: Callable[[Recorded], Array] | None = None
    compare: Compare = compare_means
    sample: str = field(default="")

    @property
    def stored_as(self) -> str:
        return self.sample or self.name

    def distribution(self, book: Codebook, z: Array) -> dict[str, list[str] | list[float]] | None:
        """The mean shares of its cells, with the cells' names or edges; None for one without cells.

        Args:
            z: of the units of a side [n, d].
        """
        if not len(z):
            return None
        mean = z.mean(0).astype(float)
        if self.cells is not None:
            names = list(self.cells(book))
            shares = 2 * mean
            return {"cells": names, "shares": shares.tolist()} if len(names) == len(z[0]) else None
        scale = book.scales.get(self.name)
        if scale is None or len(scale.edges) < 1:
            return None
        widths = np.maximum(np.diff(scale.places), 1e-12)
        cumulative = np.concatenate([[0.0], mean * scale.deviation / widths, [1.0]])
        low = 2 * scale.places[0] - scale.edges[0]
        high = 2 * scale.places[-1] - scale.edges[-1]
        edges = [min(low, scale.edges[0]), *scale.edges, max(high, scale.edges[-1])]
        return {"edges": edges, "shares": np.clip(np.diff(cumulative), 0, 1).tolist()}


# Behaviour


def _kinds(side: Side) -> Sample | None:
    rows = side.behaviour.rows
    number_of = {kind: number for number, kind in enumerate(KINDS)}
    cells = _cells(rows[KIND], number_of, len(KINDS))
    return side.behaviour.shares(rows[UNIT].to_numpy(), cells, len(KINDS) + 1)


def _labels(side: Side) -> Sample | None:
    """Labels of the items that users wanted; an item with several counts for a share of each."""
    import narwhals as nw

    rows = nw.from_native(side.behaviour.rows)
    wanted = rows.filter(positive(side.reader.text.positive)).to_native()
    labelled = wanted.join(_label_shares(side.reader.catalogue, side.book), on=ITEM)
    if not labelled.height:
        return None
    unit, cell, weight = (labelled[name].to_numpy() for name in (UNIT, "cell", "weight"))
    return side.behaviour.shares(unit, cell, len(side.book.labels), weight)


def _label_shares(catalogue: Catalogue, book: Codebook) -> pl.DataFrame:
    """A row for each item and label that it bears: which label, and its share of the item."""
    import polars as pl

    cells = {label: number for number, label in enumerate(book.labels)}
    rows = []
    for item, labels in zip(catalogue.items, catalogue.labels, strict=True):
        known = [label for label in labels if label in cells]
        rows += [(item, cells[label], 1 / len(known)) for label in known]
    return pl.DataFrame(
        rows, schema={ITEM: pl.String(), "cell": pl.Int64(), "weight": pl.Float64()}, orient="row"
    )


def _items(side: Side) -> Sample | None:
    import polars as pl

    rows = side.behaviour.rows.filter(pl.col(ITEM).is_not_null())
    if not rows.height:
        return None
    cells = _cells(rows[ITEM], side.book.tenths, TENTHS)
    return side.behaviour.shares(rows[UNIT].to_numpy(), cells, TENTHS + 1)


def _activity(side: Side) -> Sample | None:
    counts = side.behaviour.rows.group_by(UNIT).len().sort(UNIT)
    values = np.log2(1 + counts["len"].to_numpy())
    return side.behaviour.quantity(
        counts[UNIT].to_numpy(), values, side.book.scales.get("activity")
    )


def _activity_values(recorded: Recorded) -> Array:
    counts: Array = recorded.events.group_by(USER, WINDOW).len()["len"].to_numpy()
    return np.asarray(np.log2(1 + counts))


def _value(side: Side) -> Sample | None:
    import polars as pl

    rows = side.behaviour.rows.filter(pl.col(VALUE).is_not_null())
    scale = side.book.scales.get("value")
    return side.behaviour.quantity(rows[UNIT].to_numpy(), rows[VALUE].to_numpy(), scale)


# Texts


def _text_length(side: Side) -> Sample | None:
    lengths = np.log2(1 + side.written[TEXT].str.len_chars().to_numpy())
    scale = side.book.scales.get("text_length")
    return side.behaviour.quantity(side.written[UNIT].to_numpy(), lengths, scale)


def _text_lengths(recorded: Recorded) -> Array:
    return np.asarray(np.log2(1 + np.array([len(text) for text in recorded.texts], float)))


def _vocabulary(side: Side) -> Sample | None:
    """Words that the reference knows (cell 0), and others (cell 1)."""
    units, cells = [], []
    for unit, text in side.written.rows():
        for word in words(text):
            units.append(unit)
            cells.append(int(word not in side.book.words))
    if not units or not side.book.words:
        return None
    return side.behaviour.shares(np.array(units), np.array(cells), 2)


def _language(side: Side) -> Sample | None:
    """The scripts of letters."""
    units, cells = [], []
    for unit, text in side.written.rows():
        for character in filter(str.isalpha, text[:CHARACTERS]):
            units.append(unit)
            cells.append(script(character))
    if not units:
        return None
    return side.behaviour.shares(np.array(units), np.array(cells), len(SCRIPTS) + 1)


def _sentiment(side: Side) -> Sample | None:
    """The probability of being positive of one text of each chosen unit."""
    scale = side.book.scales.get("sentiment")
    if side.reader.sentiment is None or scale is None or not side.written.height:
        return None
    first = side.written.unique(UNIT, keep="first", maintain_order=True)
    place_of = {str(unit): place for place, unit in enumerate(first[UNIT].to_list())}
    names = chosen(place_of, side.settings.texts, side.settings.seed)
    rows = first[sorted(place_of[name] for name in names)]
    probabilities = side.reader.sentiment([text[:CHARACTERS] for text in rows[TEXT].to_list()])
    return side.behaviour.quantity(rows[UNIT].to_numpy(), probabilities, scale)


def _sentiments(recorded: Recorded) -> Array:
    if recorded.reader.sentiment is None or not recorded.texts:
        return np.array([])
    texts = chosen(recorded.texts, recorded.settings.texts, recorded.settings.seed)
    return recorded.reader.sentiment([text[:CHARACTERS] for text in texts])


# Embeddings


def _embedding(side: Side) -> Sample | None:
    """What the encoder makes of each unit's behaviour in the window, told as it is told to the
    model.

    Of a reference only the newest windows, so that each has enough units to be compared with the
    others.
    """
    import polars as pl

    # 1. units of the newest windows
    settings, units = side.settings, side.behaviour
    windows = sorted({window for _, window in units.names.values()})
    newest = windows[-max(1, settings.texts // _TEXTS_A_WINDOW) :]
    number_of = {
        f"{user}\0{window}": number
        for number, (user, window) in units.names.items()
        if window >= newest[0]
    }
    numbers = sorted(number_of[name] for name in chosen(number_of, settings.texts, settings.seed))
    if not numbers:
        return None

    # 2. their behaviour; a kind that nobody knows has no words, and the window's checks tell of it
    histories: dict[int, list[Event]] = {number: [] for number in numbers}
    readable = pl.col(UNIT).is_in(numbers) & pl.col(KIND).is_in(list(KINDS))
    rows = units.rows.filter(readable).sort(TIME, maintain_order=True)
    for unit, *event in rows.select(UNIT, KIND, ITEM, TIME, VALUE, TEXT).rows():
        histories[unit].append(Event(*event))

    # 3. as vectors
    reader = side.reader
    texts = [behaviour_text(histories[n], reader.catalogue, reader.text) for n in numbers]
    return units.vectors(np.array(numbers), reader.encode(texts))


# Predictions


def _predicted_interests(side: Side) -> Sample | None:
    cells = {label: number for number, label in enumerate(side.book.labels)}
    rows = []
    for unit, names, numbers in side.interests.select(UNIT, NAMES, NUMBERS).rows():
        for name, probability in zip(names, numbers, strict=True):
            if name in cells:
                rows.append((unit, cells[name], float(probability)))
    if not rows:
        return None
    unit, cell, weight = (np.array(column) for column in zip(*rows, strict=True))
    return side.predictions.shares(unit, cell, len(cells), weight)


def _predicted_items(side: Side) -> Sample | None:
    import polars as pl

    rows = side.recommended.select(UNIT, NAMES).explode(NAMES).filter(pl.col(NAMES).is_not_null())
    if not rows.height:
        return None
    cells = _cells(rows[NAMES], side.book.tenths, TENTHS)
    return side.predictions.shares(rows[UNIT].to_numpy(), cells, TENTHS + 1)


def _confidence(side: Side) -> Sample | None:
    return _best_of(side, side.interests, "prediction.confidence")


def _scores(side: Side) -> Sample | None:
    return _best_of(side, side.recommended, "prediction.scores")


def _best_of(side: Side, answers: pl.DataFrame, name: str) -> Sample | None:
    import polars as pl

    rows = answers.filter(pl.col(NUMBERS).list.len() > 0)
    return side.predictions.quantity(rows[UNIT].to_numpy(), _best(rows), side.book.scales.get(name))


def _best(answers: pl.DataFrame) -> Array:
    """The best number of each answer that has one."""
    return answers[NUMBERS].list.first().drop_nulls().to_numpy().astype(float)


def _cells(values: pl.Series, known: Mapping[str, int], other: int) -> Array:
    """The cell of each value; `other` for one that is not known."""
    import polars as pl

    if not known:
        return np.full(len(values), other)
    return values.replace_strict(dict(known), default=other, return_dtype=pl.Int64).to_numpy()


# Names of cells


def _names_of_kinds(_: Codebook) -> list[str]:
    return [*KINDS, "unknown"]


def _names_of_labels(book: Codebook) -> list[str]:
    return list(book.labels)


def _names_of_tenths(_: Codebook) -> list[str]:
    names = [f"tenth {number}" for number in range(1, TENTHS + 1)]
    return ["most popular tenth", *names[1:], "new items"]


def _names_of_words(_: Codebook) -> list[str]:
    return ["known words", "new words"]


def _names_of_scripts(_: Codebook) -> list[str]:
    return [*(name.lower() for name in SCRIPTS), "other"]


# The declarations. Units of effects: shares moved (total variation); standard deviations moved
# (Wasserstein); for embeddings how well windows can be told apart, and the kernel's distance.

MEASURES: tuple[Measure, ...] = (
    Measure(
        "kinds",
        "Share of a user's acts by kind.",
        _kinds,
        Severity(watch=0.1, act=0.2),
        _names_of_kinds,
    ),
    Measure(
        "labels",
        "Share of a user's wanted items by label.",
        _labels,
        Severity(watch=0.1, act=0.2),
        _names_of_labels,
    ),
    Measure(
        "items",
        "Share of a user's acts by the popularity that items had in the reference.",
        _items,
        Severity(watch=0.08, act=0.15),  # a fifth of all acts on new items moves it by 0.2
        _names_of_tenths,
    ),
    Measure(
        "vocabulary",
        "Share of words that the reference knows.",
        _vocabulary,
        Severity(watch=0.1, act=0.25),
        _names_of_words,
    ),
    Measure(
        "language",
        "Share of letters by script.",
        _language,
        Severity(watch=0.1, act=0.25, answer="alert-human"),  # another encoder, not a training
        _names_of_scripts,
    ),
    Measure(
        "activity",
        "Acts of a user in a window, as log2(1 + count).",
        _activity,
        Severity(watch=0.3, act=0.6, answer="watch"),
        quantity=_activity_values,
    ),
    Measure(
        "value",
        "Values of acts, such as ratings, from 0 to 1.",
        _value,
        Severity(watch=0.2, act=0.4),
        quantity=lambda recorded: recorded.events[VALUE].drop_nulls().to_numpy(),
    ),
    Measure(
        "text_length",
        "Characters of a text, as log2(1 + count).",
        _text_length,
        Severity(watch=0.3, act=0.6),
        quantity=_text_lengths,
    ),
    Measure(
        "sentiment",
        "Probability that a text is favourable, as the champion reads it.",
        _sentiment,
        Severity(watch=0.3, act=0.6),
        quantity=_sentiments,
    ),
    Measure(
        "embedding.auc",
        "How well a linear classifier tells the window from the reference: 2 AUC - 1.",
        _embedding,
        Severity(watch=0.3, act=0.5),
        compare=compare_classifier,
        sample="embedding",
    ),
    Measure(
        "embedding.mmd",
        "Maximum mean discrepancy of what the encoder makes of behaviour.",
        _embedding,
        Severity(watch=0.15, act=0.3),
        compare=compare_kernel,
        sample="embedding",
    ),
    # what the model says changes because what it reads does, so these only explain
    Measure(
        "prediction.interests",
        "Share of the answered probability by label.",
        _predicted_interests,
        Severity(watch=0.1, act=0.2, answer="watch"),
        _names_of_labels,
    ),
    Measure(
        "prediction.items",
        "Share of recommended items by the popularity that they had in the reference.",
        _predicted_items,
        Severity(watch=0.15, act=0.3, answer="watch"),
        _names_of_tenths,
    ),
    Measure(
        "prediction.confidence",
        "Probability of the most probable interest of an answer.",
        _confidence,
        Severity(watch=0.3, act=0.6, answer="watch"),
        quantity=lambda recorded: recorded.best_numbers(INTERESTS),
    ),
    Measure(
        "prediction.scores",
        "Score of the best recommendation of an answer.",
        _scores,
        Severity(watch=0.3, act=0.6, answer="watch"),
        quantity=lambda recorded: recorded.best_numbers(RECOMMEND),
    ),
)


# Qualities


@dataclass(frozen=True)
class Mature:
    """Both sides' answers whose truth is known (`windows.outcomes`), with `side` (0 or 1) and
    WINDOW.
    """

    answers: pl.DataFrame
    catalogue: Catalogue
    settings: DriftSettings

    @cached_property
    def interests(self) -> tuple[pl.DataFrame, Array, Array, Array] | None:
        """Answers that enough followed, and by label [n, labels]: probability, whether it was
        predicted, and whether it came true.
        """
        import polars as pl

        enough = pl.col(RELEVANT).list.len() >= self.settings.minimum_future
        rows = self.answers.filter((pl.col(MODEL) == INTERESTS) & enough)
        if not rows.height:
            return None
        labels = sorted({name for names in rows[NAMES].to_list() for name in names})
        place = {label: number for number, label in enumerate(labels)}
        member = self.catalogue.membership(labels)
        probability, predicted, truth = (np.zeros((rows.height, len(labels))) for _ in range(3))
        answers = rows.select(NAMES, NUMBERS, PREDICTED, RELEVANT).rows()
        for row, (names, numbers, yes, items) in enumerate(answers):
            at = [place[name] for name in names]
            probability[row, at], predicted[row, at] = numbers, yes
            known = [self.catalogue.index[item] for item in items if item in self.catalogue.index]
            if known:
                truth[row] = member[known].mean(0) >= self.settings.label_share - 1e-9
        return rows, probability, predicted, truth

    @cached_property
    def recommended(self) -> pl.DataFrame:
        import polars as pl

        return self.answers.filter(pl.col(MODEL) == RECOMMEND)


QualityRows = tuple["pl.DataFrame", metrics.Measure]


@dataclass(frozen=True)
class QualityMeasure:
    """A measure of how good answers were, once it is known what followed.

    Attributes:
        read: from both sides' mature answers to the rows that it is measured on, and what each adds
            to the ratio; None where there are none.
        severity: how far below the reference it is watched and acted upon by default.
    """

    name: str
    about: str
    read: Callable[[Mature], QualityRows | None]
    severity: Severity | None = None
    less_is_better: bool = False


def _of_interests(
    measure: Callable[[Array, Array, Array], metrics.Measure],
) -> Callable[[Mature], QualityRows | None]:
    """From a measure of probability, prediction and truth to one of mature answers."""

    def read(mature: Mature) -> QualityRows | None:
        if mature.interests is None:
            return None
        rows, probability, predicted, truth = mature.interests
        return rows, measure(probability, predicted, truth)

    return read


def _ndcg(mature: Mature) -> QualityRows | None:
    import polars as pl

    rows = mature.recommended.filter(pl.col(RELEVANT).list.len() > 0)
    if not rows.height:
        return None
    ids: dict[str, int] = {}
    ranked = np.full((rows.height, 10), -1)
    relevant = []
    for row, (names, items) in enumerate(rows.select(NAMES, RELEVANT).rows()):
        for rank, item in enumerate(names[:10]):
            ranked[row, rank] = ids.setdefault(item, len(ids))
        relevant.append([ids.setdefault(item, len(ids)) for item in items])
    return rows, metrics.ndcg(ranked, relevant)


def _click_rate(mature: Mature) -> QualityRows | None:
    rows = mature.recommended
    if not rows[CLICKED].any():
        return None
    clicked = rows[CLICKED].to_numpy().astype(float)
    return rows, metrics.Measure(np.stack([clicked, np.ones_like(clicked)], 1), metrics.ratio())


_LOSS = Severity(watch=0.03, act=0.08)

QUALITIES: tuple[QualityMeasure, ...] = (
    QualityMeasure(
        "quality.precision",
        "Predicted interests that came true.",
        _of_interests(lambda _, predicted, truth: metrics.precision(predicted, truth)),
        _LOSS,
    ),
    QualityMeasure(
        "quality.recall",
        "Interests that came true and were predicted.",
        _of_interests(lambda _, predicted, truth: metrics.recall(predicted, truth)),
        _LOSS,
    ),
    QualityMeasure(
        "quality.f1",
        "Precision and recall of interests in one number.",
        _of_interests(lambda _, predicted, truth: metrics.micro_f1(predicted, truth)),
        _LOSS,
    ),
    QualityMeasure(
        "quality.ndcg@10",
        "Where the items that users went on to like stood among ten.",
        _ndcg,
        Severity(watch=0.02, act=0.05),
    ),
    QualityMeasure(
        "quality.ctr",
        "Answers of which an item was clicked.",
        _click_rate,
        Severity(watch=0.02, act=0.05),
    ),
    QualityMeasure(
        "quality.ece",
        "How far probabilities lie from what came true.",
        _of_interests(lambda probability, _, truth: metrics.ece(probability, truth)),
        _LOSS,
        less_is_better=True,
    ),
)


def declared() -> tuple[Measure, ...]:
    """The measures that a reference stores."""
    return MEASURES


def default_severities() -> dict[str, Severity]:
    """By measure, in the order of the declarations.

    >>> default_severities()["labels"]
    Severity(watch=0.1, act=0.2, answer='retrain')
    """
    everything: list[Measure | QualityMeasure] = [*MEASURES, *QUALITIES]
    return {
        measure.name: measure.severity for measure in everything if measure.severity is not None
    }
