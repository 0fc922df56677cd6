"""Texts join items by id where the titles agree, else by title and year, and every row is
counted.
"""

from __future__ import annotations

import gzip
import json
import logging
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from tasteloop.behaviour.cleaning import CleaningSettings
from tasteloop.behaviour.items import ITEMS_SCHEMA, Catalogue
from tasteloop.datasets.ingest import IngestSettings, ingest, source_fingerprint
from tasteloop.datasets.item_text import JoinCounts, join_texts, title_key
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json

FILM_TEXT = Path(__file__).parents[4] / "shared" / "data" / "film" / "film-text.jsonl.gz"

ITEMS = [
    # item, title, own text, year
    ("1", "The Net", None, 1995),
    ("2", "L'Ennui", "A French film.", 1998),
    ("3", "Léon & the Others", None, 1994),
    ("4", "Hamlet", None, 1990),
    ("5", "Hamlet", None, 1996),
    ("6", "Nikita", None, None),
]


def catalogue() -> pl.DataFrame:
    rows = [
        (item, title, [], text, "film", date(year, 1, 1) if year else None)
        for item, title, text, year in ITEMS
    ]
    return pl.DataFrame(rows, schema=ITEMS_SCHEMA.to_polars(), orient="row")


def write_lines(path: Path, *records: dict[str, object]) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records)
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as stream:
            stream.write(text)
    else:
        path.write_text(text, encoding="utf-8")
    return path


def texts(items: pl.DataFrame) -> dict[str, str]:
    return dict(items.filter(pl.col("text").is_not_null()).select("item", "text").rows())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Net, The (1995)", "The Net"),
        ("Ennui, L' (1998)", "L'Ennui"),
        ("Postino, Il (The Postman) (1994)", "Il Postino"),
        ("LEON and the others", "Léon & the Others"),
        ("Associate, The (L'Associe)(1982)", "Associate, The (L'Associe"),
        ("Ocean's Eleven", "Oceans Eleven (1960)"),
    ],
)
def test_titles_that_differ_in_writing_alone_are_one(one: str, other: str) -> None:
    assert title_key(one) == title_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Blade Runner", "Blade Runner 2049"),
        ("Rocky", "Rocky II"),
        ("The A", "The"),
        ("1984", "1941"),
        ("(…)", "(?)"),
    ],
)
def test_titles_that_differ_in_words_are_two(one: str, other: str) -> None:
    assert title_key(one) != title_key(other)


def test_an_id_counts_unless_the_titles_contradict_it(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "texts.jsonl",
        {"movie_id": 1, "title": "Net, The (1995)", "plot": "A plot.", "actors": "Ann, Bob"},
        {"movie_id": 2, "title": "Nikita (1990)", "plot": "A spy."},  # another catalogue's 2
        {"movie_id": 4, "plot": "A prince.", "director": "Franco"},
    )

    items, counts = join_texts(catalogue(), path, "films")

    assert texts(items) == {
        "1": "A plot. With Ann, Bob.",
        "2": "A French film.",
        "4": "A prince. Directed by Franco.",
    }
    assert (counts.by_id, counts.by_title, counts.unmatched) == (2, 0, 1)


def test_a_title_joins_with_its_year_or_where_it_is_the_only_one(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "texts.jsonl.gz",
        {"title": "Ennui, L' (1998)", "plot": "Boredom."},
        {"title": "Hamlet", "year": 1996, "plot": "Four hours."},
        {"title": "Hamlet", "plot": "Which one?"},
        {"title": "Nikita", "plot": "A spy."},
        {"title": "The Net (2001)", "plot": "Another year."},
        {"title": "Hamlet (1996)", "plot": "Once more."},
        {"title": "Nothing is known", "plot": "N/A"},
    )

    items, counts = join_texts(catalogue(), path, "films")

    assert texts(items) == {
        "2": "A French film. Boredom.",
        "5": "Four hours.",
        "6": "A spy.",
    }
    assert counts == JoinCounts(
        file="texts.jsonl.gz",
        rows=6,
        by_title=3,
        repeated=1,
        ambiguous=1,
        unmatched=1,
        items=6,
        items_with_text=3,
    )


def test_rows_of_another_source_are_passed_over(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "texts.jsonl",
        {"source": "others", "movie_id": 1, "plot": "Not this one."},
        {"source": "films", "movie_id": 1, "plot": "This one."},
    )

    items, counts = join_texts(catalogue(), path, "films")

    assert texts(items)["1"] == "This one."
    assert counts.rows == 1


def test_an_item_titled_by_its_id_has_no_title_and_an_id_comes_before_a_title(
    tmp_path: Path,
) -> None:
    items = catalogue().with_columns(
        pl.when(pl.col("item") == "4").then(pl.lit("4")).otherwise(pl.col("title")).alias("title")
    )
    path = write_lines(
        tmp_path / "texts.jsonl",
        {"title": "The Net", "plot": "By title."},
        {"movie_id": 1, "plot": "By id."},
        {"movie_id": 4, "title": "Hamlet", "plot": "A prince."},
        {"title": "4", "plot": "A film named by a number."},
    )

    joined, counts = join_texts(items, path, "films")

    assert texts(joined) == {"1": "By id.", "2": "A French film.", "4": "A prince."}
    assert (counts.by_id, counts.by_title, counts.repeated, counts.unmatched) == (2, 0, 1, 1)


def test_lines_end_at_newlines_alone(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"movie_id": 1, "plot": "One\u2028two\u0085three"}\n', encoding="utf-8")

    items, _ = join_texts(catalogue(), path, "films")

    assert texts(items)["1"] == "One two three"


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_tables_are_read_as_lines_are(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"texts{ending}"
    table = pl.DataFrame({"Item_ID": [1.0, 6.0], "Plot": ["A, plot.", None], "Cast": ["", "Ann"]})
    if ending == ".parquet":
        table.write_parquet(path)
    else:
        table.write_csv(path, separator="," if ending == ".csv" else "\t")

    items, _ = join_texts(catalogue(), path, "films")

    assert texts(items) == {"1": "A, plot.", "2": "A French film.", "6": "With Ann."}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("texts.jsonl", '{"plot": "x"}\n', "neither an item id nor a title"),
        ("texts.jsonl", '{"title": "x"}\n', "has no text about items"),
        ("texts.jsonl", '{"title": "x", "plot": "y"}\n[1]\n', "line 2 is no JSON object"),
        ("texts.jsonl", "[" * 100_000, "line 1 is no JSON object"),
        ("texts.jsonl", "", "has no rows"),
        ("texts.csv", "a,b\n1,2\n", "neither an item id nor a title"),
        ("texts.xlsx", "x", "is of no known format; allowed: .jsonl"),
        ("texts.jsonl.gz", "no gzip", "cannot be read (BadGzipFile)"),
    ],
)
def test_a_file_that_cannot_be_joined_is_refused(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")

    with pytest.raises(TasteloopError) as raised:
        join_texts(catalogue(), tmp_path / name, "films")

    assert says in str(raised.value)


def test_ingest_joins_texts_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    films = tmp_path / "films"
    films.mkdir()
    (films / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,964982703\n")
    (films / "movies.csv").write_text('movieId,title,genres\n1,"Net, The (1995)",Drama\n')
    path = write_lines(tmp_path / "texts.jsonl", {"title": "The Net (1995)", "plot": "A plot."})
    settings = IngestSettings(
        behaviour=str(films),
        reviews=None,
        item_text=str(path),
        cleaning=CleaningSettings(min_user_events=1),
    )
    before = source_fingerprint(settings)

    with caplog.at_level(logging.INFO):
        ingest(settings, tmp_path / "out")

    assert Catalogue.read(tmp_path / "out" / "items.parquet").texts == ["A plot."]
    assert "1 of 1 rows joined (0 by id, 1 by title), 0 unmatched" in caplog.text
    record = read_json(tmp_path / "out" / "ingest.json")["item_text"]
    assert (record["file"], record["by_title"], record["items_with_text"]) == ("texts.jsonl", 1, 1)
    write_lines(path, {"title": "The Net (1995)", "plot": "Another plot."})
    assert source_fingerprint(settings) != before


@pytest.mark.slow
@pytest.mark.skipif(not FILM_TEXT.is_file(), reason="the film texts are not on this machine")
def test_film_texts_join_movielens_unmodified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))

    ingest(IngestSettings(reviews=None, item_text=str(FILM_TEXT)), tmp_path / "out")

    record = read_json(tmp_path / "out" / "ingest.json")["item_text"]
    assert record["by_id"] >= 1_680
    assert record["unmatched"] <= 2
