"""Directories that are handed on between machines, at an address: the URL of an object store that
fsspec reaches, or a path.

An object store renames nothing. So a directory's files go under a name that nobody has read yet, a
small pointer names them last, and whoever finds the pointer finds all of them. At a path a rename
does the same.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_directory

_POINTER = "current.json"


def is_remote(address: str) -> bool:
    """Whether an address is a URL (s3://bucket/path), not a path."""
    return "://" in address


def send(directory: Path, address: str) -> None:
    """Put a directory's files at the address in place of earlier ones.

    A reader finds all of the earlier files or all of the new ones.

    Raises:
        TasteloopError: the store cannot be written to.
    """
    if not is_remote(address):
        with atomic_directory(Path(address)) as folder:
            shutil.copytree(directory, folder, dirs_exist_ok=True)
        return
    with _store(address, "write to") as (system, root):
        before, name = _current(system, root), uuid.uuid4().hex
        files = [path for path in directory.rglob("*") if path.is_file()]
        names = sorted(path.relative_to(directory).as_posix() for path in files)
        for file in names:
            target = f"{root}/{name}/{file}"
            system.makedirs(target.rpartition("/")[0], exist_ok=True)
            system.put_file(str(directory / file), target)
        pointer = json.dumps({"folder": name, "files": names})
        system.pipe_file(f"{root}/{_POINTER}", pointer.encode())
        if before:
            system.rm(f"{root}/{before['folder']}", recursive=True)


def exists(address: str) -> bool:
    """Whether a directory was sent to the address and not discarded since."""
    if not is_remote(address):
        return Path(address).is_dir()
    with _store(address, "read") as (system, root):
        return _current(system, root) is not None


def fetch(address: str, directory: Path) -> bool:
    """Make a directory of what was sent to the address.

    Returns:
        False where nothing was sent; then nothing is changed.

    Raises:
        TasteloopError: it cannot be read, or not all of it is there.
    """
    if not is_remote(address):
        if not Path(address).is_dir():
            return False
        with atomic_directory(directory) as folder:
            shutil.copytree(address, folder, dirs_exist_ok=True)
        return True
    with _store(address, "read") as (system, root):
        pointer = _current(system, root)
        if pointer is None:
            return False
        with atomic_directory(directory) as folder:
            for file in pointer["files"]:
                if file.startswith("/") or ".." in PurePosixPath(file).parts:
                    raise TasteloopError(
                        f"{address} names a file outside of it, {file!r}: nothing of it is taken"
                    )
                target = folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(f"{root}/{pointer['folder']}/{file}", str(target))
        return True


def discard(address: str) -> None:
    """Remove what was sent to the address, if anything was."""
    if not is_remote(address):
        shutil.rmtree(address, ignore_errors=True)
        return
    with _store(address, "remove") as (system, root):
        if system.exists(root):
            system.rm(root, recursive=True)


def _current(system: Any, root: str) -> Any:
    """The pointer, {"folder": name, "files": [names]}; None where nothing was sent."""
    try:
        return json.loads(system.cat_file(f"{root}/{_POINTER}"))
    except FileNotFoundError:
        return None


@contextmanager
def _store(address: str, verb: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL and the path in it; errors inside become TasteloopErrors."""
    from fsspec.core import url_to_fs

    try:
        system, root = url_to_fs(address, use_listings_cache=False)
        yield system, root.rstrip("/")
    except ImportError as error:  # the scheme is known, its package is not here
        raise TasteloopError(
            f"cannot {verb} {address}: {error}; put that package into the image"
        ) from None
    except (OSError, ValueError) as error:
        raise TasteloopError(f"cannot {verb} {address}: {type(error).__name__}: {error}") from None
