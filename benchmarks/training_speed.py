"""Fine-tuning speed beside its peers: the same reviews, the same weights, the same epochs, in one
run.

    python benchmarks/training_speed.py            # about 25 minutes on two cores without bf16
    python benchmarks/training_speed.py --share 0.4 --epochs 1    # 6 minutes: speeds, not
    accuracies

Methods:
- tasteloop: `tasteloop.encoder.loop.train` with the sentiment task alone, as the `local`
  profile sets it, and with more of the encoder frozen;
- trainer: Hugging Face `Trainer`, fp32, dynamic padding, all weights trained;
- listing: the source paper's recipe, every review padded to 512 tokens, fp32, a head on the
  flattened token states. It is timed on a few batches only: a whole epoch takes the better part of
  an hour.

Needs `accelerate` (in the `dev` extra) for the Trainer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

BATCH = 32


def reviews(share: float) -> tuple[list[str], list[int], list[str], list[int]]:
    """Training and test texts with their labels, split as the pipeline splits them."""
    from tasteloop.behaviour.prepare import prepare
    from tasteloop.behaviour.snapshots import PrepareSettings, Snapshots
    from tasteloop.datasets.ingest import IngestSettings, ingest

    with tempfile.TemporaryDirectory() as folder:
        ingest(IngestSettings(), Path(folder) / "data")
        prepare(Path(folder) / "data", PrepareSettings(), Path(folder) / "snapshots")
        table = Snapshots.read(Path(folder) / "snapshots").reviews()
    assert table is not None
    train, test = table.filter(table["split"] == "train"), table.filter(table["split"] == "test")
    train = train.head(round(len(train) * share))
    return (
        train["text"].to_list(),
        train["sentiment"].to_list(),
        test["text"].to_list(),
        test["sentiment"].to_list(),
    )


def tasteloop(encoder: Path, data: Any, epochs: int, frozen: int, rate: float) -> dict[str, Any]:
    import numpy as np
    import torch

    from tasteloop.encoder.batches import TaskData, TokenIds, load_tokenizer, pad, tokenize
    from tasteloop.encoder.loop import train
    from tasteloop.encoder.model import TasteModel, load_encoder
    from tasteloop.encoder.settings import TrainingSettings

    texts, labels, test, truth = data
    settings = TrainingSettings(
        tasks=("sentiment",),
        epochs=epochs,
        patience=epochs,
        frozen_layers=frozen,
        learning_rate=rate,
        batch_size=BATCH,
        tensorboard=False,
        checkpoint_seconds=1e9,
    )
    tokenizer = load_tokenizer(encoder)
    ids = tokenize(tokenizer, texts, settings.review_max_tokens)
    held = len(texts) // 12  # the validation window is taken out of the same training reviews
    rows = np.arange(len(texts))
    targets = np.array(labels, np.float32)[:, None]
    task = TaskData("sentiment", TokenIds(ids), targets, rows[held:], rows[:held])
    torch.manual_seed(0)
    model = TasteModel(load_encoder(encoder), {"sentiment": 1}, frozen)
    with tempfile.TemporaryDirectory() as work:
        result = train(model, [task], settings, Path(work))
    predicted = []
    with torch.inference_mode():
        for start in range(0, len(test), 64):
            batch = tokenize(tokenizer, test[start : start + 64], settings.review_max_tokens)
            predicted += (model.logits("sentiment", model(*pad(batch)))[:, 0] > 0).int().tolist()
    accuracy = sum(p == t for p, t in zip(predicted, truth, strict=True)) / len(truth)
    return {
        "rate": result.texts / result.seconds,
        "accuracy": accuracy,
        "precision": result.precision,
    }


def trainer(encoder: Path, data: Any, epochs: int) -> dict[str, Any]:
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    texts, labels, test, truth = data
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=2, dtype=torch.float32
    )

    def rows(texts: list[str], labels: list[int]) -> list[dict[str, Any]]:
        encoded = tokenizer(texts, truncation=True, max_length=128)
        return [
            {"input_ids": i, "labels": label}
            for i, label in zip(encoded["input_ids"], labels, strict=True)
        ]

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=64,
            learning_rate=5e-5,
            warmup_steps=round(0.1 * epochs * len(texts) / BATCH),
            weight_decay=0.01,
            save_strategy="no",
            report_to=[],
            use_cpu=not torch.cuda.is_available(),
            logging_strategy="no",
            seed=0,
            disable_tqdm=True,
        )
        loop = Trainer(
            model, arguments, DataCollatorWithPadding(tokenizer), train_dataset=rows(texts, labels)
        )
        began = time.monotonic()
        loop.train()
        seconds = time.monotonic() - began
        predicted = loop.predict(rows(test, truth)).predictions.argmax(1)
    accuracy = float((predicted == truth).mean())
    return {"rate": epochs * len(texts) / seconds, "accuracy": accuracy, "precision": "fp32"}


def listing(encoder: Path, data: Any, batches: int) -> dict[str, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts, labels, _, _ = data
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    bert = AutoModel.from_pretrained(encoder, dtype=torch.float32)
    head = torch.nn.Linear(512 * bert.config.hidden_size, 2)
    optimizer = torch.optim.AdamW([*bert.parameters(), *head.parameters()], lr=2e-5)
    rates = []
    for n in range(batches):
        rows = slice(n * 8, n * 8 + 8)
        began = time.monotonic()
        batch = tokenizer(
            texts[rows], padding="max_length", max_length=512, truncation=True, return_tensors="pt"
        )
        logits = head(bert(**batch).last_hidden_state.flatten(1))
        torch.nn.functional.cross_entropy(logits, torch.tensor(labels[rows])).backward()
        optimizer.step()
        optimizer.zero_grad()
        rates.append(8 / (time.monotonic() - began))
    return {
        "rate": statistics.median(rates[1:]),
        "accuracy": None,
        "precision": "fp32",
        "spread": [min(rates[1:]), max(rates[1:])],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="share of the training reviews (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()

    from tasteloop.datasets.fetch import resolve_encoder

    encoder = Path(resolve_encoder("minilm"))
    data, epochs = reviews(options.share), options.epochs
    results = {
        "tasteloop, 1 layer frozen (profile local)": tasteloop(encoder, data, epochs, 1, 1e-4),
        "tasteloop, 3 layers frozen": tasteloop(encoder, data, epochs, 3, 1.5e-4),
        "tasteloop, 4 layers frozen": tasteloop(encoder, data, epochs, 4, 1.5e-4),
        "Hugging Face Trainer": trainer(encoder, data, epochs),
        "the source paper's listing": listing(encoder, data, 4),
    }
    if options.json:
        print(json.dumps(results))
        return
    peer, paper = (
        results["Hugging Face Trainer"]["rate"],
        results["the source paper's listing"]["rate"],
    )
    print(f"{len(data[0])} reviews, {epochs} epoch(s), batch {BATCH}, {os.cpu_count()} cores")
    print(
        "| method | precision | reviews/s | x Trainer | x listing | test accuracy |\n|---|---|---|---|---|---|"
    )
    for name, r in results.items():
        accuracy = "-" if r["accuracy"] is None else f"{r['accuracy']:.4f}"
        print(
            f"| {name} | {r['precision']} | {r['rate']:.1f} | {r['rate'] / peer:.2f} | {r['rate'] / paper:.1f} "
            f"| {accuracy} |"
        )


if __name__ == "__main__":
    main()
