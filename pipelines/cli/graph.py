"""`tasteloop compile` and `tasteloop submit`: a pipeline's graph for Kubeflow Pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import fail, print_json
from pipelines.cli.options import AsJson, Profile, Set
from tasteloop import process
from tasteloop.errors import TasteloopError

commands = typer.Typer()

Graph = Annotated[str, typer.Option("--pipeline", help="training, monitoring or scoring.")]


@commands.command("compile")
def compile_graph(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the IR YAML goes.")
    ],
    profile: Profile = "cluster",
    set: Set = None,
    pipeline: Graph = "training",
) -> None:
    """Write a pipeline's graph as IR YAML for a Kubeflow Pipelines server."""
    from pipelines.graphs.compile import compile_to, graph_of
    from pipelines.settings import load_settings

    if output.suffix not in (".yaml", ".yml"):
        raise TasteloopError(f"-o {output}: the graph is YAML; name a .yaml file")
    with process.shareable():
        compile_to(load_settings(profile, set or []), output, graph_of(pipeline))
    typer.echo(str(output))


@commands.command(
    epilog="Exit codes: 0 submitted (with --wait: succeeded), 1 the run failed or was cancelled, 2 a mistake."
)
def submit(
    profile: Profile = "cluster",
    set: Set = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The server; else KF_PIPELINES_ENDPOINT, or what kubectl knows."
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Yours, where Kubeflow has several users."),
    ] = None,
    experiment: Annotated[
        str, typer.Option(help="What runs are grouped under; made where missing.")
    ] = "tasteloop",
    cron: Annotated[
        str | None,
        typer.Option(
            metavar="'M H D M W'",
            help="Run on this schedule instead of now; replaces the one before.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until the run has ended; Ctrl-C leaves it running.")
    ] = False,
    pipeline: Graph = "training",
    argument: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A parameter of the pipeline, such as events=s3://...; repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compile a pipeline's graph and run it on a Kubeflow Pipelines server, now or on a schedule.

    The same graph is uploaded once, as a version that is named by its content.

    Where the server asks for a token, name a file with it in KF_PIPELINES_SA_TOKEN_PATH.
    """
    from pipelines.graphs import submit as submission
    from pipelines.settings import load_settings

    if cron and wait:
        raise TasteloopError(
            "--cron makes a schedule, which has no end to --wait for; give one of them"
        )
    try:
        submitted = submission.submit(
            load_settings(profile, set or []),
            submission.PipelineServer(host, namespace),
            experiment,
            cron=cron,
            wait=5.0 if wait else None,
            say=lambda line: typer.echo(line, err=as_json),
            pipeline=pipeline,
            arguments=submission.arguments(argument or []),
        )
    except KeyboardInterrupt:
        fail("interrupted; a run that was started goes on", 130)
    if as_json:
        print_json(submitted)
    elif "page" in submitted:
        typer.echo(submitted["page"])
    if wait and submitted["state"] != "SUCCEEDED":
        error = f": {submitted['error']}" if "error" in submitted else ""
        fail(
            f"the run ended as {submitted['state'].lower()}{error}",
            1,
        )
