"""The measures of what users ask for, refuse and say of items, as the champion reads it, each
declared once.

A model hears a wish when it is asked, so that most of these only explain. Two call a human, since
no retraining answers them: that people ask for what the catalogue lacks, and that words no longer
say what values do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tasteloop.behaviour.text import TextSettings
from tasteloop.journal import ASKS, REFUSALS, SEARCHES, SURE, UNMET
from validation.monitor.cells import names_of_labels
from validation.monitor.measure import Cells, Measure, Opinion, Severity, Side
from validation.monitor.sampling import UNIT, Sample, Units

if TYPE_CHECKING:
    from tasteloop.language.hearing import Gist

STANCES = ("favourable", "neither", "unfavourable")

_Row = tuple[int, int, float]
"""A unit, a cell, and how much it counts."""


def _shares(units: Units, rows: Iterable[_Row], width: int) -> Sample | None:
    """Units whose rows have any weight: in which cells it lies; None without one."""
    weighed = [row for row in rows if row[2] > 0]
    if not weighed:
        return None
    unit, cell, weight = (np.array(column) for column in zip(*weighed, strict=True))
    return units.shares(unit, cell, width, weight)


def _understood(side: Side) -> Sample | None:
    rows: list[_Row] = []
    for _, unit, gist in side.searches:
        is_label = bool(gist.wanted or gist.refused)
        is_title = gist.names_title or (gist.refuses and not gist.refused)
        rows += [(unit, 0, float(is_label)), (unit, 1, float(is_title))]
        rows.append((unit, 2, float(not gist.is_understood)))
    return _shares(side.behaviour, rows, 3)


def _asked_labels(side: Side) -> Sample | None:
    cells = {label: number for number, label in enumerate(side.book.labels)}
    rows = (
        (unit, cells[label], 1.0)
        for _, unit, gist in side.searches
        for label in gist.wanted
        if label in cells
    )
    return _shares(side.behaviour, rows, len(cells))


def _unmet(side: Side) -> Sample | None:
    if not side.book.labels:
        return None  # a wish that names no title could mean nothing
    rows: list[_Row] = []
    for _, unit, gist in side.searches:
        rows += [(unit, 0, gist.asks - gist.unmet), (unit, 1, gist.unmet)]
    return _shares(side.behaviour, rows, 2)


def _refusals(side: Side) -> Sample | None:
    rows = ((unit, int(gist.refuses), 1.0) for _, unit, gist in side.searches)
    return _shares(side.behaviour, rows, 2)


def _stance(side: Side) -> Sample | None:
    rows = (
        (opinion.unit, STANCES.index(stance_of(opinion.stance)), 1.0) for opinion in side.opinions
    )
    return _shares(side.behaviour, rows, len(STANCES))


def _agreement(side: Side) -> Sample | None:
    rows = (
        (opinion.unit, int(disagrees), 1.0)
        for opinion in side.opinions
        if (disagrees := contradicts(opinion, side.reader.text)) is not None
    )
    return _shares(side.behaviour, rows, 2)


def contradicts(opinion: Opinion, text: TextSettings) -> bool | None:
    """Whether words say the opposite of the value; None where one of them says nothing."""
    stance, value = opinion.stance, opinion.value
    if stance is None or value is None or text.negative <= value < text.positive:
        return None
    return (stance >= SURE) != (value >= text.positive)


def stance_of(stance: float | None) -> str:
    """The word for what a text says of its item, one of `STANCES`."""
    return "neither" if stance is None else "favourable" if stance >= SURE else "unfavourable"


def meaning_of(gist: Gist) -> str:
    """One word for what was understood of a search."""
    if gist.asks and gist.unmet >= SURE * gist.asks:
        return "asks for what is lacking"
    if gist.refuses:
        return "refuses"
    return "a title" if gist.names_title else "a label" if gist.wanted else "nothing"


def _heard(side: Side) -> Sample | None:
    """Of answers, by what the journal says of the words that they rest on; None where none rests on
    any: that people begin to write is no fault of a model.
    """
    if not side.heard.height or not side.heard[SEARCHES].sum():
        return None
    columns = (UNIT, SEARCHES, ASKS, UNMET, REFUSALS)
    rows: list[_Row] = []
    for unit, searches, asks, unmet, refusals in side.heard.select(columns).rows():
        clauses = max(asks + refusals, 1)
        rows += [(unit, 0, (asks - unmet) / clauses), (unit, 1, unmet / clauses)]
        rows.append((unit, 2, refusals / clauses))
        rows.append((unit, 3 if searches else 4, float(not asks and not refusals)))
    return _shares(side.predictions, rows, 5)


def _names(*names: str) -> Cells:
    return lambda _: names


WORDS: tuple[Measure, ...] = (
    Measure(
        "wishes",
        "Share of users' searches by what the champion understood of them.",
        _understood,
        Severity(watch=0.1, act=0.2, answer="watch"),
        _names("a label", "a title", "neither"),
    ),
    Measure(
        "wishes.labels",
        "Share of what users ask for in words by label.",
        _asked_labels,
        Severity(watch=0.15, act=0.3, answer="watch"),
        names_of_labels,
    ),
    Measure(
        "wishes.unmet",
        "Share of what users ask for in words that means no label and no title of the catalogue.",
        _unmet,
        Severity(watch=0.05, act=0.1, answer="alert-human"),  # a training adds nothing to it
        _names("in the catalogue", "lacking"),
    ),
    Measure(
        "refusals",
        "Share of users' searches that refuse something.",
        _refusals,
        Severity(watch=0.1, act=0.2, answer="watch"),
        _names("refuses nothing", "refuses something"),
    ),
    Measure(
        "stance",
        "Share of texts about items by what their words say of them, as the champion reads it.",
        _stance,
        Severity(watch=0.1, act=0.2, answer="watch"),
        _names(*STANCES),
    ),
    Measure(
        "stance.agreement",
        "Share of texts about items whose words say what their value does: irony shows here.",
        _agreement,
        Severity(watch=0.1, act=0.2, answer="alert-human"),  # sentiment is not learned from it
        _names("agree", "disagree"),
    ),
    Measure(
        "prediction.heard",
        "Share of answers by what was understood of the words they rest on, from the journal.",
        _heard,
        Severity(watch=0.1, act=0.2, answer="watch"),
        _names("asks", "asks for what is lacking", "refuses", "neither", "no words"),
    ),
)
