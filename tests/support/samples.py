"""A realistic evaluation.json, made from a seed; tests change what they are about."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np

from validation.gate.gates import Beat, GateSettings

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<b onclick='x()'>&amp;",
)

# What the sample is judged by: it passes all of these.
RULES = GateSettings(
    floors={"interests.micro_f1": 0.55, "recommend.ndcg@10": 0.2, "sentiment.accuracy": 0.8},
    ceilings={"interests.ece": 0.08},
    beats=(
        Beat(metric="interests.micro_f1", baseline="own_frequencies"),
        Beat(metric="recommend.ndcg@10", baseline="recent_popularity"),
    ),
    not_worse=("interests.micro_f1", "recommend.ndcg@10", "sentiment.accuracy"),
    epsilon=0.01,
    required_slices=("users=cold", "users=warm"),
    slice_floors={"users=cold": {"recommend.ndcg@10": 0.05}},
)

_METRICS = {
    "interests.micro_f1": (0.6287, 0.012),
    "interests.macro_f1": (0.3122, 0.014),
    "interests.precision": (0.6011, 0.012),
    "interests.recall": (0.6590, 0.013),
    "interests.accuracy": (0.8814, 0.004),
    "interests.ece": (0.0214, 0.004),
    "recommend.ndcg@10": (0.2633, 0.014),
    "recommend.recall@10": (0.1208, 0.009),
    "sentiment.accuracy": (0.8551, 0.013),
    "sentiment.precision": (0.8498, 0.018),
    "sentiment.recall": (0.8640, 0.018),
    "sentiment.f1": (0.8568, 0.014),
    "sentiment.ece": (0.0187, 0.006),
    "understanding": (0.6120, 0.010),
    "understanding.wish": (0.5500, 0.045),
    "understanding.refusal": (0.2500, 0.050),
}
_BASELINES = {
    "majority": {"interests.micro_f1": 0.4120, "sentiment.accuracy": 0.5003},
    "own_frequencies": {"interests.micro_f1": 0.5681, "interests.macro_f1": 0.2504},
    "recent_popularity": {"recommend.ndcg@10": 0.2441, "recommend.recall@10": 0.1073},
    "popularity": {"recommend.ndcg@10": 0.1902, "recommend.recall@10": 0.0844},
    "ease": {"recommend.ndcg@10": 0.2307, "recommend.recall@10": 0.1022},
    "itemknn": {"recommend.ndcg@10": 0.2188, "recommend.recall@10": 0.0990},
}
_CHAMPION = {
    "interests.micro_f1": 0.6241,
    "interests.macro_f1": 0.3135,
    "recommend.ndcg@10": 0.2590,
    "sentiment.accuracy": 0.8559,
    "understanding": 0.5000,
    "understanding.wish": 0.0200,
    "understanding.refusal": 0.2600,
}
_LABELS = (
    "Drama",
    "Comedy",
    "Action",
    "Thriller",
    "Romance",
    "Adventure",
    "Sci-Fi",
    "War",
    "Crime",
    "Children's",
    "Horror",
    "Mystery",
    "Animation",
    "Musical",
    "Fantasy",
    "Western",
    "Film-Noir",
    "Documentary",
)
_ROWS = {"understanding": 150, "interests": 2050, "recommend": 2050, "sentiment": 2562}


def measure(value: float, half: float, n: int) -> dict[str, Any]:
    return {
        "value": round(value, 4),
        "low": round(value - half, 4),
        "high": round(value + half, 4),
        "n": n,
    }


def _rows(metric: str) -> int:
    return _ROWS[metric.partition(".")[0]]


def evaluation() -> dict[str, Any]:
    """A candidate that beats its baselines and is not worse than the champion."""
    rng = np.random.default_rng(7)
    metrics = {name: measure(value, half, _rows(name)) for name, (value, half) in _METRICS.items()}
    others = {**_BASELINES, "champion": _CHAMPION}
    measured = {
        name: {m: measure(v, _METRICS[m][1], _rows(m)) for m, v in by_metric.items()}
        for name, by_metric in others.items()
    }
    differences = {
        name: {
            m: measure(_METRICS[m][0] - v, 0.008 if name != "champion" else 0.006, _rows(m))
            for m, v in by_metric.items()
        }
        for name, by_metric in others.items()
    }
    champion = {"digest": "9b1f" * 16, "version": 6, "metrics": measured.pop("champion")}
    confidence = np.linspace(0.05, 0.95, 10)
    bins = [
        {
            "confidence": float(c),
            "frequency": float(np.clip(c + rng.normal(0, 0.03), 0, 1)),
            "count": int(n),
        }
        for c, n in zip(
            confidence, (9000, 5200, 3100, 2400, 2000, 1800, 1500, 1100, 700, 300), strict=True
        )
    ]
    fpr = np.linspace(0, 1, 400)
    tpr = 1 - (1 - fpr) ** 12
    truth = [
        ("The Full Monty (1997)", True),
        ("L.A. Confidential (1997)", False),
        ("Amélie, or: “le fabuleux destin”", True),
    ]
    return {
        "schema": 1,
        "tasks": ["interests", "recommend", "sentiment"],
        "metrics": metrics,
        "baselines": measured,
        "differences": differences,
        "champion": champion,
        "slices": [
            {"slice": name, "metric": metric, **measure(value, half, n)}
            for metric, rows in {
                "recommend.ndcg@10": [
                    ("users=cold", 0.211, 0.04, 214),
                    ("users=warm", 0.270, 0.015, 1836),
                    ("activity=low", 0.236, 0.03, 640),
                    ("activity=high", 0.281, 0.02, 1410),
                ],
                "interests.micro_f1": [
                    ("users=cold", 0.583, 0.04, 214),
                    ("users=warm", 0.634, 0.013, 1836),
                ],
                "understanding": [
                    ("label=Western", 0.410, 0.060, 60),
                    ("label=Horror", 0.730, 0.050, 60),
                    ("language=en", 0.600, 0.012, 1200),
                ],
            }.items()
            for name, value, half, n in rows
        ],
        "per_label": [
            {
                "label": label,
                "support": int(1400 * 0.78**i) + 9,
                "precision": float(p := np.clip(0.72 - 0.025 * i + rng.normal(0, 0.03), 0.05, 1)),
                "recall": float(r := np.clip(0.78 - 0.035 * i + rng.normal(0, 0.03), 0.03, 1)),
                "f1": float(2 * p * r / (p + r)),
                "threshold": round(float(rng.uniform(0.2, 0.5)), 2),
                "frequency": round(0.68 * 0.78**i, 3),
            }
            for i, label in enumerate(_LABELS)
        ],
        "calibration": {
            "interests": {"ece": 0.0214, "bins": bins},
            "sentiment": {
                "ece": 0.0187,
                "bins": [{**b, "count": 260 - 20 * abs(5 - i)} for i, b in enumerate(bins)],
            },
        },
        "understanding": [
            {
                "kind": "wish",
                "question": "A search raises the label that it is about.",
                "failures": [
                    'Without a history, the search "cowboys" moves Western from 0.04 to 0.04.'
                ],
                "asked": True,
            },
            {
                "kind": "refusal",
                "question": "A refusal lowers the label.",
                "failures": [],
                "asked": True,
            },
        ],
        "confusion": {"sentiment": [[1085, 196], [175, 1106]]},
        "roc": {
            "sentiment": {
                "fpr": fpr.tolist(),
                "tpr": tpr.tolist(),
                "threshold": np.linspace(1, 0, 400).tolist(),
            }
        },
        "examples": [
            {
                "text": "rated Fargo (1996) 5 of 5 · Crime, Drama, Thriller | rated Trainspotting (1996) "
                "4 of 5 · Drama | rated Secrets & Lies (1996) 5 of 5 · Drama | searched 'two brothers'",
                "interests": [
                    {"label": label, "probability": p, "truth": hit}
                    for label, p, hit in (
                        ("Drama", 0.91, True),
                        ("Crime", 0.47, True),
                        ("Comedy", 0.41, False),
                    )
                ],
                "recommendations": [
                    {
                        "item": f"i{rank}",
                        "title": title,
                        "score": 1.42 - 0.11 * rank,
                        "relevant": relevant,
                        "reason": "Because you liked “Fargo”, and people who chose it also chose this.",
                        "reasons": [
                            {"term": "interest: Drama", "contribution": 0.61 - 0.05 * rank},
                            {"term": "collaborative", "contribution": 0.58},
                            {"term": "content", "contribution": 0.31 - 0.06 * rank},
                            {"term": "recency", "contribution": -0.08},
                        ],
                    }
                    for rank, (title, relevant) in enumerate(truth)
                ],
            }
        ],
        "lineage": {
            "bundle": "3f2a9c1b" * 8,
            "data": "77de01aa" * 8,
            "code": "0.1.0",
            "encoder": "minilm",
            "snapshots": "c0ffee12" * 8,
            "created": "2026-11-24T10:00:00Z",
        },
    }


def worsened(evaluation: dict[str, Any], metric: str, by: float) -> dict[str, Any]:
    """The evaluation of a candidate that is worse by `by` in one metric, and so in each
    comparison.
    """
    evaluation = deepcopy(evaluation)
    step = by if metric.endswith("ece") else -by
    groups = [evaluation["metrics"], *evaluation["differences"].values()]
    measures = [group[metric] for group in groups if metric in group]
    measures += [row for row in evaluation["slices"] if row["metric"] == metric]
    for measure in measures:
        for key in ("value", "low", "high"):
            measure[key] += step
    return evaluation
