"""`tasteloop rollback` and `tasteloop reset-registry`: another champion, or none."""

from __future__ import annotations

import typer

from pipelines.cli.console import print_json
from pipelines.cli.options import AsJson

commands = typer.Typer()


@commands.command()
def rollback(as_json: AsJson = False) -> None:
    """Make the previous champion live again."""
    from serving.release.promotion import rollback as roll_back

    live = roll_back()
    if as_json:
        print_json({"version": live.version, "digest": live.digest})
    else:
        typer.echo(
            f"the champion is version {live.version} ({live.digest[:12]}); servers that follow it swap"
        )


@commands.command("reset-registry")
def reset_registry() -> None:
    """Begin without a champion, where the registry was lost; one that is sound stays.

    The database is set aside. Bundles and runs stay; the next run's model is compared with
    baselines alone.
    """
    from serving.release.promotion import reset

    aside = reset()
    typer.echo(f"this home has no champion now{f'; the old database is {aside}' if aside else ''}")
