"""`tasteloop status` and `tasteloop report`: what the runs of this home have made."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import print_json
from pipelines.cli.options import MOST, AsJson
from tasteloop import process
from tasteloop.errors import TasteloopError

commands = typer.Typer()


@commands.command()
def status(
    as_json: AsJson = False,
    last: Annotated[int, typer.Option(min=1, max=MOST, help="How many runs to show.")] = 10,
) -> None:
    """Show the champion, the registered versions and the last runs."""
    from dataclasses import asdict

    from pipelines.local.facts import list_runs
    from serving.release.registry import versions
    from tasteloop.home import Home

    home = Home.current()
    known = [asdict(version) for version in versions()]
    champion = next((version for version in known if version["champion"]), None)
    latest = list_runs()[:last]
    if as_json:
        runs = [facts.json_facts() for facts in latest]
        print_json({"home": str(home), "champion": champion, "versions": known, "runs": runs})
        return
    live = f"version {champion['version']} ({champion['digest'][:12]})" if champion else "none yet"
    typer.echo(f"champion  {live}\nversions  {len(known)}\nhome      {home}")
    for facts in latest:
        version = f"version {facts.version}" if facts.version else ""
        seconds = f"{facts.seconds:.0f} s" if facts.seconds is not None else ""
        typer.echo(
            f"{facts.id}  {facts.profile:<8} {facts.outcome:<16} {seconds:>7}  {version}".rstrip()
        )


@commands.command()
def report(
    run_id: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="A run's id; the last one.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    site: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the site instead: why is this model live? Every model, drift, decision.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's evaluation as one HTML page, or its validation where it ended there.

    With --site DIR: static pages over all models, runs, drift windows and decisions, each with its
    evidence, which can be moved or published as they are. A site that is there is replaced; a
    directory with anything else in it is not.
    """
    if site is not None:
        if run_id or output:
            raise TasteloopError("--site is about all runs; leave --run and --output out")
        from pipelines.loop.site import write
        from validation.markup.formats import plural

        with process.shareable():
            summary = write(site)
        path = Path(summary["index"])
        if as_json:
            print_json(summary)
        else:
            counts = ", ".join(
                plural(count, name.removesuffix("s"))
                for name, count in summary.items()
                if isinstance(count, int)
            )
            typer.echo(f"{path}\n{counts}")
    else:
        from pipelines.local.report import write_page

        with process.shareable() if output else nullcontext():
            path = write_page(run_id, output)
        if as_json:
            print_json({"report": str(path)})
        else:
            typer.echo(str(path))
    if open_it:
        typer.launch(path.as_uri())
