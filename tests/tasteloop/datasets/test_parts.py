"""A zip in parts is joined, checked, and leaves nothing but its members."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from tasteloop.datasets.parts import joined_zip
from tasteloop.errors import TasteloopError

PARTS = ("m.zip.001", "m.zip.002", "m.zip.003")


def write_parts(folder: Path) -> str:
    """Three parts of a zip with two members; the zip's SHA-256."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("m/config.json", "{}")
        archive.writestr("m/weights.bin", bytes(range(256)) * 20)
    data = content.getvalue()
    size = -(-len(data) // len(PARTS))
    for n, name in enumerate(PARTS):
        (folder / name).write_bytes(data[n * size : (n + 1) * size])
    return hashlib.sha256(data).hexdigest()


def test_parts_become_the_members_of_the_zip(tmp_path: Path) -> None:
    sha256 = write_parts(tmp_path)

    joined_zip(PARTS, sha256, ("m/config.json", "m/weights.bin"))(tmp_path)

    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "weights.bin"}
    assert (tmp_path / "weights.bin").read_bytes() == bytes(range(256)) * 20


def test_parts_that_make_another_zip_are_refused(tmp_path: Path) -> None:
    sha256 = write_parts(tmp_path)
    (tmp_path / PARTS[1]).write_bytes(b"something else")

    with pytest.raises(TasteloopError, match=f"the catalogue says {sha256}"):
        joined_zip(PARTS, sha256, ("m/config.json",))(tmp_path)


def test_a_member_that_the_joined_zip_lacks_is_named(tmp_path: Path) -> None:
    sha256 = write_parts(tmp_path)

    with pytest.raises(TasteloopError, match=r"m/gone\.json"):
        joined_zip(PARTS, sha256, ("m/gone.json",))(tmp_path)
