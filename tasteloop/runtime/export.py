"""At export: an encoder as ONNX, every runtime measured on this machine, and the fastest that is as
good chosen.

A runtime is good where each task's metric on the validation window is at most 0.3 points below the
trainer's, or where it is the trainer's own, torch in fp32. What was measured goes into the model
card, also of those that lost.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop import metrics
from tasteloop.bundle.card import BundleCard, RuntimeCandidate, RuntimeCard
from tasteloop.bundle.names import MODELS_DIRECTORY
from tasteloop.runtime import engines, machine
from tasteloop.runtime.choice import overall
from tasteloop.runtime.engines import ON_CPU, ONNX, ONNX_QUANTISED, TORCH_FP32
from tasteloop.runtime.session import Session

log = logging.getLogger(__name__)

Matrix = NDArray[np.float32]
TOLERANCE = 0.003  # of a task's metric
_OPSET = 17
_BATCHES = (1, 16)
_ROWS = 1000  # of each task's validation window, on which one that differs is judged
# of them, on which every runtime's probabilities are compared with the trainer's and each other's
_SAMPLE = 32
_EQUAL = 1e-3  # whose probabilities differ by less decides the same; programs of one precision do
_SECONDS = 0.15  # for each shape, at least two runs


@dataclass(frozen=True)
class Judged:
    """A task's validation window, on which a runtime is judged.

    Attributes:
        inputs: n histories or texts.
        truth: [n, outputs].
        trainer: [n, outputs], the trainer's probabilities.
    """

    inputs: Sequence[Any]
    truth: Matrix
    trainer: Matrix

    def every(self, count: int) -> Judged:
        """At most `count` rows, evenly spaced."""
        rows = np.unique(np.linspace(0, len(self.inputs) - 1, count).round().astype(int))
        return Judged([self.inputs[i] for i in rows], self.truth[rows], self.trainer[rows])


def to_onnx(directory: Path) -> None:
    """Write a model directory's encoder as encoder.onnx and, with dynamically quantised weights,
    encoder.int8.onnx.

    Inputs are ids [n, t] and mask [n, t], int64; the output is pooled [n, width], float32.
    """
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from tasteloop.encoder import model

    encoder = model.load(directory)
    ids = torch.ones((2, 8), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0  # so that no branch on "nothing is padded" is traced
    with warnings.catch_warnings(), torch.inference_mode():
        # of the exporter's age and of traced branches, which the mask above covers
        warnings.simplefilter("ignore")
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
            # processors without VNNI add pairs of products in 16 bits, which would overflow
            reduce_range=True,
            op_types_to_quantize=["MatMul"],
        )
    finally:
        root.removeFilter(_not_the_quantiser)


def _not_the_quantiser(record: logging.LogRecord) -> bool:
    """The quantiser tells the root logger of every node that it leaves alone."""
    return "onnxruntime" not in record.pathname


def compile_bundle(directory: Path, card: BundleCard, judged: Mapping[str, Judged]) -> RuntimeCard:
    """Write the ONNX files of a bundle that is being made, measure what can run them here, and
    choose.

    Args:
        directory: the bundle: models/<name>/ and the items.
        card: models, tasks with calibration and thresholds.
        judged: by task; none where the bundle has no heads.

    Returns:
        The card's `runtime`. A runtime that failed in one task was not judged in the others.
    """
    began = time.monotonic()

    # 1. the encoders as ONNX
    for name in card.models:
        to_onnx(directory / MODELS_DIRECTORY / name)

    # 2. a session on each runtime that can run here
    first = directory / MODELS_DIRECTORY / card.reading_model
    # Where no task judges a runtime, only those of the trainer's own precision are considered.
    considered = ON_CPU if judged else [name for name in ON_CPU if name.endswith("-fp32")]
    sessions = {
        name: Session.open(directory, card, name)
        for name in considered
        if engines.available(name, first)
    }

    # 3. their speed on texts as long as each task's
    rows = {task: window.every(_ROWS) for task, window in judged.items()}
    lengths = {task: _length(sessions[TORCH_FP32], task, r) for task, r in rows.items()}
    text_lengths = sorted(set(lengths.values())) or [_item_length(sessions[TORCH_FP32])]
    shapes = [(batch, length) for length in text_lengths for batch in _BATCHES]
    speeds = {}
    for name, session in sessions.items():
        encoder = next(iter(session.encoders.values()))
        speeds[name] = encoder.speed(shapes, _SECONDS)

    # 4. their quality beside the trainer's, the cheapest task first
    thresholds = {task: card.tasks[task].thresholds for task in judged}
    trainer = {}
    for task in sorted(rows, key=lambda task: lengths[task]):
        trainer[task] = _metric(rows[task].trainer, rows[task], thresholds[task])
    sample = {task: r.every(_SAMPLE) for task, r in rows.items()}
    of_trainer = {task: r.trainer for task, r in sample.items()}
    # Probabilities on the sample with their metrics: what equals one is not judged again, so the
    # fastest goes first.
    known = [(of_trainer, trainer)]
    candidates: dict[str, RuntimeCandidate] = {}
    for name in sorted(sessions, key=lambda n: -overall(speeds[n])):
        session = sessions[name]
        probabilities = {task: _probabilities(session, task, r) for task, r in sample.items()}
        equal = [values for other, values in known if _difference(probabilities, other) < _EQUAL]
        values = equal[0] if equal else _judge(session, rows, trainer, thresholds)
        known.append((probabilities, values))
        as_good = all(values.get(task, 0) >= trainer[task] - TOLERANCE for task in trainer)
        candidates[name] = RuntimeCandidate(
            texts_per_second=speeds[name],
            difference=_difference(probabilities, of_trainer),
            metrics=values,
            good=name == TORCH_FP32 or as_good,
        )

    # 5. the fastest of those that are as good
    measured = {name: overall(c.texts_per_second) for name, c in candidates.items() if c.good}
    chosen = max(measured, key=lambda name: measured[name])
    log.info(
        "runtime %s, %.0f texts/s (%s); measured in %.0f s",
        chosen,
        measured[chosen],
        ", ".join(f"{n} {v:.0f}" for n, v in measured.items() if n != chosen),
        time.monotonic() - began,
    )
    return RuntimeCard(
        chosen=chosen,
        processor=machine.processor(),
        threads=machine.threads(),
        tolerance=TOLERANCE,
        trainer=trainer,
        candidates=candidates,
    )


def _judge(
    session: Session,
    rows: Mapping[str, Judged],
    trainer: Mapping[str, float],
    thresholds: Mapping[str, Any],
) -> dict[str, float]:
    """A runtime's metrics in the trainer's order; once one is too low the others are not
    measured.
    """
    values: dict[str, float] = {}
    for task, least in trainer.items():
        values[task] = _metric(
            _probabilities(session, task, rows[task]), rows[task], thresholds[task]
        )
        if values[task] < least - TOLERANCE:
            break
    return values


def _difference(one: Mapping[str, Matrix], other: Mapping[str, Matrix]) -> float:
    """The largest of a probability of any task; 0 where there is no task."""
    return max((float(np.abs(one[task] - other[task]).max()) for task in one), default=0.0)


def _probabilities(session: Session, task: str, rows: Judged) -> Matrix:
    """[n, outputs of the task]."""
    return (
        session.interests(rows.inputs)
        if task == "interests"
        else session.sentiment(rows.inputs)[:, None]
    )


def _metric(probabilities: Matrix, rows: Judged, thresholds: Sequence[float]) -> float:
    """Accuracy of one output, micro-F1 of several, at the trainer's thresholds."""
    predicted = (probabilities >= np.array(thresholds, np.float32)).astype(np.float32)
    measure = metrics.accuracy if rows.truth.shape[1] == 1 else metrics.micro_f1
    return measure(predicted, rows.truth).value


def _length(session: Session, task: str, rows: Judged) -> int:
    """The median length of the task's texts in tokens."""
    texts = (
        [session.behaviour_text(history) for history in rows.inputs]
        if task == "interests"
        else rows.inputs
    )
    ids = session.encoder(task).tokens(texts, session.max_tokens(task))
    return int(np.median([len(row) for row in ids]))


def _item_length(session: Session) -> int:
    """The median length of the items' texts in tokens."""
    ids = session.reader.tokens(session.item_texts(), session.text.max_tokens)
    return int(np.median([len(row) for row in ids]))
