"""The `tasteloop` command: every group of commands in the order of `tasteloop --help`.

Each group has a module of its own. What is heavy is imported by the command that needs it, so that
`--help` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

import tasteloop
from pipelines.cli import (
    ask,
    bench,
    cluster,
    data,
    graph,
    histories,
    journal,
    monitor,
    registry,
    rollout,
    run,
    runs,
    simulate,
)
from pipelines.cli.console import fail
from tasteloop import process
from tasteloop.errors import TasteloopError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn what users want from what they do: train, gate, promote, serve.",
    epilog="Exit codes: 0 done (run: promoted, or unchanged), 1 something broke, 2 a mistake in what was "
    "asked, 3 the gate said no, 4 the data was refused, 5 another monitor is at work.",
)

# The commands of these stand beside each other: `tasteloop run`, `tasteloop submit`.
for module in (run, graph, runs, ask, monitor, simulate, registry):
    app.add_typer(module.commands)

# The commands of these have the name of their group before them: `tasteloop data fetch`.
app.add_typer(data.commands, name="data")
app.add_typer(bench.commands, name="bench")
app.add_typer(rollout.commands, name="rollout")
app.add_typer(cluster.commands, name="cluster")
app.add_typer(journal.commands, name="journal")
app.add_typer(histories.commands, name="histories")


def main() -> None:
    """The console script: a user's mistake is one message and exit code 2.

    So is a file or directory that cannot be read or written, whoever wanted it: the message of the
    system names it.
    """
    process.begin()
    try:
        app()
    except TasteloopError as error:
        fail(str(error), 2)
    except OSError as error:
        if error.filename is None:  # a socket, a pipe: not a matter of paths
            raise
        fail(
            f"{error.filename}: {error.strerror}; check the path, who may use it, and TASTELOOP_HOME and "
            "TASTELOOP_CACHE where it lies below them",
            2,
        )


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"tasteloop {tasteloop.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    from tasteloop.home import Home

    try:
        home = Home.current().path
        is_usable = not home.exists() or home.is_dir()
    except (OSError, RuntimeError) as error:  # the latter for `~nobody`
        raise TasteloopError(f"TASTELOOP_HOME cannot be used: {error}; name a directory") from None
    if not is_usable or any(parent.is_file() for parent in home.parents):
        raise TasteloopError(
            f"TASTELOOP_HOME={home} is no directory, or below a file; name a directory"
        )
