"""`tasteloop histories`: the store of users' histories, filled and described."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import print_json
from pipelines.cli.options import AsJson
from tasteloop.errors import TasteloopError

commands = typer.Typer(no_args_is_help=True, help="What users did, kept for a server's answers.")

Where = Annotated[
    str,
    typer.Option(
        metavar="on|DIR|URL", help="The store, as `python -m serving --histories` names it."
    ),
]


@commands.command("load")
def load_histories(
    dataset: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="A data set after ingest, or its events.parquet; else the last run's.",
        ),
    ] = None,
    histories: Where = "on",
    events: Annotated[
        int, typer.Option(min=1, help="Newest events that are kept of a user.")
    ] = 500,
    as_json: AsJson = False,
) -> None:
    """Fill the store from a data set, so that a server knows its users from the first day.

    What is there stays, and an event that is there counts once: the command can be repeated.
    """
    from serving.histories.events import EventReader
    from serving.histories.loading import histories_of
    from serving.histories.opening import open_histories
    from serving.histories.protocol import StoreAway, StoreFull
    from serving.settings import HistorySettings
    from tasteloop.privacy.pseudonyms import pseudonym_key

    path = dataset or _last_dataset()
    path = path / "events.parquet" if path.is_dir() else path
    reader = EventReader(pseudonym_key(), 2**31)
    store = open_histories(histories, HistorySettings(events=events), forwards=False)
    try:
        started = time.monotonic()
        new = store.load(histories_of(path, reader), time.time_ns() // 1000)
        seconds = time.monotonic() - started
        statistics = store.statistics()
    except (StoreAway, StoreFull) as error:
        raise TasteloopError(f"{error}; what was loaded before stays, run it again") from error
    finally:
        store.close()
    if as_json:
        print_json({"new": new, "seconds": seconds, **statistics._asdict()})
        return
    typer.echo(
        f"{new} new events of {path} in {seconds:.1f} s; {statistics.users} users, {_size(statistics.bytes)}"
    )


@commands.command("describe")
def describe_histories(histories: Where = "on", as_json: AsJson = False) -> None:
    """Count users and events, and tell the size of the store; it reads the whole of it."""
    from serving.histories.opening import open_histories
    from serving.settings import HistorySettings

    store = open_histories(histories, HistorySettings(), forwards=False, alone=False)
    try:
        statistics = store.statistics()
    finally:
        store.close()
    if as_json:
        print_json(statistics._asdict())
        return
    count = "" if statistics.events is None else f", {statistics.events} events"
    typer.echo(f"{statistics.users} users{count}, {_size(statistics.bytes)}")


def _last_dataset() -> Path:
    """The data set of the last run on this machine."""
    from tasteloop.home import Home

    found = sorted(
        Home.current().artifacts.glob("*/ingest/dataset/events.parquet"),
        key=lambda path: path.stat().st_mtime,
    )
    if not found:
        raise TasteloopError("no run here has ingested a data set; name its directory")
    return found[-1].parent


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
