"""A window beside the reference: every declared measure of both sides, compared.

Each is tested by exchanging units between the two sides (`validation.monitor.statistics`). Chance
is not the only null: the reference is itself made of windows, each of which has an effect against
the others. The natural bound for one more such window (a t prediction interval) is what season and
weekday explain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tasteloop import metrics
from tasteloop.behaviour.events import ITEM, USER
from tasteloop.behaviour.items import Catalogue
from validation.monitor import measures
from validation.monitor.cells import TENTHS
from validation.monitor.decision import Finding, adjusted
from validation.monitor.drift_report import Distribution
from validation.monitor.measure import Measure, Recorded, Side
from validation.monitor.qualities import QUALITIES, Mature
from validation.monitor.sampling import (
    WINDOW,
    Codebook,
    DriftSettings,
    Profile,
    Reader,
    Scale,
    words,
)
from validation.monitor.statistics import Array, Quality, Tested, compare_quality, prediction_bound

if TYPE_CHECKING:
    import polars as pl

_WORDS = 50_000  # of the vocabulary
_FEWEST = 20  # units on each side below which nothing is tested
_NATURAL_DRAWS = 199
_CELLS = 15  # of a distribution that a report holds


def codebook(
    events: pl.DataFrame, answers: pl.DataFrame, reader: Reader, settings: DriftSettings
) -> Codebook:
    """What the reference fixes, from its events and the champion's answers."""
    import polars as pl

    recorded = Recorded(events, answers, reader, settings)
    counted = (
        events.filter(pl.col(ITEM).is_not_null())
        .group_by(ITEM)
        .len()
        .sort(["len", ITEM], descending=[True, False])[ITEM]
        .to_list()
    )
    tenths = {item: TENTHS * rank // len(counted) for rank, item in enumerate(counted)}
    counts: dict[str, int] = {}
    for text in recorded.texts:
        for word in set(words(text)):
            counts[word] = counts.get(word, 0) + 1
    vocabulary = sorted(counts, key=lambda word: (-counts[word], word))[:_WORDS]
    scales = {}
    for measure in measures.declared():
        values = measure.quantity(recorded) if measure.quantity else np.array([])
        if len(values):
            scales[measure.name] = Scale.of(values.astype(float), settings.cells)
    return Codebook(tuple(reader.catalogue.label_names), tenths, frozenset(vocabulary), scales)


def profile(side: Side) -> Profile:
    """What every declared measure reads of one side, by the name under which it is stored."""
    samples: Profile = {}
    read = set()
    for measure in measures.declared():
        if measure.stored_as in read:
            continue
        read.add(measure.stored_as)
        sample = measure.read(side)
        if sample is not None:
            samples[measure.stored_as] = sample
    return samples


def distributions(book: Codebook, reference: Profile, current: Profile) -> dict[str, Distribution]:
    """How each measure that has cells is spread on both sides, for the page of a window.

    Of many cells those with the greatest shares are named, and the others are one.
    """
    by_measure: dict[str, Distribution] = {}
    for measure in measures.declared():
        name = measure.stored_as
        if name not in reference or name not in current:
            continue
        before, now = (measure.spread(book, samples[name].z) for samples in (reference, current))
        if before is None or now is None:
            continue
        cells, shares = list(before.cells), np.stack([before.shares, now.shares])
        if cells:
            cells, shares = _greatest_cells(cells, shares)
        rounded = shares.round(6).tolist()
        by_measure[measure.name] = Distribution(
            about=measure.about,
            cells=tuple(cells) or None,
            edges=before.edges or None,
            reference=rounded[0],
            window=rounded[1],
        )
    return by_measure


def _greatest_cells(names: list[str], shares: Array) -> tuple[list[str], Array]:
    """The cells [2, d] that either side has most of, in their order, and one for all others."""
    present = [cell for cell in range(len(names)) if shares[:, cell].max() >= 0.0005]
    if len(present) > _CELLS:
        present.sort(key=lambda cell: (-shares[:, cell].max(), cell))
        present = sorted(present[: _CELLS - 1])
    others = 1.0 - shares[:, present].sum(1)
    shown = [names[cell] for cell in present]
    if others.max() < 0.005:
        return shown, shares[:, present]
    return [*shown, "others"], np.column_stack([shares[:, present], others.clip(0)])


def qualities(
    reference: pl.DataFrame, current: pl.DataFrame, catalogue: Catalogue, settings: DriftSettings
) -> dict[str, tuple[Quality, Quality]]:
    """Of both sides' mature answers (`windows.outcomes`, with WINDOW); a quality that one side
    lacks is absent.
    """
    import polars as pl

    both = pl.concat(
        [
            answers.with_columns(pl.lit(side).alias("side"))
            for side, answers in enumerate((reference, current))
        ],
        how="diagonal",
    )
    both = both.with_columns(pl.coalesce(pl.col(USER), "request").alias(USER))
    mature = Mature(both, catalogue, settings)
    pairs = {}
    for measure in QUALITIES:
        rows = measure.read(mature)
        pair = None if rows is None else _pair(*rows)
        if pair is not None:
            pairs[measure.name] = pair
    return pairs


def _pair(rows: pl.DataFrame, measure: metrics.Measure) -> tuple[Quality, Quality] | None:
    """What each unit adds, on both sides; None where one of them has no unit."""
    keys = rows.select("side", USER, WINDOW).rows()
    units = sorted(set(keys))
    place = {unit: number for number, unit in enumerate(units)}
    sums = np.zeros((len(units), measure.rows.shape[1]))
    np.add.at(sums, [place[key] for key in keys], measure.rows)
    side = np.array([unit[0] for unit in units])
    window = np.array([unit[2] for unit in units], np.int32)
    before, now = (Quality(sums[side == s], window[side == s], measure.reduce) for s in (0, 1))
    return (before, now) if len(before) and len(now) else None


# Findings


def natural_bounds(reference: Profile, settings: DriftSettings) -> dict[str, float]:
    """By measure, the effect that one more window like the reference's own could have (99%
    prediction bound).

    Absent where the reference has fewer than four windows with enough units.
    """
    out: dict[str, float] = {}
    for measure in _tests(reference):
        sample = reference[measure.stored_as]
        effects = []
        for window in np.unique(sample.window):
            inside = sample.window == window
            if inside.sum() >= _FEWEST <= (~inside).sum():
                sides = sample.z[~inside], sample.z[inside]
                effects.append(measure.compare(*sides, _NATURAL_DRAWS, settings.seed, 0.5).effect)
        if (bound := prediction_bound(effects)) is not None:
            out[measure.name] = bound
    return out


def _tests(reference: Profile) -> list[Measure]:
    """The declared measures that the reference has, in the order of its samples."""
    return [
        measure
        for name in reference
        for measure in measures.declared()
        if measure.stored_as == name
    ]


def findings(
    reference: Profile,
    current: Profile,
    natural: Mapping[str, float],
    quality: Mapping[str, tuple[Quality, Quality]],
    settings: DriftSettings,
) -> tuple[Finding, ...]:
    """Every measure of a window beside the reference, p-values adjusted for all of them."""
    tests = _tests(reference)
    level = settings.alpha / (len(tests) + len(quality))
    raw: list[Finding] = []
    for declaration in tests:
        measure, name = declaration.name, declaration.stored_as
        n = len(current[name]) if name in current else 0
        if min(n, len(reference[name])) < _FEWEST:
            raw.append(Finding(measure=measure, n=n, natural=natural.get(measure)))
            continue
        sides = reference[name].z, current[name].z
        tested = declaration.compare(*sides, settings.draws, settings.seed, level)
        raw.append(_finding(measure, tested, n, natural.get(measure)))
    worse_when_more = {each.name for each in QUALITIES if each.less_is_better}
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
        less = measure in worse_when_more
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
    return prediction_bound(effects)
