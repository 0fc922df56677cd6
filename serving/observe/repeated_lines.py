"""A filter for logs: what a line of code logs again and again is counted instead of written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any


class RepeatedLines(logging.Filter):
    """Lets a few lines a minute pass of each line of code. The next one that passes says how many
    did not.

    Args:
        most: lines that pass within `seconds`.
    """

    def __init__(
        self, most: int = 5, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._most, self._seconds, self._clock = most, seconds, clock
        # by line of code: since when its lines are counted, and how many there were
        self._counted: dict[tuple[str, int, Any], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        line = (record.pathname, record.lineno, record.exc_info and record.exc_info[0])
        now = self._clock()
        since, count = self._counted.get(line, (now, 0))
        if now - since >= self._seconds:
            if count > self._most:
                record.msg = f"{record.getMessage()} (and {count - self._most} times more since the last such line)"
                record.args = ()
            since, count = now, 0
        self._counted[line] = since, count + 1
        return count < self._most
