"""`tasteloop journal`: what the journal of answers and feedback holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import print_json
from pipelines.cli.options import AsJson

commands = typer.Typer(
    no_args_is_help=True, help="What was asked in outline, answered, and fed back."
)


@commands.command("describe")
def describe_journal(
    directory: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The journal; `journal` under TASTELOOP_HOME."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count answers by model and version, their span, their feedback, and what is lost."""
    from serving.journal.reader import describe
    from tasteloop.home import Home

    summary = describe(directory or Home.current().journal)
    if as_json:
        print_json(summary)
        return
    span = f" from {summary['span'][0]} to {summary['span'][1]}" if summary["span"] else ""
    typer.echo(
        f"{summary['directory']}: {summary['answers']} answers{span}, {summary['with_feedback']} with feedback"
    )
    for row in summary["by"]:
        typer.echo(
            f"{row['model']:<10} version {row['version']:<12} {row['role']:<10} {row['answers']}"
        )
    for segment in summary["damaged"]:
        rows = "an unknown number of" if segment["rows"] is None else segment["rows"]
        typer.echo(f"lost       {rows} rows: damaged, set aside as {segment['file']}")
    if summary["impossible_times"]:
        typer.echo(
            f"unusable   {summary['impossible_times']} answers whose time is before 1970 or after 9999"
        )
