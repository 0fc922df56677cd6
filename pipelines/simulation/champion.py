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
from pipelines.simulation.replay import (
    FIRST_WEEK,
    REFERENCE_WEEKS,
    Replay,
    Visit,
    event_rows,
    place_in_week,
)
from pipelines.simulation.shifts import Options
from pipelines.simulation.world import MIN_EVENTS, NEW_FROM, PARTS, World
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
# on top of the profile, for a world of hundreds of lives that is watched week by week
OVERRIDES = (
    "ingest.max_users=null",
    "training.snapshots_an_epoch=1500",
    "watch.windows.hours=168",
    "watch.reference_windows=8",
    "recommender.half_life_days=[7, 30, 90]",
    "retraining.recent_days=14",
)

# for visitors who talk: a model that understands them, as far as one of minutes does
TALKING = (
    "training.encoder_layers=null",
    "training.frozen_layers=4",
    "training.intent_texts=6000",
    'ingest.reviews=["rotten-tomatoes", "statements"]',
    "ingest.max_reviews=3000",
)


def overrides_of(options: Options, overrides: Sequence[str] = ()) -> tuple[str, ...]:
    """What the settings of a simulation have on top of `OVERRIDES`."""
    return (*(TALKING if options.talks else ()), *overrides)


def load_simulation_settings(data: Path, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a simulation whose champion learns from a data set."""
    behaviour = f"ingest.behaviour={json.dumps(str(data))}"
    return load_settings(PROFILE, [behaviour, *OVERRIDES, *overrides])


def write_champion_data(world: World, usual: Options, out: Path) -> None:
    """Write the data set that the champion learns from.

    Args:
        usual: what the reference weeks are like.
    """
    import polars as pl

    # 1. each of the champion's lives in one of the reference weeks
    events = pl.DataFrame(
        event_rows(_reference_visits(world, usual)),
        schema=dict(EVENTS_SCHEMA.to_polars()),
        orient="row",
    ).sort(TIME, USER)

    # 2. a data set as ingest writes it, without the films that do not exist yet
    with atomic_directory(out) as directory:
        pseudonyms = pseudonymise(events[USER], pseudonym_key()).alias(USER)
        write_parquet(directory / EVENTS_FILE, events.with_columns(pseudonyms))
        write_parquet(directory / ITEMS_FILE, world.items.filter(~pl.col(ITEM).is_in(world.new)))
        record = {
            "source": "ml-100k, replayed",
            "terms": SOURCES["ml-100k"].terms,
            "base": str(out),
        }
        write_json(directory / INGEST_FILE, record)


def _reference_visits(world: World, usual: Options) -> list[Visit]:
    """The champion's lives, each once, in a week that is drawn by how many come in it: with a
    swing, those who lean to dramas come in other weeks than the others.
    """
    # 1. weights of the weeks, for those who lean to dramas (True) and for the others
    reference = Replay(world, usual)
    swing = [reference.swing(week) for week in range(REFERENCE_WEEKS)]
    weights = {
        True: np.array([size * lean for size, lean in swing]),
        False: np.array([size * (1 - lean) for size, lean in swing]),
    }

    # 2. a week for each life
    chance = np.random.default_rng(0)
    lives = world.lives["champion"]
    middle = float(np.median([world.leaning(life) for life in lives]))
    visits = []
    for number, life in enumerate(lives):
        weight = weights[world.leaning(life) > middle]
        week = int(chance.choice(REFERENCE_WEEKS, p=weight / weight.sum()))
        events = reference.apply_shift(life, chance, False)
        begin = FIRST_WEEK + week * WEEK
        visits.append(place_in_week(f"reference-{number}", events, begin, chance))
    return visits


def usual_weeks(options: Options) -> Options:
    """A replay without a shift, among such visitors as a simulation has."""
    if options.shift == "seasonal":
        return Options("seasonal", severity=options.size)
    return Options("words" if options.talks else "stationary")


def make_champion(
    root: Path, options: Options, overrides: Sequence[str], say: Say
) -> tuple[Path, World]:
    """The home of a champion that was trained on the first part of the world, and the world.

    The champion is trained once; simulations with the same usual weeks find it again.

    Args:
        options: the simulation's.
        overrides: `section.key=value` on top of the profile and this module's.

    Raises:
        TasteloopError: the pipeline did not promote it.
    """
    usual = usual_weeks(options)
    origin = repr(
        (
            tasteloop.__version__,
            PARTS,
            MIN_EVENTS,
            NEW_FROM,
            OVERRIDES,
            overrides_of(options, overrides),
            usual.shift,
            usual.size,
        )
    )
    home = root.absolute() / f"champion-{hashlib.sha256(origin.encode()).hexdigest()[:12]}"
    with use_home(home):
        source, data = home / "ml-100k", home / "data"
        if not source.is_dir():
            ingest(IngestSettings(reviews=None), source)
        world = World.of(read_parquet(source / EVENTS_FILE), read_parquet(source / ITEMS_FILE))
        if registry.pointer() is None:
            if not data.is_dir():
                write_champion_data(world, usual, data)
            say(f"training the champion, once, in {home}")
            settings = load_simulation_settings(data, overrides_of(options, overrides))
            facts = runner.run(settings, lambda line: log.debug("%s", line))
            if facts.outcome != "promoted":
                raise TasteloopError(
                    f"the replay's champion was not promoted: {facts.outcome}, {facts.reason}"
                )
    return home, world
