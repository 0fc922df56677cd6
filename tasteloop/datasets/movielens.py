"""MovieLens: the 100K and 1M sets as RecBole packs them, and the CSV folders that GroupLens
publishes.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tasteloop.behaviour.events import ITEM, TIME, USER, VALUE
from tasteloop.behaviour.items import LABELS, RELEASED, TITLE
from tasteloop.datasets.reading import Behaviour, as_events, as_items
from tasteloop.datasets.tables import read_table, scan_table
from tasteloop.errors import TasteloopError

# a folder as GroupLens publishes it since 2014: our name -> the column
RATINGS_FILE, FILMS_FILE = "ratings.csv", "movies.csv"
RATING_COLUMNS = {USER: "userId", ITEM: "movieId", VALUE: "rating", TIME: "timestamp"}
FILM_COLUMNS = {ITEM: "movieId", TITLE: "title", LABELS: "genres"}
_FOLDER_TERMS = "MovieLens: GroupLens terms, see the folder's README"

_DOMAIN = "film"
_NO_GENRE = ["unknown", "(no genres listed)"]
_YEAR = r"\s*\((\d{4})\)\s*$"
_ARTICLE = r"^(.+), (The|A|An|Das|Der|Die|El|Il|L'|La|Le|Les|Los)( \(.*\))?$"  # "Postino, Il"

# MovieLens 1M numbers its films from 1 to 3952 in `movies.dat`; these numbers name none.
_LAST_FILM_OF_1M = 3952
_NUMBERS_WITHOUT_A_FILM = frozenset(
    [91, 221, 323, 622, 646, 677, 686, 689, 740, 817, 883, 995, 1048, 1072, 1074, 1182, 1195, 1229]
    + [1239, 1338, 1402, 1403, 1418, 1435, 1451, 1452, 1469, 1478, 1481, 1491, 1492, 1505, 1506]
    + [1512, 1521, 1530, 1536, 1540, 1560, 1576, 1607, 1618, 1634, 1637, 1638, 1691, 1700, 1712]
    + [1736, 1737, 1745, 1751, 1761, 1763, 1766, 1775, 1778, 1786, 1790, 1800, 1802, 1803, 1808]
    + [1813, 1818, 1823, 1828, 1838, 3815]
)
_USER_OF_1M = "1m_"  # before each user's number


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


def read_1m(directory: Path, terms: str) -> Behaviour:
    """The atomic files `ml-1m.inter` and `ml-1m.item`: tab separated, times in seconds, 1 to 5
    stars.

    These files call a film by its title and year, and a user `1m_` and a number. Both get their
    numbers of MovieLens back. Of a film that is its place: the films stand in the order of
    `movies.dat`, which numbers them upwards and leaves some numbers out.

    Raises:
        TasteloopError: the films are not the 3,883 of MovieLens 1M.
    """
    ratings, films = directory / "ml-1m.inter", directory / "ml-1m.item"
    described = {
        ITEM: "item_id:token",
        TITLE: "movie_title:token",
        RELEASED: "release_year:float",
        LABELS: "genre:token",
    }
    table = read_table(films, described, separator="\t", quote=None)
    numbers = [
        str(number)
        for number in range(1, _LAST_FILM_OF_1M + 1)
        if number not in _NUMBERS_WITHOUT_A_FILM
    ]
    if table.height != len(numbers):
        raise TasteloopError(
            f"{films} has {table.height} films, not the {len(numbers)} of MovieLens 1M; remove {directory} "
            "and fetch again"
        )
    number_of_title = dict(zip(table[ITEM], numbers, strict=True))
    items = as_items(
        table.with_columns(pl.Series(ITEM, numbers)), films, separator=" ", domain=_DOMAIN
    )
    columns = {
        USER: "user_id:token",
        ITEM: "item_id:token",
        VALUE: "rating:float",
        TIME: "timestamp:float",
    }
    rows = scan_table(ratings, columns, separator="\t", quote=None).with_columns(
        pl.col(USER).str.strip_prefix(_USER_OF_1M), pl.col(ITEM).replace(number_of_title)
    )
    events = as_events(rows, ratings, kind="rate", unit="s")
    return Behaviour(events, _films(items), (1.0, 5.0), terms, path=ratings)


def files(folder: Path) -> list[Path]:
    """The two files of a MovieLens folder; TasteloopError when one is missing."""
    paths = [folder / RATINGS_FILE, folder / FILMS_FILE]
    if absent := [path.name for path in paths if not path.is_file()]:
        raise TasteloopError(
            f"{folder} is no MovieLens folder: it has no {' and no '.join(absent)}; give a folder with "
            "ratings.csv "
            "and movies.csv, or describe your files in a mapping (docs/data.md)"
        )
    return paths


def read_folder(
    folder: Path, terms: str = _FOLDER_TERMS, scale: tuple[float, float] = (0.5, 5.0)
) -> Behaviour:
    """`ratings.csv` (userId,movieId,rating,timestamp) and `movies.csv` (movieId,title,genres)."""
    ratings, films = files(folder)
    events = as_events(scan_table(ratings, RATING_COLUMNS), ratings, kind="rate", unit="s")
    items = as_items(read_table(films, FILM_COLUMNS), films, domain=_DOMAIN)
    return Behaviour(events, _films(items), scale, terms, path=ratings)


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
