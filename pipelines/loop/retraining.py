"""A retraining: what it reads, what it begins with, and the training pipeline that gates and
promotes it.

The data window: whoever acted within the last `recent_days` comes with their whole history; of the
other users a seeded share is replayed, so that what they taught is not forgotten. Some users of the
champion's own test window stay out: on them the new model is compared with the champion before it
may replace it. The rest of the gate is the pipeline's own: its test window is the newest part of
the data, and the champion is measured on the same rows.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.local.facts import RunFacts
from pipelines.loop.monitoring import LEDGER, RETRAININGS, Incoming, Retraining, run_of_bundle
from pipelines.settings import RetrainingSettings, Settings
from tasteloop.behaviour.events import ITEM, TIME, USER
from tasteloop.datasets.ingest import EVENTS_FILE, INGEST_FILE, ITEMS_FILE
from tasteloop.errors import TasteloopError
from tasteloop.files import (
    atomic_directory,
    home,
    read_json,
    read_parquet,
    write_json,
    write_parquet,
)
from validation.gate.gates import FORGETTING
from validation.monitor.sampling import chosen
from validation.monitor.windows import HOUR, distinct

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

RESULTS = {
    "promoted": "promoted",
    "unchanged": "unchanged",
    "rejected": "rejected",
    "refused": "refused",
    "rehearsal failed": "failed",
}


def retrain(asked: Retraining) -> dict[str, Any]:
    """Run the training pipeline on a data window; after a kill the same `asked.run` carries on from
    what is there.

    Returns:
        result, reason, version (where there is one), training_run, data (counts), and forgetting:
        the difference to the champion on earlier data, by metric.

    Raises:
        TasteloopError: the champion's data is no longer here.
    """
    from pipelines.local import runner as local
    from serving.release import registry

    champion = next((v.version for v in registry.versions() if v.digest == asked.champion), None)
    made_by = run_of_bundle(asked.champion)
    if champion is None or made_by is None:
        raise TasteloopError(
            f"the champion {asked.champion[:12]} was not trained under {home()}, or its artifacts were removed: there "
            "is no data to retrain on; train here with `tasteloop run`"
        )
    data = home() / LEDGER / RETRAININGS / asked.run / "data"
    before = registry.pointer()
    if not (data / INGEST_FILE).is_file():
        if before is None or before[1] != asked.champion:
            return {
                "result": "unchanged",
                "reason": "another version was promoted meanwhile; its own drift will tell",
            }
        snapshots, rules = made_by.artifacts["snapshots"], asked.settings.retraining
        write_window(base_of(made_by), snapshots, asked.source(0), asked.until, rules, data)
    settings = settings_of(
        asked.settings, data, made_by.artifacts["snapshots"], registry.find(champion).path
    )
    # not through the log: kfp makes the root logger write to where these lines come from
    facts = local.run(settings, lambda line: print(_plain(line), file=sys.stderr, flush=True))
    result, version = RESULTS[facts.outcome], facts.version
    live = registry.pointer()
    if result == "unchanged" and live is not None and live[1] != asked.champion:
        result, version = "promoted", live[0]  # by this run, before it was killed
    return {
        "result": result,
        "reason": facts.reason,
        "training_run": facts.id,
        "data": read_json(data / INGEST_FILE)["window"],
        **({"version": version} if version else {}),
        **({"forgetting": forgetting} if (forgetting := _forgetting(facts)) else {}),
    }


def settings_of(settings: Settings, data: Path, old: Path, champion: Path) -> Settings:
    """The settings of the run: the profile's, on the data window, with what is compared on earlier
    data.
    """
    rules = settings.retraining
    encoder = settings.training.encoder
    if rules.warm_start:
        from tasteloop.bundle.card import BundleCard
        from tasteloop.bundle.names import MODELS_DIRECTORY

        encoder = str(champion / MODELS_DIRECTORY / BundleCard.read(champion).reading_model)
    sections: dict[str, dict[str, Any]] = {
        "ingest": {"behaviour": str(data), "max_users": None},
        "training": {"encoder": encoder},
        "evaluation": {"old": old},
        "gate": {"forgetting": rules.forgetting},
    }
    changed = {
        name: getattr(settings, name).model_copy(update=values) for name, values in sections.items()
    }
    return settings.model_copy(update=changed)


def read_by(made_by: RunFacts) -> Path | None:
    """What a run ingested; None where only its artifacts are known."""
    read = made_by.settings.get("ingest", {}).get("behaviour")
    return Path(read) if read else None


def base_of(made_by: RunFacts) -> Path:
    """The data set that was there before anything was monitored: of a retrained champion, what its
    own data began with.

    So what one retraining leaves out is not lost to the next.
    """
    read = read_by(made_by)
    window = read / INGEST_FILE if read else None
    # a user's own data set has none
    base = read_json(window).get("base") if window and window.is_file() else None
    if base is None:
        return made_by.artifacts["dataset"]
    from pipelines.local.moves import move_paths

    # relative to the home; of earlier versions absolute, below the home that the run was in
    return home() / str(move_paths(base, made_by.home or str(home()), str(home())))


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
        dataset: of `base_of`; incoming: all that has come since.
        snapshots: those of the champion.
        until: no event of that time (µs) or later is read.
    """
    import polars as pl

    from tasteloop.behaviour.snapshots import TEST, Snapshots

    source = read_json(dataset / INGEST_FILE)
    events = distinct(
        pl.concat([read_parquet(dataset / EVENTS_FILE), incoming.events]).filter(
            pl.col(TIME) < until
        )
    )
    tested = Snapshots.read(snapshots).split(TEST)[USER]
    held = _share(tested, settings.held, settings.seed)
    newest = (
        events.group_by(USER).agg(pl.col(TIME).max()).filter(~pl.col(USER).is_in(held.implode()))
    )
    acted = pl.col(TIME) >= until - int(settings.recent_days * 24 * HOUR)
    recent = newest.filter(acted)[USER]
    replayed = _share(newest.filter(~acted)[USER], settings.replay, settings.seed)
    kept = events.filter(pl.col(USER).is_in(pl.concat([recent, replayed]).implode())).sort(
        TIME, maintain_order=True
    )
    items = read_parquet(dataset / ITEMS_FILE)
    if incoming.items is not None:  # what is said of an item today counts
        items = pl.concat([incoming.items.select(items.columns).cast(items.schema), items]).unique(
            ITEM, keep="first", maintain_order=True
        )
    window = {
        "until": until,
        "events": kept.height,
        "recent_users": len(recent),
        "replayed_users": len(replayed),
        "held_users": len(held),
    }
    with atomic_directory(out) as directory:
        write_parquet(directory / EVENTS_FILE, kept)
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
    return str(path.relative_to(home()) if path.is_relative_to(home()) else path)


def _share(users: pl.Series, share: float, seed: int) -> pl.Series:
    """A share of the users, at least one unless it is 0: always the same of the same ones."""
    names = users.unique()
    kept = chosen(names, max(round(share * len(names)), int(share > 0)), seed)
    return names.filter(names.is_in(kept))


def _forgetting(facts: RunFacts) -> dict[str, float | None]:
    path = home() / "runs" / facts.id / "evaluation.json"
    if not path.is_file():
        return {}
    differences = read_json(path).get("old", {}).get("differences", {}).get("champion", {})
    return {name: differences[name]["value"] for name in FORGETTING if name in differences}


def _plain(line: str) -> str:
    from rich.text import Text

    return Text.from_markup(line).plain
