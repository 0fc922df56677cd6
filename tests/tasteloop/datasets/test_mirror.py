"""A mirror is looked into before anything is downloaded, and checked like a download."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from tasteloop.datasets.catalogue import CATALOGUE, Archive, Source
from tasteloop.datasets.fetch import fetch, fill_mirror
from tasteloop.errors import TasteloopError
from tasteloop.files import cache, sha256_file


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zip that a source of the catalogue has by its address."""
    monkeypatch.setenv("TASTELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    path = tmp_path / "origin" / "tiny data.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("data/a.csv", "x\n1\n")
    add(monkeypatch, path.as_uri(), sha256_file(path))
    return path


def add(monkeypatch: pytest.MonkeyPatch, origin: str, sha256: str) -> None:
    source = Source(
        name="tiny",
        gives="behaviour",
        archives=(Archive(origin, sha256, ("data/a.csv",)),),
        description="tiny",
        terms="free as air",
    )
    monkeypatch.setitem(CATALOGUE, "tiny", source)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [str, Path.as_uri])
def test_a_mirror_serves_without_its_origin(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: object
) -> None:
    (path,) = fill_mirror("tiny", tmp_path / "mirror")
    sha256 = sha256_file(archive)
    archive.unlink()
    monkeypatch.setenv("TASTELOOP_MIRROR", form(tmp_path / "mirror"))  # type: ignore[operator]

    place = fetch("tiny")

    assert sha256_file(path) == sha256
    assert (place / "a.csv").read_text() == "x\n1\n"


def test_a_package_is_found_in_a_mirror_by_its_name_and_version(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, "tiny-data==1.0", sha256_file(archive))
    (tmp_path / "mirror").mkdir()
    archive.rename(tmp_path / "mirror" / "tiny-data-1.0.whl")
    monkeypatch.setenv("TASTELOOP_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setattr(subprocess, "run", None)  # pip is not asked

    assert (fetch("tiny") / "a.csv").is_file()


def test_another_file_in_a_mirror_is_refused_and_nothing_kept(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = fill_mirror("tiny", tmp_path / "mirror")
    path.write_bytes(b"something else")
    monkeypatch.setenv("TASTELOOP_MIRROR", str(tmp_path / "mirror"))

    with pytest.raises(TasteloopError, match=r"the mirror's tiny data\.zip came with SHA-256"):
        fetch("tiny")

    assert [p for p in cache().rglob("*") if p.is_file()] == []


def test_a_mirror_is_filled_from_origins_whatever_the_mirror_holds(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASTELOOP_MIRROR", str(tmp_path / "mirror"))
    (path,) = fill_mirror("tiny", tmp_path / "mirror")
    path.write_bytes(b"damaged")

    with pytest.raises(TasteloopError, match=r"The file in TASTELOOP_MIRROR \(.*mirror\)"):
        fetch("tiny")
    fill_mirror("tiny", tmp_path / "mirror")

    assert sha256_file(path) == sha256_file(archive)


def test_what_a_mirror_lacks_is_downloaded(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("TASTELOOP_MIRROR", str(tmp_path / "empty"))

    assert (fetch("tiny") / "a.csv").is_file()


def test_a_mirror_that_is_not_there_is_said(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASTELOOP_MIRROR", str(tmp_path / "nowhere"))

    with pytest.raises(TasteloopError, match="which is no directory here"):
        fetch("tiny")


def test_an_archive_that_cannot_be_had_names_the_mirror(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.unlink()

    with pytest.raises(TasteloopError, match=r"`tasteloop data mirror DIR tiny`"):
        fetch("tiny")


def test_data_mirror_fills_a_directory(archive: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["data", "mirror", str(tmp_path / "mirror"), "tiny"])

    assert run.exit_code == 0, run.output
    assert [p.name for p in (tmp_path / "mirror").iterdir()] == ["tiny data.zip"]
    assert "free as air" in run.output
