"""Directories handed on: whole or absent, at a path, in an object store (fsspec's in memory renames
nothing either).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasteloop import storage
from tasteloop.errors import TasteloopError


@pytest.fixture(params=["path", "memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    there = tmp_path / "there"
    return {
        "path": str(there),
        "memory": f"memory://bucket/{tmp_path.name}",
        "file": f"file://{there}",
    }[request.param]


def made(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        (folder / "deep" / name).write_text(text)
    return folder


def read(folder: Path) -> dict[str, str]:
    return {
        f.relative_to(folder).as_posix(): f.read_text() for f in folder.rglob("*") if f.is_file()
    }


def test_what_is_sent_is_what_is_fetched_until_it_is_discarded(place: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not storage.fetch(place, out) and not out.exists() and not storage.exists(place)
    storage.send(made(tmp_path / "one", a="1", b="2"), place)
    assert storage.fetch(place, out) and read(out) == {"deep/a": "1", "deep/b": "2"}
    storage.send(made(tmp_path / "two", b="3"), place)
    assert storage.fetch(place, out) and read(out) == {"deep/b": "3"}
    storage.discard(place)
    assert not storage.fetch(place, out) and read(out) == {"deep/b": "3"}
    storage.discard(place)


def test_a_sender_that_is_lost_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    place = f"memory://bucket/{tmp_path.name}"
    storage.send(made(tmp_path / "one", a="1", b="2"), place)
    put, sent = MemoryFileSystem.put_file, 0

    def lost(self: Any, *arguments: Any, **options: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == 2:
            raise ConnectionError("the network is gone")
        put(self, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", lost)
    with pytest.raises(TasteloopError, match="cannot write to memory://.*the network is gone"):
        storage.send(made(tmp_path / "two", a="3", b="4"), place)
    assert storage.fetch(place, tmp_path / "out") and read(tmp_path / "out") == {
        "deep/a": "1",
        "deep/b": "2",
    }


def test_a_store_without_its_package_and_a_pointer_out_of_the_store_are_refused(
    tmp_path: Path,
) -> None:
    import fsspec

    with pytest.raises(TasteloopError, match="nosuch://"):
        storage.fetch("nosuch://bucket/a", tmp_path / "out")
    system = fsspec.filesystem("memory")
    for name in ("../../etc/passwd", "/etc/passwd"):
        pointer = json.dumps({"folder": "x", "files": [name]}).encode()
        system.pipe_file(f"/evil/{tmp_path.name}/current.json", pointer)
        with pytest.raises(TasteloopError, match="outside of it"):
            storage.fetch(f"memory://evil/{tmp_path.name}", tmp_path / "out")
    assert not (tmp_path / "out").exists()
