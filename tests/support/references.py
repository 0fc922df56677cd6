"""A reference of the tiny bundle, and windows that are compared with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from tasteloop.behaviour.times import SECOND
from tasteloop.runtime.session import Session
from validation.monitor.decision import DecisionSettings, Evidence, Finding
from validation.monitor.examination import examine
from validation.monitor.reference import Reference, WatchSettings, answers_schema
from validation.monitor.sampling import DriftSettings, Reader
from validation.monitor.windows import HOUR, Span, WindowSettings
from validation.pages.window import window_page

HOURS = 200
SETTINGS = WatchSettings(
    windows=WindowSettings(hours=HOURS, horizon_hours=1),
    drift=DriftSettings(draws=199, texts=120),  # three windows of the reference
    answers=200,
)
RULES = DecisionSettings(minimum=20, alpha=0.05)


def after(reference: Reference, events: pl.DataFrame) -> tuple[Span, pl.DataFrame]:
    """Behaviour moved into the window that follows the reference."""
    span = Span(reference.end, reference.end + HOURS * HOUR)
    return span, events.with_columns(time=pl.col("time") + span.start)


def journal(session: Session, events: pl.DataFrame, moment: int) -> pl.DataFrame:
    """What the champion answers each user after their first ten events."""
    rows: list[dict[str, Any]] = []
    for (user,), events_of_user in events.sort("time").group_by("user", maintain_order=True):
        columns = ("kind", "item", "time", "value")
        instance = {
            "events": [
                dict(zip(columns, row, strict=True))
                for row in events_of_user.head(10).select(columns).rows()
            ]
        }
        interests = session.answer("interests", [instance])[0]["interests"]
        items = session.answer("recommend", [instance])[0]["recommendations"]
        common = {
            "instance": 0,
            "time": events_of_user["time"][9] + moment,
            "user": user,
            "version": "1",
        }
        clicked = [
            {
                "kind": "click",
                "item": items[0]["item"],
                "value": None,
                "time": events_of_user["time"][9] + moment + SECOND,
            }
        ]
        rows.append(
            {
                **common,
                "request": f"i-{user}",
                "model": "interests",
                "feedback": [],
                "window": 0,
                "names": [e["label"] for e in interests],
                "numbers": [e["probability"] for e in interests],
                "predicted": [e["predicted"] for e in interests],
            }
        )
        rows.append(
            {
                **common,
                "request": f"r-{user}",
                "model": "recommend",
                "feedback": clicked,
                "window": 0,
                "names": [e["item"] for e in items],
                "numbers": [e["score"] for e in items],
                "predicted": None,
            }
        )
    return pl.DataFrame(rows, schema=answers_schema()).drop("window")


def examined(
    reference: Reference,
    session: Session,
    events: pl.DataFrame,
    answers: pl.DataFrame,
    span: Span,
    out: Path,
) -> tuple[Evidence, dict[str, Finding]]:
    """The evidence of a window, and its findings by measure."""
    reader = Reader.of(session)
    listed = reader.catalogue.items
    evidence = examine(reference, reader, span, events, answers, listed, RULES, out, window_page)
    return evidence, {finding.measure: finding for finding in evidence.findings}
