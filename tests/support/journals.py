"""Answers as a server gives them, and a journal that keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.journal.answered import Answered
from serving.journal.writer import Journal
from serving.settings import JournalSettings

SECRET = "my therapist said"

SENTIMENT = {"sentiment": "positive", "probability": 0.75, "confident": True}


def answer(n: int, **changes: Any) -> Answered:
    fields = {
        "request_id": f"r{n}",
        "model": "sentiment",
        "version": "3",
        "protocol": "v1",
        "time": 1_700_000_000_000_000 + n,
        "instances": [{"text": f"{SECRET} {n}"}],
        "outputs": [SENTIMENT],
        "timings": {"queue": 0.001, "encode": 0.004, "batch": 3},
        "users": ["a" * 32],
    }
    return Answered(**{**fields, **changes})


def keep(directory: Path, **settings: Any) -> Journal:
    return Journal(JournalSettings(directory=directory, **{"seconds": 0.05, **settings}))
