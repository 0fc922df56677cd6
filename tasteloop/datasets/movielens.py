"""MovieLens: the 100K set as RecBole packs it, and the CSV folders that GroupLens publishes."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tasteloop.behaviour.events import ITEM, TIME, USER, VALUE
from tasteloop.behaviour.items import LABELS, RELEASED, TITLE
from tasteloop.datasets.reading import Behaviour, as_events, as_items
from tasteloop.datasets.tables import read_table, scan_table
from tasteloop.errors import TasteloopError

_DOMAIN = "film"
_NO_GENRE = ["unknown", "(no genres listed)"]
_YEAR = r"\s*\((\d{4})\)\s*$"
_ARTICLE = r"^(.+), (The|A|An|Das|Der|Die|El|Il|L'|La|Le|Les|Los)( \(.*\))?$"  # "Postino, Il"


def read_100k(directory: Path, terms: str) -> Behaviour:
    """The atomic files `ml-100k.inter` and `ml-100k.item`: tab separated, times in seconds, 1 to 5
    stars.
    """
    ratings, films = directory / "ml-100k.inter", directory / "ml-100k.item"
    columns = {
        USER: "user_id:token",
        ITEM: "item_id:token",
        VALUE: "rating:float",
        TIME: "timestamp:float",
    }
    described = {
        ITEM: "item_id:token",
        TITLE: "movie_title:token_seq",
        RELEASED: "release_year:token",
        LABELS: "class:token_seq",
    }
    events = as_events(
        scan_table(ratings, columns, separator="\t", quote=None), ratings, kind="rate", unit="s"
    )
    items = as_items(
        read_table(films, described, separator="\t", quote=None),
        films,
        separator=" ",
        domain=_DOMAIN,
    )
    return Behaviour(events, _films(items), (1.0, 5.0), terms, path=ratings)


def files(folder: Path) -> list[Path]:
    """The two files of a MovieLens folder; TasteloopError when one is missing."""
    paths = [folder / "ratings.csv", folder / "movies.csv"]
    if absent := [path.name for path in paths if not path.is_file()]:
        raise TasteloopError(
            f"{folder} is no MovieLens folder: it has no {' and no '.join(absent)}; give a folder with "
            "ratings.csv "
            "and movies.csv, or describe your files in a mapping (docs/data.md)"
        )
    return paths


def read_folder(folder: Path) -> Behaviour:
    """`ratings.csv` (userId,movieId,rating,timestamp; 0.5 to 5) and `movies.csv`
    (movieId,title,genres).
    """
    ratings, films = files(folder)
    columns = {USER: "userId", ITEM: "movieId", VALUE: "rating", TIME: "timestamp"}
    events = as_events(scan_table(ratings, columns), ratings, kind="rate", unit="s")
    items = as_items(
        read_table(films, {ITEM: "movieId", TITLE: "title", LABELS: "genres"}),
        films,
        domain=_DOMAIN,
    )
    terms = "MovieLens: GroupLens terms, see the folder's README"
    return Behaviour(events, _films(items), (0.5, 5.0), terms, path=ratings)


def _films(items: pl.DataFrame) -> pl.DataFrame:
    """Titles as one says them: 'Postino, Il (1994)' is 'Il Postino', released in 1994."""
    year = pl.col(TITLE).str.extract(_YEAR).str.to_date("%Y", strict=False)
    bare = pl.col(TITLE).str.replace(_YEAR, "")
    spoken = bare.str.replace(_ARTICLE, "$2 $1$3").str.replace("^L' ", "L'")
    return items.with_columns(
        pl.when(spoken != "").then(spoken).otherwise(pl.col(TITLE)).alias(TITLE),
        pl.coalesce(RELEASED, year).alias(RELEASED),
        pl.col(LABELS).list.set_difference(_NO_GENRE).list.unique(maintain_order=True),
    )
