"""`tasteloop simulate`: replay real behaviour with a shift, and judge the monitor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import log_to_stderr, print_json
from pipelines.cli.options import MOST, AsJson, Set
from tasteloop.errors import TasteloopError

commands = typer.Typer()


@commands.command()
def simulate(
    shift: Annotated[
        str,
        typer.Option(
            help="stationary, seasonal, new-catalogue, taste-change, bots, broken-field, language, "
            "delayed-labels, words, new-wishes, irony, or all."
        ),
    ] = "taste-change",
    seed: Annotated[
        int, typer.Option(min=0, max=MOST, help="Who comes when, and whom the shift hits.")
    ] = 0,
    weeks: Annotated[int, typer.Option(min=1, max=MOST, help="Weeks that are replayed.")] = 6,
    start: Annotated[
        int, typer.Option(min=0, max=MOST, help="The first week with the shift, from 0.")
    ] = 2,
    visitors: Annotated[int, typer.Option(min=1, max=MOST, help="A week.")] = 100,
    severity: Annotated[
        float | None, typer.Option(help="In the shift's own unit; its default.")
    ] = None,
    in_process: Annotated[
        bool,
        typer.Option("--in-process", help="Answer in this process instead of a server's: faster."),
    ] = False,
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain/--no-retrain", help="Whether a retraining that is decided is done."
        ),
    ] = True,
    directory: Annotated[
        Path | None,
        typer.Option("--home", metavar="DIR", help="Its home; simulations/ under TASTELOOP_HOME."),
    ] = None,
    set: Set = None,
    as_json: AsJson = False,
) -> None:
    """Replay real behaviour with a shift, and see whether the monitor does what it should.

    The first time a champion is trained (profile smoke). Every simulation has a home of its own:
    your registry is not touched. Exit code 1 where an expectation is not met.
    """
    from pipelines.simulation.homes import simulation_path
    from pipelines.simulation.shifts import SHIFTS, Options
    from pipelines.simulation.simulator import simulate as run_simulation
    from tasteloop.home import Home

    log_to_stderr(rooms=False)
    if directory is not None and shift == "all":
        raise TasteloopError(
            "--home is one simulation's; --shift all makes several, under TASTELOOP_HOME/simulations"
        )
    results = []
    for name in SHIFTS if shift == "all" else [shift]:
        options = Options(name, seed, weeks, start, visitors, severity, not in_process, retrain)
        home_of_simulation = directory or simulation_path(name, seed)
        results.append(
            run_simulation(
                options,
                home_of_simulation,
                Home.current().simulations,
                set or [],
                lambda line: typer.echo(line, err=as_json),
            )
        )
        if not as_json:
            typer.echo("\n".join(results[-1].lines()))
    if as_json:
        records = [result.json() for result in results]
        print_json(records if shift == "all" else records[0])
    sys.exit(0 if all(result.met for result in results) else 1)
