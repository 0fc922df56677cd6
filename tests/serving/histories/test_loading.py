"""A store that is filled from a data set knows everybody, and every event when it comes again."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from serving.histories import loading
from serving.histories.events import EventReader
from serving.histories.loading import histories_of
from serving.histories.sqlite import SqliteHistories
from tasteloop.behaviour.events import EVENTS_SCHEMA
from tasteloop.errors import TasteloopError
from tasteloop.files import write_parquet
from tasteloop.privacy.pseudonyms import pseudonym
from tests.support.histories import NOW

KEY = b"key of these tests"
READER = EventReader(KEY, 100)


def write(path: Path, rows: list[tuple[object, ...]]) -> Path:
    frame = pl.DataFrame(rows, schema=EVENTS_SCHEMA.to_polars(), orient="row")
    write_parquet(path, frame)
    return path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    rows: list[tuple[object, ...]] = []
    for number in range(30):
        user = pseudonym(f"u{number % 7}", KEY)
        rows.append((user, f"i{number}", "rate", NOW - 10**9 + number, 0.8, None))
    rows.append((pseudonym("u0", KEY), None, "search", NOW - 10**9 + 99, None, "a text"))
    return write(tmp_path / "events.parquet", rows)


@pytest.mark.parametrize("rows_at_once", [2_000_000, 5])
def test_every_user_of_a_data_set_has_their_history_in_order(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(loading, "_ROWS", rows_at_once)
    store = SqliteHistories(tmp_path / "store", forwards=True)

    new = store.load(histories_of(events, READER), NOW)

    assert new == 31
    history = store.read(pseudonym("u0", KEY), NOW)
    assert [event.item for _, event in history.events] == ["i0", "i7", "i14", "i21", "i28", None]
    assert history.events[0].event.value == 0.8
    assert store.outgoing() == []  # a data set is no news to the monitor
    assert store.load(histories_of(events, READER), NOW) == 0
    store.close()


def test_an_event_of_the_data_set_is_known_when_a_caller_sends_it(
    events: Path, tmp_path: Path
) -> None:
    store = SqliteHistories(tmp_path / "store")
    store.load(histories_of(events, READER), NOW)
    row = {"user": "u0", "kind": "rate", "item": "i7", "value": 0.8, "time": NOW - 10**9 + 7}
    [(user, [(_, stored)])] = READER.read([row], NOW).events.items()

    assert store.append(user, [stored], NOW).result(30).outcomes == ("duplicate",)
    store.close()


def test_a_data_set_with_raw_users_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "events.parquet", [("ann", "i1", "click", NOW, None, None)])

    with pytest.raises(TasteloopError, match="no pseudonym") as refused:
        list(histories_of(path, READER))

    assert "ann" not in str(refused.value)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TasteloopError, match="no file"):
        list(histories_of(tmp_path / "events.parquet", READER))
    write_parquet(tmp_path / "other.parquet", pl.DataFrame({"user": ["u"]}))
    with pytest.raises(TasteloopError, match="has no column"):
        list(histories_of(tmp_path / "other.parquet", READER))
