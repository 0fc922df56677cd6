"""Engines: the programs that can run an encoder on this machine, and which of them does.

    torch-fp32  torch-bf16  torch-cuda  onnxruntime-fp32  onnxruntime-int8  openvino-fp32
    openvino-bf16

A name is a program and a precision. All of them read the same token ids and return the same pooled
vectors, up to the precision; the heads are a matrix product in numpy, so that a server whose engine
is not torch never imports torch. `tasteloop.runtime.export` measures them all where a bundle is
made and writes what it found into the card; `tasteloop.runtime.choice` takes the one that was
fastest there, or measures again where the processor is another.

int8 here is dynamic quantisation: ONNX Runtime scales activations by the range of the whole tensor,
so a text's answer would depend on who shares its batch (microsoft/onnxruntime#10111). An int8
engine therefore reads each text alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.errors import TasteloopError
from tasteloop.runtime.machine import has_bf16, has_gpu, threads

Matrix = NDArray[np.float32]
Ids = NDArray[np.int64]
# token ids [n, t] and mask [n, t] -> pooled vectors [n, width]
Engine = Callable[[Ids, Ids], Matrix]

TORCH_FP32, TORCH_BF16 = "torch-fp32", "torch-bf16"
ONNX_FP32, ONNX_INT8 = "onnxruntime-fp32", "onnxruntime-int8"
OPENVINO_FP32, OPENVINO_BF16 = "openvino-fp32", "openvino-bf16"
TORCH_CUDA = "torch-cuda"
ON_CPU = (TORCH_FP32, TORCH_BF16, ONNX_FP32, ONNX_INT8, OPENVINO_FP32, OPENVINO_BF16)
RUNTIMES = (*ON_CPU, TORCH_CUDA)

ONNX, ONNX_QUANTISED = "encoder.onnx", "encoder.int8.onnx"
VARIABLE = "TASTELOOP_RUNTIME"
_NEEDS = {ONNX_FP32: ONNX, ONNX_INT8: ONNX_QUANTISED, OPENVINO_FP32: ONNX, OPENVINO_BF16: ONNX}
_BATCH = 32  # texts that an engine reads at once, if their lengths are alike
# lengths for OpenVINO: it keeps a program for every shape that it has met, 300 MB of them in time
_MULTIPLE = 8


def precision_of(name: str) -> str:
    """The precision of a runtime.

    >>> precision_of(ONNX_INT8)
    'int8'
    """
    return name.partition("-")[2]


def available(name: str, directory: Path) -> bool:
    """Whether an engine can run a model directory here: its program is installed and its file is
    there.
    """
    program, precision = name.split("-")
    if (precision == "bf16" and not has_bf16()) or (precision == "cuda" and not has_gpu()):
        return False
    return find_spec(program) is not None and (
        name not in _NEEDS or (directory / _NEEDS[name]).is_file()
    )


class Runner:
    """An engine on this machine's threads: one text with all of them, several with one thread each.

    Threads that share a call wait for each other in every layer; calls side by side do not, and
    need no padding to a common length. torch's threads are a setting of the process, so there all
    of them share every call.

    Attributes:
        multiple: of which a call's length is to be.

    Args:
        name: one of `RUNTIMES`.
        directory: `models/<name>` of a bundle.
    """

    def __init__(self, name: str, directory: Path) -> None:
        count = threads()
        self._with_all_threads = load(name, directory, count)
        self._most = 1 if alone(name) else _BATCH
        self.multiple = _MULTIPLE if name.startswith("openvino") else 1
        self._beside = 1 if name.startswith("torch") else count
        if self._beside > 1:
            self._single = load(name, directory, 1, count)
            self._pool = ThreadPoolExecutor(count, "encode")

    def most(self, texts: int) -> int:
        """Texts of one call where so many are asked for."""
        return min(self._most, -(-texts // self._beside))

    def __call__(self, calls: Sequence[tuple[Ids, Ids]]) -> list[Matrix]:
        """Token ids [n, t] and mask [n, t] of each call -> its pooled vectors [n, width]."""
        if len(calls) == 1 or self._beside == 1:
            return [self._with_all_threads(*call) for call in calls]
        return list(self._pool.map(lambda call: self._single(*call), calls))


def load(name: str, directory: Path, count: int, beside: int = 1) -> Engine:
    """An engine on a model directory, safe to call from several threads.

    Args:
        name: one of `RUNTIMES`.
        directory: `models/<name>` of a bundle.
        count: threads of one call.
        beside: calls that are to run at the same time.

    Raises:
        TasteloopError: unknown, not installed here, or without its file.
    """
    if name not in RUNTIMES:
        raise TasteloopError(f"unknown runtime {name!r}; known: {', '.join(RUNTIMES)}")
    program, precision = name.split("-")
    if find_spec(program) is None:
        raise TasteloopError(
            f"runtime {name} needs {program}, which is not installed; `pip install {program}`, or unset {VARIABLE}"
        )
    if name in _NEEDS and not (directory / _NEEDS[name]).is_file():
        raise TasteloopError(
            f"{directory} has no {_NEEDS[name]}, which runtime {name} reads; make the bundle again"
        )
    start = {"torch": _torch, "onnxruntime": _onnxruntime, "openvino": _openvino}[program]
    return start(directory, precision, count, beside)


def _torch(directory: Path, precision: str, count: int, _: int) -> Engine:
    import torch

    from tasteloop.encoder import model

    device = "cuda" if precision == "cuda" else "cpu"
    encoder = model.load(directory).to(device)
    torch.set_num_threads(count)

    def run(ids: Ids, mask: Ids) -> Matrix:
        bf16 = precision == "bf16"
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            pooled = encoder(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))
        out: Matrix = pooled.float().cpu().numpy()
        return out

    return run


def _onnxruntime(directory: Path, precision: str, count: int, _: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count
    options.log_severity_level = 3
    # Threads wait spinning within a call, which is faster, but not after it: a server's other work
    # needs the processor.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    path = directory / (ONNX_QUANTISED if precision == "int8" else ONNX)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(ids: Ids, mask: Ids) -> Matrix:
        out: Matrix = session.run(None, {"ids": ids, "mask": mask})[0]
        return out

    return run


@cache
def _core() -> Any:
    """OpenVINO's core, one for the process and until its end.

    Its plugin gives the thread that makes it a stack for signals, and takes the memory back where
    it is destroyed. From another thread it cannot take the stack back too: a core that went with a
    swapped-out version, destroyed by the thread that was the last to use it, left the main thread
    such a stack, and SIGTERM was answered by SIGSEGV.
    """
    import openvino

    return openvino.Core()


def _openvino(directory: Path, precision: str, count: int, beside: int) -> Engine:
    settings = {
        "INFERENCE_NUM_THREADS": count * beside,
        "NUM_STREAMS": beside,
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
    }
    compiled = _core().compile_model(str(directory / ONNX), "CPU", settings)
    own = threading.local()  # a request is not for two threads at once

    def run(ids: Ids, mask: Ids) -> Matrix:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        out: Matrix = np.array(own.request.infer({"ids": ids, "mask": mask})[0])
        return out

    return run


def alone(name: str) -> bool:
    """Whether an engine must read each text alone, for its answer not to depend on the others."""
    return name.endswith("-int8")
