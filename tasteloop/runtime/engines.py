"""Engines: the programs that can run an encoder on this machine, and which of them does.

    torch-fp32  torch-bf16  torch-cuda  onnxruntime-fp32  onnxruntime-int8  openvino-fp32
    openvino-bf16

A name is a program and a precision. All of them read the same token ids and return the same pooled
vectors, up to the precision; the heads are a matrix product in numpy, so that a server whose engine
is not torch never imports torch. `tasteloop.runtime.export` measures them all where a bundle is
made and writes what it found into the card; `choose` takes the one that was fastest there, or
measures again where the processor is another.

int8 here is dynamic quantisation: ONNX Runtime scales activations by the range of the whole tensor,
so a text's answer would depend on who shares its batch (microsoft/onnxruntime#10111). An int8
engine therefore reads each text alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.bundle.arrays import mapped_arrays
from tasteloop.bundle.card import BundleCard, RuntimeCard
from tasteloop.bundle.names import MODELS_DIRECTORY
from tasteloop.encoder.batches import load_tokenizer, sorted_batches, tokenize
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json
from tasteloop.runtime.stages import count as tell
from tasteloop.runtime.stages import stage

log = logging.getLogger(__name__)

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
_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_BATCH = 32  # texts that an engine reads at once, if their lengths are alike:
# of the shortest; on two cores a batch gains less than it loses by padding to twice the length
_SPREAD = 1.2
# lengths for OpenVINO: it keeps a program for every shape that it has met, 300 MB of them in time
_MULTIPLE = 8
# of the chosen one's speed where the bundle was made: below, an engine is not measured again
# elsewhere
_WORTH = 0.5
_ELSEWHERE = 0.05  # see `tolerance`
_AGAIN_SECONDS = 0.15  # for each shape, when another machine measures again


# --- this machine


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; nothing where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in first.splitlines())
    }


def processor() -> str:
    """What decides how fast an engine is here: the model's name and the instruction sets that
    engines use.
    """
    about = _cpuinfo()
    flags = set(about.get("flags", "").split())
    name = about.get("model name") or platform.processor() or platform.machine()
    return " ".join([name, *(flag for flag in _FLAGS if flag in flags)])


def _gpu() -> bool:
    """Whether torch has a GPU; torch is only imported to ask where there is a device."""
    if not Path("/dev/nvidiactl").exists() or find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _bf16() -> bool:
    """Whether the processor computes in bf16: elsewhere it is emulated, up to 100 times slower."""
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpuinfo().get("flags", "").split()))


def threads() -> int:
    """Threads of a computation: `OMP_NUM_THREADS`, else the processors that this process may use, a
    container's limit (cgroup v2) included: with more threads than processors it would be stopped in
    every period.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if given.isdigit() and int(given) > 0:
        return int(given)
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        return count


def available(name: str, directory: Path) -> bool:
    """Whether an engine can run a model directory here: its program is installed and its file is
    there.
    """
    program, precision = name.split("-")
    if (precision == "bf16" and not _bf16()) or (precision == "cuda" and not _gpu()):
        return False
    return find_spec(program) is not None and (
        name not in _NEEDS or (directory / _NEEDS[name]).is_file()
    )


# --- running one


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
        self._whole = load(name, directory, count)
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
            return [self._whole(*call) for call in calls]
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


# --- choosing one


def speed(runner: Runner, shapes: Sequence[tuple[int, int]], seconds: float) -> dict[str, float]:
    """Texts a second by shape `batch x tokens`, the best of the runs that fit into `seconds` for
    each shape.
    """
    rng = np.random.default_rng(0)
    measured = {}
    for batch, tokens in shapes:
        ids = rng.integers(1, 90, (batch, tokens))
        most = runner.most(batch)
        calls = [
            (part, np.ones_like(part))
            for part in (ids[n : n + most] for n in range(0, batch, most))
        ]
        best, began, runs = np.inf, time.perf_counter(), 0
        while runs < 2 or time.perf_counter() - began < seconds:
            start = time.perf_counter()
            runner(calls)
            best, runs = min(best, time.perf_counter() - start), runs + 1
        measured[f"{batch}x{tokens}"] = round(batch / best, 1)
    return measured


def overall(speeds: Mapping[str, float]) -> float:
    """One number for speeds of several shapes: their geometric mean, in which every shape weighs
    the same.
    """
    return float(np.exp(np.mean(np.log(list(speeds.values())))))


def precisions(recorded: RuntimeCard) -> dict[str, str]:
    """Each precision that is good enough -> a runtime that has it: first the chosen one's."""
    good = {name.split("-")[1]: name for name, c in recorded.candidates.items() if c.good}
    chosen = recorded.chosen
    return {chosen.split("-")[1]: chosen} | {
        p: name for p, name in good.items() if p != chosen.split("-")[1]
    }


def tolerance(precision: str, recorded: RuntimeCard | None, exact: float) -> float:
    """How far probabilities and scores of this machine may be from those recorded where the bundle
    was made: `exact` for fp32 and on the same processor. `recorded` is None of a bundle that was
    made before runtimes were measured.

    Programs that compute in fp32 agree to 1e-6. int8 is exactly reproducible on one processor; on
    another, fp32 arithmetic between the integer products rounds an activation to its neighbour now
    and then, which moved a probability by 0.011 at most when it was provoked by other graph
    optimisations. bf16 has 8 bits itself.
    """
    same = recorded is not None and recorded.processor == processor()
    return exact if precision == "fp32" or same else max(exact, _ELSEWHERE)


def choose(card: BundleCard, directory: Path) -> str:
    """The runtime for a bundle on this machine.

    `TASTELOOP_RUNTIME` decides where it is set. Otherwise the one that was fastest where the bundle
    was made; on another processor those that were about as fast there are measured again, in
    seconds. Only runtimes whose quality was measured are taken.

    Raises:
        TasteloopError: TASTELOOP_RUNTIME names none.
    """
    first = directory / MODELS_DIRECTORY / card.reading_model
    if forced := os.environ.get(VARIABLE):
        if forced not in RUNTIMES:
            raise TasteloopError(
                f"{VARIABLE}={forced}: no such runtime; known: {', '.join(RUNTIMES)}"
            )
        return forced
    if _gpu():
        return TORCH_CUDA
    recorded = card.runtime
    if recorded is None:
        return TORCH_FP32
    chosen = recorded.chosen
    if not available(chosen, first):
        level, why = (
            logging.WARNING,
            f"{chosen}, the fastest where the bundle was made, cannot run here",
        )
    elif recorded.processor != processor():
        level, why = logging.INFO, "another processor than the bundle's"
    else:
        return chosen
    measured = {n: c for n, c in recorded.candidates.items() if c.good}
    enough = _WORTH * overall(measured[chosen].texts_per_second)
    here = [name for name in measured if available(name, first)]
    worth = [name for name in here if overall(measured[name].texts_per_second) >= enough] or here
    found = dict.fromkeys(worth or [TORCH_FP32], 0.0)
    if len(worth) > 1:
        shapes = [
            tuple(int(part) for part in s.split("x")) for s in measured[chosen].texts_per_second
        ]
        for name in worth:
            found[name] = overall(speed(Runner(name, first), shapes, _AGAIN_SECONDS))  # type: ignore[arg-type]
        why += f"; texts/s: {', '.join(f'{name} {value:.0f}' for name, value in found.items())}"
    best: str = max(found, key=lambda name: found[name])
    log.log(level, "%s; %s answers", why, best)
    return best


# --- an encoder with its tokenizer and heads


class VectorCache:
    """The last pooled vectors by a hash of their text; safe to share between threads.

    Attributes:
        hits, misses: texts that were found, and that were not.
    """

    def __init__(self, megabytes: float, width: int) -> None:
        self.capacity = int(megabytes * 2**20 / (4 * width + 200))  # 200: key and bookkeeping
        self.hits = self.misses = 0
        self._salt = os.urandom(16)  # so that no key tells a text to who reads the memory
        self._kept: OrderedDict[bytes, Matrix] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def key(self, text: str, max_tokens: int) -> bytes:
        told = f"{max_tokens} {text}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(told, digest_size=16, key=self._salt).digest()

    def get(self, keys: Sequence[bytes]) -> list[Matrix | None]:
        with self._lock:
            found = [self._kept.get(key) for key in keys]
            for key, vector in zip(keys, found, strict=True):
                if vector is not None:
                    self._kept.move_to_end(key)
            known = sum(vector is not None for vector in found)
            self.hits += known
            self.misses += len(keys) - known
            tell("cache_hits", known)
            tell("cache_misses", len(keys) - known)
            return found

    def put(self, keys: Sequence[bytes], vectors: Matrix) -> None:
        with self._lock:
            for key, vector in zip(keys, vectors, strict=True):
                self._kept[key] = vector.copy()  # a view would keep its whole batch
                self._kept.move_to_end(key)
            while len(self._kept) > self.capacity:
                self._kept.popitem(last=False)


class Encoder:
    """One model of a bundle: tokenizer, engine, heads.

    Args:
        directory: `models/<name>`.
        runtime: one of `RUNTIMES`.
        cache_megabytes: room for the vectors of texts that were read before; 0: none.
    """

    def __init__(self, directory: Path, runtime: str, cache_megabytes: float = 0) -> None:
        self._tokenizer = load_tokenizer(directory)
        self._lock = threading.Lock()  # a tokenizer's truncation is a setting of the object
        self._runner = Runner(runtime, directory)
        self._heads = mapped_arrays(directory / "heads.safetensors")
        self.width = int(read_json(directory / "config.json")["hidden_size"])
        self.cache = VectorCache(cache_megabytes, self.width)

    def pool(self, texts: Sequence[str], max_tokens: int) -> Matrix:
        """Pooled vectors [n, width]; a text that is there twice is read once."""
        keys = [self.cache.key(text, max_tokens) for text in texts]
        found = self.cache.get(keys)
        new = {
            key: text
            for key, text, vector in zip(keys, texts, found, strict=True)
            if vector is None
        }
        if new:
            computed = self._read(list(new.values()), max_tokens)
            self.cache.put(list(new), computed)
            row = {key: n for n, key in enumerate(new)}
            found = [computed[row[k]] if v is None else v for k, v in zip(keys, found, strict=True)]
        return np.stack(found)  # type: ignore[arg-type]

    def tokens(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Token ids of each text."""
        with self._lock:
            return tokenize(self._tokenizer, texts, max_tokens)

    def _read(self, texts: list[str], max_tokens: int) -> Matrix:
        with stage("tokenise"):
            ids = self.tokens(texts, max_tokens)
        out = np.empty((len(ids), self.width), np.float32)
        with stage("encode"):
            lengths = np.array([len(row) for row in ids])
            # the longest first
            parts = list(sorted_batches(lengths, self._runner.most(len(ids)), _SPREAD))[::-1]
            for rows, vectors in zip(
                parts,
                self._runner([_padded([ids[i] for i in r], self._runner.multiple) for r in parts]),
                strict=True,
            ):
                out[rows] = vectors
        return out

    def speed(self, shapes: Sequence[tuple[int, int]], seconds: float) -> dict[str, float]:
        """Of its engine, see `speed`."""
        return speed(self._runner, shapes, seconds)

    def logits(self, task: str, pooled: Matrix) -> Matrix:
        """[n, width] -> [n, outputs of the task]."""
        out: Matrix = pooled @ self._heads[f"{task}.weight"].T + self._heads[f"{task}.bias"]
        return out


def _padded(ids: Sequence[Sequence[int]], multiple: int) -> tuple[Ids, Ids]:
    """Token ids of unequal lengths -> ids [n, t] and mask [n, t], padded to the longest's next
    multiple.
    """
    lengths = np.array([len(row) for row in ids])
    mask = (np.arange(-(-lengths.max() // multiple) * multiple) < lengths[:, None]).astype(np.int64)
    out = np.zeros_like(mask)
    out[mask > 0] = np.concatenate([np.asarray(row, np.int64) for row in ids])
    return out, mask
