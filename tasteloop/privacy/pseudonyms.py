"""Pseudonyms: keyed HMAC-SHA256 of user ids.

The same key gives the same pseudonym, so a user is one user from run to run; without the key an id
cannot be confirmed by hashing guesses. Lose the key and later data no longer joins earlier data;
give it away and the pseudonyms are ids.
"""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard

import polars as pl

from tasteloop.errors import TasteloopError
from tasteloop.files import make_directory
from tasteloop.home import Home

KEY_VARIABLE = "TASTELOOP_PSEUDONYM_KEY"
_SHORTEST = 16  # bytes
LONGEST_USER = 256  # characters of a user id


def pseudonym_key() -> bytes:
    """The key: `TASTELOOP_PSEUDONYM_KEY`, else `pseudonym.key` under the home, made on first use
    with mode 0600.

    Raises:
        TasteloopError: a key under 16 bytes, or a file that others may read.
    """
    path = Home.current().pseudonym_key
    if from_environment := os.environ.get(KEY_VARIABLE):
        return _long_enough(from_environment.encode(), KEY_VARIABLE)
    if not path.exists():
        _generate(path)
    if not path.is_file():
        raise TasteloopError(
            f"{path} is no file, so it holds no key; move it away, or set {KEY_VARIABLE}"
        )
    if (mode := path.stat().st_mode & 0o777) & 0o077:
        raise TasteloopError(
            f"{path} has mode {mode:04o}: others than its owner can reach the key that hides user ids; run "
            f"`chmod 600 {path}`, and replace the key if they should not have seen it"
        )
    try:
        return _long_enough(path.read_bytes().strip(), str(path))
    except PermissionError:
        raise TasteloopError(
            f"{path} cannot be read by this user; run as its owner or set {KEY_VARIABLE}"
        ) from None


def is_user(value: object) -> TypeGuard[str]:
    """Whether a value may be a user id: a string of 1 to `LONGEST_USER` characters."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_USER:
        return False
    try:
        value.encode()  # a JSON escape can spell half of a surrogate pair
    except UnicodeEncodeError:
        return False
    return True


def pseudonym(user: str, key: bytes) -> str:
    """32 hexadecimal digits: the first 16 bytes of HMAC-SHA256(key, user)."""
    return hmac.digest(key, user.encode(), "sha256")[:16].hex()


def pseudonymise(users: pl.Series, key: bytes) -> pl.Series:
    """Each user id (str) as its pseudonym, null staying null. Hashes every distinct id once."""
    distinct = users.drop_nulls().unique()
    hidden = pl.Series([pseudonym(user, key) for user in distinct], dtype=pl.String)
    return users.replace_strict(distinct, hidden, return_dtype=pl.String)


def _generate(path: Path) -> None:
    """Make the key file whole and at once, so that two processes that start together end with one
    key.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        make_directory(path.parent)
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
        ) as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # the other process was first; unlike rename, link then fails
        with suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise TasteloopError(
            f"cannot make {path} ({error.strerror}); set {KEY_VARIABLE} instead"
        ) from error


def _long_enough(key: bytes, where: str) -> bytes:
    if len(key) < _SHORTEST:
        raise TasteloopError(
            f"the key in {where} has {len(key)} bytes; at least {_SHORTEST} are needed, such as 64 random "
            'hexadecimal digits: python -c "import secrets; print(secrets.token_hex(32))"'
        )
    return key
