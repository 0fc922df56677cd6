"""Discovered interests: how stable they are, how far they agree with real labels, and whether they
can be foreseen.

    python -m benchmarks.quality.discovered --source ml-100k
    python -m benchmarks.quality.discovered --source ml-1m --users 1500
    python -m benchmarks.quality.discovered --source reads.yaml      # a mapping, as ingest takes it
    python -m benchmarks.quality.discovered --source ml-100k --complete-only

The labels of a catalogue that has some are hidden from discovery, which sees the training window
alone. Printed are

- the names, and how many items each has;
- `seeds`: the adjusted Rand index between groupings by five seeds, mean and least;
- `retrainings`: the same between groupings of five random 80% of the users, each fresh, and each
  going on from the first as a retraining does, with the share of names that went on;
- `nmi`: normalised mutual information of interest and label, over pairs of an item and a label;
- micro-F1 on the test window of the habits alone (no encoder is fine-tuned), less the most frequent
  interests' and the user's own shares': paired 95% intervals, users drawn;
- of a catalogue with labels: what its labels are inferred with, where only a fifth of the items
  keeps them (`completion`), by what the items' vectors are made of.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # after the line above, which importing reads

from tasteloop import metrics
from tasteloop.behaviour.events import ITEM, TIME, USER, positive
from tasteloop.behaviour.interests import InterestSettings
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.prepare import prepare
from tasteloop.behaviour.snapshots import TEST, TRAIN, VALIDATION, PrepareSettings, Snapshots
from tasteloop.datasets.ingest import IngestSettings, ingest
from tasteloop.encoder.calibration import apply_calibration, calibrate
from tasteloop.encoder.habits import Habits
from tasteloop.evaluation.baselines import best_threshold, own_frequencies
from tasteloop.interests import discovery
from tasteloop.interests.discovery import Material, complete_labels, find_interests
from tasteloop.interests.groups import count_for, group, overlaps
from tasteloop.interests.vectors import behaviour_vectors, joined, text_vectors

SEEDS, SHARE = range(5), 0.8  # of users in a resample
KEPT = 0.2  # share of items that keep their labels where completion is measured


def prepared(source: str, item_text: str | None, users: int | None, work: Path) -> Snapshots:
    """The snapshots of a source with discovered interests."""
    found = ingest(
        IngestSettings(behaviour=source, reviews=None, item_text=item_text, max_users=users),
        work / "data",
    )
    logging.getLogger(__name__).info("%d events of %d users", found.rows_out, found.users)
    settings = PrepareSettings(interests=InterestSettings(source="discovered"))
    prepare(work / "data", settings, work / "snapshots", discover=find_interests)
    return Snapshots.read(work / "snapshots")


def material(data: Snapshots) -> Material:
    """What interests were discovered of, once more, from the snapshots' own events."""
    import narwhals as nw

    past = nw.from_native(data.events.lazy()).filter(
        nw.col(TIME) < data.meta["validation_from"], nw.col(ITEM).is_in(data.catalogue.items)
    )
    liked = past.filter(positive(data.text.positive)).select(USER, ITEM).to_native()
    unlabelled = replace(data.catalogue, labels=[[] for _ in range(len(data.catalogue))])
    return Material(unlabelled, liked, InterestSettings())


def agreement(groupings: Sequence[Any]) -> dict[str, float]:
    """Mean and least adjusted Rand index between groupings."""
    pairs = [discovery.adjusted_rand(a, b) for a, b in combinations(groupings, 2)]
    return {"mean": float(np.mean(pairs)), "least": float(min(pairs))}


def stability(found: Material) -> dict[str, Any]:
    """Over seeds, and over resamples of the users, fresh and going on from the first."""
    placed = found.vectors.any(1)
    count = count_for(int(placed.sum()))
    seeds = [group(found.vectors[placed], count, seed) for seed in SEEDS]

    texts = text_vectors(found.texts, found.settings.encoder or "minilm")
    (user, item), rng = found.pairs, np.random.default_rng(0)
    users = int(user.max()) + 1
    fresh, going_on, went_on = [], [], []
    for _ in SEEDS:
        kept = np.isin(user, rng.choice(users, int(SHARE * users), replace=False))
        behaviour, taken = behaviour_vectors(user[kept], item[kept], len(placed))
        vectors = joined(behaviour, taken, texts, found.settings.behaviour_share)[placed]
        fresh.append(group(vectors, count, 0))
        going_on.append(group(vectors, count, 0, seeds[0]))
        went_on.append(len(overlaps(going_on[-1], seeds[0])) / count)
    after = [discovery.adjusted_rand(each, seeds[0]) for each in going_on]
    return {
        "seeds": agreement(seeds),
        "retrainings_fresh": agreement(fresh),
        "retrainings_going_on": {"mean": float(np.mean(after)), "least": float(min(after))},
        "names_that_went_on": float(np.mean(went_on)),
    }


def nmi(data: Snapshots, real: Catalogue) -> float | None:
    """Mutual information of interest and real label, over pairs of an item and a label it bears."""
    from sklearn.metrics import normalized_mutual_info_score

    pairs = [
        (ours[0], label)
        for ours, theirs in zip(data.catalogue.labels, real.labels, strict=True)
        for label in theirs
        if ours
    ]
    return float(normalized_mutual_info_score(*zip(*pairs, strict=True))) if pairs else None


def foreseen(data: Snapshots) -> dict[str, Any]:
    """Micro-F1 of the habits on the test window, and the paired differences."""
    validation, test = data.split(VALIDATION), data.split(TEST)
    truth, test_truth = data.truth(validation), data.truth(test)
    habits = Habits.fit(data)
    histories = [data.histories(rows) for rows in (validation, test)]
    own = [habits.logits(h, data.catalogue, data.labels, data.text) for h in histories]
    calibration = calibrate(own[0], truth)
    thresholds = np.array(calibration.thresholds)
    predicted = apply_calibration(own[1], calibration) >= thresholds
    ours = metrics.micro_f1(predicted.astype(np.float32), test_truth)
    majority = data.truth(data.split(TRAIN)).mean(0)[None, :]
    others = {
        "popularity": (majority.repeat(len(validation), 0), majority.repeat(len(test), 0)),
        "own_shares": tuple(own_frequencies(h, data) for h in histories),
    }
    users = test[USER].to_numpy()
    out: dict[str, Any] = {"rows": len(test), "ours": metrics.interval(ours, users).json()}
    for name, (on_validation, on_test) in others.items():
        said = (on_test >= best_threshold(on_validation, truth)).astype(np.float32)
        theirs = metrics.micro_f1(said, test_truth)
        out[name] = theirs.value
        out[f"less_{name}"] = metrics.difference(ours, theirs, users).json()
    return out


def completion(found: Material, real: Catalogue) -> dict[str, Any]:
    """What is inferred where a fifth of the items keeps its labels, by what vectors are made of;
    and how often it is right of the others.
    """
    labelled = np.flatnonzero([bool(labels) for labels in real.labels])
    order = np.random.default_rng(0).permutation(labelled)
    known = np.sort(order[: int(KEPT * len(order))])
    unknown = np.setdiff1d(labelled, known)
    truth = real.membership(real.label_names)
    behaviour, taken = behaviour_vectors(*found.pairs, len(real))
    titles = text_vectors(real.titles, "minilm")
    texts = text_vectors(found.texts, "minilm")
    kinds = {
        "titles": titles,
        "titles and texts": texts,
        "behaviour": behaviour,
        "behaviour, titles and texts": np.hstack([behaviour, texts]),
    }
    out = {}
    for name, vectors in kinds.items():
        result = complete_labels(vectors, real, known, unknown)
        columns = [real.label_names.index(label) for label in result.names]
        row: dict[str, Any] = {"low": result.low, "proven": result.is_proven}
        if result.threshold is not None:
            said = result.probabilities >= result.threshold
            right = truth[np.ix_(unknown, columns)][said]
            row |= {
                "threshold": result.threshold,
                "precision_of_others": float(right.mean()) if len(right) else None,
                "items_reached": float(said.any(1).mean()),
                "labels_reached": float(right.sum() / truth[unknown].sum()),
            }
        out[name] = row
    return out


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", default="ml-100k", help="as ingest.behaviour (%(default)s)")
    parser.add_argument("--item-text", help="as ingest.item_text")
    parser.add_argument("--users", type=int, help="so many users at most")
    parser.add_argument("--complete-only", action="store_true", help="measure completion alone")
    parser.add_argument("--discover-only", action="store_true", help="measure no completion")
    options = parser.parse_args(given)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = prepared(options.source, options.item_text, options.users, work)
        real, found = Catalogue.read(work / "data" / "items.parquet"), material(data)
        result: dict[str, Any] = {"source": Path(options.source).name, "items": len(real)}
        if not options.complete_only:
            result["interests"] = data.meta["interests"]["interests"]
            result["stability"] = stability(found)
            result["nmi"] = nmi(data, real)
            result["micro_f1"] = foreseen(data)
        if real.label_names and not options.discover_only:
            result["completion"] = completion(found, real)
    print(json.dumps(result, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
