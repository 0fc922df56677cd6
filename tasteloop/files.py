"""Files that are either complete or absent, and their fingerprints.

Every write goes to a temporary sibling, is flushed to the disk and then renamed, so a reader or a
run that was killed never sees half a file. Who may read files is the umask's to say, which
`tasteloop.process` sets.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasteloop.errors import TasteloopError
from tasteloop.home import Home

if TYPE_CHECKING:
    import polars as pl


def cache() -> Path:
    """What can be fetched again: `TASTELOOP_CACHE`, else `~/.cache/tasteloop`."""
    return Path(os.environ.get("TASTELOOP_CACHE") or "~/.cache/tasteloop").expanduser().absolute()


def make_directory(path: Path) -> None:
    """Make a directory and those above it; the home, the cache and what is in them are open to
    their user alone.
    """
    private_roots = (Home.current().path, cache())
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    for directory in reversed(missing):
        is_private = any(directory.is_relative_to(root) for root in private_roots)
        directory.mkdir(0o700 if is_private else 0o777, exist_ok=True)


def _beside(path: Path, role: str) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.{role}")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling that becomes `path` when the block ends and vanishes when it
    raises.
    """
    make_directory(path.parent)
    temporary = _beside(path, "tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file (text as UTF-8), replacing what was there; the folders above it are made."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary sibling that becomes `path` when the block ends and vanishes when it
    raises.

    A directory that was at `path` is moved aside first: a kill between the two renames leaves none,
    never a mixture.
    """
    make_directory(path.parent)
    temporary, old = _beside(path, "tmp"), _beside(path, "old")
    temporary.mkdir()
    try:
        yield temporary
        for entry in sorted(temporary.rglob("*")):
            _flush(entry)
        _flush(temporary)
        while True:
            try:
                os.rename(temporary, path)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            try:  # another process may have moved it first; then the next rename decides
                os.rename(path, old)
            except FileNotFoundError:
                continue
            shutil.rmtree(old)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: Path, seconds: float, between: float) -> Iterator[None]:
    """Hold a lock file, alone among processes, while the block runs; the folders above it are made.

    Args:
        seconds: how long to wait for whoever holds it.
        between: seconds between one try and the next.

    Raises:
        TasteloopError: it was held all that time.
    """
    import fcntl

    make_directory(path.parent)
    with path.open("a") as lock:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TasteloopError(
                        f"another process has held {path} for {seconds:.0f} s; end it or try again"
                    ) from None
                time.sleep(between)
        yield  # closing the file releases the lock


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_tree(directory: Path) -> str:
    """One hash for all files below a directory: their relative paths and contents, in path
    order.
    """
    total = hashlib.sha256()
    files = {p.relative_to(directory).as_posix(): p for p in directory.rglob("*") if p.is_file()}
    for name in sorted(files):
        total.update(f"{name}\0{sha256_file(files[name])}\n".encode())
    return total.hexdigest()


def write_json(path: Path, obj: Any) -> None:
    """Indented UTF-8; NaN and infinity, which JSON does not have, raise ValueError."""
    atomic_write(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise TasteloopError(f"no file {path}; run the step that writes it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TasteloopError(f"{path} is not readable JSON ({error}); write it again") from error


def read_yaml(path: Path, words: bool = False) -> Any:
    """The one document of a YAML file, as `tasteloop.yaml12` reads it.

    Raises:
        TasteloopError: no such file, or one that is not UTF-8, not YAML, or beyond what is allowed.
    """
    from tasteloop.yaml12 import LONGEST, parse_yaml

    try:
        with path.open("rb") as file:
            text = file.read(4 * LONGEST + 1).decode()  # a character has at most four bytes
        return parse_yaml(text, words)
    except FileNotFoundError:
        raise TasteloopError(f"no file {path}; check the path") from None
    except OSError as error:
        raise TasteloopError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise TasteloopError(f"{path} is not readable YAML: {error}") from None


def as_mapping(value: object) -> Mapping[str, Any]:
    """What was read from JSON as the object that is expected there; an empty one for anything
    else.
    """
    return value if isinstance(value, Mapping) else {}


def as_list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def as_text(value: object) -> str | None:
    """The value as text; None stays None."""
    return None if value is None else str(value)


def as_rows(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    return [row for row in as_list(value) if isinstance(row, Mapping)]


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    with atomic_file(path) as temporary:
        frame.write_parquet(temporary, compression="zstd")


def read_parquet(path: Path, rows: int | None = None) -> pl.DataFrame:
    """A table, or its first rows alone; TasteloopError where it is not a whole Parquet file."""
    import polars as pl

    if not path.is_file():
        raise TasteloopError(f"no file {path}; run the step that writes it")
    try:
        return pl.read_parquet(path, n_rows=rows, hive_partitioning=False, glob=False)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise TasteloopError(
            f"{path} ({path.stat().st_size} bytes) is not a whole Parquet file: {error}; write it again"
        ) from error
