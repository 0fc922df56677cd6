"""Options that several groups of commands share."""

from __future__ import annotations

from typing import Annotated

import typer

# The most that an option may count (runs, items, weeks, seconds). More than a million of anything
# is no answer but a machine out of memory.
MOST = 1_000_000

Profile = Annotated[
    str, typer.Option("--profile", "-p", help="smoke, local, mpnet, cluster, or a YAML file.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="A setting instead of the profile's; repeatable."
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, and only JSON, on standard output.")
]
