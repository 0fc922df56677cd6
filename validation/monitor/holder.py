"""Who holds a lease: a process that another one on the same machine can look at."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """This process, so that another one on the same machine can see whether it lives."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
        "space": _space(),
    }


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether a holder may be alive: of those elsewhere only the lease's end says that it is
    not.
    """
    if not holder:
        return False
    mine = this_process()
    here = holder.get("host") == mine["host"] and holder.get("space") == mine["space"] is not None
    return not here or _born(holder["pid"]) == holder["born"]


def _space() -> str | None:
    """This boot and this namespace of process ids; None where that cannot be told."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return None


def _born(pid: int) -> str | None:
    """When a process began, in ticks since the boot, so that a number used again is not taken for
    it.
    """
    with suppress(OSError, IndexError):
        after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if after[0] == "Z" else after[19]
    return None


def name_of(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
