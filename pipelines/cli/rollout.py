"""`tasteloop rollout`: try a registered version before it is the champion."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.console import print_json
from pipelines.cli.options import AsJson

commands = typer.Typer(
    no_args_is_help=True,
    help="Try a registered version on a share of the requests, or in the shadow, before it is the champion. Servers "
    "that follow the registry (`tasteloop serve`) take part and decide by stated rules.",
    epilog="example: tasteloop rollout start --version 4 --share 0.1, then tasteloop rollout status",
)


@commands.command("start")
def start_command(
    version: Annotated[str, typer.Option(metavar="N", help="The registered version to try.")],
    share: Annotated[float, typer.Option(help="Of the requests, above 0 and up to 1.")] = 0.1,
    shadow: Annotated[
        bool,
        typer.Option(
            "--shadow", help="The champion answers all; the version scores its share in spare time."
        ),
    ] = False,
    manual: Annotated[
        bool, typer.Option("--manual", help="Report what the rules say; promote or abort by hand.")
    ] = False,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A rule instead of the default, such as answers=2000; repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Begin a rollout: by default it ends by itself, promoted or rolled back."""
    from serving.release.rollout import rollout_status
    from serving.release.rollout_control import start_rollout
    from serving.release.rollout_decision import parse_rules

    started = start_rollout(version, share, shadow, not manual, parse_rules(rule or []))
    if as_json:
        status = rollout_status()
        print_json(status.model_dump(mode="json") if status else None)
        return
    how = "scores in the shadow" if shadow else "answers"
    typer.echo(
        f"version {started.challenger.version} {how} {share:g} of the requests "
        f"beside version {started.champion.version}; watch it with `tasteloop rollout status`"
    )


@commands.command("status")
def status_command(as_json: AsJson = False) -> None:
    """The running or the last rollout: what was seen, what the rules say of it and why."""
    from serving.release.rollout import rollout_status

    rollout = rollout_status()
    if as_json:
        print_json(rollout.model_dump(mode="json") if rollout else None)
        return
    if rollout is None:
        typer.echo(
            "no rollout yet; begin one with `tasteloop rollout start --version N --share 0.1`"
        )
        return
    kind = "shadow" if rollout.shadow else "canary"
    typer.echo(
        f"{kind} of version {rollout.challenger.version} beside {rollout.champion.version}, share "
        f"{rollout.share:g}, since {rollout.started}: {rollout.state}"
    )
    observed = rollout.observed
    for role, side in (("champion", observed.champion), ("challenger", observed.challenger)):
        p95 = side.seconds.p95
        latency = f", p95 {1000 * p95:.1f} ms" if p95 is not None else ""
        typer.echo(f"{role:<10} {side.answers} answers, {side.errors} errors{latency}")
    for model, agreement in observed.agreement.items():
        typer.echo(
            f"{model:<10} {agreement.compared} compared, "
            f"first differs in {agreement.first_differs:.1%}, "
            f"overlap {agreement.overlap:.1%}, mean distance {agreement.distance:.4f}"
        )
    if rollout.state == "running":
        typer.echo(f"verdict    {rollout.verdict}")
    reasons = rollout.because if rollout.state == "running" else rollout.reasons
    for reason in reasons:
        typer.echo(f"  {reason}")


@commands.command("promote")
def promote_command() -> None:
    """End the rollout: its version is the champion."""
    from serving.release.rollout_control import promote_challenger

    typer.echo(f"version {promote_challenger().challenger.version} is the champion")


@commands.command("abort")
def abort_command() -> None:
    """End the rollout: the champion answers everything again."""
    from serving.release.rollout_control import abort_rollout

    ended = abort_rollout()
    typer.echo(
        f"version {ended.champion.version} answers everything; version {ended.challenger.version} is out"
    )
