"""Labels of an item that has nothing but a title: zero-shot by a frozen encoder, beside the prior
and learned ones.

    python -m benchmarks.quality.labels --items items.parquet

`--items` is the items table of a data set (`tasteloop step ingest`). Rows, each ranking all labels
for every item that bears one:
- prior: how many of the others bear the label;
- zero-shot: cosine of "a film titled ..." and "This film is about ...", standardised a label over
  all titles;
- zero-shot and prior: 0.3 of it beside the prior's logarithm;
- ridge, neighbours: linear regression on, and the 30 nearest by, the titles of the other items, in
five folds. MAP and precision@1 have 95% intervals over items, differences to the prior are paired;
AUC is the mean over labels that 20 items bear.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from benchmarks.quality.content import text_vectors
from benchmarks.quality.tasks import Matrix
from tasteloop import metrics
from tasteloop.behaviour.items import Catalogue

FOLDS, NEIGHBOURS, REGULARISATION, SHARE = 5, 30, 3.0, 0.3


def rankers(titles: Matrix, names: Matrix, truth: Matrix) -> dict[str, Matrix]:
    """Scores [items, labels] by method, of vectors of titles and of label descriptions and the
    truth of others.
    """
    zero = titles @ names.T
    zero = (zero - zero.mean(0)) / np.maximum(zero.std(0), 1e-9)
    scores = {
        name: np.zeros_like(truth)
        for name in ("prior", "zero-shot and prior", "ridge", "neighbours")
    }
    fold = np.random.default_rng(0).permutation(len(truth)) % FOLDS
    for k in range(FOLDS):
        asked, known = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        prior = truth[known].mean(0)
        mean = titles[known].mean(0)
        x = titles[known] - mean
        ridge = np.linalg.solve(
            x.T @ x + REGULARISATION * np.eye(x.shape[1]), x.T @ (truth[known] - prior)
        )
        near = titles[asked] @ titles[known].T
        nearest = np.argsort(-near, 1)[:, :NEIGHBOURS]
        weight = np.exp(5 * np.take_along_axis(near, nearest, 1))[:, :, None]
        scores["prior"][asked] = prior
        scores["zero-shot and prior"][asked] = SHARE * zero[asked] + np.log(prior + 1e-4)
        scores["ridge"][asked] = prior + (titles[asked] - mean) @ ridge
        scores["neighbours"][asked] = (weight * truth[known][nearest]).sum(1) / weight.sum(1)
    return {"zero-shot": zero, **scores}


def measure(scores: Mapping[str, Matrix], truth: Matrix) -> list[dict[str, Any]]:
    """A row a method, best MAP first."""
    from sklearn.metrics import roc_auc_score

    bears = truth.sum(1) > 0
    relevant = [np.flatnonzero(row) for row in truth[bears]]
    common = (truth.sum(0) >= 20) & (truth.sum(0) < len(truth))
    rows = np.arange(len(relevant))
    found = {}
    for name, values in scores.items():
        ranked = metrics.top_k(values[bears], truth.shape[1])
        found[name] = (
            metrics.average_precision(ranked, relevant),
            metrics.precision_at(ranked[:, :1], relevant),
        )
    out = [
        {
            "method": name,
            "map": metrics.interval(ap, rows).json(),
            "map_minus_prior": metrics.difference(ap, found["prior"][0], rows).json(),
            "precision@1": metrics.interval(first, rows).json(),
            "auc": float(roc_auc_score(truth[:, common], scores[name][:, common]))
            if common.any()
            else None,
        }
        for name, (ap, first) in found.items()
    ]
    return sorted(out, key=lambda row: -row["map"]["value"])


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=Path, required=True, help="items.parquet of a data set")
    parser.add_argument(
        "--encoder", default="minilm", help="a name of the catalogue or a directory"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(given)
    catalogue = Catalogue.read(options.items)
    names = catalogue.label_names
    titles = text_vectors(
        tuple(f"a film titled {title}" for title in catalogue.titles), options.encoder
    )
    labels = text_vectors(
        tuple(f"This film is about {name.lower()}" for name in names), options.encoder
    )
    truth = catalogue.membership(names)
    rows = measure(rankers(titles, labels, truth), truth)
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{len(catalogue)} items, {len(names)} labels, {options.encoder}")
    print("| method | MAP | MAP less the prior's | precision@1 | mean AUC |\n|---|---|---|---|---|")
    for row in rows:
        cells = [
            f"{row[key]['value']:{form}} ({row[key]['low']:{form}} to {row[key]['high']:{form}})"
            for key, form in (("map", ".3f"), ("map_minus_prior", "+.3f"), ("precision@1", ".3f"))
        ]
        auc = "-" if row["auc"] is None else f"{row['auc']:.3f}"
        print(f"| {row['method']} | {' | '.join(cells)} | {auc} |")


if __name__ == "__main__":
    main()
