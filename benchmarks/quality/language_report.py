"""The language benchmark's tables as Markdown: where ours loses comes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.quality.language_methods import OURS

_TITLES = {
    "redial": "ReDial",
    "iard": "IARD",
    "soft-attributes": "Soft attributes",
}
_EXTREMES = 5  # attributes that are shown from each end


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report: a section for each task and film set."""
    lines = ["# People's own words", "", *_head(results)]
    for ranking in results["rankings"]:
        lines += ["", *_ranking(ranking)]
    for attributes in results["attributes"]:
        lines += ["", *_attributes(attributes)]
    return "\n".join(lines) + "\n"


def _head(results: Mapping[str, Any]) -> Iterator[str]:
    m = results["machine"]
    versions = ", ".join(f"{name} {found}" for name, found in m["versions"].items())
    yield (
        f"{m['processor']}, {m['cores']} cores (threads: {m['threads'] or 'all'}), {m['memory_gb']} GB, Python "
        f"{m['python']}, {versions}; {results['created'][:10]}; {results['seconds']:.0f} s."
    )
    yield (
        "Intervals are 95% bootstraps over dialogues, and over raters for soft attributes; differences are "
        "paired. Settings were chosen on ReDial's validation dialogues."
    )
    if bundle := results["bundle"]:
        known = ", ".join(
            f"{count} of {results['films'][name]['films']} of {name}"
            for name, count in bundle["known"].items()
        )
        yield f"Bundle {bundle['digest'][:12]} knows {bundle['films']} films: {known}."
    yield ""
    for name, films in results["films"].items():
        for what, counts in films["joins"].items():
            told = ", ".join(f"{rule} {count}" for rule, count in counts.items())
            yield f"- Joined, {name} {what}: {told}."
    for reason, count in results["left_out"].items():
        yield f"- Not asked, {reason}: {count}."


def verdicts(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Sentences on ours against each peer, losses first."""
    losses, unclear, leads = [], [], []
    for entry in entries:
        difference = entry.get("ours_minus_this")
        if difference is None:
            continue
        told = f"{entry['method']}: {_signed(difference)}"
        if difference["high"] < 0:
            losses.append(f"- {OURS} loses to {told}")
        elif difference["low"] <= 0:
            unclear.append(f"- {OURS} against {told}, which may be chance")
        else:
            leads.append(f"- {OURS} is ahead of {told}")
    yield from losses + unclear + leads


def _ranking(ranking: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {_TITLES[ranking['task']]}, {ranking['about']}"
    yield ""
    slices = ", ".join(f"{count} with {name}" for name, count in ranking["slices"].items())
    yield (
        f"{ranking['turns']} turns of {ranking['dialogues']} dialogues ({slices}), {ranking['answers']} answers, "
        f"{ranking['ranked_films']} films ranked."
    )
    yield ""
    yield from verdicts(ranking["methods"])
    yield ""
    names = list(ranking["slices"])
    heads = ["method", "recall@10", f"{OURS} minus it", "recall@1", "recall@50", "nDCG@10"]
    heads += [f"recall@10, {name}" for name in names]
    pooled = any("pairs" in entry for entry in ranking["methods"])
    heads += ["recall@1, @10, @50 over pairs"] if pooled else []
    yield _line(heads)
    yield "|" + "---|" * len(heads)
    for entry in ranking["methods"]:
        if "metrics" not in entry:
            yield _line([entry["method"], entry["refused"], *[""] * (len(heads) - 2)])
            continue
        found = entry["metrics"]
        cells = [
            _name(entry),
            _estimate(found["recall@10"]),
            _signed(entry.get("ours_minus_this")),
            *(f"{found[name]['value']:.4f}" for name in ("recall@1", "recall@50", "ndcg@10")),
            *(_value(entry["slices"][name]) for name in names),
        ]
        if pooled:
            cells.append(", ".join(f"{value:.4f}" for value in entry["pairs"].values()))
        yield _line(cells)
    yield ""
    yield from _chosen(ranking["methods"])


def _attributes(table: Mapping[str, Any]) -> Iterator[str]:
    yield f"## Soft attributes, {table['about']}"
    yield ""
    yield (
        f"{table['pairs']} pairs by {table['raters']} raters about {table['attributes']} attributes; the share of "
        "pairs in the right order, a mean over raters."
    )
    yield ""
    yield from verdicts(table["methods"])
    yield ""
    heads = ["method", "accuracy", f"{OURS} minus it", "best and worst attributes"]
    yield _line(heads)
    yield "|" + "---|" * len(heads)
    for entry in table["methods"]:
        if "metrics" not in entry:
            yield _line([entry["method"], entry["refused"], "", ""])
            continue
        ordered = sorted(entry["by_attribute"].items(), key=lambda pair: -pair[1])
        ends = [*ordered[:_EXTREMES], *ordered[max(_EXTREMES, len(ordered) - _EXTREMES) :]]
        yield _line(
            [
                _name(entry),
                _estimate(entry["metrics"]["accuracy"]),
                _signed(entry.get("ours_minus_this")),
                ", ".join(f"{attribute} {value:.2f}" for attribute, value in ends),
            ]
        )


def _chosen(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    settings = {entry["method"]: entry["settings"] for entry in entries if entry.get("settings")}
    if settings:
        yield "Settings that validation chose:"
        yield ""
    for method, found in settings.items():
        yield f"- {method}: {', '.join(f'{key} {value}' for key, value in found.items())}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _name(entry: Mapping[str, Any]) -> str:
    return f"**{entry['method']}**" if entry["method"] == OURS else entry["method"]


def _value(estimate: Mapping[str, Any]) -> str:
    return "-" if estimate["value"] is None else f"{estimate['value']:.4f}"


def _estimate(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "-"
    return f"{estimate['value']:.4f} ({estimate['low']:.4f} to {estimate['high']:.4f})"


def _signed(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return ""
    return f"{estimate['value']:+.4f} ({estimate['low']:+.4f} to {estimate['high']:+.4f})"
