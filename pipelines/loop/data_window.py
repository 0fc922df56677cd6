"""The data window of a retraining.

Whoever acted within the last `recent_days` comes with their whole history; of the other users a
seeded share is replayed, so that what they taught is not forgotten. Some users of the champion's
own test window stay out: on them the new model is compared with the champion before it may replace
it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.loop.contracts import Incoming
from pipelines.settings import RetrainingSettings
from tasteloop.behaviour.events import ITEM, TIME, USER
from tasteloop.behaviour.snapshots import TEST, Snapshots
from tasteloop.datasets.ingest import EVENTS_FILE, INGEST_FILE, ITEMS_FILE
from tasteloop.files import (
    atomic_directory,
    read_json,
    read_parquet,
    write_json,
    write_parquet,
)
from tasteloop.home import Home
from validation.monitor.sampling import chosen
from validation.monitor.windows import HOUR, distinct

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)


def write_window(
    dataset: Path,
    snapshots: Path,
    incoming: Incoming,
    until: int,
    settings: RetrainingSettings,
    out: Path,
) -> None:
    """Write the data window as a data set directory, which ingest reads.

    Args:
        dataset: the data set from before anything was monitored (`Provenance.base_dataset`).
        snapshots: those of the champion.
        incoming: the behaviour that has come since.
        until: no event of that time (µs) or later is read.
    """
    import polars as pl

    # 1. all events of all users
    source = read_json(dataset / INGEST_FILE)
    together = pl.concat([read_parquet(dataset / EVENTS_FILE), incoming.events])
    events = distinct(together.filter(pl.col(TIME) < until))

    # 2. users that are held out, come recently, or are replayed
    tested = Snapshots.read(snapshots).split(TEST)[USER]
    held_out = _choose_share(tested, settings.held, settings.seed)
    last_act = events.group_by(USER).agg(pl.col(TIME).max())
    last_act = last_act.filter(~pl.col(USER).is_in(held_out.implode()))
    acted_recently = pl.col(TIME) >= until - int(settings.recent_days * 24 * HOUR)
    recent = last_act.filter(acted_recently)[USER]
    replayed = _choose_share(last_act.filter(~acted_recently)[USER], settings.replay, settings.seed)
    read_users = pl.concat([recent, replayed]).implode()
    events_read = events.filter(pl.col(USER).is_in(read_users)).sort(TIME, maintain_order=True)

    # 3. the catalogue: where both describe an item, today's description counts
    items = read_parquet(dataset / ITEMS_FILE)
    if incoming.items is not None:
        todays = incoming.items.select(items.columns).cast(items.schema)
        items = pl.concat([todays, items]).unique(ITEM, keep="first", maintain_order=True)

    window = {
        "until": until,
        "events": events_read.height,
        "recent_users": len(recent),
        "replayed_users": len(replayed),
        "held_users": len(held_out),
    }
    with atomic_directory(out) as directory:
        write_parquet(directory / EVENTS_FILE, events_read)
        write_parquet(directory / ITEMS_FILE, items)
        write_json(
            directory / INGEST_FILE,
            {
                "source": source["source"],
                "terms": source["terms"],
                "times": source.get("times", "given"),
                "base": _below_home(dataset),
                "window": window,
            },
        )
    log.info("data window: %s", window)


def _below_home(path: Path) -> str:
    """A path relative to the home, which may be moved; one that lies elsewhere as it is."""
    home = Home.current().path
    return str(path.relative_to(home) if path.is_relative_to(home) else path)


def _choose_share(users: pl.Series, share: float, seed: int) -> pl.Series:
    """A share of the users, at least one unless it is 0: always the same of the same ones."""
    names = users.unique()
    count = max(round(share * len(names)), int(share > 0))
    return names.filter(names.is_in(chosen(names, count, seed)))
