"""The champion that simulations begin with: its data, and its training, once for all of them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import tasteloop
from pipelines.local import runner
from pipelines.settings import Settings, load_settings
from pipelines.simulation.homes import use_home
from pipelines.simulation.replay import FIRST, REFERENCE_WEEKS, Replay, placed
from pipelines.simulation.shifts import Options
from pipelines.simulation.world import LEAST, NEW, PARTS, World
from serving.release import registry
from tasteloop.behaviour.events import EVENTS_SCHEMA, ITEM, TIME, USER
from tasteloop.datasets.catalogue import CATALOGUE as SOURCES
from tasteloop.datasets.ingest import (
    EVENTS_FILE,
    INGEST_FILE,
    ITEMS_FILE,
    IngestSettings,
    ingest,
)
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_directory, read_parquet, write_json, write_parquet
from tasteloop.privacy.pseudonyms import pseudonym_key, pseudonymise
from validation.monitor.windows import WEEK

log = logging.getLogger(__name__)

Say = Callable[[str], None]

PROFILE = "smoke"
OVERRIDES = (
    "ingest.max_users=null",
    "training.snapshots_an_epoch=1500",
    "watch.windows.hours=168",
    "watch.reference_windows=8",
    "recommender.half_life_days=[7, 30, 90]",
    "retraining.recent_days=14",
)


def settings_for(data: Path, overrides: Sequence[str] = ()) -> Settings:
    return load_settings(
        PROFILE, [f"ingest.behaviour={json.dumps(str(data))}", *OVERRIDES, *overrides]
    )


def write_champion_data(world: World, seasonal: float, out: Path) -> None:
    """Write the data set that the champion learns from.

    Args:
        seasonal: the swing of the reference weeks; 0 for none.
    """
    import polars as pl

    chance = np.random.default_rng(0)
    reference = Replay(world, Options("seasonal", severity=seasonal) if seasonal else Options())
    lives = world.lives["champion"]
    middle = float(np.median([world.leaning(life) for life in lives]))
    swing = [reference.swing(week) for week in range(REFERENCE_WEEKS)]
    weight = {
        side: np.array([n * (lean if side else 1 - lean) for n, lean in swing])
        for side in (True, False)
    }  # of the weeks, for those who lean to dramas and for the others
    rows = []
    for k, life in enumerate(lives):
        chances = weight[world.leaning(life) > middle]
        week = int(chance.choice(REFERENCE_WEEKS, p=chances / chances.sum()))
        visit = placed(
            f"reference-{k}", reference.lived(life, chance, False), FIRST + week * WEEK, chance
        )
        rows += [(visit.user, e.item, e.kind, e.time, e.value, e.text) for e in visit.events]
    events = pl.DataFrame(rows, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row").sort(
        TIME, USER
    )
    with atomic_directory(out) as directory:
        write_parquet(
            directory / EVENTS_FILE,
            events.with_columns(pseudonymise(events[USER], pseudonym_key()).alias(USER)),
        )
        write_parquet(directory / ITEMS_FILE, world.items.filter(~pl.col(ITEM).is_in(world.new)))
        write_json(
            directory / INGEST_FILE,
            {"source": "ml-100k, replayed", "terms": SOURCES["ml-100k"].terms, "base": str(out)},
        )


def make_champion(
    root: Path, seasonal: float, overrides: Sequence[str], say: Say
) -> tuple[Path, World]:
    """A home with a champion that was trained on the first part of the world: made once, and used
    again.

    Raises:
        TasteloopError: the pipeline promoted none.
    """
    made_from = repr(
        (tasteloop.__version__, PARTS, LEAST, NEW, OVERRIDES, tuple(overrides), seasonal)
    )
    home = root.absolute() / f"champion-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"
    with use_home(home):
        source, data = home / "ml-100k", home / "data"
        if not source.is_dir():
            ingest(IngestSettings(reviews=None), source)
        world = World.of(read_parquet(source / EVENTS_FILE), read_parquet(source / ITEMS_FILE))
        if registry.pointer() is None:
            if not data.is_dir():
                write_champion_data(world, seasonal, data)
            say(f"training the champion, once, in {home}")
            facts = runner.run(
                settings_for(data, overrides),
                lambda line: log.debug("%s", line),
            )
            if facts.outcome != "promoted":
                raise TasteloopError(
                    f"the replay's champion was not promoted: {facts.outcome}, {facts.reason}"
                )
    return home, world
