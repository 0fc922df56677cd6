"""Phrases that several pages of the site share, and the tables that stand on more than one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from validation.markup.elements import Child, Safe, join, tag
from validation.markup.formats import day, shortened
from validation.markup.plots import Point, trend
from validation.pages.evaluation import measure_name
from validation.pages.facts import Decided, Link, SiteFacts, Window

ROWS = 200  # of a table
POINTS = 60  # of a plot


def anchor(link: Link) -> Child:
    """A link as an element; its words alone where it leads nowhere."""
    if link.href:
        return tag("a", link.text, href=link.href)
    return tag("code", link.text) if link.code else link.text


def metric_name(metric: str) -> str:
    task, _, measure = metric.partition(".")
    return f"{task} {measure_name(measure)}" if measure else metric


def counted(words: Iterable[str]) -> str:
    """How often each word came, most first."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())


def newest_first(rows: Sequence[object]) -> str:
    """A table's note."""
    if len(rows) <= ROWS:
        return f"{len(rows)}, newest first"
    return f"the newest {ROWS} of {len(rows):,}"


def drift_view(facts: SiteFacts, windows: Sequence[Window], up: str) -> dict[str, Any]:
    """The plot of windows and their table; `up`: from the page to the top of the site."""
    points = []
    for window in reversed(windows[:POINTS]):
        about = f"{day(window.start)}: {window.word}"
        if window.worst:
            about += f", {window.worst.measure}"
        tone = "accent" if window.state == "none" else window.tone
        points.append(Point(day(window.start), window.level, tone=tone, about=about))
    name = "Drift by window, share of the level that is acted on"
    rows = [
        {"window": window, "champion": facts.champion_link(window.evidence.champion, up)}
        for window in windows[:ROWS]
    ]
    return {
        "plot": trend(name, points, 620.0, bound=1.0),
        "rows": rows,
        "note": newest_first(windows),
        "up": up,
    }


def decisions_view(facts: SiteFacts, decisions: Sequence[Decided], up: str) -> dict[str, Any]:
    """The table of decisions, each with what came of it and the windows that it rests on."""
    rows = []
    for decided in decisions[:ROWS]:
        windows = [facts.window_of(evidence) for evidence in decided.evidence]
        pages = [
            Link(day(window.start), up + window.page)
            for window in windows
            if window and window.page
        ]
        rows.append(
            {
                "decided": decided,
                "champion": facts.champion_link(decided.champion, up),
                "result": _result(facts, decided, up),
                "pages": pages,
                "without": len(windows) - len(pages),
            }
        )
    return {"rows": rows, "note": newest_first(decisions), "up": up}


def _result(facts: SiteFacts, decided: Decided, up: str) -> Safe | str:
    """What came of a decision."""
    parts: list[Child] = []
    if decided.result:
        parts.append(tag("b", decided.result))
    elif decided.attempts:
        parts.append(f"under way, attempt {decided.attempts}")
    elif decided.outcome == "retrain":
        parts.append("not begun")
    if decided.to:
        parts.append(["back to version ", anchor(facts.champion_link(decided.to, up))])
    elif decided.version:
        parts.append(["version ", anchor(facts.version_link(decided.version, up))])
    run = decided.training_run or decided.run
    if run and facts.run(run):
        parts.append(["run ", tag("a", run, href=f"{up}index.html#run-{run}")])
    elif run:
        parts.append(f"run {run}")
    if decided.alerted:
        parts.append("a human was told")
    if decided.result != "promoted" and decided.reason:
        parts.append(shortened(decided.reason))
    return join(parts, ", ") if parts else "nothing had to be done"
