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
    """A task's validation window: histories or texts, truth [n, outputs], the trainer's
    probabilities [n, outputs].
    """

    asked: list[Any]
    truth: Matrix
    trainer: Matrix

    def every(self, count: int) -> Judged:
        """At most `count` rows, evenly spaced."""
        rows = np.unique(np.linspace(0, len(self.asked) - 1, count).round().astype(int))
        return Judged([self.asked[i] for i in rows], self.truth[rows], self.trainer[rows])


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
    for name in card.models:
        to_onnx(directory / MODELS_DIRECTORY / name)
    first = directory / MODELS_DIRECTORY / card.reading_model
    # Where no task judges a runtime, only those of the trainer's own precision are considered.
    considered = ON_CPU if judged else [name for name in ON_CPU if name.endswith("-fp32")]
    sessions = {
        name: Session.open(directory, card, name)
        for name in considered
        if engines.available(name, first)
    }
    thresholds = {task: card.tasks[task].thresholds for task in judged}
    rows = {task: window.every(_ROWS) for task, window in judged.items()}
    lengths = {task: _length(sessions[TORCH_FP32], task, r) for task, r in rows.items()}
    read = sorted(set(lengths.values())) or [_item_length(sessions[TORCH_FP32])]
    shapes = [(batch, length) for length in read for batch in _BATCHES]
    speeds = {
        name: next(iter(s.encoders.values())).speed(shapes, _SECONDS)
        for name, s in sessions.items()
    }
    cheapest_first = sorted(rows, key=lambda task: lengths[task])
    trainer = {
        task: _metric(rows[task].trainer, rows[task], thresholds[task]) for task in cheapest_first
    }
    sample = {task: r.every(_SAMPLE) for task, r in rows.items()}
    # Probabilities on the sample with their metrics: what equals one is not judged again, so the
    # fastest goes first.
    known = [({task: r.trainer for task, r in sample.items()}, trainer)]
    candidates: dict[str, RuntimeCandidate] = {}
    for name in sorted(sessions, key=lambda n: -overall(speeds[n])):
        session = sessions[name]
        found = {task: _probabilities(session, task, r) for task, r in sample.items()}
        same = [
            values for probabilities, values in known if _difference(found, probabilities) < _EQUAL
        ]
        values = same[0] if same else _judge(session, rows, trainer, thresholds)
        known.append((found, values))
        candidates[name] = RuntimeCandidate(
            texts_per_second=speeds[name],
            difference=_difference(found, known[0][0]),
            metrics=values,
            good=name == TORCH_FP32
            or all(values.get(t, 0) >= trainer[t] - TOLERANCE for t in trainer),
        )
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
        session.interests(rows.asked)
        if task == "interests"
        else session.sentiment(rows.asked)[:, None]
    )


def _metric(probabilities: Matrix, rows: Judged, thresholds: Sequence[float]) -> float:
    """Accuracy of one output, micro-F1 of several, at the trainer's thresholds."""
    predicted = (probabilities >= np.array(thresholds, np.float32)).astype(np.float32)
    measure = metrics.accuracy if rows.truth.shape[1] == 1 else metrics.micro_f1
    return measure(predicted, rows.truth).value


def _length(session: Session, task: str, rows: Judged) -> int:
    """The median length of the task's texts in tokens."""
    texts = (
        [session.behaviour_text(history) for history in rows.asked]
        if task == "interests"
        else rows.asked
    )
    ids = session.encoder(task).tokens(texts, session.max_tokens(task))
    return int(np.median([len(row) for row in ids]))


def _item_length(session: Session) -> int:
    """The median length of the items' texts in tokens."""
    return int(
        np.median(
            [
                len(row)
                for row in session.reader.tokens(session.item_texts(), session.text.max_tokens)
            ]
        )
    )
