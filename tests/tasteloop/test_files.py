"""Files are whole or absent."""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path

import polars as pl
import pytest

from tasteloop.errors import TasteloopError
from tasteloop.files import (
    atomic_directory,
    atomic_write,
    cache,
    read_json,
    read_parquet,
    sha256_file,
    sha256_tree,
    write_json,
    write_parquet,
)
from tasteloop.home import Home


def test_places_come_from_the_environment_and_are_not_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("TASTELOOP_CACHE", str(tmp_path / "c"))
    assert (Home.current().path, cache()) == (tmp_path / "h", tmp_path / "c")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("TASTELOOP_HOME")
    monkeypatch.setenv("TASTELOOP_CACHE", "")
    assert (Home.current().path, cache()) == (
        Path.home() / ".tasteloop",
        Path.home() / ".cache" / "tasteloop",
    )


def test_a_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    atomic_write(target, "one")
    atomic_write(target, "zwölf".encode())
    assert target.read_text(encoding="utf-8") == "zwölf"
    assert list(target.parent.iterdir()) == [target]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with atomic_directory(target) as directory:
        (directory / "a").write_text("1")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), atomic_directory(target) as directory:
        (directory / "b").write_text(str(1 / 0))
    assert [p.name for p in target.iterdir()] == ["a"]
    with atomic_directory(target) as directory:
        (directory / "c").write_text("3")
    assert [p.name for p in target.iterdir()] == ["c"]
    assert list(tmp_path.iterdir()) == [target]


def _replace_often(target: Path, mark: str) -> None:
    for _ in range(20):
        with atomic_directory(target) as directory:
            (directory / "a").write_text(mark)
            (directory / "b").write_text(mark)


def test_concurrent_replacement_never_mixes(tmp_path: Path) -> None:
    target = tmp_path / "x"
    writers = [
        multiprocessing.get_context("fork").Process(target=_replace_often, args=(target, m))
        for m in "12"
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert (target / "a").read_text() == (target / "b").read_text()
    assert list(tmp_path.iterdir()) == [target]


def test_the_tree_hash_sees_names_and_contents_and_nothing_else(tmp_path: Path) -> None:
    def tree(name: str, files: dict[str, str]) -> str:
        for path, text in files.items():
            atomic_write(tmp_path / name / path, text)
        return sha256_tree(tmp_path / name)

    first = tree("1", {"a": "x", "sub/b": "y"})
    assert tree("2", {"sub/b": "y", "a": "x"}) == first
    assert tree("3", {"a": "x", "b": "y"}) != first
    assert tree("4", {"a": "x", "sub/b": "z"}) != first
    assert (
        sha256_file(tmp_path / "1" / "a")
        == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    )


def test_json_is_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ä": [1, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"f1": math.nan})
    assert read_json(tmp_path / "a.json") == {"ä": [1, None]}
    for text in ("", '{"a": 1', "\x80"):
        (tmp_path / "b.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(TasteloopError, match=r"b\.json is not readable JSON"):
            read_json(tmp_path / "b.json")
    with pytest.raises(TasteloopError, match=r"no file .*c\.json"):
        read_json(tmp_path / "c.json")


def test_parquet_round_trip_and_every_truncation_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1, None], "b": [["x"], []]})
    path = tmp_path / "[a]*.parquet"  # a name, never a pattern
    write_parquet(path, frame)
    assert read_parquet(path).equals(frame)
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(TasteloopError, match="not a whole Parquet file"):
            read_parquet(path)
    with pytest.raises(TasteloopError, match="no file"):
        read_parquet(tmp_path / "none.parquet")
