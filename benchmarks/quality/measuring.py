"""From what was ranked to the numbers of a protocol's table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.quality import beyond
from benchmarks.quality.kept import answers_of
from benchmarks.quality.method import Method
from benchmarks.quality.methods import OURS
from benchmarks.quality.options import CUTOFFS, DRAWS, MEASURES, K, Options
from benchmarks.quality.tasks import Rows, Task
from tasteloop import metrics
from tasteloop.metrics import Array, Measure


def measure(
    task: Task, methods: Sequence[Method], refused: Mapping[tuple[str, str], str], options: Options
) -> dict[str, Any]:
    """A protocol's rows of the table, best nDCG@10 first; what did not run comes last."""
    name, rows = task.protocol.name, task.test
    kept: dict[str, dict[str, Measure]] = {}
    entries: list[dict[str, Any]] = []
    for method in methods:
        entry: dict[str, Any] = {"method": method.name, "about": method.about, "search": []}
        entry["search"] = [
            {key: list(values) for key, values in grid.items()} for grid in method.search
        ]
        if (name, method.name) in refused:
            entry["refused"] = refused[name, method.name]
        else:
            facts, ranked = zip(*answers_of(name, method, options), strict=True)
            kept[method.name] = _measures(ranked, rows)
            entry |= _entry(facts, ranked, kept[method.name], task)
        entries.append(entry)
    ours = [name for name in OURS if name in kept]
    for entry in entries:
        # each of ours beside a peer; beside the others of ours, the one with the most terms
        other = entry["method"]
        against = [] if other not in kept else ours[-1:] if other in OURS else ours
        entry["ours_minus_this"] = {
            mine: metrics.difference(
                kept[mine][f"ndcg@{K}"], kept[other][f"ndcg@{K}"], rows.group, draws=DRAWS
            ).json()
            for mine in against
            if mine != other
        }
    entries.sort(key=lambda e: -e["metrics"][f"ndcg@{K}"]["value"] if "metrics" in e else 1.0)
    return {
        **dataclasses.asdict(task.protocol),
        "prepared": task.prepared.model_dump(mode="json") if task.prepared else None,
        "rows": len(rows),
        "rows_drawn_from": task.drawn_from[1] if task.drawn_from else len(rows),
        "tuned_rows": len(task.validation),
        "tuned_rows_drawn_from": task.drawn_from[0] if task.drawn_from else len(task.validation),
        "users": len(np.unique(rows.group)),
        "items": len(task.catalogue),
        "ranked_items": int(rows.ranked.sum()),
        "relevant_a_row": float(np.mean([len(r) for r in rows.relevant])),
        "fitted_events": len(task.fit.events),
        "fitted_users": len(task.fit.users),
        "slices": {n: int(mask.sum()) for n, mask in task.slices.items()},
        "methods": entries,
    }


def _measures(ranked: Sequence[Array], rows: Rows) -> dict[str, Measure]:
    """Each measure at each cutoff; a row's value is its mean over seeds."""
    out = {}
    for k in CUTOFFS:
        for name, measure in MEASURES.items():
            seeds = [measure(r[:, :k], rows.relevant) for r in ranked]
            out[f"{name}@{k}"] = Measure(np.mean([m.rows for m in seeds], 0), seeds[0].reduce)
    return out


def _entry(
    facts: Sequence[Any], ranked: Sequence[Array], kept: Mapping[str, Measure], task: Task
) -> dict[str, Any]:
    rows = task.test
    met = np.asarray(task.fit.matrix("all").sum(0))
    labels = task.catalogue.membership(task.catalogue.label_names)
    users = max(1, len(task.fit.users))

    def seeds(measure: Callable[[Array], float]) -> float:
        return float(np.mean([measure(r) for r in ranked]))

    return {
        "settings": facts[0]["settings"],
        "validation": facts[0]["validation"],
        "metrics": {
            n: metrics.interval(m, rows.group, draws=DRAWS).json() for n, m in kept.items()
        },
        "by_seed": [metrics.ndcg(r[:, :K], rows.relevant).value for r in ranked],
        "beyond": {
            f"{name}@{k}": seeds(lambda r, f=f, k=k: f(r[:, :k]))  # type: ignore[misc]
            for k in CUTOFFS
            for name, f in {
                "coverage": lambda r: beyond.coverage(r, len(task.catalogue)),
                "novelty": lambda r: beyond.novelty(r, met, users),
                "diversity": lambda r: beyond.diversity(r, labels),
                "average_popularity": lambda r: beyond.average_popularity(r, met),
                "popularity_percentile": lambda r: beyond.popularity_percentile(r, met),
            }.items()
        },
        "slices": {
            name: metrics.interval(
                Measure(kept[f"ndcg@{K}"].rows[mask], kept[f"ndcg@{K}"].reduce),
                rows.group[mask],
                draws=DRAWS,
            ).json()
            for name, mask in task.slices.items()
        },
        "search_seconds": facts[0]["search_seconds"],
        "fit_seconds": float(np.mean([f["fit_seconds"] for f in facts])),
        "score_ms": float(np.mean([f["score_ms"] for f in facts])),
        "memory_mb": max(f["memory_mb"] for f in facts),
    }
