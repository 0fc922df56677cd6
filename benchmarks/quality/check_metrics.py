"""Our measures against those of `rectools` and `ranx`, on random rankings; `make bench-peers` runs
this.

.venv-peers/bin/python benchmarks/quality/check_metrics.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.quality import beyond
from tasteloop import metrics

ROWS, ITEMS, LABELS = 300, 120, 9
TOLERANCE = 1e-9


def main() -> int:
    import pandas as pd
    import ranx
    from rectools import Columns
    from rectools import metrics as theirs

    random = np.random.default_rng(0)
    ranked = np.stack([random.permutation(ITEMS)[:20] for _ in range(ROWS)])
    relevant = [random.permutation(ITEMS)[: random.integers(1, 30)].tolist() for _ in range(ROWS)]
    past = pd.DataFrame(
        {
            Columns.User: random.integers(0, 80, 1500),
            Columns.Item: random.zipf(1.5, 1500) % (ITEMS - 20),
        }
    )
    past = past.drop_duplicates()
    count = np.bincount(past[Columns.Item], minlength=ITEMS)
    users = past[Columns.User].nunique()
    labels = (random.random((ITEMS, LABELS)) < 0.25).astype(float)

    reco = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(ROWS), 20),
            Columns.Item: ranked.ravel(),
            Columns.Rank: np.tile(np.arange(1, 21), ROWS),
        }
    )
    truth = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(ROWS), [len(r) for r in relevant]),
            Columns.Item: np.concatenate(relevant),
        }
    )
    qrels = ranx.Qrels({str(n): {str(i): 1 for i in wanted} for n, wanted in enumerate(relevant)})
    run = ranx.Run(
        {str(n): {str(i): float(20 - p) for p, i in enumerate(row)} for n, row in enumerate(ranked)}
    )

    pairs: list[tuple[str, float, float]] = []
    for k in (5, 10, 20):
        ours = {
            "ndcg": metrics.ndcg(ranked[:, :k], relevant).value,
            "recall": metrics.recall_at(ranked[:, :k], relevant).value,
            "precision": metrics.precision_at(ranked[:, :k], relevant).value,
            "map": metrics.average_precision(ranked[:, :k], relevant).value,
            "mrr": metrics.reciprocal_rank(ranked[:, :k], relevant).value,
        }
        by_rectools = {
            "ndcg": theirs.NDCG(k, divide_by_achievable=True).calc(reco, truth),
            "recall": theirs.Recall(k).calc(reco, truth),
            "precision": theirs.Precision(k).calc(reco, truth),
            "map": theirs.MAP(k).calc(reco, truth),
            "mrr": theirs.MRR(k).calc(reco, truth),
        }
        by_ranx = ranx.evaluate(qrels, run, [f"{name}@{k}" for name in ours])
        for name, value in ours.items():
            pairs += [(f"{name}@{k} rectools", value, by_rectools[name])]
            pairs += [(f"{name}@{k} ranx", value, float(by_ranx[f"{name}@{k}"]))]
        pairs += [
            (
                f"coverage@{k} rectools",
                beyond.coverage(ranked[:, :k], ITEMS),
                theirs.CatalogCoverage(k, normalize=True).calc(reco, range(ITEMS)),
            ),
            (
                f"novelty@{k} rectools",
                beyond.novelty(ranked[:, :k], count, users),
                theirs.MeanInvUserFreq(k).calc(reco, past),
            ),
            (
                f"average_popularity@{k} rectools",
                beyond.average_popularity(ranked[:, :k], count),
                theirs.AvgRecPopularity(k).calc(reco, past),
            ),
            (
                f"diversity@{k} rectools",
                beyond.diversity(ranked[:, :k], labels),
                theirs.IntraListDiversity(k, _jaccard(labels)).calc(reco),
            ),
        ]
    wrong = [
        (name, mine, other) for name, mine, other in pairs if not abs(mine - other) < TOLERANCE
    ]
    for name, mine, other in wrong:
        print(f"{name}: ours {mine:.9f}, theirs {other:.9f}", file=sys.stderr)
    print(f"{len(pairs) - len(wrong)} of {len(pairs)} measures agree within {TOLERANCE:g}")
    return 1 if wrong else 0


def _jaccard(labels: np.ndarray):  # type: ignore[no-untyped-def]
    """The same distance as a calculator of rectools, by its definition instead of ours."""
    from rectools.metrics.distances import PairwiseDistanceCalculator

    class Jaccard(PairwiseDistanceCalculator):
        def _get_distances_for_item_pairs(self, items_0, items_1):  # type: ignore[no-untyped-def]
            return np.array([self._distance(i, j) for i, j in zip(items_0, items_1, strict=True)])

        def _distance(self, i: int, j: int) -> float:
            a, b = set(np.flatnonzero(labels[i])), set(np.flatnonzero(labels[j]))
            return 1 - len(a & b) / len(a | b) if a | b else 0.0

    return Jaccard()


if __name__ == "__main__":
    sys.exit(main())
