"""The page of a window: its problems, what moved, and every measure beside the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from validation.markup.elements import Safe
from validation.markup.environment import render
from validation.markup.formats import minute
from validation.markup.plots import distribution, histogram
from validation.monitor.decision import DecisionSettings, Finding, drifted
from validation.monitor.drift_report import Distribution, DriftReport


@dataclass(frozen=True)
class _Measure:
    """A finding as the page shows it; `act`: the effect from which on it is acted upon."""

    name: str
    word: str
    tone: str
    effect: float | None
    natural: float | None
    act: float | None
    detectable: float | None
    p: float | None
    n: int


@dataclass(frozen=True)
class _Spread:
    """A measure's distribution, drawn."""

    name: str
    word: str
    tone: str
    about: str
    drawing: Safe


def window_page(report: DriftReport, decision: DecisionSettings) -> str:
    """The page of a drift report.

    Args:
        decision: when a measure counts as drifted.
    """
    since, until = (minute(int(end)) for end in report.window.split("/"))
    findings = sorted(report.findings, key=lambda finding: finding.measure)
    measures = [_measure(finding, decision) for finding in findings]
    spreads = _spreads(report.distributions, measures)
    health = report.evidently.recommendations or {}
    before, now = (health.get(side, {}) for side in ("reference", "current"))
    return render(
        "window.html",
        since=since,
        until=until,
        events=report.facts.events,
        users=report.facts.users,
        problems=report.problems,
        measures=measures,
        moved=[spread for spread in spreads if spread.word in ("slight", "severe")],
        steady=[spread for spread in spreads if spread.word not in ("slight", "severe")],
        columns=report.evidently.columns or {},
        health=[(name, before.get(name), now.get(name)) for name in sorted(before)],
        names=[
            ("window", report.window),
            ("reference", report.reference),
            ("champion", report.champion),
        ],
    )


def _measure(finding: Finding, decision: DecisionSettings) -> _Measure:
    severity = decision.severity.get(finding.measure)
    if finding.effect is None or finding.n < decision.minimum:
        word, tone = "cannot tell", "quiet"
    else:
        state = drifted(finding, decision)
        word = "as before" if state == "no" else state
        tone = {"no": "good", "slight": "warn", "severe": "bad"}[state]
    return _Measure(
        name=finding.measure,
        word=word,
        tone=tone,
        effect=finding.effect,
        natural=finding.natural,
        act=severity.act if severity else None,
        detectable=finding.detectable,
        p=finding.p,
        n=finding.n,
    )


def _spreads(
    distributions: Mapping[str, Distribution], measures: Sequence[_Measure]
) -> list[_Spread]:
    """The distributions that the report holds, drawn; those that moved most come first."""
    order = {"severe": 0, "slight": 1}
    spreads = []
    for measure in sorted(measures, key=lambda m: (order.get(m.word, 2), -(m.effect or 0.0))):
        spread = distributions.get(measure.name)
        drawing = None if spread is None else _drawing(measure.name, spread)
        if spread is not None and drawing is not None:
            about = spread.about
            spreads.append(_Spread(measure.name, measure.word, measure.tone, about, drawing))
    return spreads


def _drawing(name: str, spread: Distribution) -> Safe | None:
    """A histogram where the cells have edges, bars where they have names; None for neither."""
    reference, window = list(spread.reference), list(spread.window)
    edges, cells = list(spread.edges or ()), list(spread.cells or ())
    if not reference or len(reference) != len(window):
        return None
    if len(edges) == len(reference) + 1:
        return histogram(name, edges, reference, window)
    if len(cells) == len(reference):
        return distribution(name, cells, reference, window)
    return None
