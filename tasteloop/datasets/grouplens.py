"""The archives of MovieLens 100K and 1M that GroupLens publishes.

Both are in Latin-1, without headers. They are converted to the layout of the later releases, a
folder with `ratings.csv` and `movies.csv`.
https://files.grouplens.org/datasets/movielens/ml-100k-README.txt
https://files.grouplens.org/datasets/movielens/ml-1m-README.txt
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tasteloop.datasets import movielens
from tasteloop.datasets.reading import Behaviour
from tasteloop.errors import TasteloopError

FILES = (movielens.RATINGS_FILE, movielens.FILMS_FILE)

# the last columns of `u.item`, as its README lists them
_GENRES_OF_100K = (
    ("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary")
    + ("Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi")
    + ("Thriller", "War", "Western")
)
_BEFORE_GENRES = 5  # number, title, two dates and an address
_VIDEO = " (V)"  # behind the year of one title


def read(directory: Path, terms: str) -> Behaviour:
    """What one of the conversions left: 1 to 5 whole stars, times in seconds."""
    return movielens.read_folder(directory, terms, scale=(1.0, 5.0))


def convert_100k(directory: Path) -> None:
    """`u.data` (tab separated) and `u.item` (separated by `|`, a column of 0 and 1 for each genre).

    Raises:
        TasteloopError: a line has more or fewer fields than these files have.
    """
    ratings, films = directory / "u.data", directory / "u.item"
    described = _BEFORE_GENRES + len(_GENRES_OF_100K)
    _convert(
        directory,
        _lines(ratings, "\t", 4),
        (
            (number, title.removesuffix(_VIDEO), "|".join(_genres(flags[-len(_GENRES_OF_100K) :])))
            for number, title, *flags in _lines(films, "|", described)
        ),
    )
    ratings.unlink()
    films.unlink()


def convert_1m(directory: Path) -> None:
    """`ratings.dat` and `movies.dat`, separated by `::`.

    Raises:
        TasteloopError: a line has more or fewer fields than these files have.
    """
    ratings, films = directory / "ratings.dat", directory / "movies.dat"
    _convert(directory, _lines(ratings, "::", 4), _lines(films, "::", 3))
    ratings.unlink()
    films.unlink()


def _genres(flags: Sequence[str]) -> list[str]:
    return [genre for genre, flag in zip(_GENRES_OF_100K, flags, strict=True) if flag == "1"]


def _lines(path: Path, separator: str, width: int) -> Iterator[list[str]]:
    """The fields of each line."""
    with path.open(encoding="latin-1", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            fields = line.rstrip("\r\n").split(separator)
            if len(fields) != width:
                raise TasteloopError(
                    f"{path.name}: line {number} has {len(fields)} fields, not {width}; fetch the source again"
                )
            yield fields


def _convert(
    directory: Path, ratings: Iterable[Sequence[str]], films: Iterable[Sequence[str]]
) -> None:
    tables = (
        (movielens.RATINGS_FILE, movielens.RATING_COLUMNS, ratings),
        (movielens.FILMS_FILE, movielens.FILM_COLUMNS, films),
    )
    for name, columns, rows in tables:
        with (directory / name).open("x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns.values())
            writer.writerows(rows)
