"""`tasteloop bench`: recommenders measured against peers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import tasteloop
from pipelines.cli.console import fail, log_to_stderr, print_json
from pipelines.cli.options import AsJson
from tasteloop.errors import TasteloopError

commands = typer.Typer(
    no_args_is_help=True, help="Measure against peers, from a checkout of the repository."
)


@commands.command()
def quality(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Results, and what is kept to carry on; TASTELOOP_HOME/bench."
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="A source of behaviour with times or in order; ml-1m-thin; games: of TASTELOOP_BENCH_DATA.",
        ),
    ] = "ml-100k",
    protocol: Annotated[
        list[str] | None, typer.Option(help="Only this protocol; repeatable.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD", help="Only this method; repeatable. main: the usual peers, and ours."
        ),
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
    """Recommenders on a data set, each peer tuned; prints one table (docs/benchmarks.md)."""
    _find_benchmarks()
    from benchmarks.quality.options import Options
    from benchmarks.quality.report import markdown
    from benchmarks.quality.run import run
    from tasteloop.home import Home

    log_to_stderr()
    # each data set has a directory of its own; ml-100k's is the one without a name
    own = "quality" if data == "ml-100k" else f"quality-{Path(data).name}"
    options = Options(
        out=(out or Home.current().benchmarks / own).absolute(),
        behaviour=data,
        protocols=tuple(protocol or ()),
        only=tuple(only or ()),
        quick=quick,
        seeds=tuple(range(seeds)),
        bundle=bundle and bundle.absolute(),
    )
    results = _run_and_print(lambda say: run(options, say), markdown, as_json)
    methods = [method for protocol in results["protocols"] for method in protocol["methods"]]
    if any(method.get("refused", "").startswith("failed") for method in methods):
        sys.exit(1)


@commands.command()
def language(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Results, and what is kept to carry on; TASTELOOP_HOME/bench."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="METHOD", help="Only this method; repeatable.")
    ] = None,
    films: Annotated[
        list[str] | None,
        typer.Option(metavar="SET", help="Only this set: ml-100k, ml-1m or redial; repeatable."),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A bundle instead of the champion's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """People's own words on the data in TASTELOOP_BENCH_DATA, beside peers (docs/benchmarks.md)."""
    _find_benchmarks()
    from benchmarks.quality.language import Options, run
    from benchmarks.quality.language_report import markdown
    from serving.release.registry import champion
    from tasteloop.home import Home

    log_to_stderr()
    if bundle is None and (live := champion()) is not None:
        bundle = live.path
    options = Options(
        out=(out or Home.current().benchmarks / "language").absolute(),
        only=tuple(only or ()),
        sets=tuple(films or ()),
        bundle=bundle and bundle.absolute(),
    )
    _run_and_print(lambda say: run(options, say), markdown, as_json)


def _run_and_print(
    run: Callable[[Callable[[str], None]], dict[str, Any]],
    markdown: Callable[[dict[str, Any]], str],
    as_json: bool,
) -> dict[str, Any]:
    """Run a benchmark, its progress on standard error, and print its results."""
    try:
        results = run(lambda line: typer.echo(line, err=True))
    except KeyboardInterrupt:
        fail("interrupted; the same command carries on from here", 130)
    if as_json:
        print_json(results)
    else:
        typer.echo(markdown(results), nl=False)
    return results


def _find_benchmarks() -> None:
    """Make the checkout's `benchmarks` importable.

    Raises:
        TasteloopError: this installation is no checkout.
    """
    root = Path(tasteloop.__file__).parents[1]
    if not (root / "benchmarks" / "quality" / "run.py").is_file():
        raise TasteloopError(
            f"there is no benchmarks/quality beside this installation ({root}); benchmarks are not packaged: run the "
            "command from a checkout of the repository, set up with `make setup`"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
