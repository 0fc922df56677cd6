"""Histories in SQLite: what a kill, a full disk and a second server leave."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from serving.histories.incoming import Forwarder
from serving.histories.opening import open_histories
from serving.histories.packing import pack, unpack
from serving.histories.protocol import (
    Bounds,
    History,
    StoreAway,
    StoreBusy,
    StoredEvent,
    StoreFull,
    merge,
)
from serving.histories.sqlite import SqliteHistories
from serving.histories.writing import Change, Writer
from serving.settings import HistorySettings
from tasteloop.behaviour.events import EVENTS_SCHEMA, Event
from tasteloop.behaviour.kinds import KINDS
from tasteloop.errors import TasteloopError
from tasteloop.files import read_parquet
from tests.support.histories import NOW, OTHER, USER, append, event
from tests.support.history_kills import build_shim, run_kills


def test_a_history_of_forty_ratings_takes_less_than_a_kilobyte() -> None:
    draw = random.Random(5)
    acts = [
        StoredEvent(
            draw.randbytes(8),
            Event(
                "rate",
                str(draw.randint(1, 1682)),
                NOW - draw.randint(0, 10**13),
                draw.randint(0, 4) / 4,
            ),
        )
        for _ in range(40)
    ]
    history, _ = merge(History(), acts, Bounds(), NOW)

    packed = pack(history)

    assert len(packed) < 900
    assert unpack(packed, history.seq, None) == history


def test_every_kind_and_every_text_comes_back_as_it_went_in() -> None:
    acts = [event(n, kind=kind, item=f"ü\n\0{n}", time=NOW + n) for n, kind in enumerate(KINDS)] + [
        StoredEvent(b"search 1", Event("search", None, NOW, None, "\0 a 'text'\n"))
    ]
    history, _ = merge(History(), acts, Bounds(), NOW)

    assert unpack(pack(history), 20, 7) == History(20, history.events, {}, 7)


@pytest.mark.parametrize("items", [0, 2])
def test_no_more_items_of_dropped_events_stay_than_the_bounds_allow(items: int) -> None:
    history, _ = merge(History(), [event(n) for n in range(6)], Bounds(events=1, items=items), NOW)

    assert set(history.passed) == {"i3", "i4"} if items else history.passed == {}


def test_a_row_of_a_later_format_is_refused_with_a_remedy() -> None:
    with pytest.raises(TasteloopError, match=r"format 9, this version reads 1; run the version"):
        unpack(b"\x09" + pack(History())[1:], 0, None)


def test_a_second_server_is_refused_and_valkey_named(tmp_path: Path) -> None:
    first = SqliteHistories(tmp_path)

    with pytest.raises(TasteloopError, match="use Valkey for several"):
        SqliteHistories(tmp_path)

    first.close()
    SqliteHistories(tmp_path).close()


def test_a_reader_needs_no_lock_and_sees_what_is_committed(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path)
    append(store, event(1))

    reader = SqliteHistories(tmp_path, alone=False)

    assert reader.statistics()[:2] == (1, 1)
    assert reader.read(USER, NOW).events == (event(1),)
    reader.close()
    store.close()


def test_a_reader_of_a_directory_without_a_store_makes_none(tmp_path: Path) -> None:
    with pytest.raises(TasteloopError, match="no histories are kept"):
        SqliteHistories(tmp_path / "elsewhere", alone=False)

    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_store_is_refused_with_its_directory(tmp_path: Path) -> None:
    SqliteHistories(tmp_path, shards=1).close()
    (tmp_path / "00.db").write_bytes(b"no database" * 1_000)

    with pytest.raises(TasteloopError, match=f"{tmp_path}.*cannot be used"):
        open_histories(str(tmp_path), HistorySettings(), forwards=False)


def test_a_file_that_cannot_be_read_is_told_as_a_store_that_is_away(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path, shards=1)
    connection = store._reader(0)
    connection.execute("PRAGMA query_only=OFF")
    connection.execute("DROP TABLE histories")

    with pytest.raises(StoreAway, match="cannot be used"):
        store.read(USER, NOW)

    store.close()


def test_what_was_erased_is_in_no_file_of_a_store_that_was_closed(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path, shards=1)
    draw = random.Random(4)
    ids = []
    for _ in range(40):
        act = StoredEvent(draw.randbytes(8), Event("click", draw.randbytes(200).hex(), NOW))
        ids.append(act.id)
        append(store, act)
    append(store, event(1), user=OTHER)

    store.erase(USER, NOW).result(30)
    store.close()

    connection = sqlite3.connect(tmp_path / "00.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert event(1).id in kept
    assert not [one for one in ids if one in kept]


def test_a_full_store_answers_so_and_stores_nothing_of_the_request(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path, megabytes=1, shards=1)
    draw = random.Random(3)
    stored: list[StoredEvent] = []
    with pytest.raises(StoreFull, match="no room"):
        for number in range(1, 1_000):
            long = draw.randbytes(8_000).hex()
            acts = [event(2 * number, item=long), event(2 * number + 1)]
            append(store, *acts, user=f"{number:032x}")
            stored += acts
    last = len(stored) // 2 + 1

    assert 10 < last < 900
    assert store.read(f"{last:032x}", NOW) == History()
    for number in range(1, last):
        assert len(store.read(f"{number:032x}", NOW).events) == 2
    assert append(store, stored[0], user=f"{1:032x}") == ["duplicate"]
    store.close()


def test_more_than_may_wait_is_refused_and_one_request_of_any_size_is_not() -> None:
    begun, go = [], []

    def write(changes: list[Change]) -> None:
        begun.append(len(changes))
        while not go:
            time.sleep(0.001)
        for change in changes:
            change.future.set_result(None)

    writer = Writer(write, bound=3, name="test")
    first = writer.submit(Change("append", USER, NOW, [event(n) for n in range(50)]))
    while not begun:
        time.sleep(0.001)
    second = writer.submit(Change("append", USER, NOW, [event(n) for n in range(50)]))

    with pytest.raises(StoreBusy):
        writer.submit(Change("append", USER, NOW, [event(1)]))

    go.append(1)
    assert first.result(10) is None and second.result(10) is None
    writer.close()


def test_what_was_committed_is_moved_into_the_file_beside_the_commits(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path, shards=1)
    draw, deadline = random.Random(7), time.monotonic() + 30
    while (tmp_path / "00.db").stat().st_size < 2**20:
        assert time.monotonic() < deadline
        acts = [event(n, item=draw.randbytes(2_000).hex()) for n in range(40)]
        append(store, *acts, user=draw.randbytes(16).hex())
        time.sleep(0.02)

    log = (tmp_path / "00.db-wal").stat().st_size
    assert log < 16 * 2**20
    store.close()


def test_a_change_that_nobody_waits_for_is_not_begun_and_harms_no_neighbour(
    tmp_path: Path,
) -> None:
    store = SqliteHistories(tmp_path, shards=1)
    deadline = time.monotonic() + 30
    with store._shards[0]._turn:  # the writer has begun the first, and gets no further
        changes = [store.append(USER, [event(0)], NOW)]
        while not changes[0].running():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        changes += [store.append(USER, [event(n)], NOW) for n in range(1, 200)]
        cancelled = [n for n in range(1, 200, 2) if changes[n].cancel()]

    kept = [change.result(30) for n, change in enumerate(changes) if n not in cancelled]

    assert cancelled == list(range(1, 200, 2))
    assert all(appended.outcomes == ("new",) for appended in kept)
    stored = {int.from_bytes(each.id, "big") for each in store.read(USER, NOW).events}
    assert stored == set(range(200)) - set(cancelled)
    store.close()


def test_all_that_counts_reaches_the_monitor_once_and_in_whole_files(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path / "store", Bounds(events=2), forwards=True)
    acts = [event(n) for n in range(5)]
    append(store, *acts, acts[4])
    append(store, *acts, user=OTHER)
    store.erase(OTHER, NOW).result(10)
    before = store.outgoing()  # a server that is killed before it has confirmed its files
    store.close()

    store = SqliteHistories(tmp_path / "store", Bounds(events=2), forwards=True)
    append(store, event(9))
    Forwarder(store, tmp_path / "incoming", 3_600).close()

    files = sorted((tmp_path / "incoming").iterdir())
    assert {batch.name for batch in before} == {path.name for path in files}
    rows = [row for path in files for row in read_parquet(path).select(["user", "item"]).rows()]
    expected = [(user, f"i{n}") for user in (USER, OTHER) for n in range(5)] + [(USER, "i9")]
    assert sorted(rows) == sorted(expected)
    assert read_parquet(files[0]).schema == EVENTS_SCHEMA.to_polars()
    assert store.outgoing() == []
    store.close()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="a C compiler makes the flush that kills")
def test_a_kill_at_any_flush_loses_nothing_acknowledged_and_counts_nothing_twice(
    tmp_path: Path,
) -> None:
    report = run_kills(tmp_path / "store", 40, build_shim(tmp_path))

    assert report["kills_at_a_flush"] > 10 and report["kills_at_a_moment"] > 5
    assert report["acknowledged"] == 240
    assert (report["lost"], report["counted_twice"]) == (0, 0)
