"""Two self-contained pages: what was found in a data set, and how good a candidate is and why.

The pages take what they find. A task that was not evaluated, a number that could not be computed, a
table that could not be read and a missing champion are shown as what they are: the report of a
failed run is the one that is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasteloop.files import as_list, as_mapping, as_rows, atomic_write
from validation.pages.html import (
    Child,
    Column,
    Safe,
    Scale,
    area_under,
    axis,
    badge,
    bar,
    confusion_matrix,
    finite,
    interval,
    join,
    number,
    page,
    reliability_plot,
    roc_plot,
    signed_bar,
    table,
    tag,
)

_TASKS = {
    "interests": ("Interests", "Which labels a user's next positive items bear."),
    "recommend": (
        "Recommendations",
        "Where the items that a user went on to like stand in the full ranking.",
    ),
    "sentiment": ("Sentiment", "Whether a review is favourable."),
}
HEADLINES = ("interests.micro_f1", "recommend.ndcg@10", "sentiment.accuracy")
_NAMES = {
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "ece": "calibration error",
    "f1": "F1",
    "ndcg@10": "nDCG@10",
    "precision@10": "precision@10",
    "recall@10": "recall@10",
    "f1@10": "F1@10",
    "majority": "majority",
    "own_frequencies": "own frequencies",
    "recent_popularity": "recent popularity",
    "popularity": "popularity",
    "ease": "EASE",
    "itemknn": "ItemKNN",
    "bag_of_words": "bag of words",
}
_INTERVAL = Column("95% interval", True)
_EXAMPLES = 12  # more of them do not tell more
_ROWS = 200  # of a table by label or slice


def write_report(
    evaluation: Mapping[str, Any], verdict: Mapping[str, Any] | None, out: Path
) -> Path:
    """Write the page.

    Args:
        evaluation: evaluation.json.
        verdict: `dataclasses.asdict` of a gate's Verdict; None when no gate has judged yet.
        out: the HTML file to write.

    Returns:
        out.
    """
    e = as_mapping(evaluation)
    sections = [
        ("checks", "Why", checks_table(verdict)),
        *[(task, _TASKS[task][0], _task(task, e)) for task in _TASKS],
        ("slices", "Slices", _slices(as_rows(e.get("slices")))),
        ("examples", "Examples", _examples(as_rows(e.get("examples")))),
        ("lineage", "Lineage", _lineage(e)),
    ]
    shown = [(key, title, body) for key, title, body in sections if body]
    links = [tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in shown]
    headline, tone, lede = verdict_words(verdict)
    bundle = str(as_mapping(e.get("lineage")).get("bundle") or "")
    top = tag(
        "header",
        tag(
            "p",
            "Tasteloop · evaluation",
            [" of ", tag("code", bundle[:12])] if bundle else None,
            class_="over",
        ),
        tag("h1", headline),
        lede,
        class_=f"verdict {tone}",
    )
    body = [
        top,
        tag("nav", tag("ul", links), aria_label="Sections"),
        figure_cards(e),
        [tag("section", tag("h2", title), content, id=key) for key, title, content in shown],
        tag(
            "footer",
            "Intervals are 95% paired bootstrap intervals on the test window; differences are candidate "
            "minus other on the same rows.",
        ),
    ]
    atomic_write(out, page(f"{headline} · Tasteloop", body))
    return out


def write_data_report(validation: Mapping[str, Any], out: Path) -> Path:
    """Write the page of a validation.json to the HTML file `out`."""
    v = as_mapping(validation)
    checks, stats = as_rows(v.get("checks")), as_mapping(v.get("stats"))
    failed = sorted(
        (c for c in checks if not c.get("passed")), key=lambda c: c.get("severity") != "error"
    )
    errors, warnings = finite(v.get("errors")) or 0, finite(v.get("warnings")) or 0
    headline = "The data is accepted" if v.get("passed") else "The data is refused"
    tone = "bad" if not v.get("passed") else "warn" if warnings else "good"
    tables = list(dict.fromkeys(str(c.get("table")) for c in checks))
    lede = (
        f"{number(len(checks))} rules on {', '.join(tables)}: errors {errors:.0f}, warnings {warnings:.0f}. "
        f"{'Training may start.' if v.get('passed') else 'Nothing is trained on it.'}"
    )
    top = tag(
        "header",
        tag("p", "Tasteloop · data", class_="over"),
        tag("h1", headline),
        tag("p", lede, class_="lede"),
        class_=f"verdict {tone}",
    )
    figures = [
        tag("div", tag("p", key.capitalize()), tag("p", number(stats.get(key)), class_="figure"))
        for key in ("events", "users", "items", "reviews")
    ]
    sections: list[Safe] = []
    if failed:
        caption, note = "Rules that do not hold", "errors first"
        sections.append(
            tag("section", tag("h2", "What is wrong"), _rules(caption, note, failed, where=True))
        )
    for name in tables:
        mine = [c for c in checks if c.get("table") == name]
        note = f"{sum(bool(c.get('passed')) for c in mine)} of {len(mine)} hold"
        sections.append(tag("section", tag("h2", name.capitalize()), _rules("Rules", note, mine)))
    foot = "An error stops the pipeline before anything is trained; a warning is only reported."
    body = [top, tag("div", figures, class_="figures four"), sections, tag("footer", foot)]
    atomic_write(out, page(f"{headline} · Tasteloop", body))
    return out


def _rules(
    caption: str, note: str, checks: Sequence[Mapping[str, Any]], where: bool = False
) -> Safe:
    rows: list[list[Child]] = []
    for check in checks:
        word, tone = ("holds", "good") if check.get("passed") else ("warning", "warn")
        if not check.get("passed") and check.get("severity") == "error":
            word, tone = "error", "bad"
        about = f"{check.get('table')}: {check.get('about')}" if where else check.get("about")
        found = check.get("found") or "–"
        rows.append(
            [badge(word, tone), tag("div", about, class_="wide"), tag("div", found, class_="wide")]
        )
    return table(caption, ["Outcome", "What should hold", "What was found"], rows, note, full=True)


# --- the verdict


def verdict_words(verdict: Mapping[str, Any] | None) -> tuple[str, str, Safe]:
    """A verdict as a heading, a tone and a paragraph."""
    if verdict is None:
        return (
            "Evaluated, not yet judged",
            "quiet",
            tag("p", "No gate has looked at these numbers.", class_="lede"),
        )
    checks = as_rows(verdict.get("checks"))
    counts = {
        outcome: sum(c.get("outcome") == outcome for c in checks)
        for outcome in ("pass", "fail", "skip")
    }
    tally = f"{counts['pass']} of {counts['pass'] + counts['fail']} checks hold"
    if counts["skip"]:
        tally += f", {counts['skip']} did not apply"
    failures = [c.get("reason") for c in checks if c.get("outcome") == "fail"]
    if not verdict.get("passed"):
        reasons = failures or as_list(verdict.get("reasons"))
        return (
            "The gate says no",
            "bad",
            join(
                [
                    tag("p", f"{tally}. What stands in the way:", class_="lede"),
                    tag("ul", [tag("li", reason) for reason in reasons]),
                ]
            ),
        )
    if verdict.get("unchanged"):
        words = "The candidate is the champion, or answers exactly like it."
        return "Nothing to promote", "quiet", tag("p", f"{words} {tally}.", class_="lede")
    return (
        "The candidate passes",
        "good",
        tag("p", f"{tally}. It may be rehearsed and promoted.", class_="lede"),
    )


def checks_table(verdict: Mapping[str, Any] | None) -> Safe | None:
    """Every check of a gate's verdict with its sentence."""
    if verdict is None:
        return None
    words = {"pass": ("holds", "good"), "fail": ("fails", "bad"), "skip": ("skipped", "quiet")}
    checks = sorted(
        as_rows(verdict.get("checks")), key=lambda c: ("fail", "pass", "skip").index(_outcome(c))
    )
    rows: list[list[Child]] = [
        [badge(*words[_outcome(c)]), tag("div", c.get("reason", ""), class_="wide")] for c in checks
    ]
    return table(
        "Every rule of the gate", ["Outcome", "What was found"], rows, "failures first", full=True
    )


def _outcome(check: Mapping[str, Any]) -> str:
    outcome = check.get("outcome")
    return outcome if outcome in ("pass", "skip") else "fail"


# --- metrics


def figure_cards(e: Mapping[str, Any]) -> Safe | None:
    """The first measure of each task in large digits, with its interval and the strongest
    baseline.
    """
    metrics = as_mapping(e.get("metrics"))
    cells = []
    for metric in HEADLINES:
        if metric not in metrics:
            continue
        m = as_mapping(metrics[metric])
        best, difference = strongest(e, metric)
        against: Child = None
        if best is not None:
            tone = difference_tone(metric, difference)
            against = tag(
                "p",
                tag("b", number(difference.get("value"), signed=True), class_=tone),
                " against ",
                measure_name(best),
                f" ({interval_text(difference, signed=True)})",
            )
        task, _, measure = metric.partition(".")
        cells.append(
            tag(
                "div",
                tag("p", f"{_TASKS[task][0]}, {measure_name(measure)}"),
                tag("p", number(m.get("value")), class_="figure"),
                tag("p", f"{interval_text(m)} · {_count(m)} rows", class_="quiet"),
                against,
            )
        )
    return tag("div", cells, class_="figures") if cells else None


def strongest(e: Mapping[str, Any], metric: str) -> tuple[str | None, Mapping[str, Any]]:
    """The baseline (not the champion) that comes closest to the candidate, with the difference to
    it.
    """
    found = [
        (value, name, difference)
        for name, by_metric in as_mapping(e.get("differences")).items()
        if name != "champion"
        and (difference := as_mapping(as_mapping(by_metric).get(metric)))
        and (value := finite(difference.get("value"))) is not None
    ]
    if not found:
        return None, {}
    _, name, difference = min(found, key=lambda f: (f[0], f[1]))
    return name, difference


def _task(task: str, e: Mapping[str, Any]) -> Safe | None:
    metrics = {m: v for m, v in as_mapping(e.get("metrics")).items() if m.partition(".")[0] == task}
    if not metrics:
        return None
    parts: list[Child] = [tag("p", _TASKS[task][1], class_="quiet")]
    alone: list[tuple[Child, Mapping[str, Any]]] = []
    for metric, measure in metrics.items():
        others = _others(e, metric)
        if others:
            parts.append(_compared(metric, as_mapping(measure), others, e))
        else:
            alone.append((measure_name(metric), as_mapping(measure)))
    beside: list[Child] = []
    if alone:
        beside.append(
            _measured(
                "All other measures" if len(alone) < len(metrics) else "Measures", "Metric", alone
            )
        )
    beside += _plots(task, e)
    parts.append(tag("div", beside, class_="plots"))
    if task == "interests":
        parts.append(_labels(as_rows(e.get("per_label"))))
    return join(parts)


def _others(e: Mapping[str, Any], metric: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The champion and the baselines that were measured in a metric."""
    found = []
    champion = as_mapping(as_mapping(e.get("champion")).get("metrics"))
    if metric in champion:
        found.append(("champion", as_mapping(champion[metric])))
    for name, by_metric in as_mapping(e.get("baselines")).items():
        if metric in as_mapping(by_metric):
            found.append((str(name), as_mapping(by_metric[metric])))
    return found


def _compared(
    metric: str,
    mine: Mapping[str, Any],
    others: Sequence[tuple[str, Mapping[str, Any]]],
    e: Mapping[str, Any],
) -> Safe:
    differences = as_mapping(e.get("differences"))
    found = {name: as_mapping(as_mapping(differences.get(name)).get(metric)) for name, _ in others}
    scale = Scale.around(
        [m.get(k) for m in (mine, *[o for _, o in others]) for k in ("value", "low", "high")],
        width=200,
    )
    gap = Scale.around(
        [d.get(k) for d in found.values() for k in ("value", "low", "high")], include=0.0, width=160
    )
    rows: list[list[Child]] = [
        [
            tag("b", "candidate"),
            interval(mine, scale),
            tag("b", number(mine.get("value"))),
            interval_text(mine),
        ]
        + [None, None, None]
    ]
    for name, measure in others:
        d = found[name]
        tone = difference_tone(metric, d)
        rows.append(
            [
                measure_name(name),
                interval(measure, scale, "champion" if name == "champion" else "quiet"),
                number(measure.get("value")),
                interval_text(measure),
                interval(d, gap, tone, zero=True),
                tag("span", number(d.get("value"), signed=True), class_=tone),
                interval_text(d, signed=True),
            ]
        )
    heads = [
        Column("Model"),
        Column(axis(scale), name="Value and interval, drawn"),
        Column("Value", True),
        _INTERVAL,
        Column(axis(gap, signed=True), name="Difference, drawn"),
        Column("Difference", True),
        _INTERVAL,
    ]
    less = ", less is better" if _less_is_better(metric) else ""
    return table(
        measure_name(metric),
        heads,
        rows,
        f"on {_count(mine)} rows, like every model beside it{less}",
    )


def difference_tone(metric: str, difference: Mapping[str, Any]) -> str:
    """Whether the candidate is beyond doubt better (good) or worse (bad)."""
    low, high = finite(difference.get("low")), finite(difference.get("high"))
    if low is None or high is None or low <= 0 <= high:
        return "quiet"
    return "good" if (low > 0) != _less_is_better(metric) else "bad"


def _less_is_better(metric: str) -> bool:
    return metric.endswith(".ece")


def _plots(task: str, e: Mapping[str, Any]) -> list[Safe]:
    figures: list[Safe] = []
    calibration = as_mapping(as_mapping(e.get("calibration")).get(task))
    if bins := as_rows(calibration.get("bins")):
        drawn = reliability_plot(f"Reliability of {task} probabilities", bins)
        caption = (
            f"Calibration error {number(calibration.get('ece'))}. On the diagonal a probability means what "
            "it says; bars count the predictions."
        )
        figures.append(tag("figure", drawn, tag("figcaption", caption)))
    matrix = _matrix(as_mapping(e.get("confusion")).get(task))
    roc = as_mapping(as_mapping(e.get("roc")).get(task))
    fpr, tpr = as_list(roc.get("fpr")), as_list(roc.get("tpr"))
    chosen = None
    if matrix and sum(matrix[0]) and sum(matrix[1]):
        chosen = (matrix[0][1] / sum(matrix[0]), matrix[1][1] / sum(matrix[1]))
    if plot := roc_plot(f"ROC curve of {task}", fpr, tpr, chosen):
        area = f"Area under the curve {number(area_under(fpr, tpr))}."
        figures.append(
            tag(
                "figure",
                plot,
                tag("figcaption", area, " The dot is the chosen threshold." if chosen else None),
            )
        )
    if matrix:
        names = ("negative", "positive")
        figures.append(
            tag(
                "figure",
                confusion_matrix(
                    "At the chosen threshold, shaded by share of the row", matrix, names
                ),
            )
        )
    return figures


def _matrix(found: object) -> list[list[int]] | None:
    rows = [
        [int(x) for v in as_list(row) if (x := finite(v)) is not None] for row in as_list(found)
    ]
    return rows if [len(row) for row in rows] == [2, 2] else None


def _labels(labels: Sequence[Mapping[str, Any]]) -> Safe | None:
    if not labels:
        return None
    heads = [
        Column("Label"),
        Column("Support", True),
        Column("", name="F1, drawn"),
        *[Column(title, True) for title in ("F1", "Precision", "Recall", "Threshold", "Frequency")],
    ]
    rows = [
        [
            tag("bdi", row.get("label")),
            number(row.get("support")),
            bar(row.get("f1"), 1.0),
            *[
                number(row.get(key))
                for key in ("f1", "precision", "recall", "threshold", "frequency")
            ],
        ]
        for row in sorted(labels, key=lambda row: -(finite(row.get("support")) or 0.0))[:_ROWS]
    ]
    return table("Label by label", heads, rows, f"{len(labels)} labels, most support first")


def _slices(slices: Sequence[Mapping[str, Any]]) -> Safe | None:
    by_metric: dict[str, list[tuple[Child, Mapping[str, Any]]]] = {}
    for row in slices:
        rows = by_metric.setdefault(str(row.get("metric")), [])
        rows.append((tag("bdi", row.get("slice")), row))
    parts = [
        _measured(_full_name(metric), "Slice", rows[:_ROWS]) for metric, rows in by_metric.items()
    ]
    return join(parts) if parts else None


def _measured(caption: str, what: str, measures: Sequence[tuple[Child, Mapping[str, Any]]]) -> Safe:
    """Measures with their intervals, one a row, on one scale."""
    scale = Scale.around([m.get(k) for _, m in measures for k in ("value", "low", "high")])
    heads = [
        Column(what),
        Column(axis(scale), name="Value and interval, drawn"),
        Column("Value", True),
        _INTERVAL,
        Column("Rows", True),
    ]
    rows = [
        [name, interval(m, scale), number(m.get("value")), interval_text(m), _count(m)]
        for name, m in measures
    ]
    return table(caption, heads, rows)


# --- examples and lineage


def _examples(examples: Sequence[Mapping[str, Any]]) -> Safe | None:
    if not examples:
        return None
    intro = "What the model read, what it answered, and the terms that each recommendation's score is the sum of."
    return join(
        [
            tag("p", intro, class_="quiet"),
            *[_example(i, e) for i, e in enumerate(examples[:_EXAMPLES], 1)],
        ]
    )


def _example(index: int, example: Mapping[str, Any]) -> Safe:
    text = str(example.get("text") or "")
    interests = [
        [
            tag("bdi", row.get("label")),
            bar(row.get("probability"), 1.0),
            number(row.get("probability"), 2),
            badge("yes", "good") if row.get("truth") else None,
        ]
        for row in as_rows(example.get("interests"))
    ]
    recommendations = as_rows(example.get("recommendations"))
    contributions = [
        x
        for r in recommendations
        for t in as_rows(r.get("reasons"))
        if (x := finite(t.get("contribution"))) is not None
    ]
    limit = max(map(abs, contributions), default=1.0) or 1.0
    ranked: list[list[Child]] = []
    for rank, r in enumerate(recommendations, 1):
        terms = [
            tag(
                "li",
                tag("span", t.get("term")),
                signed_bar(t.get("contribution"), limit),
                tag("span", number(t.get("contribution"), signed=True)),
            )
            for t in as_rows(r.get("reasons"))
        ]
        title = tag("bdi", r.get("title") or r.get("item"))
        liked = badge("liked", "good") if r.get("relevant") else None
        head = tag(
            "div",
            f"{rank}. ",
            title,
            " ",
            liked,
            tag("ul", terms, class_="reasons") if terms else None,
        )
        ranked.append([head, number(r.get("score"))])
    return tag(
        "article",
        tag("h3", f"Example {index}"),
        tag("blockquote", text[:600] + ("…" if len(text) > 600 else "")) if text else None,
        tag(
            "div",
            table(
                "Interests",
                [
                    "Label",
                    Column("", name="Probability, drawn"),
                    Column("Probability", True),
                    "Came true",
                ],
                interests,
                full=True,
            )
            if interests
            else None,
            table(
                "Recommendations and their terms",
                ["Item", Column("Score", True)],
                ranked,
                full=True,
            )
            if ranked
            else None,
            class_="pair",
        ),
        class_="example",
    )


def _lineage(e: Mapping[str, Any]) -> Safe | None:
    lineage, champion = as_mapping(e.get("lineage")), as_mapping(e.get("champion"))
    facts: list[tuple[str, Child]] = [(str(key), _fact(value)) for key, value in lineage.items()]
    if champion:
        version = f"version {champion['version']}, " if champion.get("version") is not None else ""
        facts.append(("champion", join([version, tag("code", champion.get("digest", "–"))])))
    elif "champion" in e:
        facts.append(("champion", "none, this is the first model"))
    if not facts:
        return None
    return tag("dl", [[tag("dt", key), tag("dd", value)] for key, value in facts], class_="facts")


def _fact(value: object) -> Child:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value) if "T" in value else None
        except ValueError:
            moment = None
        if moment is not None:
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return tag("code", value)
    return number(value) if finite(value) is not None else str(value)


# --- small readings


def measure_name(key: str) -> str:
    short = key.rpartition(".")[2] if key.partition(".")[0] in _TASKS else key
    return _NAMES.get(short, short)


def _full_name(metric: str) -> str:
    task = metric.partition(".")[0]
    return f"{_TASKS[task][0]}, {measure_name(metric)}" if task in _TASKS else metric


def interval_text(measure: Mapping[str, Any], signed: bool = False) -> str:
    low, high = measure.get("low"), measure.get("high")
    if finite(low) is None or finite(high) is None:
        return "–"
    return f"{number(low, signed=signed)} to {number(high, signed=signed)}"


def _count(measure: Mapping[str, Any]) -> str:
    n = finite(measure.get("n"))
    return "–" if n is None else number(int(n))
