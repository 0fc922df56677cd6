"""Sentiment data: texts that are known to be positive or negative."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tasteloop.behaviour.cleaning import REASON, ROW
from tasteloop.behaviour.items import ITEM, REVIEW, REVIEWS_SCHEMA, SENTIMENT, SOURCE, TEXT
from tasteloop.datasets.reading import check_types, read_ids, read_text
from tasteloop.datasets.tables import read_table

POSITIVE = ("1", "1.0", "true", "pos", "positive", "fresh")
NEGATIVE = ("0", "0.0", "false", "neg", "negative", "rotten")

_WORDS, _ORDER = "words", "order"

RULES = {
    "missing_text": "the text is empty",
    "unknown_sentiment": f"the sentiment is none of {', '.join(POSITIVE + NEGATIVE)}",
    "disputed_text": "the same words are also there with the other sentiment, and nothing says which one is right",
    "duplicate_text": "an earlier row has the same words; a repeated text could be in training and in the test",
}


@dataclass(frozen=True)
class CleanedReviews:
    """As `tasteloop.behaviour.cleaning.Cleaned`: every row is in one of the two frames."""

    reviews: pl.DataFrame
    quarantine: pl.DataFrame
    removed: dict[str, int]


def read(path: Path) -> pl.DataFrame:
    """A CSV, TSV or Parquet file with the columns text, sentiment and, where there is one, item."""
    table = read_table(path, {TEXT: "text", SENTIMENT: "sentiment"}, {ITEM: "item"})
    check_types(table, path)
    return table


def clean(tables: Mapping[str, pl.DataFrame]) -> CleanedReviews:
    """Apply `RULES`, in order, to the tables of one source or more, by name.

    A review's id is a hash of its text, whatever rows are around it. Two texts have the same words
    where they differ in case, spaces and punctuation alone; which of them is the earlier row is
    said by the order of the sources, and within one by its rows.
    """
    written = pl.concat(
        table.select(
            ROW,
            read_text(pl.col(TEXT)),
            read_text(pl.col(SENTIMENT)).str.to_lowercase(),
            read_ids(ITEM, table.schema),
            pl.lit(source).alias(SOURCE),
        ).sort(ROW)
        for source, table in tables.items()
    ).with_row_index(_ORDER)
    text, sentiment = pl.col(TEXT), pl.col(SENTIMENT)
    reason = (
        pl.when(text.fill_null("") == "")
        .then(pl.lit("missing_text"))
        .when(~sentiment.is_in(POSITIVE + NEGATIVE).fill_null(False))
        .then(pl.lit("unknown_sentiment"))
    )
    marked = written.with_columns(reason.alias(REASON), _words(text).alias(_WORDS))
    usable = pl.col(REASON).is_null()
    positive = sentiment.is_in(POSITIVE)
    same = (_WORDS, usable)
    disputed = positive.any().over(same) & ~positive.all().over(same)
    repeated = pl.col(_ORDER) > pl.col(_ORDER).min().over(same)
    marked = marked.with_columns(
        pl.when(usable & disputed)
        .then(pl.lit("disputed_text"))
        .when(usable & repeated)
        .then(pl.lit("duplicate_text"))
        .otherwise(REASON)
        .alias(REASON)
    )
    usable_rows = marked.filter(pl.col(REASON).is_null())
    ids = [hashlib.sha256(t.encode()).hexdigest()[:16] for t in usable_rows[TEXT]]
    reviews = usable_rows.select(
        pl.Series(REVIEW, ids, pl.String),
        TEXT,
        sentiment.is_in(POSITIVE).cast(pl.Int8).alias(SENTIMENT),
        ITEM,
        SOURCE,
    )
    quarantine = marked.filter(pl.col(REASON).is_not_null()).select(
        TEXT, SENTIMENT, ITEM, SOURCE, REASON, ROW
    )
    counts = dict(quarantine[REASON].value_counts().iter_rows())
    reviews = reviews.cast(REVIEWS_SCHEMA.to_polars())
    return CleanedReviews(reviews, quarantine, {rule: counts.get(rule, 0) for rule in RULES})


def balance(reviews: pl.DataFrame, most: float) -> pl.DataFrame:
    """The reviews without some of a source's commoner sentiment, where it has more than `most`
    times as many as of the rarer; which ones stay is a matter of their ids alone.

    A source of one sentiment is left as it is.
    """
    counts = reviews.group_by(SOURCE, SENTIMENT).len()
    rarer = counts.group_by(SOURCE).agg(pl.col("len").min())
    rank = pl.col(REVIEW).rank("ordinal").over(SOURCE, SENTIMENT)
    return (
        reviews.join(rarer, on=SOURCE, maintain_order="left")
        .filter(rank <= pl.col("len") * most)
        .drop("len")
    )


def _words(text: pl.Expr) -> pl.Expr:
    """A text without case, spaces and punctuation; one that is nothing else stays as it is."""
    bare = text.str.to_lowercase().str.replace_all(r"[\W_]+", "")
    return pl.when(bare == "").then(text).otherwise(bare)
