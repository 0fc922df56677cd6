"""The harness: tune, fit, score, measure, tell. `tasteloop bench quality` calls `run`.

Every (protocol, method, seed) runs in a process of its own, one after the other, so that times and
memory are its own; what it ranked is kept under `out/cache` and used again as long as code, data,
search and versions are the same. Measures and intervals are computed from what is kept, so a killed
run loses no more than the method it was at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import beyond
from benchmarks.quality.methods import METHODS, OURS, Method, Scorer, bundle
from benchmarks.quality.peers import PYTHON, peers
from benchmarks.quality.protocols import DATA, PROTOCOLS, Past, Rows, Task, build, collect
from tasteloop import metrics
from tasteloop.behaviour.snapshots import PrepareSettings
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_write, read_json, sha256_file, write_json
from tasteloop.metrics import Array, Measure

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
K = 10  # what is tuned, sorted by, and shown
CUTOFFS = (5, 10, 20)
SEEDS = (0, 1, 2)
DRAWS = 1000
QUICK = ("random", "popularity", "popularity-7d", "itemknn", "ease", "ials", "bm25", "tasteloop")
QUICK_PROTOCOLS = ("time", "stratified")
QUICK_EVERY = 3

MEASURES: Mapping[str, Callable[[Array, Sequence[Any]], Measure]] = {
    "ndcg": metrics.ndcg,
    "recall": metrics.recall_at,
    "precision": metrics.precision_at,
    "map": metrics.average_precision,
    "mrr": metrics.reciprocal_rank,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is run.

    Attributes:
        out: where results go and what was computed is kept.
        protocols, only: names; empty for the standard ones, for all methods.
        quick: few methods, a third of the users, one seed.
        seeds: of methods that draw random numbers; the first one's search serves the others.
        bundle: a bundle of the pipeline to measure too.
        behaviour: the data set, as `tasteloop.datasets.ingest` takes it.
        prepared: settings of its snapshots; those of the profile `local` when absent.
    """

    out: Path
    protocols: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    quick: bool = False
    seeds: tuple[int, ...] = SEEDS
    bundle: Path | None = None
    behaviour: str = "ml-100k"
    prepared: PrepareSettings | None = None

    @property
    def every(self) -> int:
        """One user in so many is asked."""
        return QUICK_EVERY if self.quick else 1


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

    chosen = _chosen(options)
    began = time.monotonic()
    tell(f"data: {options.behaviour}, into {options.out / 'work'}")
    collect(options.behaviour, options.out / "work", options.prepared)
    jobs = [
        (name, method, seed)
        for name, methods in chosen.items()
        for method in methods
        for seed in (options.seeds if method.random and not options.quick else options.seeds[:1])
    ]
    refused: dict[tuple[str, str], str] = {}
    for n, (protocol, method, seed) in enumerate(jobs, 1):
        found, kept = _done(protocol, method, seed, options)
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
        "data_sha256": _data_hash(options),
        "quick": options.quick,
        "seeds": list(options.seeds),
        "bootstrap": {"draws": DRAWS, "unit": "user", "level": 0.95},
        "seconds": time.monotonic() - began,
        "machine": machine(),
        "protocols": [
            _measured(name, methods, refused, options) for name, methods in chosen.items()
        ],
    }
    write_json(options.out / "results.json", results)
    atomic_write(options.out / "table.md", markdown(results))
    atomic_write(options.out / "plot.html", plot(results))
    return results


def _chosen(options: Options) -> dict[str, list[Method]]:
    """The methods of each protocol, in the table's order of declaration."""
    known = {
        **METHODS,
        **peers(),
        **({"tasteloop-bundle": bundle(options.bundle)} if options.bundle else {}),
    }
    standard = (
        QUICK_PROTOCOLS if options.quick else tuple(n for n, p in PROTOCOLS.items() if p.standard)
    )
    protocols = options.protocols or standard
    wanted = options.only or ((*QUICK, "tasteloop-bundle") if options.quick else tuple(known))
    for name in protocols:
        if name not in PROTOCOLS:
            raise TasteloopError(f"no protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    for name in options.only:
        if name == "tasteloop-bundle" and not options.bundle:
            raise TasteloopError("tasteloop-bundle is measured where one is given: --bundle DIR")
        if name not in known:
            raise TasteloopError(f"no method {name!r}; known: {', '.join(known)}")
    return {
        protocol: [
            method
            for name, method in known.items()
            if name in wanted and (not method.protocols or protocol in method.protocols)
        ]
        for protocol in protocols
    }


# --- one method


def _done(
    protocol: str, method: Method, seed: int, options: Options
) -> tuple[dict[str, Any], bool]:
    """The facts of a (protocol, method, seed), and whether they were there already."""
    path = _place(protocol, method, seed, options)
    fingerprint = _fingerprint(protocol, method, seed, options)
    if path.exists():
        facts = read_json(path)
        if facts.get("fingerprint") == fingerprint and path.with_suffix(".npy").exists():
            return facts, True
    if refusal := _refusal(method):
        return {"refused": f"not run: {refusal}"}, False
    settings = None
    if seed != options.seeds[0]:
        settings = read_json(_place(protocol, method, options.seeds[0], options)).get("settings")
    job = (protocol, method.name, seed, settings, str(path), fingerprint, options)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            pool.submit(_job, *job).result()
        except Exception as error:  # of any method: the others still run, and the table says so
            log.debug("%s on %s", method.name, protocol, exc_info=error)
            return {
                "refused": f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            }, False
    return read_json(path), False


def _place(protocol: str, method: Method, seed: int, options: Options) -> Path:
    size = "quick" if options.quick else "full"
    return options.out / "cache" / size / protocol / f"{method.name}-{seed}.json"


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
    protocol: str,
    name: str,
    seed: int,
    settings: Any,
    path: str,
    fingerprint: str,
    options: Options,
) -> None:
    """In a process of its own: tune, fit, rank, and keep what was ranked."""
    method = next(m for m in _chosen(options)[protocol] if m.name == name)
    task = build(PROTOCOLS[protocol], options.out / "work").thinned(options.every)
    began = time.monotonic()
    settings, validation = (settings, None) if settings else tune(method, task, seed)
    searched = time.monotonic() - began
    ranked, facts = answer(method, task.fit, task.test, {**settings, "seed": seed})
    place = Path(path)
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
    scores = np.where(rows.hidden, -np.inf, scorer.scores(rows))
    scores[np.isnan(scores)] = -np.inf
    order = np.random.default_rng(0).permutation(scores.shape[1])
    ranked = order[metrics.top_k(scores[:, order], k)]
    ranked = np.where(np.isfinite(np.take_along_axis(scores, ranked, 1)), ranked, -1)
    return np.pad(ranked, ((0, 0), (0, k - ranked.shape[1])), constant_values=-1)


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
    scorer.scores(rows)
    scored = time.monotonic()
    peak = max(_memory() - before, getattr(scorer, "memory", 0.0))
    facts = {
        "fit_seconds": fitted - began,
        "score_ms": 1000 * (scored - fitted) / max(1, len(rows)),
        "memory_mb": peak,
    }
    return rank(scorer, rows, max(CUTOFFS)), facts


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


# A cached result is computed anew when one of these files changes.
_SHARED_CODE = (
    "behaviour/kinds",
    "behaviour/prepare",
    "behaviour/snapshots",
    "behaviour/items",
    "recommender/recommend",
    "recommender/terms",
    "recommender/folding",
    "recommender/fitting",
    "recommender/tuning",
    "recommender/weights",
    "recommender/collaborative",
    "recommender/item_text",
    "metrics",
)
_OUR_CODE = (
    "runtime/session",
    "runtime/engines",
    "runtime/encoders",
    "runtime/choice",
    "bundle/card",
    "bundle/arrays",
    "encoder/habits",
    "encoder/calibration",
    "encoder/model",
    "behaviour/text",
)


@cache
def _code(names: tuple[str, ...]) -> str:
    return hashlib.sha256("".join(sha256_file(ROOT / name) for name in names).encode()).hexdigest()


def _fingerprint(protocol: str, method: Method, seed: int, options: Options) -> str:
    """Changes with anything that could change the answer."""
    files = ["benchmarks/quality/protocols.py", "benchmarks/quality/methods.py"]
    # peers call these too
    files += [f"tasteloop/{name}.py" for name in _SHARED_CODE]
    if method.name in OURS:
        files += [f"tasteloop/{name}.py" for name in _OUR_CODE]
    if method.package == "rectools":
        files += [f"benchmarks/quality/{name}" for name in ("peers.py", "requirements.lock")]
    told = {
        "protocol": dataclasses.asdict(PROTOCOLS[protocol]),
        "search": method.search,
        "seed": seed,
        "data": _data_hash(options),
        "every": options.every,
        "code": _code(tuple(files)),
        "prepared": options.prepared.model_dump(mode="json") if options.prepared else "local",
        "versions": [_version(p) for p in ("numpy", "scipy", method.package or "numpy")],
        "bundle": sha256_file(options.bundle / "manifest.json")
        if options.bundle and method.name in OURS
        else None,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=list).encode()).hexdigest()


def _data_hash(options: Options) -> str:
    return str(read_json(options.out / "work" / DATA / "ingest.json")["sha256"])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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
        "versions": {name: found for name in packages if (found := _version(name))},
    }


# --- measuring


def _measured(
    name: str, methods: Sequence[Method], refused: Mapping[tuple[str, str], str], options: Options
) -> dict[str, Any]:
    """A protocol's rows of the table, best nDCG@10 first; what did not run comes last."""
    task = build(PROTOCOLS[name], options.out / "work").thinned(options.every)
    rows, kept = task.test, {}
    entries: list[dict[str, Any]] = []
    for method in methods:
        entry: dict[str, Any] = {"method": method.name, "about": method.about, "search": []}
        entry["search"] = [
            {key: list(values) for key, values in grid.items()} for grid in method.search
        ]
        if (name, method.name) in refused:
            entry["refused"] = refused[name, method.name]
        else:
            facts, ranked = zip(*_runs(name, method, options), strict=True)
            kept[method.name] = _measures(ranked, rows)
            entry |= _entry(facts, ranked, kept[method.name], task)
        entries.append(entry)
    ours = [name for name in OURS if name in kept]
    for entry in entries:
        entry["ours_minus_this"] = {
            mine: metrics.difference(
                kept[mine][f"ndcg@{K}"], kept[entry["method"]][f"ndcg@{K}"], rows.group, draws=DRAWS
            ).json()
            for mine in ours
            if entry["method"] in kept and entry["method"] not in OURS
        }
    entries.sort(key=lambda e: -e["metrics"][f"ndcg@{K}"]["value"] if "metrics" in e else 1.0)
    return {
        **dataclasses.asdict(task.protocol),
        "prepared": task.prepared.model_dump(mode="json") if task.prepared else None,
        "rows": len(rows),
        "users": len(np.unique(rows.group)),
        "items": len(task.catalogue),
        "ranked_items": int((~rows.hidden).any(0).sum()),
        "relevant_a_row": float(np.mean([len(r) for r in rows.relevant])),
        "fitted_events": len(task.fit.events),
        "fitted_users": len(task.fit.users),
        "slices": {n: int(mask.sum()) for n, mask in task.slices.items()},
        "methods": entries,
    }


def _runs(
    protocol: str, method: Method, options: Options
) -> Iterator[tuple[dict[str, Any], Array]]:
    for seed in options.seeds:
        path = _place(protocol, method, seed, options)
        if not path.exists():
            continue
        facts = read_json(path)
        if facts["fingerprint"] == _fingerprint(protocol, method, seed, options):
            yield facts, np.load(path.with_suffix(".npy"), allow_pickle=False)


def _measures(ranked: Sequence[Array], rows: Rows) -> dict[str, Measure]:
    """Each measure at each cutoff; a row's value is its mean over seeds."""
    out = {}
    for k in CUTOFFS:
        for name, measure in MEASURES.items():
            seeds = [measure(r[:, :k], rows.relevant) for r in ranked]
            out[f"{name}@{k}"] = Measure(np.mean([m.rows for m in seeds], 0), seeds[0].reduce)
    return out


def _entry(
    facts: Sequence[Any], ranked: Sequence[Array], kept: Mapping[str, Measure], task: Task
) -> dict[str, Any]:
    rows = task.test
    met = (task.fit.matrix("all") > 0).sum(0)
    labels = task.catalogue.membership(task.catalogue.label_names)
    users = max(1, len(task.fit.users))

    def seeds(measure: Callable[[Array], float]) -> float:
        return float(np.mean([measure(r) for r in ranked]))

    return {
        "settings": facts[0]["settings"],
        "validation": facts[0]["validation"],
        "metrics": {
            n: metrics.interval(m, rows.group, draws=DRAWS).json() for n, m in kept.items()
        },
        "by_seed": [metrics.ndcg(r[:, :K], rows.relevant).value for r in ranked],
        "beyond": {
            f"{name}@{k}": seeds(lambda r, f=f, k=k: f(r[:, :k]))  # type: ignore[misc]
            for k in CUTOFFS
            for name, f in {
                "coverage": lambda r: beyond.coverage(r, len(task.catalogue)),
                "novelty": lambda r: beyond.novelty(r, met, users),
                "diversity": lambda r: beyond.diversity(r, labels),
                "average_popularity": lambda r: beyond.average_popularity(r, met),
                "popularity_percentile": lambda r: beyond.popularity_percentile(r, met),
            }.items()
        },
        "slices": {
            name: metrics.interval(
                Measure(kept[f"ndcg@{K}"].rows[mask], kept[f"ndcg@{K}"].reduce),
                rows.group[mask],
                draws=DRAWS,
            ).json()
            for name, mask in task.slices.items()
        },
        "search_seconds": facts[0]["search_seconds"],
        "fit_seconds": float(np.mean([f["fit_seconds"] for f in facts])),
        "score_ms": float(np.mean([f["score_ms"] for f in facts])),
        "memory_mb": max(f["memory_mb"] for f in facts),
    }


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
