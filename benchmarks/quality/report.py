"""The table as Markdown and as a page: where ours loses comes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.quality.methods import OURS
from tasteloop.intervals import Interval
from validation.markup.elements import tag
from validation.markup.environment import Column, page, table
from validation.markup.formats import number
from validation.markup.plots import Scale, axis, interval

MAIN = "ndcg@10"
_PUBLISHED = {
    "stratified": "Published by recommenders-team/recommenders (README): BiVAE .475, BPR .442, LightGCN .420, "
    "NCF .396, SAR .382, ALS .044. Not measured here; which of its two splits a row comes from it does not say.",
    "stratified_item": "Published in recommenders-team/recommenders, examples/06_benchmarks/movielens.ipynb, for this "
    "split: BiVAE .469, BPR .445, LightGCN .416, SAR .394, NCF .369. Not measured here.",
}


def verdicts(protocol: Mapping[str, Any]) -> list[str]:
    """Sentences on ours against each peer, losses first."""
    losses, unclear, wins = [], [], []
    peers = [entry for entry in protocol["methods"] if entry["method"] not in OURS]
    for entry in peers:
        for mine, d in entry.get("ours_minus_this", {}).items():
            told = f"({d['low']:+.4f} to {d['high']:+.4f})"
            if d["high"] < 0:
                losses.append(f"{mine} loses to {entry['method']}: {d['value']:+.4f} {told}")
            elif d["low"] <= 0:
                unclear.append(
                    f"{mine} against {entry['method']}: {d['value']:+.4f} {told}, which may be chance"
                )
            else:
                wins.append((d["value"], mine, entry["method"], told))
    lines = losses + unclear
    for mine in OURS:
        if led := sorted(w for w in wins if w[1] == mine):
            value, _, peer, told = led[0]
            lines.append(
                f"{mine} is ahead of {len(led)} methods; the nearest of them is {peer}: {value:+.4f} {told}"
            )
    return lines


def ablations(protocol: Mapping[str, Any]) -> list[str]:
    """What terms add: ours with the most of them minus each of the others of ours."""
    ours = [entry for entry in protocol["methods"] if entry["method"] in OURS]
    return [
        f"{mine} minus {entry['method']}: {d['value']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f})"
        for entry in ours
        for mine, d in entry.get("ours_minus_this", {}).items()
    ]


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report: a section a protocol."""
    m = results["machine"]
    versions = ", ".join(f"{name} {found}" for name, found in m["versions"].items())
    quick = (
        " **Quick run: few methods, a third of the users; not for quoting.**"
        if results["quick"]
        else ""
    )
    lines = [
        f"# Recommenders on {results['data']}",
        "",
        f"{m['processor']}, {m['cores']} cores (threads: {m['threads'] or 'all'}), {m['memory_gb']} GB, Python "
        f"{m['python']}, {versions}; seeds {', '.join(map(str, results['seeds']))}; {results['created'][:10]}.{quick}",
        "Intervals are 95% bootstraps over users; differences are paired. Sorted by nDCG@10.",
    ]
    for protocol in results["protocols"]:
        lines += ["", f"## {protocol['name']}: {protocol['about']}", ""]
        lines.append(
            f"{_drawn(protocol, 'rows')} rows of {protocol['users']} users, {protocol['ranked_items']} items ranked, "
            f"{protocol['relevant_a_row']:.1f} relevant a row; fitted on {protocol['fitted_events']} events of "
            f"{protocol['fitted_users']} users; tuned on {_drawn(protocol, 'tuned_rows')} rows."
        )
        lines += ["", *(f"- {line}" for line in [*verdicts(protocol), *ablations(protocol)]), ""]
        lines += _rows(protocol)
        if published := _PUBLISHED.get(protocol["name"]):
            lines += ["", published]
        if len(protocol["slices"]) > 1:
            lines += ["", *_slices(protocol)]
        lines += ["", "Settings that validation chose:", ""]
        lines += [
            f"- {e['method']}: {', '.join(f'{k} {v}' for k, v in e['settings'].items()) or 'none'}"
            for e in protocol["methods"]
            if "settings" in e
        ]
    return "\n".join(lines) + "\n"


def _drawn(protocol: Mapping[str, Any], rows: str) -> str:
    """How many rows, and of how many they were drawn."""
    count, of = protocol[rows], protocol[f"{rows}_drawn_from"]
    return str(count) if count == of else f"{count} drawn of {of}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _primary(protocol: Mapping[str, Any]) -> str | None:
    """Which of ours the differences are shown for: the one with the encoder where it is there."""
    there = [e["method"] for e in protocol["methods"] if e["method"] in OURS and "metrics" in e]
    return max(there, key=OURS.index, default=None)


def _rows(protocol: Mapping[str, Any]) -> Iterator[str]:
    mine = _primary(protocol)
    heads = [
        "method",
        "nDCG@10",
        f"{mine} minus it" if mine else "",
        "recall@10",
        "precision@10",
        "MAP@10",
        "MRR@10",
    ]
    heads += [
        "coverage",
        "novelty, bits",
        "diversity",
        "popularity percentile",
        "fit, s",
        "ms/row",
        "MB",
    ]
    yield _line(heads)
    yield "|" + "---|" * len(heads)
    for e in protocol["methods"]:
        if "metrics" not in e:
            yield _line([e["method"], e["refused"], *[""] * (len(heads) - 2)])
            continue
        value, d = e["metrics"][MAIN], e["ours_minus_this"].get(mine)
        told = f"{d['value']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f})" if d else ""
        name = f"**{e['method']}**" if e["method"] in OURS else e["method"]
        yield _line(
            [name, f"{value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f})", told]
            + [
                f"{e['metrics'][f'{m}@10']['value']:.4f}"
                for m in ("recall", "precision", "map", "mrr")
            ]
            + [
                f"{e['beyond'][f'{m}@10']:.3f}"
                for m in ("coverage", "novelty", "diversity", "popularity_percentile")
            ]
            + [f"{e['fit_seconds']:.2f}", f"{e['score_ms']:.2f}", f"{e['memory_mb']:.0f}"]
        )


def _slices(protocol: Mapping[str, Any]) -> Iterator[str]:
    names = list(protocol["slices"])
    yield _line(
        ["nDCG@10 of users with", *(f"{name} (n {protocol['slices'][name]})" for name in names)]
    )
    yield "|" + "---|" * (len(names) + 1)
    for e in protocol["methods"]:
        if "slices" in e:
            yield _line([e["method"], *(f"{e['slices'][name]['value']:.4f}" for name in names)])


def plot(results: Mapping[str, Any]) -> str:
    """One self-contained page: each protocol's methods with their intervals, and ours minus
    each.
    """
    sections = []
    for protocol in results["protocols"]:
        there = [e for e in protocol["methods"] if "metrics" in e]
        mine = _primary(protocol)
        scale = Scale.around(
            [e["metrics"][MAIN][k] for e in there for k in ("low", "high")], width=260
        )
        gaps = {e["method"]: e["ours_minus_this"].get(mine, {}) for e in there}
        gap = Scale.around(
            [d.get(k) for d in gaps.values() for k in ("low", "high")], include=0.0, width=200
        )
        rows = []
        for e in there:
            d, m = gaps[e["method"]], e["metrics"][MAIN]
            tone = (
                "quiet"
                if not d or d["low"] <= 0 <= d["high"]
                else "good"
                if d["low"] > 0
                else "bad"
            )
            name = tag("b", e["method"]) if e["method"] in OURS else e["method"]
            rows.append(
                [
                    name,
                    interval(
                        Interval.parse(m), scale, "accent" if e["method"] in OURS else "quiet"
                    ),
                    number(m["value"], 4),
                ]
                + [
                    interval(Interval.parse(d), gap, tone, zero=True),
                    tag("span", number(d.get("value"), 4, signed=True), class_=tone),
                ]
            )
        heads = [
            Column("Method"),
            Column(axis(scale), name="nDCG@10 and interval, drawn"),
            Column("nDCG@10", True),
            Column(axis(gap, signed=True), name="Difference, drawn"),
            Column(f"{mine} minus it" if mine else "", True),
        ]
        lines = [tag("li", line) for line in [*verdicts(protocol), *ablations(protocol)]]
        note = f"{protocol['rows']} rows of {protocol['users']} users"
        sections.append(
            tag(
                "section",
                tag("h2", protocol["name"]),
                tag("p", protocol["about"], class_="quiet"),
                tag("ul", lines),
                table("nDCG@10", heads, rows, note),
            )
        )
    title = f"Recommenders on {results['data']}"
    top = tag("header", tag("p", "Tasteloop · benchmark", class_="over"), tag("h1", title))
    foot = tag(
        "footer",
        "Intervals are 95% bootstraps over users; differences are paired. results.json has all numbers.",
    )
    return page(f"{title} · Tasteloop", [top, sections, foot])
