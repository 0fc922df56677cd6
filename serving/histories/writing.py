"""One thread that writes what waits, many changes at a time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from serving.histories.protocol import StoreAway, StoreBusy, StoredEvent

logger = logging.getLogger(__name__)

GROUP = 256  # changes that one commit makes durable, at most


@dataclass(eq=False)
class Change:
    """A change that waits, and the future of its result.

    Attributes:
        kind: "append", "erase" or "claim".
        subject: the pseudonym, or the digest of an idempotency key.
        events: to append. body: the digest of a body, to claim.
        weight: how much of the queue's bound it takes.
    """

    kind: str
    subject: str
    now: int
    events: Sequence[StoredEvent] = ()
    body: bytes = b""
    future: Future[Any] = field(default_factory=Future)

    @property
    def weight(self) -> int:
        return max(1, len(self.events))


class Writer:
    """The queue and its thread.

    Args:
        write: carries out changes together and ends their futures; what it raises ends those that
            have not ended yet.
        bound: events that may wait; more are refused.
    """

    def __init__(self, write: Callable[[list[Change]], None], bound: int, name: str) -> None:
        self._write = write
        self._bound = bound
        self._waiting: deque[Change] = deque()
        self._weight = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, change: Change) -> Future[Any]:
        """Queue a change.

        Raises:
            StoreBusy: too much waits. A change of any size may be the only one that waits.
            StoreAway: the store was closed.
        """
        with self._changed:
            if self._closed:
                raise StoreAway("the store was closed; this server stops")
            if self._waiting and self._weight + change.weight > self._bound:
                raise StoreBusy
            self._waiting.append(change)
            self._weight += change.weight
            self._changed.notify()
        return change.future

    def close(self) -> None:
        """Write what waits, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                taken = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
                self._weight -= sum(change.weight for change in taken)
            # What nobody waits for any more is not begun; what is begun cannot be cancelled.
            taken = [change for change in taken if change.future.set_running_or_notify_cancel()]
            try:
                if taken:
                    self._write(taken)
            except Exception as error:
                if not isinstance(error, StoreAway):
                    logger.warning("%d changes of histories were not stored: %s", len(taken), error)
                for change in taken:
                    if not change.future.done():
                        change.future.set_exception(error)
