"""The model directory: everything that answers, nothing that runs.

    card.json  manifest.json  README.md  golden.json  items.parquet  recommender.safetensors
    models/<name>/config.json model.safetensors heads.safetensors tokenizer.json encoder.onnx
    encoder.int8.onnx

Weights are safetensors and ONNX, the rest JSON and Parquet: no pickle, no code. The manifest names
every file with its SHA-256; a bundle whose files differ from it, or hold one more or one fewer, is
refused. Its digest is the manifest's hash.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import stat
from collections.abc import Iterable, Mapping
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
MODELS, ITEMS, RECOMMENDER, HABITS = (
    "models",
    "items.parquet",
    "recommender.safetensors",
    "habits.safetensors",
)
# any word may be a key in them
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
# What a configuration names so that a library runs code that comes with it, or from a model hub:
# transformers' classes, pipelines and generation, and kernels that are named owner/repository
# instead of a word such as sdpa.
_CODE = ("auto_map", "custom_pipelines", "custom_generate", "trust_remote_code")
_KERNELS = "implementation"
_MOST_JSON = 64 * 2**20  # bytes of a JSON file; the tokenizer of a hundred languages has 17 MB
_MOST_DEPTH = 64  # of lists and mappings in each other; a card has 6
_MOST_HEADER = 2**20  # bytes that say which arrays a safetensors file has; an encoder's has 20 kB
_ALLOWED = (".json", ".safetensors", ".onnx", ".parquet", ".md")
_PACKAGES = ("tasteloop", "validation", "serving", "components", "pipelines")


def seal(directory: Path) -> str:
    """Write the manifest of a finished bundle; returns its digest."""
    write_json(
        directory / MANIFEST,
        {"format": FORMAT, "files": _hashes(directory, plain_files(directory))},
    )
    return sha256_file(directory / MANIFEST)


def verify(directory: Path) -> str:
    """The digest of a bundle whose every file is as its manifest says.

    Raises:
        TasteloopError: no bundle, another format, or a file changed, missing, added, or of a kind
            that is not allowed. Nothing but plain files is opened, and no more of one than its kind
            may have.
    """
    try:
        if not (directory / MANIFEST).is_file():
            raise TasteloopError(
                f"{directory} is not a bundle: it has no {MANIFEST}; `tasteloop run` makes one"
            )
        files = plain_files(directory)
        found = _hashes(directory, files)
    except PermissionError as error:
        raise TasteloopError(
            f"bundle: {error.filename} cannot be read by this user; run as its owner, or open the bundle to others: "
            f"chmod -R a+rX {directory}"
        ) from None
    manifest = _read_json(directory / MANIFEST)
    known = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    if not known or not isinstance(manifest.get("files"), dict):
        raise TasteloopError(
            f"{directory}: this version reads bundles of format {FORMAT} only; train it again"
        )
    expected = manifest["files"]
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if wrong:
        state = (
            "missing"
            if wrong[0] not in found
            else "not in the manifest"
            if wrong[0] not in expected
            else "changed"
        )
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise TasteloopError(
            f"bundle {directory}: {wrong[0]} is {state}{more}; restore it or train again"
        )
    for path in files:
        if path.suffix == ".json" and path.name not in VOCABULARIES:
            refuse_code(path)
    return sha256_file(directory / MANIFEST)


def plain_files(directory: Path) -> list[Path]:
    """All files below a directory, sorted.

    Raises:
        TasteloopError: something that is no plain file and no directory (a link, a pipe, a socket,
            a device), or a file of a kind or size that no bundle has.
    """
    files: list[Path] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                files += plain_files(path)
                continue
            if not entry.is_file(follow_symlinks=False) or path.suffix not in _ALLOWED:
                kind = "" if entry.is_file(follow_symlinks=False) else f", {_kind(entry)},"
                raise TasteloopError(
                    f"bundle: {path}{kind} is not allowed in a bundle; it holds plain files ending in "
                    f"{', '.join(_ALLOWED)} and directories only"
                )
            if path.suffix == ".json" and (size := entry.stat().st_size) > _MOST_JSON:
                raise TasteloopError(
                    f"bundle: {path} has {size} bytes; a JSON file of a bundle has at most {_MOST_JSON}"
                )
            files.append(path)
    return sorted(files)


def _kind(entry: os.DirEntry[str]) -> str:
    mode = entry.stat(follow_symlinks=False).st_mode
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def refuse_code(path: Path) -> None:
    """Raise TasteloopError where a configuration, at any depth, names code that a library would
    run.
    """
    todo = [_read_json(path)]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            for key, entry in value.items():
                kernel = key.endswith(_KERNELS) and isinstance(entry, str) and "/" in entry
                if (key in _CODE and entry) or kernel:
                    raise TasteloopError(f"{path} asks to run code of its own ({key}); refused")
            todo += value.values()
        elif isinstance(value, list):
            todo += value


def _read_json(path: Path) -> Any:
    """A bundle's JSON file, no larger and no deeper than one may be."""
    if (size := path.stat().st_size) > _MOST_JSON:
        raise TasteloopError(
            f"{path} has {size} bytes; a JSON file of a bundle has at most {_MOST_JSON}"
        )
    read = read_json(path)
    level, depth = [read], 0
    while level := [child for value in level for child in _children(value)]:
        depth += 1
        if depth > _MOST_DEPTH:
            raise TasteloopError(
                f"{path} is nested more than {_MOST_DEPTH} deep; no file of a bundle is"
            )
    return read


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def read_card(directory: Path) -> dict[str, Any]:
    """card.json: labels, thresholds, calibration, settings, data hash, code version, validation
    metrics.
    """
    card: dict[str, Any] = _read_json(directory / CARD)
    return card


def reading_model(card: Mapping[str, Any]) -> str:
    """Which of a bundle's models reads behaviour and items: the first, which has interests where
    any has them.
    """
    return str(next(iter(card["models"])))


def mapped_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file as read-only views of the mapped file.

    They are read when they are touched, and processes that serve the same bundle share the memory;
    the library's own `load_file` gives every process a copy.

    Raises:
        TasteloopError: its header is not what safetensors writes, or names bytes that are not
            there.
    """
    import numpy as np

    kinds: dict[str, type[np.generic]] = {
        "F32": np.float32,
        "F64": np.float64,
        "I32": np.int32,
        "I64": np.int64,
    }
    out = {}
    try:
        with path.open("rb") as stream:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        start = 8 + int.from_bytes(data[:8], "little")
        if start > 8 + _MOST_HEADER:
            raise ValueError(f"a header of {start - 8} bytes, more than {_MOST_HEADER}")
        for name, about in json.loads(data[8:start]).items():
            if name != "__metadata__":
                begin, end = about["data_offsets"]
                kind = kinds[about["dtype"]]
                count = (end - begin) // np.dtype(kind).itemsize
                if not 0 <= begin <= end:
                    raise ValueError(f"{name} from byte {begin} to {end}")
                out[name] = np.frombuffer(data, kind, count, start + begin).reshape(about["shape"])
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise TasteloopError(
            f"{path} is not a whole safetensors file: {error}; restore it or train again"
        ) from None
    return out


def _hashes(directory: Path, files: Iterable[Path]) -> dict[str, str]:
    return {
        p.relative_to(directory).as_posix(): sha256_file(p)
        for p in files
        if p != directory / MANIFEST
    }


@cache
def code_version() -> str:
    """Version and a hash over the project's sources: two runs of equal code have equal versions."""
    root = Path(tasteloop.__file__).parent.parent
    total = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{tasteloop.__version__}+{total.hexdigest()[:12]}"
