"""That a bundle is whole: its manifest, and what may be in it.

The manifest names every file with its SHA-256; a bundle whose files differ from it, or hold one
more or one fewer, is refused. Its digest is the manifest's hash.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasteloop.bundle.names import MANIFEST_FILE
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json, sha256_file, write_json

FORMAT = 1
# any word may be a key in them
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
# What a configuration names so that a library runs code that comes with it, or from a model hub:
# transformers' classes, pipelines and generation, and kernels that are named owner/repository
# instead of a word such as sdpa.
_CODE = ("auto_map", "custom_pipelines", "custom_generate", "trust_remote_code")
_KERNELS = "implementation"
_MAX_JSON_BYTES = 64 * 2**20  # of a JSON file; the tokenizer of a hundred languages has 17 MB
_MAX_DEPTH = 64  # of lists and mappings in each other; a card has 6
_ALLOWED = (".json", ".safetensors", ".onnx", ".parquet", ".md")


def seal(directory: Path) -> str:
    """Write the manifest of a finished bundle; returns its digest."""
    write_json(
        directory / MANIFEST_FILE,
        {"format": FORMAT, "files": _hashes(directory, plain_files(directory))},
    )
    return sha256_file(directory / MANIFEST_FILE)


def verify(directory: Path) -> str:
    """The digest of a bundle whose every file is as its manifest says.

    Raises:
        TasteloopError: no bundle, another format, or a file changed, missing, added, or of a kind
            that is not allowed. Nothing but plain files is opened, and no more of one than its kind
            may have.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as name:
    ...     card = Path(name, "card.json")
    ...     _ = card.write_text("{}")
    ...     digest = seal(Path(name))
    ...     print(verify(Path(name)) == digest)
    ...     _ = card.write_text("[]")
    ...     try:
    ...         verify(Path(name))
    ...     except TasteloopError as error:
    ...         print(str(error).partition(": ")[2])
    True
    card.json is changed; restore it or train again
    """
    try:
        if not (directory / MANIFEST_FILE).is_file():
            raise TasteloopError(
                f"{directory} is not a bundle: it has no {MANIFEST_FILE}; `tasteloop run` makes one"
            )
        files = plain_files(directory)
        actual = _hashes(directory, files)
    except PermissionError as error:
        raise TasteloopError(
            f"bundle: {error.filename} cannot be read by this user; run as its owner, or open the bundle to others: "
            f"chmod -R a+rX {directory}"
        ) from None
    manifest = read_bounded_json(directory / MANIFEST_FILE)
    known = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    if not known or not isinstance(manifest.get("files"), dict):
        raise TasteloopError(
            f"{directory}: this version reads bundles of format {FORMAT} only; train it again"
        )
    expected = manifest["files"]
    wrong = sorted(name for name in {*expected, *actual} if expected.get(name) != actual.get(name))
    if wrong:
        state = (
            "missing"
            if wrong[0] not in actual
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
    return sha256_file(directory / MANIFEST_FILE)


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
            size = entry.stat().st_size
            if path.suffix == ".json" and size > _MAX_JSON_BYTES:
                raise TasteloopError(
                    f"bundle: {path} has {size} bytes; a JSON file of a bundle has at most {_MAX_JSON_BYTES}"
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
    values = [read_bounded_json(path)]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            for key, entry in value.items():
                kernel = key.endswith(_KERNELS) and isinstance(entry, str) and "/" in entry
                if (key in _CODE and entry) or kernel:
                    raise TasteloopError(f"{path} asks to run code of its own ({key}); refused")
            values += value.values()
        elif isinstance(value, list):
            values += value


def read_bounded_json(path: Path) -> Any:
    """A bundle's JSON file, no larger and no deeper than one may be."""
    size = path.stat().st_size
    if size > _MAX_JSON_BYTES:
        raise TasteloopError(
            f"{path} has {size} bytes; a JSON file of a bundle has at most {_MAX_JSON_BYTES}"
        )
    content = read_json(path)
    level, depth = [content], 0
    while level:
        level = [child for value in level for child in _children(value)]
        depth += 1
        if level and depth > _MAX_DEPTH:
            raise TasteloopError(
                f"{path} is nested more than {_MAX_DEPTH} deep; no file of a bundle is"
            )
    return content


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _hashes(directory: Path, files: Iterable[Path]) -> dict[str, str]:
    return {
        p.relative_to(directory).as_posix(): sha256_file(p)
        for p in files
        if p != directory / MANIFEST_FILE
    }
