"""Questions for a server, from what a command line holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasteloop.answers import SERVED_MODELS
from tasteloop.errors import TasteloopError

# characters of a history; a server takes four MiB unless it is told otherwise
_LONGEST = 16 * 1024 * 1024


def instances(
    model: str,
    events: str | None,
    texts: Sequence[str] | None,
    k: int,
    user: str | None = None,
    language: str | None = None,
    against: bool = False,
) -> list[dict[str, Any]]:
    """One instance of a history, a user, or both, or one a text; the server checks them."""
    told: dict[str, Any] = {} if language is None else {"language": language}
    if model not in SERVED_MODELS:
        raise TasteloopError(f"no model {model!r}; known: {', '.join(SERVED_MODELS)}")
    served = SERVED_MODELS[model]
    if served.input.is_text:
        if not texts:
            raise TasteloopError(f'{model} judges texts: --text "a warm and funny film"')
        return [{"text": text, **told} for text in texts]
    if events is None and user is None:
        raise TasteloopError(
            f"{model} reads a history: --events FILE, --events - for standard input, or "
            """--events '[{"kind": "rate", "item": "50", "value": 0.8}]'; or a stored one: --user ID"""
        )
    instance = {**told, **({"against": True} if against else {})}
    if user is not None:
        instance["user"] = user
    if events is not None:
        instance["events"] = _history(events)
    if served.default_k is not None:
        instance["k"] = k
    return [instance]


def _history(argument: str) -> list[Any]:
    """The history that `--events` holds, or names: a file, or `-` for standard input."""
    where = "standard input" if argument == "-" else "--events"
    try:
        if argument == "-":
            text = sys.stdin.read(_LONGEST + 1)
        elif argument.lstrip().startswith(("[", "{")):
            text = argument
        else:
            where = argument
            with Path(argument).open(encoding="utf-8") as file:
                text = file.read(_LONGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise TasteloopError(
            f"--events {argument:.200}: neither JSON nor a file that can be read ({error})"
        ) from None
    if len(text) > _LONGEST:
        raise TasteloopError(f"{where} has more than {_LONGEST} characters; send a shorter history")
    try:
        history = json.loads(text)
    except (ValueError, RecursionError) as error:
        # what follows of too large an integer is advice to a programmer
        problem = str(error).partition(";")[0]
        raise TasteloopError(f"{where} is not JSON: {problem}") from None
    history = history.get("events", history) if isinstance(history, dict) else history
    if not isinstance(history, list):
        raise TasteloopError(
            f"{where} holds {type(history).__name__}; a history is a list of events"
        )
    return history
