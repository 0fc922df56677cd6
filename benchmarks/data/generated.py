"""Behaviour of any size, drawn in pieces, as a Parquet file with a mapping: what a shop's log would
be.

About sixty events a user, ten thousand items with one or two of twenty labels, times that go
forward with jitter. One row in a hundred repeats the row before it, one in two hundred comes again
within a second, one in two hundred is broken (no user, an unknown kind, an impossible time, a value
off the scale). `Shape` says otherwise: of ratings alone, or of other numbers of users and items.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tasteloop.files import atomic_directory

PIECE, USER_EVENTS = 1_000_000, 60
START, DAYS = 1_735_689_600_000_000, 365  # µs: 2025-01-01
KINDS = np.array(["view", "click", "rate", "purchase", "share", "search", "veiw"])
SHARES = (0.40, 0.25, 0.20, 0.05, 0.03, 0.069, 0.001)
WORDS = np.array(
    ["garden", "hose", "lamp", "noir", "opera", "bread", "robot", "wool", "jazz", "chess", "comet"]
)
MAPPING = """\
events: events.parquet
columns: {user: customer, item: sku, kind: action, time: at, value: stars, text: words}
scale: [1, 5]
time: {unit: us}
items:
  file: items.parquet
  columns: {item: sku, title: name, labels: categories}
"""


@dataclass(frozen=True)
class Shape:
    """What the rows are of, beside how many they are.

    Attributes:
        users: None for one every sixty events.
        labels: of which an item bears one or two; 0: items bear none.
        shares: of `KINDS`.
    """

    users: int | None = None
    items: int = 10_000
    labels: int = 20
    shares: tuple[float, ...] = SHARES


RATINGS = Shape(60_000, 20_000, 0, (0, 0, 1, 0, 0, 0, 0))


def generate(events: int, out: Path, seed: int = 0, shape: Shape | None = None) -> Path:
    """Write `out`, where it is not there yet, and give its mapping. Equal arguments give equal
    rows.
    """
    shape = shape or Shape()
    if not out.is_dir():
        import pyarrow.parquet as pq

        with atomic_directory(out) as folder:
            (folder / "mapping.yaml").write_text(MAPPING, encoding="utf-8")
            _items(shape, np.random.default_rng((seed, 0))).write_parquet(folder / "items.parquet")
            writer = None
            for begin in range(0, events, PIECE):
                piece = _piece(
                    begin,
                    min(PIECE, events - begin),
                    events,
                    shape,
                    np.random.default_rng((seed, 1 + begin)),
                )
                table = piece.to_arrow()
                writer = writer or pq.ParquetWriter(
                    folder / "events.parquet", table.schema, compression="zstd"
                )
                writer.write_table(table)
            if writer:
                writer.close()
    return out / "mapping.yaml"


def _items(shape: Shape, rng: np.random.Generator) -> pl.DataFrame:
    numbers = range(shape.items)
    drawn = rng.integers(0, max(shape.labels, 1), (shape.items, 2 if shape.labels else 0))
    labels = [[f"Label {k}" for k in set(of_item)] for of_item in drawn.tolist()]
    names, titles = [f"i{n}" for n in numbers], [f"Thing {n}" for n in numbers]
    return pl.DataFrame(
        {"sku": names, "name": titles, "categories": labels},
        schema_overrides={"categories": pl.List(pl.String)},
    )


def _piece(
    begin: int, rows: int, events: int, shape: Shape, rng: np.random.Generator
) -> pl.DataFrame:
    """`rows` rows that follow `begin` others, of `events` in all."""
    users = shape.users or max(events // USER_EVENTS, 1)
    # a user stays for some weeks
    came = (begin + np.arange(rows)) / events + rng.normal(0, 0.02, rows)
    user = (came % 1 * users).astype(np.int64)
    item = np.minimum(shape.items * rng.random(rows) ** 3, shape.items - 1).astype(np.int64)
    kind = rng.choice(len(KINDS), rows, p=shape.shares)
    progress = (begin + np.arange(rows)) / events + rng.normal(0, 0.001, rows)
    time = START + (progress * DAYS * 86_400_000_000).astype(np.int64)
    stars = rng.integers(1, 6, rows).astype(np.float64)
    words = rng.integers(0, len(WORDS), (2, rows))

    fate = rng.random(rows)
    source = np.arange(rows)
    again = (fate < 0.015) & (source > 0)
    source = np.where(again, source - 1, source)
    user, item, kind, time, stars, words = (
        a[..., source] for a in (user, item, kind, time, stars, words)
    )
    time = np.where(again & (fate >= 0.01), time + 500_000, time)
    time = np.where((fate > 0.996) & (fate < 0.997), -1, time)
    stars = np.where((fate > 0.997) & (fate < 0.998), 7.0, stars)
    frame = pl.DataFrame(
        {
            "user": user,
            "item": item,
            "kind": kind,
            "at": time,
            "stars": stars,
            "a": words[0],
            "b": words[1],
        }
    )
    search, rated = pl.col("kind") == 5, pl.col("kind") == 2
    text = [
        pl.col(c).replace_strict(list(range(len(WORDS))), WORDS.tolist(), return_dtype=pl.String)
        for c in "ab"
    ]
    return frame.select(
        pl.when(pl.Series(fate <= 0.998)).then(pl.format("customer-{}", "user")).alias("customer"),
        pl.when(~search).then(pl.format("i{}", "item")).alias("sku"),
        pl.col("kind")
        .replace_strict(list(range(len(KINDS))), KINDS.tolist(), return_dtype=pl.String)
        .alias("action"),
        "at",
        pl.when(rated).then("stars").alias("stars"),
        pl.when(search).then(pl.concat_str(*text, separator=" ")).alias("words"),
    )
