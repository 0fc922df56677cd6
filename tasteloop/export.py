"""At export: an encoder as ONNX, every runtime measured on this machine, and the fastest that is as good chosen.

A runtime is good where each task's metric on the validation window is at most 0.3 points below the trainer's. What was
measured goes into the model card, also of those that lost.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop import engines, metrics
from tasteloop.bundle import MODELS
from tasteloop.engines import ON_CPU, ONNX, ONNX_QUANTISED, TORCH_FP32
from tasteloop.runtime import Session

log = logging.getLogger(__name__)

Matrix = NDArray[np.float32]
TOLERANCE = 0.003  # of a task's metric
_OPSET = 17
_BATCHES = (1, 16)
_SAMPLE = 64  # texts on which every runtime is compared with torch
_ROWS = 1000  # of each task's validation window, on which one that differs is judged
_EQUAL = 1e-4  # a runtime whose probabilities differ by less decides the same
_SECONDS = 0.15  # for each shape, at least three runs


@dataclass(frozen=True)
class Judged:
    """A task's validation window: histories or texts, truth [n, outputs], the trainer's probabilities [n, outputs]."""

    asked: list[Any]
    truth: Matrix
    trainer: Matrix

    def every(self, count: int) -> Judged:
        """At most `count` rows, evenly spaced."""
        rows = np.unique(np.linspace(0, len(self.asked) - 1, count).round().astype(int))
        return Judged([self.asked[i] for i in rows], self.truth[rows], self.trainer[rows])


def to_onnx(directory: Path) -> None:
    """Write a model directory's encoder as encoder.onnx and, with dynamically quantised weights, encoder.int8.onnx.

    Inputs are ids [n, t] and mask [n, t], int64; the output is pooled [n, width], float32.
    """
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from tasteloop import model

    encoder = model.load(directory)
    ids = torch.ones((2, 8), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0  # so that no branch on "nothing is padded" is traced
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the exporter's age and of traced branches, which the mask above covers
        torch.onnx.export(
            encoder,
            (ids, mask),
            str(directory / ONNX),
            dynamo=False,  # the newer exporter needs onnxscript and says the same of a BERT
            opset_version=_OPSET,
            input_names=["ids", "mask"],
            output_names=["pooled"],
            dynamic_axes={"ids": {0: "n", 1: "t"}, "mask": {0: "n", 1: "t"}, "pooled": {0: "n"}},
        )
    root = logging.getLogger()
    root.addFilter(_not_the_quantiser)
    try:
        quantize_dynamic(
            directory / ONNX,
            directory / ONNX_QUANTISED,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # processors without VNNI add pairs of products in 16 bits, which would overflow
            op_types_to_quantize=["MatMul"],
        )
    finally:
        root.removeFilter(_not_the_quantiser)


def _not_the_quantiser(record: logging.LogRecord) -> bool:
    """The quantiser tells the root logger of every node that it leaves alone."""
    return "onnxruntime" not in record.pathname


def compile_bundle(directory: Path, card: Mapping[str, Any], judged: Mapping[str, Judged]) -> dict[str, Any]:
    """Write the ONNX files of a bundle that is being made, measure what can run them here, and choose.

    Args:
        directory: the bundle: models/<name>/ and the items.
        card: models, tasks with calibration and thresholds.
        judged: by task.

    Returns:
        The card's `runtime`: {"chosen", "processor", "threads", "tolerance", "candidates": {name: {"texts_per_second":
        {"batch x tokens": ..}, "difference", "metrics": {task: ..}, "good"}}}; `difference` is the largest of a
        probability from torch-fp32's.
    """
    began = time.monotonic()
    for name in card["models"]:
        to_onnx(directory / MODELS / name)
    first = directory / MODELS / next(iter(card["models"]))
    candidates: dict[str, dict[str, Any]] = {}
    sample = {task: rows.every(_SAMPLE) for task, rows in judged.items()}
    rows = {task: rows.every(_ROWS) for task, rows in judged.items()}
    trainer = {task: _metric(r.trainer, r.truth, card["tasks"][task]) for task, r in rows.items()}
    reference: dict[str, Matrix] = {}
    shapes: list[tuple[int, int]] = []
    for runtime in [n for n in ON_CPU if engines.available(n, first)]:
        session = Session.open(directory, card, runtime)
        found = {task: _probabilities(session, task, r) for task, r in sample.items()}
        if runtime == TORCH_FP32:
            reference, shapes = found, _shapes(session, sample)
        difference = max(float(np.abs(found[task] - reference[task]).max()) for task in sample)
        values = trainer
        if difference > _EQUAL:
            values = {
                task: _metric(_probabilities(session, task, r), r.truth, card["tasks"][task])
                for task, r in rows.items()
            }
        candidates[runtime] = {
            "texts_per_second": next(iter(session.encoders.values())).speed(shapes, _SECONDS),
            "difference": difference,
            "metrics": values,
            "good": all(values[task] >= trainer[task] - TOLERANCE for task in trainer),
        }
    speeds = {name: engines.overall(c["texts_per_second"]) for name, c in candidates.items() if c["good"]}
    chosen = max(speeds, key=lambda name: speeds[name])
    log.info(
        "runtime %s, %.0f texts/s (%s); measured in %.0f s",
        chosen, speeds[chosen], ", ".join(f"{n} {v:.0f}" for n, v in speeds.items() if n != chosen),
        time.monotonic() - began,
    )  # fmt: skip
    return {
        "chosen": chosen, "processor": engines.processor(), "threads": engines.threads(), "tolerance": TOLERANCE,
        "trainer": trainer, "candidates": candidates,
    }  # fmt: skip


def _probabilities(session: Session, task: str, rows: Judged) -> Matrix:
    """[n, outputs of the task]."""
    return session.interests(rows.asked) if task == "interests" else session.sentiment(rows.asked)[:, None]


def _metric(probabilities: Matrix, truth: Matrix, task: Mapping[str, Any]) -> float:
    """Accuracy of one output, micro-F1 of several, at the trainer's thresholds."""
    predicted = (probabilities >= np.array(task["thresholds"], np.float32)).astype(np.float32)
    measure = metrics.accuracy if truth.shape[1] == 1 else metrics.micro_f1
    return measure(predicted, truth).value


def _shapes(session: Session, sample: Mapping[str, Judged]) -> list[tuple[int, int]]:
    """Each batch size with each task's median length in tokens."""
    lengths = set()
    for task, rows in sample.items():
        texts = [session.behaviour_text(history) for history in rows.asked] if task == "interests" else rows.asked
        ids = session.encoder(task).tokens(texts, session.max_tokens(task))
        lengths.add(int(np.median([len(row) for row in ids])))
    return [(batch, length) for length in sorted(lengths) for batch in _BATCHES]
