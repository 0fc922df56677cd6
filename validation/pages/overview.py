"""The first page of the site: what is live and why, then every model, window, decision and run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from validation.markup.elements import Child, Safe
from validation.markup.environment import render
from validation.markup.formats import interval_text, moment, number, plural
from validation.markup.plots import Point, trend
from validation.pages.evaluation import HEADLINES, tally_checks
from validation.pages.facts import Model, SiteFacts
from validation.pages.phrases import (
    POINTS,
    ROWS,
    decisions_view,
    drift_view,
    metric_name,
    newest_first,
)


@dataclass(frozen=True)
class _Card:
    """A figure in large digits, with a line below it."""

    title: str
    figure: str
    about: Child
    tone: str = ""


def overview_page(facts: SiteFacts) -> str:
    """index.html"""
    live = facts.live
    return render(
        "overview.html",
        made=facts.made,
        up="",
        current=True,
        headline=f"Version {live.version} is live" if live else "No model is live yet",
        live=live,
        notes=facts.notes,
        cards=_cards(facts),
        metrics=[metric_name(metric) for metric in HEADLINES],
        plots=_plots(facts),
        models=[_model_row(facts, model) for model in facts.models[:ROWS]],
        models_note=newest_first(facts.models),
        drift=drift_view(facts, facts.windows, ""),
        decisions=decisions_view(facts, facts.decisions, ""),
        runs=[
            {
                "run": run,
                "version": facts.version_link(run.version, ""),
                "links": facts.run_links(run, ""),
                "reason": "" if run.tone in ("good", "warn") else run.reason,
            }
            for run in facts.runs[:ROWS]
        ],
        runs_note=newest_first(facts.runs),
    )


def _cards(facts: SiteFacts) -> list[_Card]:
    """The live model's headline measures, the newest window and the last decision."""
    cards = []
    for metric in HEADLINES if facts.live else ():
        measure = facts.live.evaluation.metrics.get(metric) if facts.live else None
        if measure is not None:
            cards.append(_Card(metric_name(metric), number(measure.value), interval_text(measure)))
    if facts.windows:
        newest = facts.windows[0]
        about = plural(len(newest.evidence.findings), "measure")
        if newest.worst:
            about = f"{newest.worst.measure} {number(newest.worst.effect)}"
        cards.append(_Card("Newest window", newest.word, about, newest.tone))
    if facts.decisions:
        last = facts.decisions[0]
        cards.append(_Card("Last decision", last.outcome, moment(last.time), last.tone))
    return cards


def _plots(facts: SiteFacts) -> list[tuple[str, Safe]]:
    """Each headline measure by version, oldest first."""
    plots = []
    for metric in HEADLINES:
        name, points = f"{metric_name(metric)} by version", []
        for model in reversed(facts.models[:POINTS]):
            measure = model.evaluation.metrics.get(metric)
            if measure is not None:
                tone = facts.standing(model)[1]
                points.append(Point(model.version, measure.value, measure.low, measure.high, tone))
        if points:
            plots.append((name, trend(name, points, line=False)))
    return plots


def _model_row(facts: SiteFacts, model: Model) -> dict[str, Any]:
    trial = next(iter(facts.trials(model)), None)
    gate = "passed" if model.passed else "refused"
    return {
        "model": model,
        "link": facts.version_link(model.version, ""),
        "standing": facts.standing(model),
        "values": [model.evaluation.metric(metric).value for metric in HEADLINES],
        "gate": tally_checks(model.verdict) if model.verdict is not None else gate,
        "trial": trial.state if trial else "–",
        "run": facts.run_of(model),
    }
