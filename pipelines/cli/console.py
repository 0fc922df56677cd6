"""What the commands print: JSON, error messages with an exit code, and the rooms' log messages."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, NoReturn

from tasteloop.redaction import redact


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def fail(message: str, code: int) -> NoReturn:
    """End the process with an exit code and a message on standard error, without its secrets."""
    sys.stderr.write(f"error: {redact(message)}\n")
    sys.exit(code)


def log_to_stderr(*, rooms: bool = True) -> None:
    """Show warnings of every library on standard error.

    With `rooms`, our own packages' messages too: downloads, removed rows, verdicts.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if not rooms:
        return
    from components.step import ROOMS

    for room in ROOMS:
        logging.getLogger(room).setLevel(logging.INFO)
