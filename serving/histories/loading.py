"""Fill a store from a data set, so that on its first day it knows everybody."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from serving.histories.events import EventReader
from serving.histories.protocol import StoredEvent
from tasteloop.behaviour.events import EVENTS_SCHEMA, ITEM, KIND, TEXT, TIME, USER, VALUE, Event
from tasteloop.errors import TasteloopError

_ROWS = 2_000_000  # of the data set that are in memory at once, about


def histories_of(events: Path, reader: EventReader) -> Iterator[tuple[str, list[StoredEvent]]]:
    """The histories of a data set's events, a user at a time.

    Args:
        events: Parquet, by the events contract: users are pseudonyms under the key of `reader`.

    Raises:
        TasteloopError: it is not complete, or its users are no pseudonyms.
    """
    import polars as pl

    if not events.is_file():
        raise TasteloopError(f"no file {events}; name a data set that ingest has made")
    table = pl.scan_parquet(events, hive_partitioning=False, glob=False)
    count = table.select(pl.len()).collect().item()
    columns = (USER, KIND, ITEM, TIME, VALUE, TEXT)
    if missing := set(EVENTS_SCHEMA) - set(table.collect_schema()):
        raise TasteloopError(f"{events} has no column {sorted(missing)[0]!r}; see docs/data.md")
    parts = 1 + count // _ROWS
    for part in range(parts):
        mine = table.filter(pl.col(USER).hash() % parts == part)
        rows = mine.select(columns).sort(USER, TIME, maintain_order=True).collect().iter_rows()
        for user, of_user in groupby(rows, key=itemgetter(0)):
            if not _is_pseudonym(user):
                raise TasteloopError(
                    f"{events} has a user that is no pseudonym; ingest the source with `tasteloop run`"
                )
            yield user, [_stored(reader, *fields) for _, *fields in of_user]


def _stored(
    reader: EventReader,
    kind: str,
    item: str | None,
    time: int,
    value: float | None,
    text: str | None,
) -> StoredEvent:
    """An event with the id that it would have, had it been sent without one."""
    # of 0.8 the data set has the nearest float32
    event = Event(kind, item, time, None if value is None else round(value, 6), text)
    return StoredEvent(reader.event_id({}, event), event)


def _is_pseudonym(user: object) -> bool:
    if not isinstance(user, str) or len(user) != 32:
        return False
    try:
        return user == bytes.fromhex(user).hex()
    except ValueError:
        return False
