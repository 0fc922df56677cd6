"""A bundle that someone else made: nothing but plain files of known kinds and sizes, and none that
brings code.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasteloop.bundle.manifest import seal, verify
from tasteloop.datasets.fetch import resolve_encoder
from tasteloop.errors import TasteloopError


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    directory = tmp_path / "bundle"
    (directory / "models" / "m").mkdir(parents=True)
    (directory / "card.json").write_text("{}")
    (directory / "models" / "m" / "config.json").write_text('{"model_type": "bert"}')
    seal(directory)
    return directory


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


ADDED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pipe": (os.mkfifo, "a pipe"),
    "dangling link": (lambda path: path.symlink_to("nowhere.json"), "a link"),
    "link to a file": (lambda path: path.symlink_to("card.json"), "a link"),
    "link to a directory": (lambda path: path.symlink_to("models"), "a link"),
    "socket": (listen, "a socket"),
    "file of another kind": (lambda path: path.with_suffix(".pkl").write_bytes(b""), "not allowed"),
}


@pytest.mark.parametrize("kind", ADDED)
@pytest.mark.parametrize("place", ["x.json", "models/m/x.json"])
def test_what_is_no_plain_file_of_a_known_kind_is_refused_by_name_and_not_opened(
    kind: str, place: str, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, word = ADDED[kind]
    monkeypatch.chdir(sealed)  # a socket's address is short
    add(Path(place))

    with pytest.raises(TasteloopError, match=f"x.*{word}"):
        verify(sealed)
    with pytest.raises(TasteloopError, match=f"x.*{word}"):
        seal(sealed)


def test_a_linked_manifest_is_refused(sealed: Path, tmp_path: Path) -> None:
    (sealed / "manifest.json").rename(tmp_path / "manifest.json")
    (sealed / "manifest.json").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(TasteloopError, match=r"manifest\.json, a link"):
        verify(sealed)


@pytest.mark.parametrize("name", ["card.json", "models", "."])
def test_a_bundle_that_this_user_may_not_read_is_refused_with_the_remedy(
    name: str, sealed: Path
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to other users
        copy = shutil.copytree(sealed, Path(folder) / "bundle")
        Path(folder).chmod(0o755)
        (copy / name).chmod(0)
        root = os.geteuid() == 0  # who may read everything
        try:
            if root:
                os.seteuid(65534)
            with pytest.raises(
                TasteloopError, match=r"cannot be read by this user; .* chmod -R a\+rX"
            ):
                verify(copy)
        finally:
            if root:
                os.seteuid(0)
            (copy / name).chmod(0o700)


CODE = (
    {"auto_map": {"AutoTokenizer": ["x.X", None]}},
    {"text_config": {"auto_map": {"AutoModel": "x.X"}}},
    {"custom_pipelines": {"x": {"impl": "x.X"}}},
    {"trust_remote_code": True},
    {"_attn_implementation": "someone/kernel"},
)


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_configuration_that_brings_code_is_refused_in_a_bundle_and_in_an_encoder(
    code: dict[str, Any], name: str, sealed: Path
) -> None:
    encoder = sealed / "models" / "m"
    (encoder / "model.safetensors").write_bytes(b"")
    (encoder / name).write_text(json.dumps({"model_type": "bert", **code}))
    seal(sealed)

    for read in (lambda: verify(sealed), lambda: resolve_encoder(str(encoder))):
        with pytest.raises(TasteloopError, match=f"{name} asks to run code of its own"):
            read()


def test_a_word_of_a_vocabulary_is_no_code(sealed: Path) -> None:
    (sealed / "models" / "m" / "tokenizer.json").write_text('{"model": {"vocab": {"auto_map": 1}}}')
    (sealed / "models" / "m" / "config.json").write_text(
        '{"_attn_implementation": "sdpa", "trust_remote_code": false}'
    )
    assert seal(sealed) == verify(sealed)


@pytest.mark.parametrize("name", ["card.json", "manifest.json", "models/m/config.json"])
@pytest.mark.parametrize("depth", [100, 100_000])
def test_json_that_is_nested_too_deep_is_refused_by_name(
    name: str, depth: int, sealed: Path
) -> None:
    (sealed / name).write_text("[" * depth + "]" * depth)
    if name != "manifest.json":
        seal(sealed)
    with pytest.raises(TasteloopError, match=Path(name).name):
        verify(sealed)


def test_json_that_is_too_large_is_refused_unread(sealed: Path) -> None:
    with (sealed / "card.json").open("wb") as stream:
        stream.truncate(2**34)  # a hole: nothing is written
    with pytest.raises(TasteloopError, match=r"card\.json has 17179869184 bytes"):
        verify(sealed)
