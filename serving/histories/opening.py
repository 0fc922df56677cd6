"""A store of histories by its address: a directory, or a Valkey or Redis server."""

from __future__ import annotations

from pathlib import Path

from serving.histories.protocol import Bounds, Histories, StoreAway, StoreFull
from serving.settings import HistorySettings
from tasteloop.errors import TasteloopError
from tasteloop.home import Home
from tasteloop.redaction import redact

ON = "on"
SCHEMES = ("valkey://", "valkeys://", "redis://", "rediss://")


def is_shared(address: str) -> bool:
    """Whether several servers may use the store at once."""
    return address.startswith(SCHEMES)


def require_shared(address: str) -> None:
    """Refuse a store that one server has for itself, where there are several.

    Raises:
        TasteloopError: so it is; it names Valkey.
    """
    if not is_shared(address):
        raise TasteloopError(
            f"histories: {address!r:.100} would be SQLite of one pod alone, and each replica would know another part "
            "of a user; keep them in Valkey: histories=valkey://HOST:6379"
        )


def open_histories(
    address: str, settings: HistorySettings, forwards: bool, alone: bool = True
) -> Histories:
    """Open a store.

    Args:
        address: `valkey://HOST:PORT`, a directory, or `on` for that of the home.
        forwards: whether events are kept until they went to the monitor.
        alone: whether the caller writes; see `SqliteHistories`.

    Raises:
        TasteloopError: it cannot be used.
    """
    try:
        return _open(address, settings, forwards, alone)
    except (StoreAway, StoreFull) as error:
        raise TasteloopError(f"histories {redact(address)!r:.200}: {error}") from error


def _open(address: str, settings: HistorySettings, forwards: bool, alone: bool) -> Histories:
    bounds = Bounds(settings.events, settings.days or None, settings.items)
    if is_shared(address):
        from serving.histories.valkey import ValkeyHistories

        return ValkeyHistories(address, bounds, settings.waiting, forwards)
    from serving.histories.sqlite import SqliteHistories

    directory = Home.current().histories if address == ON else Path(address)
    return SqliteHistories(
        directory, bounds, settings.waiting, settings.megabytes or None, forwards, alone
    )
