"""Moving the champion pointer: promotion, rollback, and a new beginning after a loss.

A promotion writes the history (and when and in whose place) first and moves the alias last; a
rollback moves the alias first. A history that ends in the live version itself therefore is what a
killed process left, and reads as if the end were not there: at any point the state is the one
before or the one after.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from serving.release.bundles import fetch_bundle
from serving.release.database import address, sqlite_path, tracking_uri
from serving.release.last_versions import RegistryLost, forget_versions, note_champion
from serving.release.mlflow_store import MODEL, connect, is_unused, lock_store, open_store
from serving.release.registry import (
    CHAMPION_ALIAS,
    HISTORY_TAG,
    former_champions,
    live_version,
    pointer,
    registered_version,
    require_passed,
    version_id,
)
from serving.release.versions import DIGEST_TAG, PROMOTED_TAG, LocalVersion, Promotion
from tasteloop.errors import TasteloopError
from tasteloop.home import Home

_LONGEST_HISTORY = 1000  # champions


class ChampionMoved(TasteloopError):
    """The champion is no longer the one that the gate compared the candidate with."""


def promote(version: str, expected: str | None) -> LocalVersion:
    """Make a version the champion if the champion still is the one that its gate compared it with.

    Promoting the champion again changes nothing, so that a killed promotion can be tried again.

    Args:
        expected: digest of the champion at the gate's time; None or "" where there was none.

    Raises:
        ChampionMoved: another version was promoted meanwhile.
        TasteloopError: the gate or the rehearsal did not pass, or the bundle is not complete.
    """
    with open_store() as client:
        # 1. whether it may
        live, candidate = live_version(client), registered_version(client, version)
        if live is not None and live.version == candidate.version:
            return fetch_bundle(live)
        present = live.tags[DIGEST_TAG] if live else None
        if present != (expected or None):
            raise ChampionMoved(
                f"version {version} was compared with {_describe(expected)}, but the champion now is "
                f"{_describe(present)}: compare it again (run the pipeline once more)"
            )
        require_passed(candidate)
        champion = fetch_bundle(candidate)

        # 2. the history first, the alias last
        if live is not None:
            history = [*former_champions(client, live), str(live.version)]
            text = json.dumps(history[-_LONGEST_HISTORY:])
            client.set_registered_model_tag(MODEL, HISTORY_TAG, text)
        promotion = Promotion(int(time.time() * 1000), str(live.version) if live else None)
        client.set_model_version_tag(MODEL, version, PROMOTED_TAG, promotion.tag())
        client.set_registered_model_alias(MODEL, CHAMPION_ALIAS, version)
        note_champion(version_id(candidate))
        return champion


def rollback(expected: str | None = None) -> LocalVersion:
    """Make the previous champion live again. Promote A, B, C: one rollback gives B, the next A.

    Args:
        expected: digest of the champion that shall go; None: whichever it is.

    Raises:
        ChampionMoved: another one is live.
        TasteloopError: there is no previous champion, or its bundle is not complete.
    """
    nowhere = "there is no previous champion to go back to (live: {})"
    if is_unused():
        raise TasteloopError(nowhere.format("none"))
    with open_store() as client:
        live = live_version(client)
        present = live.tags[DIGEST_TAG] if live else None
        if expected is not None and present != expected:
            raise ChampionMoved(
                f"{_describe(expected)} is live no more, {_describe(present)} is: nothing was rolled back"
            )
        history = former_champions(client, live) if live else []
        if not live or not history:
            raise TasteloopError(nowhere.format(f"version {live.version}" if live else "none"))
        candidate = registered_version(client, history[-1])
        champion = fetch_bundle(candidate)
        client.set_registered_model_alias(MODEL, CHAMPION_ALIAS, champion.version)
        client.set_registered_model_tag(MODEL, HISTORY_TAG, json.dumps(history[:-1]))
        note_champion(version_id(candidate))
        return champion


def reset() -> Path | None:
    """Begin without a champion: set a lost registry aside, and forget that this home has had one.

    Returns:
        where the database is now; None where there was none, or the registry is a server.

    Raises:
        TasteloopError: the registry is not lost, or cannot be asked.
    """
    try:
        live = pointer()
    except RegistryLost:
        pass
    else:
        state = (
            f"has a champion, version {live.version} ({live.digest[:12]})"
            if live
            else "has had no champion"
        )
        raise TasteloopError(
            f"the registry {address()} {state}: nothing is lost, and nothing was reset"
        )
    database = sqlite_path(tracking_uri())
    with lock_store():
        aside = None
        if database is not None and database.exists():
            aside = _set_aside(database)
        forget_versions()
    connect.cache_clear()
    return aside


def _set_aside(database: Path) -> Path:
    """Rename a database and the files that SQLite keeps beside it, the database last."""
    name = Home.current().registry.name
    stamp = f"lost-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    for suffix in ("-wal", "-shm", "-journal", ""):
        with suppress(FileNotFoundError):
            database.with_name(database.name + suffix).rename(
                database.with_name(f"{name}{suffix}.{stamp}")
            )
    return database.with_name(f"{name}.{stamp}")


def _describe(digest: str | None) -> str:
    return f"the champion {digest[:12]}" if digest else "no champion"
