"""`tasteloop monitor` and `tasteloop history`: watch the journal, and read what was decided."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import fail, log_to_stderr, print_json
from pipelines.cli.options import MOST, AsJson, Profile, Set
from tasteloop.errors import TasteloopError

commands = typer.Typer()


@commands.command()
def history(
    as_json: AsJson = False,
    last: Annotated[int, typer.Option(min=1, max=MOST, help="How many decisions to show.")] = 10,
) -> None:
    """Show what the monitor decided, newest first: when, why, and what came of it."""
    from pipelines.loop.summaries import summarise_entry
    from tasteloop.home import Home
    from validation.monitor.ledger import Ledger

    entries = Ledger(Home.current().monitor).history()[::-1][:last]
    if as_json:
        print_json([entry.json() for entry in entries])
        return
    if not entries:
        typer.echo("no decision yet")
    for entry in entries:
        typer.echo(summarise_entry(entry))


@commands.command()
def monitor(
    once: Annotated[
        bool, typer.Option("--once", help="One pass, then end: for cron and scripts.")
    ] = False,
    every: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="A pass every so often, such as 30m or 1h, until stopped."
        ),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Events as they come, .parquet; `incoming` under TASTELOOP_HOME by default.",
        ),
    ] = None,
    profile: Profile = "local",
    set: Set = None,
    as_json: AsJson = False,
) -> None:
    """Compare what has come with what the champion learned; retrain, alert or roll back.

    One monitor works at a time (exit code 5 where another does). The profile is that of a
    retraining; its sections watch, decision, retraining, rollback and alerts are the monitor's.
    Webhook: --set alerts.webhook=https://...
    """
    from pipelines.loop.incoming import source_of_files
    from pipelines.loop.metrics import write_metrics
    from pipelines.loop.monitoring import watch_once
    from pipelines.loop.summaries import summarise_pass
    from pipelines.loop.watching import watch_every
    from pipelines.settings import load_settings
    from validation.monitor.ledger import Held

    if once == (every is not None):
        raise TasteloopError("say --once for one pass, or --every 1h to go on")
    if events is not None and not events.exists():
        raise TasteloopError(f"--events {events}: no such file or directory")
    log_to_stderr()
    logging.getLogger("pipelines").setLevel(logging.INFO)  # a retraining's steps
    settings = load_settings(profile, set or [])
    source = None if events is None else source_of_files(events)
    if every is not None:
        seconds = parse_duration(every)
        typer.echo(f"a pass every {every}; stop with Ctrl-C or SIGTERM", err=True)
        watch_every(
            settings,
            seconds,
            lambda line: typer.echo(line, err=as_json),
            (lambda report: print(json.dumps(report.json()), flush=True)) if as_json else None,
            source,
        )
        return
    try:
        report = watch_once(settings, source=source)
    except Held as error:
        fail(str(error), 5)
    except KeyboardInterrupt:
        fail("interrupted; the next pass carries on from here", 130)
    write_metrics()
    if as_json:
        print_json(report.json())
    else:
        typer.echo(summarise_pass(report))


_SECONDS_OF_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_YEAR = 366 * 86400  # seconds


def parse_duration(text: str) -> float:
    """Seconds of a text such as `30m` or `1h`.

    >>> parse_duration("30m")
    1800.0
    """
    number, unit = text[:-1], text[-1:]
    is_number = number.isascii() and number.isdigit() and len(number) <= 7
    is_allowed = unit in _SECONDS_OF_UNIT and is_number
    if not is_allowed or not 0 < int(number) * _SECONDS_OF_UNIT[unit] <= _YEAR:
        raise TasteloopError(
            f"--every {text!r:.40}: a whole number with s, m, h or d, up to a year, such as 30m or 1h"
        )
    return float(int(number) * _SECONDS_OF_UNIT[unit])
