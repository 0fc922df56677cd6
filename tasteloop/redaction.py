"""What no message may hold: secrets of addresses and of the environment, mail addresses, values of
the input.

Every message of ours goes through `redact`: a TasteloopError's text when it is raised, log records
and the tracebacks of uncaught exceptions (`tasteloop.process`), what a run records and prints
(`pipelines.local.runner`, `components.step`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

HIDDEN = "***"

_SECRET = (
    r"token|secret|passw(?:or)?d|pwd|signature|sig|credentials?|api[-_]?key"
    r"|access[-_]?key(?:[-_]?id)?|key|auth|code"
)
# what a text holds wherever the pattern after it can match, the pattern, what stands there instead
_PATTERNS = (
    # ?token=…, &X-Amz-Signature=…, ;token=… of a Spark Connect address
    ("=", rf"([?&;](?:[\w.-]*[-_.])?(?:{_SECRET})=)[^&;\s'\"<>#]+", rf"\1{HIDDEN}"),
    (" ", r"\b(bearer|basic) +(?=\S*[\d=])[\w.~+/=-]{8,}", rf"\1 {HIDDEN}"),  # a word has no digit
    ("@", r"(?<![\w.%+/-])[\w.%+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}\b", f"{HIDDEN}@{HIDDEN}"),
)
# Of scheme://user:password@host. A password may hold '@', and '/' that was not escaped: no port
# follows ':' then.
_USER = re.compile(r"(?<=://)(?:[^/?#@:[]*:(?!\d{1,5}[/?#]).*@|[^/?#]*@)", re.DOTALL)
_PASSWORD = re.compile(r"://[^/?#@:]*:([^/?#@]+)@")
_BETWEEN = re.compile(r"([\s'\"<>]+)")  # addresses
_COMPILED = tuple(
    (sign, re.compile(pattern, re.I), instead) for sign, pattern, instead in _PATTERNS
)
_VARIABLES = (
    "PASSWORD",
    "PASSWD",
    "SECRET",
    "TOKEN",
    "KEY",
    "KEY_ID",
    "CREDENTIAL",
    "CREDENTIALS",
    "WEBHOOK",
)
# characters of a variable's value that is looked for: a shorter one is in too many words
_SHORTEST = 8
_SHOWN = 40  # characters of a value


def redact(text: str) -> str:
    """The text without secrets of addresses, values of the environment's secret variables, and mail
    addresses.
    """
    if "://" in text and "@" in text:
        text = "".join(map(_without_user, _BETWEEN.split(text)))
    for sign, pattern, instead in _COMPILED:
        if sign in text:
            text = pattern.sub(instead, text)
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    return text


def _without_user(word: str) -> str:
    # the pattern is tried up to the last '@' alone: the time grows with the length, not its square
    end = word.rfind("@") + 1
    if "://" not in word[:end]:
        return word
    return _USER.sub(f"{HIDDEN}@", word[:end]) + word[end:]


@cache
def _secrets() -> tuple[str, ...]:
    """Values of the environment's secret variables, and passwords of its addresses, as the process
    began with them; the longest first.
    """
    values = {value for name, value in os.environ.items() if name.endswith(_VARIABLES)}
    for value in os.environ.values():
        password = _PASSWORD.search(value)
        if password is not None:
            values.add(password[1])
    long_enough = [value for value in values if len(value) >= _SHORTEST]
    return tuple(sorted(long_enough, key=len, reverse=True))


def redact_strings(value: Any) -> Any:
    """`redact` for every string in lists and mappings, as JSON has them."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_strings(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [redact_strings(entry) for entry in value]
    return value


def masked(value: object) -> str:
    """The shape of a value of the input: 9 for digits, x for letters, everything else as it is, at
    most 40 characters.

    It shows what is wrong with a time or a number, and tells nobody whose it is.
    """
    text = value if isinstance(value, str) else repr(value)
    shape = "".join("9" if c.isdigit() else "x" if c.isalpha() else c for c in text[:_SHOWN])
    return repr(shape) + (f" … ({len(text)} characters)" if len(text) > _SHOWN else "")


_NAME = re.compile(r"[^\W\d][\w .:()/%#-]{0,60}")


def column_names(names: Iterable[str], has: str = "it has ") -> str:
    """The columns that a table has, to be shown; where one of them is no name, its first line is
    data and is not.
    """
    names = list(names)
    if all(_NAME.fullmatch(name) for name in names):
        return has + ", ".join(names)
    return f"its first line is no header: of its {len(names)} fields some are not names"
