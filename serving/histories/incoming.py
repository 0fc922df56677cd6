"""What comes for histories also goes to the monitor: whole Parquet files in its `incoming`."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from serving.histories.protocol import Histories, Outgoing
from tasteloop import files
from tasteloop.behaviour.events import EVENTS_SCHEMA, ITEM, KIND, TEXT, TIME, USER, VALUE

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger(__name__)


class Forwarder:
    """A thread that writes what was stored to files, and once more when it is closed.

    A file is complete or absent. What was written and not confirmed to the store, because the
    process was killed between the two, is written again under the same name.
    """

    def __init__(self, store: Histories, directory: Path, seconds: float) -> None:
        self._store = store
        self._directory = directory
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="incoming", daemon=True)
        self._thread.start()

    def forward(self) -> int:
        """Write what waits; returns how many events that were."""
        count = 0
        while batches := self._store.outgoing():
            for batch in batches:
                files.write_parquet(self._directory / batch.name, _frame(batch))
                self._store.confirm(batch)
                count += len(batch.rows)
        return count

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopped.wait(self._seconds)
            try:
                self.forward()
            except Exception:
                logger.exception("events could not be written for the monitor; they are kept")


def _frame(batch: Outgoing) -> pl.DataFrame:
    import polars as pl

    rows = [
        {
            USER: user,
            ITEM: event.item,
            KIND: event.kind,
            TIME: event.time,
            VALUE: event.value,
            TEXT: event.text,
        }
        for user, event in batch.rows
    ]
    return pl.DataFrame(rows, schema=EVENTS_SCHEMA.to_polars())
