"""`tasteloop data`: the catalogue of real data and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import log_to_stderr, print_json
from pipelines.cli.options import AsJson

commands = typer.Typer(
    no_args_is_help=True, help="Named real data and weights: list, fetch, describe."
)


@commands.command("list")
def list_sources(as_json: AsJson = False) -> None:
    """The catalogue: name, what it is for, whether it is in the cache."""
    from tasteloop.datasets.catalogue import CATALOGUE
    from tasteloop.datasets.fetch import cached

    rows = [
        {
            "name": source.name,
            "gives": source.gives,
            "cached": cached(source.name),
            "origin": source.origin,
        }
        for source in CATALOGUE.values()
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        state = "cached" if row["cached"] else "not here"
        typer.echo(f"{row['name']:<16} {row['gives']:<10} {state:<9} {row['origin']}")


@commands.command()
def fetch(names: Annotated[list[str], typer.Argument(help="Names of the catalogue.")]) -> None:
    """Download sources into the cache, checked by their SHA-256; those present are left alone."""
    from tasteloop.datasets.fetch import fetch as fetch_source
    from tasteloop.datasets.fetch import lookup

    log_to_stderr()
    # a wrong name is refused before anything is downloaded
    for source in [lookup(name) for name in names]:
        path = fetch_source(source.name)
        typer.echo(f"{source.name}: {path}\n  terms of use: {source.terms}")


@commands.command()
def mirror(
    directory: Annotated[Path, typer.Argument(help="Where the archives are put.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of the catalogue; all of it where there are none."),
    ] = None,
) -> None:
    """Fill a directory for TASTELOOP_MIRROR with sources' archives, checked by their SHA-256."""
    from tasteloop.datasets.catalogue import CATALOGUE
    from tasteloop.datasets.fetch import fill_mirror, lookup

    log_to_stderr()
    for source in [lookup(name) for name in names or CATALOGUE]:
        for path in fill_mirror(source.name, directory):
            typer.echo(f"{source.name}: {path}\n  terms of use: {source.terms}")


@commands.command()
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
        "other_origins": {other.origin: other.sha256 for other in source.others},
        "files": list(source.files),
        "columns": dict(source.columns),
        "terms": source.terms,
        "cached": cached(name),
    }
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            typer.echo(f"{key}:")
            for column, meaning in value.items():
                typer.echo(f"  {column}: {meaning}")
        else:
            typer.echo(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
