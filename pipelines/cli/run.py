"""`tasteloop run` and `tasteloop step`: the training pipeline on this machine, whole or a step."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from pipelines.cli.console import fail, log_to_stderr, print_json
from pipelines.cli.options import AsJson, Profile, Set

if TYPE_CHECKING:
    from pipelines.local.facts import Outputs

commands = typer.Typer()


@commands.command()
def run(profile: Profile = "local", set: Set = None, as_json: AsJson = False) -> None:
    """Run the training pipeline: ingest, validate, fine-tune, evaluate, gate, rehearse, promote."""
    from rich.console import Console

    from pipelines.local.progress import show_end
    from pipelines.local.runner import Broken
    from pipelines.local.runner import run as run_pipeline
    from pipelines.settings import load_settings

    # named, since stdout is redirected while kfp runs
    stream = sys.stderr if as_json else sys.stdout
    console = Console(file=stream, highlight=False, soft_wrap=True)
    log_to_stderr()
    settings = load_settings(profile, set or [])
    try:
        facts = run_pipeline(settings, console.print)
    except KeyboardInterrupt:
        fail("interrupted; the same command carries on from here", 130)
    except Broken as error:
        fail(str(error), 1)
    if as_json:
        print_json(facts.json_facts())
    else:
        show_end(facts, console.print)
    sys.exit(facts.code)


@commands.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    },
)
def step(ctx: typer.Context) -> None:
    """Run one step by itself: `tasteloop step NAME --help`; without a name, list the steps."""
    from pipelines.local import step as single_step

    def emit(results: Outputs, as_json: bool) -> None:
        if as_json:
            print_json(results)
        else:
            for name, value in results.items():
                typer.echo(f"{name}: {value}")

    log_to_stderr()
    name, *arguments = ctx.args or ["--help"]
    sys.exit(single_step.main(name, arguments, emit))
