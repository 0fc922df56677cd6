"""Commands that documents show, held against the command line as it is."""

from __future__ import annotations

from typing import Any

import typer

from pipelines.cli.app import app


def resolve(arguments: list[str]) -> Any:
    """The context of the command that would run, its options read; raises where one is unknown or
    missing.
    """
    command: Any = typer.main.get_command(app)
    parent, name = None, "tasteloop"
    while hasattr(command, "commands"):  # typer's own copy of click has the classes
        parent = command.context_class(command, info_name=name, parent=parent)
        name, *arguments = arguments
        command = command.commands[name]
    return command.make_context(name, arguments, parent=parent)
