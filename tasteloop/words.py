"""Text that is shown to people, taken from where it is written once."""

from __future__ import annotations


def first_paragraph(docstring: str | None) -> str:
    """A docstring's first paragraph on one line, for lists and `--help`, however it is wrapped.

    >>> first_paragraph("Count what\\n    is there.\\n\\n    Args: ...")
    'Count what is there.'
    """
    return " ".join((docstring or "").strip().partition("\n\n")[0].split())
