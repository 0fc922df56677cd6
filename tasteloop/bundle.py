"""The model directory: everything that answers, nothing that runs.

    card.json  manifest.json  README.md  golden.json  items.parquet  recommender.safetensors
    models/<name>/config.json model.safetensors heads.safetensors tokenizer.json encoder.onnx encoder.int8.onnx

Weights are safetensors and ONNX, the rest JSON and Parquet: no pickle, no code. The manifest names every file with its
SHA-256; a bundle whose files differ from it, or hold one more or one fewer, is refused. Its digest is the manifest's
hash.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tasteloop
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json, sha256_file, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 1
CARD, MANIFEST, GOLDEN, README = "card.json", "manifest.json", "golden.json", "README.md"
MODELS, ITEMS, RECOMMENDER, HABITS = "models", "items.parquet", "recommender.safetensors", "habits.safetensors"
_ALLOWED = (".json", ".safetensors", ".onnx", ".parquet", ".md")
_PACKAGES = ("tasteloop", "validation", "serving", "components", "pipelines")


def seal(directory: Path) -> str:
    """Write the manifest of a finished bundle; returns its digest."""
    write_json(directory / MANIFEST, {"format": FORMAT, "files": _hashes(directory)})
    return sha256_file(directory / MANIFEST)


def verify(directory: Path) -> str:
    """The digest of a bundle whose every file is as its manifest says.

    Raises:
        TasteloopError: no bundle, another format, or a file changed, missing, added, or of a kind that is not allowed.
    """
    if not (directory / MANIFEST).is_file():
        raise TasteloopError(f"{directory} is not a bundle: it has no {MANIFEST}; `tasteloop run` makes one")
    manifest = read_json(directory / MANIFEST)
    known = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    if not known or not isinstance(manifest.get("files"), dict):
        raise TasteloopError(f"{directory}: this version reads bundles of format {FORMAT} only; train it again")
    expected, found = manifest["files"], _hashes(directory)
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if wrong:
        state = "missing" if wrong[0] not in found else "not in the manifest" if wrong[0] not in expected else "changed"
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise TasteloopError(f"bundle {directory}: {wrong[0]} is {state}{more}; restore it or train again")
    return sha256_file(directory / MANIFEST)


def read_card(directory: Path) -> dict[str, Any]:
    """card.json: labels, thresholds, calibration, settings, data hash, code version, validation metrics."""
    card: dict[str, Any] = read_json(directory / CARD)
    return card


def reading_model(card: Mapping[str, Any]) -> str:
    """Which of a bundle's models reads behaviour and items: the first, which has interests where any has them."""
    return str(next(iter(card["models"])))


def mapped_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file as read-only views of the mapped file.

    They are read when they are touched, and processes that serve the same bundle share the memory; the library's own
    `load_file` gives every process a copy.
    """
    import numpy as np

    kinds: dict[str, type[np.generic]] = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64}
    with path.open("rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(data[:8], "little")
    out = {}
    for name, about in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = about["data_offsets"]
            kind = kinds[about["dtype"]]
            count = (end - begin) // np.dtype(kind).itemsize
            out[name] = np.frombuffer(data, kind, count, start + begin).reshape(about["shape"])
    return out


def _hashes(directory: Path) -> dict[str, str]:
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p != directory / MANIFEST)
    for path in files:
        if path.suffix not in _ALLOWED or path.is_symlink():
            raise TasteloopError(
                f"bundle {directory}: {path.relative_to(directory)} is not allowed in a bundle; it holds plain files "
                f"ending in {', '.join(_ALLOWED)} only"
            )
    return {path.relative_to(directory).as_posix(): sha256_file(path) for path in files}


@cache
def code_version() -> str:
    """Version and a hash over the project's sources: two runs of equal code have equal versions."""
    root = Path(tasteloop.__file__).parent.parent
    total = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{tasteloop.__version__}+{total.hexdigest()[:12]}"
