"""`tasteloop serve`, `predict` and `score`: ask a model, over HTTP or for a whole file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import log_to_stderr, print_json
from pipelines.cli.options import MOST, AsJson
from tasteloop.errors import TasteloopError

commands = typer.Typer()


@commands.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    ctx: typer.Context,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="REST port; 0: any free one.", show_default="8080"),
    ] = None,
) -> None:
    """Serve the champion over KServe's V1 and V2; more options: `python -m serving --help`."""
    from serving.__main__ import main as serving

    named = [] if port is None else ["--port", str(port)]
    sys.exit(serving([*named, *ctx.args]))


@commands.command()
def predict(
    model: Annotated[str, typer.Argument(help="interests, recommend or sentiment.")],
    events: Annotated[
        str | None,
        typer.Option(metavar="JSON|FILE|-", help="A list of events, the user's history."),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="Whose stored history is read, on a server with --histories."),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to judge; repeatable.")] = None,
    k: Annotated[
        int, typer.Option("--k", "-k", min=1, max=MOST, help="How many items to recommend.")
    ] = 10,
    explain: Annotated[
        bool, typer.Option("--explain", help="Explain the answer instead, down to acts and words.")
    ] = False,
    language: Annotated[
        str | None, typer.Option(help="In which reasons are told: en or zh.", show_default="en")
    ] = None,
    against: Annotated[
        bool, typer.Option("--against", help="Tell also what speaks against a recommendation.")
    ] = False,
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8080",
) -> None:
    """Ask a server that runs (`tasteloop serve`); the answer is JSON."""
    from pipelines.cli.questions import instances
    from serving.client import Client

    questions = instances(model, events, text, k, user, language, against)
    with Client(url) as client:
        ask = client.explain if explain else client.predict
        answers = ask(model, questions)
    print_json(answers if len(answers) > 1 else answers[0])


@commands.command()
def score(
    events: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Behaviour, .parquet or .csv: user, kind, item, time, value, text."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Answers, .parquet; replaced whole.")
    ],
    model: Annotated[str, typer.Option(help="interests, recommend or sentiment.")] = "interests",
    k: Annotated[
        int | None,
        typer.Option(
            "--k", "-k", min=1, max=MOST, help="Labels or items a user; all labels, 10 items."
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A bundle instead of the champion's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer for every user of a file, offline, as the server does, in bounded memory.

    Users are the pseudonyms of the events contract and are written as they came. Every row must be
    an event; the first that is none is told by its number, and nothing is written.
    """
    from dataclasses import asdict

    from tasteloop.runtime import scoring

    log_to_stderr()
    if bundle is None:
        from serving.release.registry import champion

        live = champion()
        if live is None:
            raise TasteloopError(
                "there is no champion yet; train one with `tasteloop run`, or name a --bundle DIR"
            )
        bundle = live.path
    result = scoring.score(bundle, events, out, model, k)
    if as_json:
        print_json(asdict(result))
    else:
        typer.echo(
            f"{out}: {result.rows} rows for {result.scored} {'texts' if model == 'sentiment' else 'users'}"
        )
