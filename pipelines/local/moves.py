"""Paths of a home that was moved, or restored elsewhere from a backup.

What is written with absolute paths below the home is read with the same paths below today's home.
"""

from __future__ import annotations

from typing import Any


def move_paths(value: Any, before: str, now: str) -> Any:
    """A JSON value whose strings that are paths below one directory are the same paths below
    another.

    >>> move_paths({"bundle": "/old/runs/1", "name": "/older"}, "/old", "/new")
    {'bundle': '/new/runs/1', 'name': '/older'}
    """
    match value:
        case str() if value == before or value.startswith(f"{before}/"):
            return now + value[len(before) :]
        case dict():
            return {key: move_paths(each, before, now) for key, each in value.items()}
        case list():
            return [move_paths(each, before, now) for each in value]
    return value
