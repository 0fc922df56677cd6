"""Stores of histories for tests, and the events in them."""

from __future__ import annotations

from pathlib import Path

from serving.histories.protocol import Histories, StoredEvent
from tasteloop.behaviour.events import Event

NOW = 1_795_000_000_000_000  # µs, in November 2026
USER = "0f" * 16
OTHER = "f0" * 16
DAY = 86_400_000_000


def event(number: int, kind: str = "click", item: str | None = None, time: int = 0) -> StoredEvent:
    """An event with an id of its number; by default of an item and a time of its own."""
    stored = Event(kind, item or f"i{number}", time or NOW - DAY + number)
    return StoredEvent(number.to_bytes(8, "big"), stored)


def append(store: Histories, *events: StoredEvent, user: str = USER, now: int = NOW) -> list[str]:
    """What became of the events."""
    return list(store.append(user, events, now).result(30).outcomes)


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
