"""The measures of what users do and write, each declared once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE, Event, positive
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.text import behaviour_text
from validation.monitor.cells import TENTHS, cells_of, names_of_labels, names_of_tenths
from validation.monitor.measure import Measure, Recorded, Severity, Side
from validation.monitor.sampling import (
    CHARACTERS,
    SCRIPTS,
    UNIT,
    WINDOW,
    Codebook,
    Sample,
    chosen,
    script,
    words,
)
from validation.monitor.statistics import Array, compare_classifier, compare_kernel

if TYPE_CHECKING:
    import polars as pl

_TEXTS_A_WINDOW = 40  # of a reference


# Behaviour


def _kinds(side: Side) -> Sample | None:
    rows = side.behaviour.rows
    number_of = {kind: number for number, kind in enumerate(KINDS)}
    cells = cells_of(rows[KIND], number_of, len(KINDS))
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
    cells = cells_of(rows[ITEM], side.book.tenths, TENTHS)
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
    rows = side.one_a_unit(side.written)
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


# Names of cells


def _names_of_kinds(_: Codebook) -> list[str]:
    return [*KINDS, "unknown"]


def _names_of_words(_: Codebook) -> list[str]:
    return ["known words", "new words"]


def _names_of_scripts(_: Codebook) -> list[str]:
    return [*(name.lower() for name in SCRIPTS), "other"]


BEHAVIOUR: tuple[Measure, ...] = (
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
        names_of_labels,
    ),
    Measure(
        "items",
        "Share of a user's acts by the popularity that items had in the reference.",
        _items,
        Severity(watch=0.08, act=0.15),  # a fifth of all acts on new items moves it by 0.2
        names_of_tenths,
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
)
