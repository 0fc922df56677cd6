"""docs/extending.md, "A drift measure": what one declaration brings about."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tasteloop.behaviour.events import TIME
from tasteloop.files import read_json, read_parquet
from tasteloop.runtime.session import Session
from tests.support.references import HOURS, RULES, SETTINGS, after
from validation.monitor import measures
from validation.monitor.drift_report import PAGE, REPORT
from validation.monitor.examination import examine
from validation.monitor.measure import Measure, Severity, Side
from validation.monitor.reference import answers_schema, save_reference
from validation.monitor.sampling import UNIT, Reader, Sample
from validation.monitor.windows import HOUR
from validation.pages.window import window_page


def half_of_day(side: Side) -> Sample | None:
    """Share of a user's acts before noon, and after it."""
    rows = side.behaviour.rows
    hours = rows[TIME].to_numpy() // HOUR % 24
    return side.behaviour.shares(rows[UNIT].to_numpy(), (hours >= 12).astype(int), 2)


TOY = Measure(
    "half_of_day",
    "Share of a user's acts by half of the day.",
    half_of_day,
    Severity(watch=0.1, act=0.2),
    cells=lambda _: ["before noon", "after noon"],
)


def test_a_declared_measure_is_in_the_reference_the_report_and_the_page(
    tiny_bundle: Path,
    tiny_snapshots: Path,
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session.load(tiny_bundle)
    before = save_reference(session, tiny_snapshots, SETTINGS, tmp_path / "before")

    monkeypatch.setattr(measures, "MEASURES", (*measures.MEASURES, TOY))

    # a reference without it is no longer current, so that the monitor makes it again
    assert not before.is_current(SETTINGS)
    reference = save_reference(session, tiny_snapshots, SETTINGS, tmp_path / "reference")
    assert reference.is_current(SETTINGS) and "half_of_day" in reference.profile

    # all acts of the window lie before noon
    events = read_parquet(tiny_dataset / "events.parquet")
    events = events.with_columns(time=(events[TIME] - events[TIME].min()) // 5 % (HOURS * HOUR))
    morning = events.with_columns(time=events[TIME] // (24 * HOUR) * 24 * HOUR + HOUR)
    span, rows = after(reference, morning)
    reader = Reader.of(session)
    decision = RULES.model_copy(
        update={"severity": {**RULES.severity, TOY.name: measures.default_severities()[TOY.name]}}
    )
    answers = pl.DataFrame(schema=answers_schema()).drop("window")
    listed = reader.catalogue.items
    out = tmp_path / "out"
    evidence = examine(reference, reader, span, rows, answers, listed, decision, out, window_page)

    finding = next(each for each in evidence.findings if each.measure == "half_of_day")
    assert finding.effect is not None and finding.effect > 0.2
    assert "half_of_day" in read_json(out / REPORT)["distributions"]
    page = (out / PAGE).read_text()
    assert "half_of_day" in page and "before noon" in page


def test_a_reference_that_does_not_say_its_measures_has_the_first_ones(
    tiny_bundle: Path, tiny_snapshots: Path, tmp_path: Path
) -> None:
    from tasteloop.files import write_json
    from validation.monitor.reference import META, Reference

    session = Session.load(tiny_bundle)
    reference = save_reference(session, tiny_snapshots, SETTINGS, tmp_path / "reference")
    record = read_json(reference.directory / META)
    del record["measures"]
    write_json(reference.directory / META, record)

    earlier = Reference.read(reference.directory)

    assert {"kinds", "prediction.scores"} <= earlier.measures < reference.measures
    assert reference.is_current(SETTINGS) and not earlier.is_current(SETTINGS)
