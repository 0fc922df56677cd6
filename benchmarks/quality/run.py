"""The harness: tune, fit, score, measure, tell. `tasteloop bench quality` calls `run`.

Every (protocol, method, seed) runs in a process of its own, one after the other, so that times and
memory are its own; what it ranked is kept under `out/cache` and used again as long as code, data,
search and versions are the same. Measures and intervals are computed from what is kept, so a killed
run loses no more than the method it was at.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.kept import (
    data_hash,
    fingerprint_of,
    measured_by,
    place_of,
    version_of,
)
from benchmarks.quality.measuring import measure
from benchmarks.quality.method import Method, Scorer
from benchmarks.quality.methods import MAIN, METHODS
from benchmarks.quality.options import (
    CUTOFFS,
    DRAWS,
    QUICK,
    QUICK_PROTOCOLS,
    TESTED_ROWS,
    TUNED_ROWS,
    K,
    Options,
)
from benchmarks.quality.ours import of_bundle
from benchmarks.quality.peers import PYTHON, peers
from benchmarks.quality.protocols import (
    PROTOCOLS,
    SNAPSHOTS,
    build,
    collect,
    locate,
    protocols_of,
    times_of,
)
from benchmarks.quality.tasks import Matrix, Past, Rows, Task
from tasteloop import metrics
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_write, read_json, write_json
from tasteloop.metrics import Array

log = logging.getLogger(__name__)

_OF_A_BUNDLE = ("tasteloop-encoder", "tasteloop-encoder-no-nearby", "tasteloop-bundle")


def run(options: Options, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run what is not there yet and write results.json, table.md and plot.html into `options.out`.

    Args:
        tell: called with each line of progress.

    Returns:
        what results.json holds.

    Raises:
        TasteloopError: an unknown protocol or method, or data that cannot be had.
    """
    from benchmarks.quality.report import markdown, plot

    _check_names(options)
    began = time.monotonic()
    tell(f"data: {options.behaviour}, into {options.out / 'work'}")
    collect(locate(options.behaviour), options.out / "work", options.prepared)
    chosen, tasks = _chosen(options), _Tasks(options)
    jobs = [
        (name, method, seed)
        for name, methods in chosen.items()
        for method in methods
        for seed in (options.seeds if method.random and not options.quick else options.seeds[:1])
    ]
    refused: dict[tuple[str, str], str] = {}
    for n, (protocol, method, seed) in enumerate(jobs, 1):
        found, kept = _done(measured_by(protocol, method), method, seed, options, tasks)
        if "refused" in found:
            refused[protocol, method.name] = found["refused"]
        words = found.get("refused") or (
            f"nDCG@{K} on validation {_number(found['validation'])}, search {found['search_seconds']:.1f} s, "
            f"fit {found['fit_seconds']:.2f} s, {found['score_ms']:.2f} ms a row"
        )
        seeded = f" seed {seed}" if method.random else ""
        tell(
            f"[{n}/{len(jobs)}] {protocol} · {method.name}{seeded}: {words}{' (kept)' if kept else ''}"
        )
    results = {
        "schema": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": options.behaviour,
        "data_sha256": data_hash(options),
        "quick": options.quick,
        "seeds": list(options.seeds),
        "bootstrap": {"draws": DRAWS, "unit": "user", "level": 0.95},
        "seconds": time.monotonic() - began,
        "machine": machine(),
        "protocols": [
            measure(tasks.of(name), methods, refused, options) for name, methods in chosen.items()
        ],
    }
    write_json(options.out / "results.json", results)
    atomic_write(options.out / "table.md", markdown(results))
    atomic_write(options.out / "plot.html", plot(results))
    return results


class _Tasks:
    """Tasks by the names of their protocols; the last one is held."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._last: Task | None = None

    def of(self, name: str) -> Task:
        """The task with as many rows as are asked."""
        if self._last is None or self._last.protocol.name != name:
            self._last = None  # not two at once
            task = build(PROTOCOLS[name], self._options.out / "work")
            self._last = task.thinned(self._options.every).drawn(TUNED_ROWS, TESTED_ROWS)
        return self._last


def _known(options: Options) -> dict[str, Method]:
    """All methods, in the table's order of declaration."""
    snapshots = options.out / "work" / SNAPSHOTS
    of_ours = of_bundle(options.bundle, snapshots) if options.bundle else ()
    return {**METHODS, **peers(), **{method.name: method for method in of_ours}}


def _check_names(options: Options) -> None:
    """Raise TasteloopError for an unknown protocol or method."""
    known = _known(options)
    for name in options.protocols:
        if name not in PROTOCOLS:
            raise TasteloopError(f"no protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    for name in options.only:
        if name in _OF_A_BUNDLE and not options.bundle:
            raise TasteloopError(f"{name} is measured where a bundle is given: --bundle DIR")
        if name not in (*known, "main"):
            raise TasteloopError(f"no method {name!r}; known: main, {', '.join(known)}")


def _chosen(options: Options) -> dict[str, list[Method]]:
    """The methods of each protocol, in the table's order of declaration.

    Raises:
        TasteloopError: a protocol that the data cannot be measured by.
    """
    # 1. protocols
    times = times_of(options.out / "work")
    fitting = [protocol.name for protocol in protocols_of(times)]
    for name in options.protocols:
        if name not in fitting:
            raise TasteloopError(
                f"protocol {name} does not go with {options.behaviour}, whose times are {times!r}; "
                f"these do: {', '.join(fitting)}"
            )
    standard = [
        name
        for name in fitting
        if (name in QUICK_PROTOCOLS if options.quick else PROTOCOLS[name].standard)
    ]

    # 2. methods
    known = _known(options)
    wanted = options.only or ((*QUICK, *_OF_A_BUNDLE) if options.quick else tuple(known))
    if "main" in wanted:
        wanted = (*wanted, *MAIN)

    def answers(method: Method, protocol: str) -> bool:
        can = not method.protocols or protocol in method.protocols
        return method.name in wanted and can and not (method.timed and times == "order")

    return {
        protocol: [method for method in known.values() if answers(method, protocol)]
        for protocol in options.protocols or standard
    }


# --- one method


def _done(
    protocol: str, method: Method, seed: int, options: Options, tasks: _Tasks
) -> tuple[dict[str, Any], bool]:
    """The facts of a (protocol, method, seed), and whether they were there already."""
    path = place_of(protocol, method, seed, options)
    fingerprint = fingerprint_of(protocol, method, seed, options)
    if path.exists():
        facts = read_json(path)
        if facts.get("fingerprint") == fingerprint and path.with_suffix(".npy").exists():
            return facts, True
    if refusal := _refusal(method):
        return {"refused": f"not run: {refusal}"}, False
    settings = None
    if seed != options.seeds[0]:
        settings = read_json(place_of(protocol, method, options.seeds[0], options)).get("settings")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            task = tasks.of(protocol)
            job = (method.name, task, seed, settings, path, fingerprint, options)
            pool.submit(_job, *job).result()
        except Exception as error:  # of any method: the others still run, and the table says so
            log.debug("%s on %s", method.name, protocol, exc_info=error)
            return {
                "refused": f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            }, False
    return read_json(path), False


def _refusal(method: Method) -> str:
    if method.package == "rectools":
        return "" if PYTHON.exists() else "make bench-peers"
    if method.package:
        try:
            version(method.package)
        except PackageNotFoundError:
            return f"needs {method.package}; pip install {method.package}"
    return ""


def _job(
    name: str,
    task: Task,
    seed: int,
    settings: dict[str, Any] | None,
    place: Path,
    fingerprint: str,
    options: Options,
) -> None:
    """In a process of its own: tune, fit, rank, and keep what was ranked."""
    method = _known(options)[name]
    began = time.monotonic()
    settings, validation = (settings, None) if settings else tune(method, task, seed)
    searched = time.monotonic() - began
    ranked, facts = answer(method, task.fit, task.test, {**settings, "seed": seed})
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_suffix(".part.npy")
    np.save(temporary, ranked.astype(np.int32), allow_pickle=False)
    temporary.replace(place.with_suffix(".npy"))
    write_json(
        place,
        {
            "fingerprint": fingerprint,
            "settings": settings,
            "validation": validation,
            "search_seconds": searched,
            **facts,
        },
    )


def tune(method: Method, task: Task, seed: int) -> tuple[dict[str, Any], float | None]:
    """The settings that rank the validation rows best, and how well: nDCG@10. A tie goes to the
    earlier one.
    """
    if method.learn:
        return method.learn(task)
    settings = method.start()
    if not method.validated:
        return settings, None
    best, top = settings, -1.0
    for grid in method.search or ({},):
        for candidate in method.candidates(grid, best):
            if task.is_all_liked and candidate.get("feedback") == "all":
                continue  # the same as "liked", which is tried too
            scorer = method.fit(task.tune, {**candidate, "seed": seed})
            ranked = rank(scorer, task.validation, K)
            if (value := metrics.ndcg(ranked, task.validation.relevant).value) > top:
                best, top = candidate, value
    return best, top


def rank(scorer: Scorer, rows: Rows, k: int) -> Array:
    """[n, k] positions, best first, -1 where nothing is left; what is hidden is never ranked.

    Ties go by one random order of the items: a catalogue's own order knows which items are older
    and more popular.
    """
    order = np.random.default_rng(0).permutation(rows.shape[1])
    out = np.full((len(rows), k), -1)
    for block in rows.blocks():
        part = rows.take(block)
        scores = np.where(part.hidden, -np.inf, scorer.scores(part))
        scores[np.isnan(scores)] = -np.inf
        ranked = order[metrics.top_k(scores[:, order], k)]
        is_left = np.isfinite(np.take_along_axis(scores, ranked, 1))
        out[block, : ranked.shape[1]] = np.where(is_left, ranked, -1)
    return out


class _Timed:
    """A scorer with the seconds that it has taken."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self.seconds = scorer, 0.0

    def scores(self, rows: Rows) -> Matrix:
        began = time.monotonic()
        scores = self._scorer.scores(rows)
        self.seconds += time.monotonic() - began
        return scores


def answer(
    method: Method, past: Past, rows: Rows, settings: Mapping[str, Any]
) -> tuple[Array, dict[str, Any]]:
    """Fit and rank, timed: [n, 20], and seconds, ms a row and MB above what the process had
    before.
    """
    before = _memory(reset=True)
    began = time.monotonic()
    scorer = method.fit(past, settings)
    fitted = time.monotonic()
    timed = _Timed(scorer)
    ranked = rank(timed, rows, max(CUTOFFS))
    facts = {
        "fit_seconds": fitted - began,
        "score_ms": 1000 * timed.seconds / max(1, len(rows)),
        "memory_mb": max(_memory() - before, getattr(scorer, "memory", 0.0)),
    }
    return ranked, facts


def _memory(reset: bool = False) -> float:
    """Peak resident memory of this process in MB; `reset` begins anew from what it holds now, where
    Linux can.
    """
    if sys.platform != "linux":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return (
        next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        / 1024
    )


def machine() -> dict[str, Any]:
    """What the times were measured on, and with what."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
            model,
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
    packages = ("numpy", "scipy", "scikit-learn", "implicit", "torch", "transformers", "tasteloop")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(memory, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in packages if (found := version_of(name))},
    }


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
