"""The case study of the source paper, on people whose tastes are known: 1,000 users, 10,000 items,
all of it synthetic.

    python examples/case_study.py                      # about six minutes on two cores
    python examples/case_study.py --users 200 --items 1000
    python examples/case_study.py --source ml-100k     # the same on real data, where the truth is
    what followed

It generates the data from the model of docs/case-study.md, runs the pipeline's own steps on it
(ingest, prepare, fine-tune with a cut encoder, fit the recommender, evaluate), and compares what
was learned with the tastes that the behaviour was drawn from. One Markdown table on standard
output, progress on standard error.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SYNTHETIC = "synthetic"
STRONG = 0.1  # a taste from here on is an interest that the user has
K = 10
Array = np.ndarray[Any, Any]
log = logging.getLogger("case study")


@dataclass(frozen=True)
class Row:
    """One line of the table: a measure on some users, by method."""

    measure: str
    users: str
    snapshots: int
    values: dict[str, dict[str, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", default=SYNTHETIC, help="synthetic, or any real ingest.behaviour (%(default)s)"
    )
    parser.add_argument(
        "--users", type=int, default=1000, help="of the synthetic data (%(default)s)"
    )
    parser.add_argument(
        "--items", type=int, default=10_000, help="of the synthetic data (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="decides the data, the training and the bootstrap"
    )
    parser.add_argument(
        "--encoder", default="minilm", help="a catalogue name or a directory (%(default)s)"
    )
    parser.add_argument(
        "--layers", type=int, default=2, help="of the encoder that are used (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--snapshots-an-epoch", type=int, default=2000)
    parser.add_argument(
        "--draws", type=int, default=500, help="bootstrap resamples of users (%(default)s)"
    )
    parser.add_argument("--out", type=Path, help="keep what the steps wrote in this directory")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name in ("tasteloop", log.name):
        logging.getLogger(name).setLevel(logging.INFO)
    from tasteloop.errors import TasteloopError

    # nobody to protect, and pseudonyms order the users: one seed, one result
    if options.source == SYNTHETIC:
        os.environ["TASTELOOP_PSEUDONYM_KEY"] = "synthetic people have no secrets"
    began = time.monotonic()
    try:
        if options.out:
            rows = study(options, options.out)
        else:
            with tempfile.TemporaryDirectory(prefix="case-study-") as scratch:
                rows = study(options, Path(scratch))
    except TasteloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    facts = {k: v for k, v in vars(options).items() if k not in ("json", "out")}
    facts["seconds"] = round(time.monotonic() - began, 1)
    if options.json:
        print(json.dumps({"settings": facts, "rows": [vars(row) for row in rows]}, indent=2))
    else:
        print(table(rows))
        print(f"\n{', '.join(f'{k} {v}' for k, v in facts.items())}")
    return 0


def study(options: argparse.Namespace, out: Path) -> list[Row]:
    """The steps, then the comparison."""
    from tasteloop.behaviour.prepare import prepare
    from tasteloop.behaviour.snapshots import PrepareSettings
    from tasteloop.behaviour.text import TextSettings
    from tasteloop.datasets.ingest import IngestSettings, ingest
    from tasteloop.datasets.synthetic import SyntheticSettings
    from tasteloop.encoder.settings import TrainingSettings
    from tasteloop.encoder.training import finetune
    from tasteloop.evaluation.evaluate import evaluate
    from tasteloop.evaluation.settings import EvaluationSettings
    from tasteloop.recommender.fitting import RecommenderSettings
    from tasteloop.runtime.assemble import fit_recommender

    shop = SyntheticSettings(users=options.users, items=options.items, seed=options.seed)
    log.info("ingest: %s", options.source)
    ingest(IngestSettings(behaviour=options.source, reviews=None, synthetic=shop), out / "dataset")
    log.info("prepare: snapshots of users in time")
    prepare(
        out / "dataset",
        PrepareSettings(text=TextSettings(max_tokens=64, max_events=16)),
        out / "snapshots",
    )
    log.info("fine-tune: %d layers of %s", options.layers, options.encoder)
    training = TrainingSettings(
        encoder=options.encoder,
        encoder_layers=options.layers,
        frozen_layers=0,
        tasks=("interests",),
        epochs=options.epochs,
        patience=options.epochs,
        snapshots_an_epoch=options.snapshots_an_epoch,
        learning_rate=2e-4,
        seed=options.seed,
        tensorboard=False,
    )
    finetune(out / "snapshots", training, out / "model", out / "work")
    log.info("fit the recommender")
    recommender = RecommenderSettings(
        ease_items=3000, ease_regularisation=(100, 300, 1000), history_decay=(0.95, 1.0)
    )
    fit_recommender(out / "model", out / "snapshots", recommender, out / "bundle")
    log.info("evaluate on what followed")
    measured = EvaluationSettings(
        bootstrap=options.draws,
        seed=options.seed,
        recent_days=(30,),
        ease_regularisation=(300,),
        knn_neighbours=(100,),
        knn_shrink=(10,),
        examples=0,
    )
    evaluate(out / "bundle", out / "snapshots", measured, out / "evaluation")
    log.info("compare with the truth")
    return compare(out, shop if options.source == SYNTHETIC else None, options.seed, options.draws)


# --- the comparison


def compare(out: Path, shop: Any, seed: int, draws: int) -> list[Row]:
    """What was learned beside the tastes (where they are known) and beside what followed, on the
    test snapshots.
    """
    from tasteloop import metrics
    from tasteloop.behaviour.snapshots import (
        EVENTS_SEEN,
        FUTURE,
        TEST,
        TIME,
        TRAIN,
        USER,
        Snapshots,
    )
    from tasteloop.datasets import synthetic
    from tasteloop.evaluation.baselines import own_frequencies
    from tasteloop.files import read_parquet
    from tasteloop.recommender.collaborative import Past, ease
    from tasteloop.recommender.folding import FoldedHistories, mark_seen
    from tasteloop.runtime.session import Session

    data, session = Snapshots.read(out / "snapshots"), Session.load(out / "bundle")
    rows = data.split(TEST)
    users, histories, future = rows[USER].to_list(), data.histories(rows), rows[FUTURE].to_list()
    membership = data.catalogue.membership(data.labels)

    learned = session.interests(histories)
    past = Past.before(data.meta["test_from"], data)
    hidden = mark_seen(histories, data.catalogue)
    counts = past.count().astype(np.float64)
    chance = np.random.default_rng(seed).random(len(data.catalogue))
    liked = FoldedHistories.of(histories, data.catalogue, 1.0, data.text).liked
    interests = {
        "tasteloop": learned,
        "own history": own_frequencies(histories, data),
        "everyone's": np.tile(data.truth(data.split(TRAIN)).mean(0), (len(rows), 1)),
    }
    index = data.catalogue.index
    ranked = {
        "tasteloop": np.array(
            [[index[r.item] for r in found] for found in session.rank(histories, learned, K)]
        ),
        "own history": metrics.top_k(
            np.where(hidden, -np.inf, liked @ ease(past.matrix, 300.0)), K
        ),
        "everyone's": metrics.top_k(np.where(hidden, -np.inf, counts), K),
        "random": metrics.top_k(np.where(hidden, -np.inf, chance), K),
    }

    seen_events = rows[EVENTS_SEEN].to_numpy()
    slices = {
        "all": np.ones(len(rows), bool),
        "1-5 events": seen_events <= 5,
        "over 20 events": seen_events > 20,
    }
    truths = {"what followed": np.array([membership[items].mean(0) for items in future])}
    affinities = None
    if shop is not None:
        truth = synthetic.Truth.read(out / "dataset")
        columns = [truth.labels.index(label) for label in data.labels]
        times = rows[TIME].to_numpy()
        tastes = truth.at(users, times)[:, columns]
        truths = {"true tastes": tastes, **truths}
        affinities = synthetic.affinity(tastes, membership)
        appeals = read_parquet(out / "dataset" / synthetic.APPEAL)
        appeal = np.zeros(len(data.catalogue))
        appeal[[index[item] for item in appeals["item"]]] = appeals["appeal"].to_numpy()
        wanted = synthetic.meeting(tastes, membership, appeal, shop) * synthetic.liking(
            affinities, shop
        )
        ranked["oracle"] = metrics.top_k(np.where(hidden, -np.inf, affinities), K)
        ranked["oracle of the next"] = metrics.top_k(np.where(hidden, -np.inf, wanted), K)
        began = np.array([history[0].time for history in histories])
        changed = truth.changed(users) & (began < synthetic.drift_time(shop))
        slices |= {"taste changed": changed, "taste kept": ~changed}

    groups = np.unique(users, return_inverse=True)[1]
    table: list[Row] = []

    def add(measure: str, methods: Mapping[str, Callable[[Array], dict[str, Any]]]) -> None:
        table.extend(
            Row(
                measure,
                name,
                int(mask.sum()),
                {method: value(mask) for method, value in methods.items()},
            )
            for name, mask in slices.items()
            if mask.any()
        )

    def mean(values: Array) -> Callable[[Array], dict[str, Any]]:
        """The mean over a slice's snapshots; where a snapshot has no value it is left out."""
        known = np.isfinite(values)

        def of(mask: Array) -> dict[str, Any]:
            kept = mask & known
            measure = metrics.Measure(
                np.stack([values[kept], np.ones(kept.sum())], 1), metrics.ratio()
            )
            return metrics.interval(measure, groups[kept], seed, draws).json()

        return of

    def area(scores: Array, present: Array) -> Callable[[Array], dict[str, Any]]:
        return lambda mask: _auc(scores[mask], present[mask], groups[mask], seed, draws)

    for against, weights in truths.items():
        present = weights >= (
            STRONG if against == "true tastes" else data.meta["settings"]["label_share"] - 1e-9
        )
        for measure, of in (
            ("rank correlation with", lambda p, w, _: mean(_spearman(p, w))),
            ("first 3 in common with", lambda p, w, _: mean(_overlap(p, w))),
            ("AUC, mean over labels, of", lambda p, _, there: area(p, there)),
        ):
            methods = {method: of(p, weights, present) for method, p in interests.items()}
            add(f"interests: {measure} {against}", methods)
    if affinities is not None:
        best = np.where(hidden, 0, affinities)
        add(
            "recommended: mean true affinity",
            {m: mean(_mean_gain(r, affinities)) for m, r in ranked.items()},
        )
        add(
            "recommended: nDCG@10, gain = true affinity",
            {m: mean(_gain_ndcg(r, best)) for m, r in ranked.items()},
        )
    add(
        "recommended: nDCG@10, what followed",
        {m: mean(metrics.ndcg(r, future).rows[:, 0]) for m, r in ranked.items()},
    )
    return table


def _spearman(a: Array, b: Array) -> Array:
    """[n] rank correlation of each row's labels; NaN where a row is constant."""
    x, y = (rankdata(values, axis=1) for values in (a, b))
    x, y = (values - values.mean(1, keepdims=True) for values in (x, y))
    norm = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.divide((x * y).sum(1), norm, out=np.full(len(a), np.nan), where=norm > 0)


def _overlap(a: Array, b: Array, k: int = 3) -> Array:
    """[n] share of the first k labels that both name."""
    from tasteloop.metrics import top_k

    return np.array(
        [len(set(x) & set(y)) / k for x, y in zip(top_k(a, k), top_k(b, k), strict=True)]
    )


def _auc(scores: Array, present: Array, groups: Array, seed: int, draws: int) -> dict[str, Any]:
    """Area under the ROC curve, mean over the labels that some have and others lack; users are
    drawn together.
    """
    _, group_of = np.unique(groups, return_inverse=True)
    count = int(group_of.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    weights = np.concatenate([np.ones((1, len(scores))), drawn[:, group_of]])
    areas = [
        _weighted_auc(scores[:, k], present[:, k], weights)
        for k in range(scores.shape[1])
        if 0 < present[:, k].mean() < 1
    ]
    if not areas:
        return {"value": None, "low": None, "high": None, "n": len(scores)}
    value, *sample = np.nanmean(areas, axis=0)
    low, high = np.quantile(sample, [0.025, 0.975])
    return {"value": float(value), "low": float(low), "high": float(high), "n": len(scores)}


def _weighted_auc(score: Array, present: Array, weights: Array) -> Array:
    """AUC for each row of weights [d, n]; equal scores count half."""
    order = score.argsort(kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    yes, no = (
        np.add.reduceat(weights[:, order] * mask[order], starts, axis=1)
        for mask in (present, ~present)
    )
    below = no.cumsum(1) - no / 2
    pairs = yes.sum(1) * no.sum(1)
    return np.divide(
        (yes * below).sum(1), pairs, out=np.full(len(weights), np.nan), where=pairs > 0
    )


def _mean_gain(ranked: Array, gains: Array) -> Array:
    return np.asarray(np.take_along_axis(gains, ranked, 1).mean(1))


def _gain_ndcg(ranked: Array, gains: Array) -> Array:
    """nDCG with graded gains (Järvelin & Kekäläinen 2002); the ideal is the best K of the row."""
    discount = 1 / np.log2(np.arange(2, ranked.shape[1] + 2))
    ideal = -np.sort(-gains, axis=1)[:, : ranked.shape[1]] @ discount
    return np.divide(
        np.take_along_axis(gains, ranked, 1) @ discount,
        ideal,
        out=np.zeros(len(gains)),
        where=ideal > 0,
    )


def table(rows: list[Row]) -> str:
    """One Markdown table, a line a measure and slice, a column a method."""
    methods = list(dict.fromkeys(method for row in rows for method in row.values))
    lines = [
        f"| measure | users | snapshots | {' | '.join(methods)} |",
        f"|---|---|---|{'---|' * len(methods)}",
    ]
    for row in rows:
        cells = [_cell(row.values.get(method)) for method in methods]
        lines.append(f"| {row.measure} | {row.users} | {row.snapshots} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(estimate: dict[str, Any] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return "-"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


if __name__ == "__main__":
    sys.exit(main())
