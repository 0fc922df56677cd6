"""Pseudonyms and their key."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import polars as pl
import pytest

from tasteloop.errors import TasteloopError
from tasteloop.privacy.pseudonyms import KEY_VARIABLE, pseudonym, pseudonym_key, pseudonymise

KEY = b"0123456789abcdef"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return tmp_path / "home"


def test_a_pseudonym_is_half_an_hmac() -> None:
    # printf alice | openssl dgst -sha256 -hmac 0123456789abcdef
    assert pseudonym("alice", KEY) == "fdbf8b1cacd3d578e062d0e41104357d"
    assert pseudonym("alice", KEY[::-1]) != pseudonym("alice", KEY)


def test_a_column_is_pseudonymised_value_by_value() -> None:
    users = pl.Series("user", ["alice", None, "bob", "alice", "ünï"])
    hidden = pseudonymise(users, KEY)
    assert hidden.to_list() == [u if u is None else pseudonym(u, KEY) for u in users]
    assert pseudonymise(users.clear(), KEY).to_list() == []
    nobody = pl.Series("user", [None, None], dtype=pl.String)
    assert pseudonymise(nobody, KEY).to_list() == [None, None]


def test_the_key_is_made_once_for_its_owner_alone(home: Path) -> None:
    key = pseudonym_key()
    assert len(key) == 64
    assert pseudonym_key() == key
    assert [p.name for p in home.iterdir()] == ["pseudonym.key"]
    assert (home / "pseudonym.key").stat().st_mode & 0o777 == 0o600


def test_an_umask_does_not_widen_the_key(home: Path) -> None:
    before = os.umask(0)
    try:
        pseudonym_key()
    finally:
        os.umask(before)
    assert (home / "pseudonym.key").stat().st_mode & 0o777 == 0o600


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a secret of some length")
    assert pseudonym_key() == b"a secret of some length"
    assert not home.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_key_that_others_can_reach_is_refused(home: Path, mode: int) -> None:
    key = pseudonym_key().decode()
    (home / "pseudonym.key").chmod(mode)
    with pytest.raises(TasteloopError, match="chmod 600") as raised:
        pseudonym_key()
    assert key not in str(raised.value)


@pytest.mark.parametrize("key", ["short", ""])
def test_a_short_key_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, home: Path, key: str
) -> None:
    home.mkdir()
    (home / "pseudonym.key").write_text(key)
    (home / "pseudonym.key").chmod(0o600)
    with pytest.raises(TasteloopError, match="at least 16"):
        pseudonym_key()
    monkeypatch.setenv(KEY_VARIABLE, "sesame")
    with pytest.raises(TasteloopError, match=KEY_VARIABLE) as raised:
        pseudonym_key()
    assert "sesame" not in str(raised.value)


def _report_key(answers: multiprocessing.Queue[bytes]) -> None:
    answers.put(pseudonym_key())


def test_processes_that_start_together_end_with_one_key(home: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_report_key, args=(answers,)) for _ in range(8)]
    for process in processes:
        process.start()
    keys = {answers.get(timeout=30) for _ in processes}
    for process in processes:
        process.join()
    assert keys == {pseudonym_key()}
    assert [p.name for p in home.iterdir()] == ["pseudonym.key"]
