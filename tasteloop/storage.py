"""Directories that are handed on between machines: in an object store that fsspec reaches, or at a
path.

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


def remote(place: str) -> bool:
    """Whether a place is a URL (s3://bucket/path), not a path."""
    return "://" in place


def send(directory: Path, place: str) -> None:
    """Put a directory's files there in place of what was there; a reader finds the old ones or the
    new ones.
    """
    if not remote(place):
        with atomic_directory(Path(place)) as folder:
            shutil.copytree(directory, folder, dirs_exist_ok=True)
        return
    with _store(place, "write to") as (system, root):
        before, name = _current(system, root), uuid.uuid4().hex
        names = sorted(
            str(f.relative_to(directory).as_posix()) for f in directory.rglob("*") if f.is_file()
        )
        for each in names:
            target = f"{root}/{name}/{each}"
            system.makedirs(target.rpartition("/")[0], exist_ok=True)
            system.put_file(str(directory / each), target)
        system.pipe_file(
            f"{root}/{_POINTER}", json.dumps({"folder": name, "files": names}).encode()
        )
        if before:
            system.rm(f"{root}/{before['folder']}", recursive=True)


def there(place: str) -> bool:
    """Whether something was sent there and not discarded since."""
    if not remote(place):
        return Path(place).is_dir()
    with _store(place, "read") as (system, root):
        return _current(system, root) is not None


def fetch(place: str, directory: Path) -> bool:
    """Make a directory of what was sent there; False, and nothing is changed, where nothing was.

    Raises:
        TasteloopError: it cannot be read, or not all of it is there.
    """
    if not remote(place):
        if not Path(place).is_dir():
            return False
        with atomic_directory(directory) as folder:
            shutil.copytree(place, folder, dirs_exist_ok=True)
        return True
    with _store(place, "read") as (system, root):
        found = _current(system, root)
        if found is None:
            return False
        with atomic_directory(directory) as folder:
            for each in found["files"]:
                if each.startswith("/") or ".." in PurePosixPath(each).parts:
                    raise TasteloopError(
                        f"{place} names a file outside of it, {each!r}: nothing of it is taken"
                    )
                target = folder / each
                target.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(f"{root}/{found['folder']}/{each}", str(target))
        return True


def discard(place: str) -> None:
    """Forget what was sent there, if anything was."""
    if not remote(place):
        shutil.rmtree(place, ignore_errors=True)
        return
    with _store(place, "remove") as (system, root):
        if system.exists(root):
            system.rm(root, recursive=True)


def _current(system: Any, root: str) -> Any:
    try:
        return json.loads(system.cat_file(f"{root}/{_POINTER}"))
    except FileNotFoundError:
        return None


@contextmanager
def _store(place: str, verb: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL and the path in it; what goes wrong inside is told as ours."""
    from fsspec.core import url_to_fs

    try:
        system, root = url_to_fs(place, use_listings_cache=False)
        yield system, root.rstrip("/")
    except ImportError as error:  # the scheme is known, its package is not here
        raise TasteloopError(
            f"cannot {verb} {place}: {error}; put that package into the image"
        ) from None
    except (OSError, ValueError) as error:
        raise TasteloopError(f"cannot {verb} {place}: {type(error).__name__}: {error}") from None
