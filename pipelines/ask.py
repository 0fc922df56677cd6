"""Questions for a server, from what a command line holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasteloop.errors import TasteloopError

MODELS = ("interests", "recommend", "sentiment")


def instances(model: str, events: str | None, texts: Sequence[str] | None, k: int) -> list[dict[str, Any]]:
    """One instance of a history, or one a text; the server checks what is in them."""
    if model not in MODELS:
        raise TasteloopError(f"no model {model!r}; known: {', '.join(MODELS)}")
    if model == "sentiment":
        if not texts:
            raise TasteloopError('sentiment judges texts: --text "a warm and funny film"')
        return [{"text": text} for text in texts]
    if events is None:
        raise TasteloopError(
            f"{model} reads a history: --events FILE, --events - for standard input, or "
            """--events '[{"kind": "rate", "item": "50", "value": 0.8}]'"""
        )
    history = _history(events)
    return [{"events": history, "k": k} if model == "recommend" else {"events": history}]


def _history(given: str) -> Any:
    text, where = given, "--events"
    if given == "-":
        text, where = sys.stdin.read(), "standard input"
    elif not given.lstrip().startswith(("[", "{")):
        try:
            text, where = Path(given).read_text(encoding="utf-8"), given
        except (OSError, UnicodeDecodeError) as error:
            raise TasteloopError(f"--events {given}: neither JSON nor a file that can be read ({error})") from None
    try:
        history = json.loads(text)
    except ValueError as error:
        raise TasteloopError(f"{where} is not JSON: {error}") from None
    history = history.get("events", history) if isinstance(history, dict) else history
    if not isinstance(history, list):
        raise TasteloopError(f"{where} holds {type(history).__name__}; a history is a list of events")
    return history
