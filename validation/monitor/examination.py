"""The examination of a window: compare it with the reference, write the report, and give the
evidence for the decision.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasteloop.answers import INTERESTS, RECOMMEND
from tasteloop.files import atomic_directory, atomic_write
from tasteloop.journal import MODEL
from validation.monitor.decision import DecisionSettings, Evidence, Finding
from validation.monitor.drift import distributions, findings, profile, qualities
from validation.monitor.drift_report import (
    EVIDENTLY,
    PAGE,
    REPORT,
    Distribution,
    DriftReport,
    EvidentlyNumbers,
)
from validation.monitor.evidently_page import evidently
from validation.monitor.measure import Side
from validation.monitor.reference import Reference, rows_of, windowed
from validation.monitor.sampling import Reader
from validation.monitor.windows import Span, distinct, facts, outcomes, problems

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

Draw = Callable[[DriftReport, DecisionSettings], str]
"""From a report and the settings of the decision to the page."""


def examine(
    reference: Reference,
    reader: Reader,
    span: Span,
    events: pl.DataFrame,
    answers: pl.DataFrame,
    listed: Sequence[str],
    decision: DecisionSettings,
    out: Path,
    draw: Draw | None = None,
) -> Evidence:
    """Compare a closed window with the reference, and write the report.

    Args:
        events: behaviour of the window and of one horizon before it; more is passed over,
            repetitions too.
        answers: the champion's rows of the journal over the same time, with feedback.
        listed: the items of today's catalogue.
        decision: what the report shows beside each measure.
        draw: makes the page of the report (`validation.pages.window.window_page`); without it none
            is written.
    """
    import polars as pl

    settings = reference.settings

    # 1. the window's behaviour, and whether it can be trusted
    raw = span.of(events)
    delivered = raw.height
    inside = windowed(distinct(raw), [span])
    del raw
    counts = facts(inside, listed, delivered)
    failures = problems(inside, counts, reference.facts, settings.checks)

    # 2. the answers in it, and those whose truth became known in it
    answers = answers.sort("time", "request", "instance")  # whatever the order of reading
    answered = windowed(answers, [span])
    horizon = settings.windows.horizon
    mature = outcomes(span.of(answers, shift=horizon), events, horizon, reader.text.positive)
    mature = mature.with_columns(pl.lit(0, pl.Int32).alias("window"))

    # 3. all measures beside the reference
    before = reference.answers()
    compared: tuple[Finding, ...] = ()
    spreads: dict[str, Distribution] = {}
    numbers, evidently_page = EvidentlyNumbers(), ""
    if inside.height:
        side = Side(inside, answered, reader, settings.drift, reference.book)
        current = profile(side)
        spreads = distributions(reference.book, reference.profile, current)
        quality = qualities(before, mature, reader.catalogue, settings.drift)
        compared = findings(reference.profile, current, reference.natural, quality, settings.drift)
        rows = rows_of(side, settings)
        try:
            evidently_page, numbers = evidently(
                reference.sample(), rows, before, mature, reader.catalogue
            )
        except Exception as error:  # the decision rests on our own measures
            log.exception("Evidently could not report on the window %s", span.name)
            numbers = EvidentlyNumbers(error=f"{type(error).__name__}: {error}"[:500])

    # 4. the report
    report = DriftReport(
        window=span.name,
        end=span.end,
        reference=reference.digest,
        champion=reference.champion,
        facts=counts,
        answers={m: answered.filter(pl.col(MODEL) == m).height for m in (INTERESTS, RECOMMEND)},
        mature=mature.height,
        problems=tuple(failures),
        findings=compared,
        distributions=spreads,
        evidently=numbers,
    )
    text = report.text()
    with atomic_directory(out) as directory:
        atomic_write(directory / REPORT, text)
        if draw is not None:
            atomic_write(directory / PAGE, draw(report, decision))
        if evidently_page:
            atomic_write(directory / EVIDENTLY, evidently_page)
    return Evidence(
        id=hashlib.sha256(text.encode()).hexdigest(),
        window=span.name,
        end=span.end,
        reference=reference.digest,
        champion=reference.champion,
        findings=compared,
        problems=report.problems,
    )
