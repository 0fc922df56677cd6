"""What a computation reports of itself while somebody listens: seconds by stage, and counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_measured: ContextVar[dict[str, float] | None] = ContextVar("measured", default=None)


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Collects what the block's computations report: seconds of each `stage`, and each `count`."""
    amounts: dict[str, float] = {}
    token = _measured.set(amounts)
    try:
        yield amounts
    finally:
        _measured.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Adds the block's seconds to a stage (tokenise, encode, rank), where somebody measures."""
    started = time.perf_counter()
    try:
        yield
    finally:
        count(name, time.perf_counter() - started)


def count(name: str, amount: float) -> None:
    """Adds to a number, such as cache_hits or cache_misses, where somebody measures."""
    amounts = _measured.get()
    if amounts is not None:
        amounts[name] = amounts.get(name, 0.0) + amount
