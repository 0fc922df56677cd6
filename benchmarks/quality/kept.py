"""What was ranked before is used again, as long as nothing that could change it has changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.method import Method
from benchmarks.quality.methods import OURS
from benchmarks.quality.options import ROOT, TESTED_ROWS, TUNED_ROWS, Options
from benchmarks.quality.protocols import DATA, PROTOCOLS
from tasteloop.files import read_json, sha256_file
from tasteloop.metrics import Array


def measured_by(protocol: str, method: Method) -> str:
    """The protocol whose answers are this one's: a method that reads no order has, shuffled, those
    of `time`.
    """
    return "time" if PROTOCOLS[protocol].shuffled and not method.ordered else protocol


def place_of(protocol: str, method: Method, seed: int, options: Options) -> Path:
    """Where the facts of an answer lie; what was ranked lies beside them."""
    size = "quick" if options.quick else "full"
    return options.out / "cache" / size / protocol / f"{method.name}-{seed}.json"


def answers_of(
    protocol: str, method: Method, options: Options
) -> Iterator[tuple[dict[str, Any], Array]]:
    """The facts and the rankings of each seed that is kept."""
    protocol = measured_by(protocol, method)
    for seed in options.seeds:
        path = place_of(protocol, method, seed, options)
        if not path.exists():
            continue
        facts = read_json(path)
        if facts["fingerprint"] == fingerprint_of(protocol, method, seed, options):
            yield facts, np.load(path.with_suffix(".npy"), allow_pickle=False)


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


def fingerprint_of(protocol: str, method: Method, seed: int, options: Options) -> str:
    """Changes with anything that could change the answer."""
    own = method.fit.__module__.rpartition(".")[2]
    modules = sorted({"tasks", "protocols", "method", "linear", own})
    files = [f"benchmarks/quality/{name}.py" for name in modules]
    # peers call these too
    files += [f"tasteloop/{name}.py" for name in _SHARED_CODE]
    if method.name in OURS:
        files.append("benchmarks/quality/content.py")
        files += [f"tasteloop/{name}.py" for name in _OUR_CODE]
    if method.package == "rectools":
        files.append("benchmarks/quality/requirements.lock")
    told = {
        "protocol": dataclasses.asdict(PROTOCOLS[protocol]),
        "search": method.search,
        "seed": seed,
        "data": data_hash(options),
        "every": options.every,
        "rows": (TUNED_ROWS, TESTED_ROWS),
        "code": _code(tuple(files)),
        "prepared": options.prepared.model_dump(mode="json") if options.prepared else "local",
        "versions": [version_of(p) for p in ("numpy", "scipy", method.package or "numpy")],
        "bundle": sha256_file(options.bundle / "manifest.json")
        if options.bundle and method.name in OURS
        else None,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=list).encode()).hexdigest()


def data_hash(options: Options) -> str:
    return str(read_json(options.out / "work" / DATA / "ingest.json")["sha256"])


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
