"""RecBole's atomic files: acts with ratings and times, and sequences without them."""

from __future__ import annotations

import gzip
import os
from datetime import date
from pathlib import Path

import pytest

from tasteloop import decompression
from tasteloop.behaviour.cleaning import CleaningSettings
from tasteloop.datasets import atomic
from tasteloop.datasets.ingest import IngestSettings, ingest
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json

SHARED = Path(__file__).parents[4] / "shared" / "data"
GAMES = SHARED / "shop" / "Games-6k.test.inter.gz"
READS = SHARED / "news" / "ibm-article-reads.csv.gz"
ANY = CleaningSettings(min_user_events=1)


def write(path: Path, *rows: str) -> Path:
    text = "\n".join(rows) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_ratings_with_times_and_described_items(tmp_path: Path) -> None:
    path = write(
        tmp_path / "films.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "u1\ta\t4\t978300760",
        "u1\tb\t1\t978302109",
        "u2\ta\t5\t978302109",
    )
    write(
        tmp_path / "films.item",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
        'a\tNet, "The"\t1995\tSci-Fi Thriller',
    )

    behaviour = atomic.read(path)

    assert behaviour.times == "given"
    assert behaviour.scale == (1.0, 5.0)
    assert behaviour.events.select("user", "item", "kind", "time", "value").rows()[0] == (
        ("u1", "a", "rate", 978_300_760_000_000, 4.0)
    )
    assert behaviour.items is not None
    assert behaviour.items.rows() == [
        ("a", 'Net, "The"', ["Sci-Fi", "Thriller"], None, None, date(1995, 1, 1))
    ]


def test_a_sequence_is_its_items_in_order_and_the_longest_counts(tmp_path: Path) -> None:
    path = write(
        tmp_path / "games.test.inter.gz",
        "user_id:token\titem_id_list:token_seq\titem_id:token",
        "u1\ta b\tc",
        "u2\t\ta",
        "u1\ta b c\td",
        "u1\ta\tb",
    )
    write(tmp_path / "games.item.gz", "item_id:token\ttitle:token_seq", "a\tFire Emblem")

    behaviour = atomic.read(path)

    assert behaviour.times == "order"
    events = behaviour.events.sort("time").select("user", "item", "kind")
    assert events.rows() == [
        ("u2", "a", "click"),
        *(("u1", item, "click") for item in "abcd"),
    ]
    assert behaviour.items is not None
    assert behaviour.items["title"].to_list() == ["Fire Emblem"]


def test_the_scale_ends_at_the_highest_finite_rating(tmp_path: Path) -> None:
    path = write(
        tmp_path / "films[1].inter",
        "user_id:token\titem_id:token\trating:float",
        "u\ta\t1",
        "u\tb\t5",
        "u\tc\tinf",
    )

    assert atomic.read(path).scale == (1.0, 5.0)


def test_ratings_of_sequences_are_passed_over(tmp_path: Path) -> None:
    path = write(
        tmp_path / "games.inter",
        "user_id:token\titem_id_list:token_seq\titem_id:token\trating:float",
        "u\ta b\tc\t4",
    )

    behaviour = atomic.read(path)

    assert behaviour.events.select("item", "kind").rows() == [(item, "click") for item in "abc"]


def test_a_pipe_and_a_bomb_are_refused_before_their_header_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "FREE_BYTES", 1 << 20)
    bomb = write(tmp_path / "x.inter.gz", "user_id:token\titem_id:token", "u\ta\n" * (1 << 20))
    os.mkfifo(tmp_path / "y.inter")

    with pytest.raises(TasteloopError, match="100 times its size"):
        atomic.read(bomb)
    with pytest.raises(TasteloopError, match="is no regular file"):
        atomic.read(tmp_path / "y.inter")


@pytest.mark.parametrize(
    ("header", "row", "says"),
    [
        ("user_id:token\titem:token", "u\ta", "has no field item_id; it has: user_id, item"),
        ("user_id:token\titem_id:token\trating:float", "u\ta\t3", "all ratings are 3.0"),
        (
            "user_id:token\titem_id:token\ttimestamp:float",
            "u\ta\t978300760000",
            "look like milliseconds",
        ),
    ],
)
def test_atomic_files_that_lack_something_are_refused(
    tmp_path: Path, header: str, row: str, says: str
) -> None:
    path = write(tmp_path / "x.inter", header, row)

    with pytest.raises(TasteloopError) as raised:
        atomic.read(path)

    assert says in str(raised.value)


@pytest.mark.slow
@pytest.mark.skipif(not GAMES.is_file(), reason="the games are not on this machine")
def test_games_in_order_are_ingested_unmodified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    settings = IngestSettings(behaviour=str(GAMES), reviews=None, cleaning=ANY)

    result = ingest(settings, tmp_path / "out")

    assert (result.rows_out, result.users, result.items) == (440_264, 50_546, 16_859)
    assert read_json(tmp_path / "out" / "ingest.json")["times"] == "order"


@pytest.mark.slow
@pytest.mark.skipif(not READS.is_file(), reason="the reads are not on this machine")
def test_reads_in_order_are_ingested_by_the_mapping_of_the_guide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    mapping = write(
        tmp_path / "reads.yaml",
        f"events: {READS}",
        "columns: {user: user_id, item: article_id}",
        "kind: view",
        "time: order",
        f"items: {{file: {READS}, columns: {{item: article_id, title: title}}, domain: news}}",
    )

    result = ingest(
        IngestSettings(behaviour=str(mapping), reviews=None, cleaning=ANY), tmp_path / "out"
    )

    assert (result.rows_in, result.items) == (45_993, 714)
