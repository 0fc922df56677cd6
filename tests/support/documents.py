"""The code in our documents: blocks, and which of them tests run."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

RUN = "<!-- run -->"  # above a block that a test runs as it stands


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        is_run: a test runs it.
        heading: the one above it.
    """

    language: str
    text: str
    is_run: bool
    heading: str


def read_blocks(document: Path) -> list[Block]:
    """The blocks of a Markdown document in their order, those within lists too."""
    blocks = []
    heading, is_run = "", False
    lines = iter(document.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if match := re.match(r"#+ (.*)", line):
            heading = match[1]
        elif line.strip() == RUN:
            is_run = True
        elif match := re.match(r"\s*```(\w+)$", line):
            body = []
            for inner in lines:
                if inner.strip() == "```":
                    break
                body.append(inner)
            text = textwrap.dedent("\n".join(body)) + "\n"
            blocks.append(Block(match[1], text, is_run, heading))
            is_run = False
    return blocks
