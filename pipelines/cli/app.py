"""The `tasteloop` command. Everything heavy is imported by the subcommand that needs it."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

import tasteloop
from tasteloop import process
from tasteloop.errors import TasteloopError
from tasteloop.redaction import redact

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn what users want from what they do: train, gate, promote, serve.",
    epilog="Exit codes: 0 done (run: promoted, or unchanged), 1 something broke, 2 a mistake in what was "
    "asked, 3 the gate said no, 4 the data was refused, 5 another monitor is at work.",
)
data = typer.Typer(no_args_is_help=True, help="Named real data and weights: list, fetch, describe.")
app.add_typer(data, name="data")
bench = typer.Typer(
    no_args_is_help=True, help="Measure against peers, from a checkout of the repository."
)
app.add_typer(bench, name="bench")
rollout = typer.Typer(
    no_args_is_help=True,
    help="Try a registered version on a share of the requests, or in the shadow, before it is the champion. Servers "
    "that follow the registry (`tasteloop serve`) take part and decide by stated rules.",
    epilog="example: tasteloop rollout start --version 4 --share 0.1, then tasteloop rollout status",
)
app.add_typer(rollout, name="rollout")
cluster = typer.Typer(
    no_args_is_help=True,
    help="The serving image as a KServe InferenceService: deploy a version, try another on a share of the requests, "
    "promote it or take it back (docs/cluster.md).",
    epilog="example: tasteloop cluster deploy --version 3 --image REGISTRY/tasteloop-serving-python@sha256:…",
)
app.add_typer(cluster, name="cluster")
journal = typer.Typer(
    no_args_is_help=True, help="What was asked in outline, answered, and fed back."
)
app.add_typer(journal, name="journal")

# of anything that is counted: what comes of more is no answer but a machine out of memory
MOST = 1_000_000

Profile = Annotated[
    str, typer.Option("--profile", "-p", help="smoke, local, cluster, or a YAML file.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="A setting instead of the profile's; repeatable."
    ),
]
Graph = Annotated[str, typer.Option("--pipeline", help="training, monitoring or scoring.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, and only JSON, on standard output.")
]


def main() -> None:
    """The console script: a user's mistake is one message and exit code 2.

    So is a file or directory that cannot be read or written, whoever wanted it: the message of the
    system names it.
    """
    process.begin()
    try:
        app()
    except TasteloopError as error:
        _fail(str(error), 2)
    except OSError as error:
        if error.filename is None:  # a socket, a pipe: not a matter of paths
            raise
        _fail(
            f"{error.filename}: {error.strerror}; check the path, who may use it, and TASTELOOP_HOME and "
            "TASTELOOP_CACHE where it lies below them",
            2,
        )


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"error: {redact(message)}\n")
    sys.exit(code)


def _log() -> None:
    """What the rooms have to say (downloads, removed rows, verdicts) goes to standard error."""
    from components.step import ROOMS

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for room in ROOMS:
        logging.getLogger(room).setLevel(logging.INFO)


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tasteloop {tasteloop.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    from tasteloop.files import home

    try:
        is_usable = not home().exists() or home().is_dir()
    except (OSError, RuntimeError) as error:  # the latter for `~nobody`
        raise TasteloopError(f"TASTELOOP_HOME cannot be used: {error}; name a directory") from None
    if not is_usable or any(parent.is_file() for parent in home().parents):
        raise TasteloopError(
            f"TASTELOOP_HOME={home()} is no directory, or below a file; name a directory"
        )


@app.command()
def run(profile: Profile = "local", set: Set = None, as_json: AsJson = False) -> None:
    """Run the training pipeline: ingest, validate, fine-tune, evaluate, gate, rehearse, promote."""
    from rich.console import Console

    from pipelines.local import runner as local
    from pipelines.settings import load

    # named, since stdout is redirected while kfp runs
    stream = sys.stderr if as_json else sys.stdout
    console = Console(file=stream, highlight=False, soft_wrap=True)
    _log()
    settings = load(profile, set or [])
    try:
        facts = local.run(settings, console.print)
    except KeyboardInterrupt:
        _fail("interrupted; the same command carries on from here", 130)
    except local.Broken as error:
        _fail(str(error), 1)
    if as_json:
        _print(facts)
    else:
        local.tell(facts, console.print)
    sys.exit(facts["code"])


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    },
)
def step(ctx: typer.Context) -> None:
    """Run one step by itself: `tasteloop step NAME --help`; without a name, list the steps."""
    from pipelines.local import step as alone

    def emit(results: dict[str, Any], as_json: bool) -> None:
        if as_json:
            _print(results)
        else:
            for name, value in results.items():
                typer.echo(f"{name}: {value}")

    _log()
    name, *arguments = ctx.args or ["--help"]
    sys.exit(alone.main(name, arguments, emit))


@app.command("compile")
def compile_graph(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the IR YAML goes.")
    ],
    profile: Profile = "cluster",
    set: Set = None,
    pipeline: Graph = "training",
) -> None:
    """Write a pipeline's graph as IR YAML for a Kubeflow Pipelines server."""
    from pipelines.graphs.compile import graph_of
    from pipelines.graphs.training import compile_to
    from pipelines.settings import load

    if output.suffix not in (".yaml", ".yml"):
        raise TasteloopError(f"-o {output}: the graph is YAML; name a .yaml file")
    with process.shareable():
        compile_to(load(profile, set or []), output, graph_of(pipeline))
    typer.echo(str(output))


@app.command(
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
    from pipelines.settings import load

    if cron and wait:
        raise TasteloopError(
            "--cron makes a schedule, which has no end to --wait for; give one of them"
        )
    try:
        told = submission.submit(
            load(profile, set or []),
            submission.Server(host, namespace),
            experiment,
            cron=cron,
            wait=5.0 if wait else None,
            say=lambda line: typer.echo(line, err=as_json),
            pipeline=pipeline,
            arguments=submission.arguments(argument or []),
        )
    except KeyboardInterrupt:
        _fail("interrupted; a run that was started goes on", 130)
    if as_json:
        _print(told)
    elif "page" in told:
        typer.echo(told["page"])
    if wait and told["state"] != "SUCCEEDED":
        _fail(
            f"the run ended as {told['state'].lower()}{': ' + told['error'] if 'error' in told else ''}",
            1,
        )


@app.command()
def status(
    as_json: AsJson = False,
    last: Annotated[int, typer.Option(min=1, max=MOST, help="How many runs to show.")] = 10,
) -> None:
    """Show the champion, the registered versions and the last runs."""
    from dataclasses import asdict

    from pipelines.local.runner import runs
    from serving.release.registry import versions
    from tasteloop.files import home

    known = [asdict(version) for version in versions()]
    champion = next((version for version in known if version["champion"]), None)
    found = runs()[:last]
    if as_json:
        _print({"home": str(home()), "champion": champion, "versions": known, "runs": found})
        return
    live = f"version {champion['version']} ({champion['digest'][:12]})" if champion else "none yet"
    typer.echo(f"champion  {live}\nversions  {len(known)}\nhome      {home()}")
    for facts in found:
        version = f"version {facts['version']}" if facts.get("version") else ""
        seconds = f"{facts['seconds']:.0f} s" if "seconds" in facts else ""
        typer.echo(
            f"{facts['id']}  {facts['profile']:<8} {facts['outcome']:<16} {seconds:>7}  {version}".rstrip()
        )


@app.command()
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
    """Write a run's evaluation as one self-contained HTML page, or its validation where it ended
    there.

    With --site DIR: static pages over all models, runs, drift windows and decisions, each with its
    evidence, which can be moved or published as they are. A site that is there is replaced; a
    directory with anything else in it is not.
    """
    if site is not None:
        if run_id or output:
            raise TasteloopError("--site is about all runs; leave --run and --output out")
        from pipelines.loop.site import write

        with process.shareable():
            written = write(site)
        path = Path(written["index"])
        if as_json:
            _print(written)
        else:
            counted = ", ".join(f"{n} {name}" for name, n in written.items() if isinstance(n, int))
            typer.echo(f"{path}\n{counted}")
    else:
        from pipelines.local.runner import page

        with process.shareable() if output else nullcontext():
            path = page(run_id, output)
        if as_json:
            _print({"report": str(path)})
        else:
            typer.echo(str(path))
    if open_it:
        typer.launch(path.as_uri())


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    ctx: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="REST port; 0: any free one.")] = 8080,
) -> None:
    """Serve the champion over KServe's V1 and V2 protocols; more options: `python -m serving
    --help`.
    """
    from serving.__main__ import main as serving

    sys.exit(serving(["--port", str(port), *ctx.args]))


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="interests, recommend or sentiment.")],
    events: Annotated[
        str | None,
        typer.Option(metavar="JSON|FILE|-", help="A list of events, the user's history."),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to judge; repeatable.")] = None,
    k: Annotated[
        int, typer.Option("--k", "-k", min=1, max=MOST, help="How many items to recommend.")
    ] = 10,
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8080",
) -> None:
    """Ask a server that runs (`tasteloop serve`); the answer is JSON."""
    from pipelines.cli.ask import instances
    from serving.client import Client

    questions = instances(model, events, text, k)
    with Client(url) as client:
        answers = client.predict(model, questions)
    _print(answers if len(answers) > 1 else answers[0])


@app.command()
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
    """Answer for every user of a file, offline: the same answers as the server's, in bounded
    memory.

    Users are the pseudonyms of the events contract and are written as they came. Every row must be
    an event; the first that is none is told by its number, and nothing is written.
    """
    from dataclasses import asdict

    from tasteloop.runtime import scoring

    _log()
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
        _print(asdict(result))
    else:
        typer.echo(
            f"{out}: {result.rows} rows for {result.scored} {'texts' if model == 'sentiment' else 'users'}"
        )


@app.command()
def history(
    as_json: AsJson = False,
    last: Annotated[int, typer.Option(min=1, max=MOST, help="How many decisions to show.")] = 10,
) -> None:
    """Show what the monitor decided, newest first: when, why, on what evidence, and what came of
    it.
    """
    from pipelines.loop.monitoring import LEDGER, tell
    from tasteloop.files import home
    from validation.monitor.ledger import Ledger

    found = Ledger(home() / LEDGER).history()[::-1][:last]
    if as_json:
        _print(found)
        return
    if not found:
        typer.echo("no decision yet")
    for entry in found:
        typer.echo(tell(entry))


@app.command()
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
    """Compare what has come with what the champion learned from; decide, and retrain, alert or roll
    back.

    One monitor works at a time (exit code 5 where another does). The profile is that of a
    retraining; its sections watch, decision, retraining, rollback and alerts are the monitor's.
    Webhook: --set alerts.webhook=https://...
    """
    from pipelines.loop import monitoring
    from pipelines.settings import load
    from validation.monitor.ledger import Held

    if once == (every is not None):
        raise TasteloopError("say --once for one pass, or --every 1h to go on")
    if events is not None and not events.exists():
        raise TasteloopError(f"--events {events}: no such file or directory")
    _log()
    logging.getLogger("pipelines").setLevel(logging.INFO)  # a retraining's steps
    settings = load(profile, set or [])
    source = None if events is None else monitoring.directory(events)
    if every is not None:
        seconds = _seconds(every)
        typer.echo(f"a pass every {every}; stop with Ctrl-C or SIGTERM", err=True)
        monitoring.watch_every(
            settings,
            seconds,
            lambda line: typer.echo(line, err=as_json),
            (lambda watched: print(json.dumps(watched.json()), flush=True)) if as_json else None,
            source,
        )
        return
    try:
        watched = monitoring.watch_once(settings, source=source)
    except Held as error:
        _fail(str(error), 5)
    except KeyboardInterrupt:
        _fail("interrupted; the next pass carries on from here", 130)
    monitoring.write_metrics()
    if as_json:
        _print(watched.json())
    else:
        typer.echo(monitoring.line(watched))


@app.command()
def simulate(
    shift: Annotated[
        str,
        typer.Option(
            help="stationary, seasonal, new-catalogue, taste-change, bots, broken-field, language, "
            "delayed-labels, or all."
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
    place: Annotated[
        Path | None,
        typer.Option("--home", metavar="DIR", help="Its home; simulations/ under TASTELOOP_HOME."),
    ] = None,
    set: Set = None,
    as_json: AsJson = False,
) -> None:
    """Replay real behaviour through a server, with a shift, and see whether the monitor does what
    it should.

    The first time a champion is trained (profile smoke). Every simulation has a home of its own:
    your registry is not touched. Exit code 1 where an expectation is not met.
    """
    from pipelines.simulation import simulator as simulation
    from pipelines.simulation.replay import SHIFTS, Options
    from tasteloop.files import home

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if place is not None and shift == "all":
        raise TasteloopError(
            "--home is one simulation's; --shift all makes several, under TASTELOOP_HOME/simulations"
        )
    results = []
    for name in SHIFTS if shift == "all" else [shift]:
        options = Options(name, seed, weeks, start, visitors, severity, not in_process, retrain)
        where = place or simulation.default_place(name, seed)
        results.append(
            simulation.simulate(
                options,
                where,
                home() / "simulations",
                set or [],
                lambda line: typer.echo(line, err=as_json),
            )
        )
        if not as_json:
            typer.echo("\n".join(simulation.concluded(results[-1])))
    if as_json:
        _print(results if shift == "all" else results[0])
    sys.exit(0 if all(result["met"] for result in results) else 1)


_YEAR = 366 * 86400


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], text[-1:]
    allowed = unit in units and number.isascii() and number.isdigit() and len(number) <= 7
    if not allowed or not 0 < int(number) * units[unit] <= _YEAR:
        raise TasteloopError(
            f"--every {text!r:.40}: a whole number with s, m, h or d, up to a year, such as 30m or 1h"
        )
    return float(int(number) * units[unit])


@app.command()
def rollback(as_json: AsJson = False) -> None:
    """Make the previous champion live again."""
    from serving.release.registry import rollback as roll_back

    live = roll_back()
    if as_json:
        _print({"version": live.version, "digest": live.digest})
    else:
        typer.echo(
            f"the champion is version {live.version} ({live.digest[:12]}); servers that follow it swap"
        )


@app.command("reset-registry")
def reset_registry() -> None:
    """Begin without a champion, where the registry was lost and no backup is there; a registry that
    is whole stays.

    The database is set aside. Bundles and runs stay; the next run's model is compared with
    baselines alone.
    """
    from serving.release.registry import reset

    aside = reset()
    typer.echo(f"this home has no champion now{f'; the old database is {aside}' if aside else ''}")


@rollout.command("start")
def start_rollout(
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
    from serving.release import canary

    begun = canary.start(version, share, shadow, not manual, canary.rules(rule or []))
    if as_json:
        _print(canary.status())
        return
    how = "scores in the shadow" if shadow else "answers"
    typer.echo(
        f"version {begun.challenger.version} {how} {share:g} of the requests beside version {begun.champion.version}; "
        "watch it with `tasteloop rollout status`"
    )


@rollout.command("status")
def rollout_status(as_json: AsJson = False) -> None:
    """The running or the last rollout: what was seen, what the rules say of it and why."""
    from serving.release import canary

    told = canary.status()
    if as_json:
        _print(told)
        return
    if told is None:
        typer.echo(
            "no rollout yet; begin one with `tasteloop rollout start --version N --share 0.1`"
        )
        return
    kind = "shadow" if told["shadow"] else "canary"
    typer.echo(
        f"{kind} of version {told['challenger']['version']} beside {told['champion']['version']}, share "
        f"{told['share']:g}, since {told['started']}: {told['state']}"
    )
    for side in ("champion", "challenger"):
        seen = told["observed"][side]
        p95 = seen["seconds"]["p95"]
        slow = f", p95 {1000 * p95:.1f} ms" if p95 is not None else ""
        typer.echo(f"{side:<10} {seen['answers']} answers, {seen['errors']} errors{slow}")
    for model, seen in told["observed"]["agreement"].items():
        typer.echo(
            f"{model:<10} {seen['compared']} compared, first differs in {seen['first_differs']:.1%}, "
            f"overlap {seen['overlap']:.1%}, mean distance {seen['distance']:.4f}"
        )
    if told["state"] == "running":
        typer.echo(f"verdict    {told['verdict']}")
    for reason in told["because"] if told["state"] == "running" else told["reasons"]:
        typer.echo(f"  {reason}")


@rollout.command("promote")
def promote_challenger() -> None:
    """End the rollout: its version is the champion."""
    from serving.release import canary

    typer.echo(f"version {canary.promote().challenger.version} is the champion")


@rollout.command("abort")
def abort_rollout() -> None:
    """End the rollout: the champion answers everything again."""
    from serving.release import canary

    ended = canary.abort()
    typer.echo(
        f"version {ended.champion.version} answers everything; version {ended.challenger.version} is out"
    )


Where = Annotated[str, typer.Option("--namespace", "-n", help="Of the InferenceService.")]
Called = Annotated[str, typer.Option("--name", help="Of the InferenceService.")]
Context = Annotated[
    str | None,
    typer.Option(help="Of kubectl's configuration; else its current one, or the pod's account."),
]
Number = Annotated[str, typer.Option("--version", metavar="N", help="The registered version.")]
Image = Annotated[
    str, typer.Option("--image", metavar="REF", help="The serving image, best by digest.")
]
Bundle = Annotated[
    str | None,
    typer.Option(
        "--uri",
        help="Where KServe finds the bundle (s3://…, with --digest); else the registry says.",
    ),
]
Digest = Annotated[str | None, typer.Option("--digest", help="The bundle's digest, with --uri.")]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="s3://…",
        help="MLflow's --artifacts-destination, where its server proxies artifacts.",
    ),
]
Ask = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="A setting of the service, such as replicas=3; repeatable.",
    ),
]
Seconds = Annotated[
    int,
    typer.Option(
        "--wait", min=0, max=MOST, metavar="SECONDS", help="For KServe to have done it; 0: don't."
    ),
]


@cluster.command("deploy")
def cluster_deploy(
    version: Number,
    image: Image,
    uri: Bundle = None,
    digest: Digest = None,
    store: Store = None,
    set: Ask = None,
    name: Called = "tasteloop",
    namespace: Where = "tasteloop",
    context: Context = None,
    wait: Seconds = 300,
    as_json: AsJson = False,
) -> None:
    """Make a version the stable one at once: the first, or one that needs no trial."""
    from serving.cluster import inference_service as cluster

    given = cluster.given(set or [])
    # a mistake is told before the registry and the cluster are asked
    cluster.settings(name, namespace, **given)
    release = cluster.release(version, image, uri, digest, store)
    service = cluster.Service(cluster.connect(context), name, namespace, **given)
    _cluster_told(service, service.deploy(release), wait, as_json)


@cluster.command("canary")
def cluster_canary(
    version: Number,
    image: Image,
    percent: Annotated[int, typer.Option(min=0, max=100, help="Of the requests.")] = 10,
    uri: Bundle = None,
    digest: Digest = None,
    store: Store = None,
    name: Called = "tasteloop",
    namespace: Where = "tasteloop",
    context: Context = None,
    wait: Seconds = 300,
    as_json: AsJson = False,
) -> None:
    """Send a share of the requests to a version; the same version again changes its share."""
    from serving.cluster import inference_service as cluster

    service = cluster.Service(cluster.connect(context), name, namespace)
    _cluster_told(
        service,
        service.canary(cluster.release(version, image, uri, digest, store), percent),
        wait,
        as_json,
    )


@cluster.command("promote")
def cluster_promote(
    version: Number,
    name: Called = "tasteloop",
    namespace: Where = "tasteloop",
    context: Context = None,
    wait: Seconds = 300,
    as_json: AsJson = False,
) -> None:
    """Make the version that is tried the stable one; in Standard mode its pods go on as they
    are.
    """
    from serving.cluster import inference_service as cluster

    service = cluster.Service(cluster.connect(context), name, namespace)
    _cluster_told(service, service.promote(version), wait, as_json)


@cluster.command("rollback")
def cluster_rollback(
    name: Called = "tasteloop",
    namespace: Where = "tasteloop",
    context: Context = None,
    wait: Seconds = 300,
    as_json: AsJson = False,
) -> None:
    """End a canary; without one, make the version before the stable one again."""
    from serving.cluster import inference_service as cluster

    service = cluster.Service(cluster.connect(context), name, namespace)
    _cluster_told(service, service.rollback(), wait, as_json)


@cluster.command("status")
def cluster_status(
    name: Called = "tasteloop",
    namespace: Where = "tasteloop",
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Which versions answer, with which share, and what KServe has still to do."""
    from serving.cluster import inference_service as cluster

    service = cluster.Service(cluster.connect(context), name, namespace)
    _cluster_told(service, service.releases(), 0, as_json)


@cluster.command("manifest")
def cluster_manifest(
    version: Number,
    image: Image,
    uri: Bundle = None,
    digest: Digest = None,
    store: Store = None,
    set: Ask = None,
    name: Called = "tasteloop",
    namespace: Where = "tasteloop",
) -> None:
    """Print the InferenceService that `deploy` would apply, as YAML; asks no cluster."""
    import yaml

    from serving.cluster import inference_service as cluster

    settings = cluster.settings(name, namespace, **cluster.given(set or []))
    made = cluster.manifest(
        settings, cluster.Releases(cluster.release(version, image, uri, digest, store))
    )
    typer.echo(yaml.safe_dump(made, sort_keys=False), nl=False)


def _cluster_told(service: Any, releases: Any, wait: int, as_json: bool) -> None:
    from dataclasses import asdict

    if wait:
        service.wait(wait, lambda line: typer.echo(line, err=True))
    pending = service.pending()
    if as_json:
        _print({**asdict(releases), "pending": pending})
        return
    typer.echo(f"stable     version {releases.stable.version} ({releases.stable.digest[:12]})")
    if releases.tried:
        typer.echo(
            f"tried      version {releases.tried.version}, {releases.percent} percent of the requests"
        )
    if releases.before:
        typer.echo(f"before     version {releases.before.version}")
    typer.echo(f"KServe     {pending or 'has done it'}")


@journal.command("describe")
def describe_journal(
    directory: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The journal; `journal` under TASTELOOP_HOME."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How many answers there are by model and version, from when to when, how many have feedback,
    and what is lost.
    """
    from serving.journal.writer import describe
    from tasteloop.files import home

    told = describe(directory or home() / "journal")
    if as_json:
        _print(told)
        return
    span = f" from {told['span'][0]} to {told['span'][1]}" if told["span"] else ""
    typer.echo(
        f"{told['directory']}: {told['answers']} answers{span}, {told['with_feedback']} with feedback"
    )
    for row in told["by"]:
        typer.echo(
            f"{row['model']:<10} version {row['version']:<12} {row['role']:<10} {row['answers']}"
        )
    for segment in told["damaged"]:
        rows = "an unknown number of" if segment["rows"] is None else segment["rows"]
        typer.echo(f"lost       {rows} rows: damaged, set aside as {segment['file']}")
    if told["impossible_times"]:
        typer.echo(
            f"unusable   {told['impossible_times']} answers whose time is before 1970 or after 9999"
        )


@data.command("list")
def list_sources(as_json: AsJson = False) -> None:
    """The catalogue: name, what it is for, whether it is in the cache."""
    from tasteloop.datasets.catalogue import CATALOGUE
    from tasteloop.datasets.fetch import cached

    rows = [
        {"name": s.name, "gives": s.gives, "cached": cached(s.name), "origin": s.origin}
        for s in CATALOGUE.values()
    ]
    if as_json:
        _print(rows)
        return
    for row in rows:
        here = "cached" if row["cached"] else "not here"
        typer.echo(f"{row['name']:<16} {row['gives']:<10} {here:<9} {row['origin']}")


@data.command()
def fetch(names: Annotated[list[str], typer.Argument(help="Names of the catalogue.")]) -> None:
    """Download sources into the cache, checked against their SHA-256; one that is there is left
    alone.
    """
    from tasteloop.datasets.fetch import fetch as fetch_source
    from tasteloop.datasets.fetch import lookup

    _log()
    # a wrong name is told before anything is downloaded
    for source in [lookup(name) for name in names]:
        place = fetch_source(source.name)
        typer.echo(f"{source.name}: {place}\n  terms of use: {source.terms}")


@data.command()
def describe(name: str, as_json: AsJson = False) -> None:
    """What a source holds, where it comes from and on what terms."""
    from tasteloop.datasets.fetch import cached, lookup

    source = lookup(name)
    facts = {
        "name": source.name,
        "gives": source.gives,
        "description": source.description,
        "origin": source.origin,
        "sha256": source.sha256,
        "files": list(source.files),
        "columns": dict(source.columns),
        "terms": source.terms,
        "cached": cached(name),
    }
    if as_json:
        _print(facts)
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            typer.echo(f"{key}:")
            for column, meaning in value.items():
                typer.echo(f"  {column}: {meaning}")
        else:
            typer.echo(f"{key}: {', '.join(value) if isinstance(value, list) else value}")


@bench.command()
def quality(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Results, and what is kept to carry on; TASTELOOP_HOME/bench."
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="Only this protocol; repeatable.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="METHOD", help="Only this method; repeatable.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A bundle to measure with its encoder.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few methods, a third of the users: minutes.")
    ] = False,
    seeds: Annotated[
        int,
        typer.Option(min=1, max=1000, help="How often a method that draws random numbers runs."),
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Recommenders on ml-100k under stated protocols, each peer tuned; prints one table
    (docs/benchmarks.md).
    """
    root = Path(tasteloop.__file__).parents[1]
    if not (root / "benchmarks" / "quality" / "run.py").is_file():
        raise TasteloopError(
            f"there is no benchmarks/quality beside this installation ({root}); benchmarks are not packaged: run the "
            "command from a checkout of the repository, set up with `make setup`"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    from benchmarks.quality.report import markdown
    from benchmarks.quality.run import Options, run
    from tasteloop.files import home

    _log()
    options = Options(
        out=(out or home() / "bench" / "quality").absolute(),
        protocols=tuple(protocol or ()),
        only=tuple(only or ()),
        quick=quick,
        seeds=tuple(range(seeds)),
        bundle=bundle and bundle.absolute(),
    )
    try:
        results = run(options, lambda line: typer.echo(line, err=True))
    except KeyboardInterrupt:
        _fail("interrupted; the same command carries on from here", 130)
    if as_json:
        _print(results)
    else:
        typer.echo(markdown(results), nl=False)
    if any(
        e.get("refused", "").startswith("failed")
        for p in results["protocols"]
        for e in p["methods"]
    ):
        sys.exit(1)


if __name__ == "__main__":
    main()
