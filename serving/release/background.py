"""What work in the background owes to requests: a low priority, and memory given back."""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import suppress

_NICE = 10


def lower_priority() -> None:
    """Give this thread's work to requests first; Linux has a priority for each thread."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def return_freed_memory() -> None:
    """Give what a version left back to the system.

    glibc keeps freed memory in the arena of the thread that asked for it, here another one than
    frees it, and so grew by 70 MB a swap of MiniLM.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
