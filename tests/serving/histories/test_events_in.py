"""Rows as callers send them: refused by the rules of ingest, and one id for the same event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl
import pytest

from serving.histories.cloud_events import BATCH, STRUCTURED, cloud_events
from serving.histories.events import MOST_EVENTS, Arrived, EventReader
from tasteloop.behaviour.cleaning import REASON, ROW, TIME_WRITTEN, VALUE_WRITTEN, judge
from tasteloop.behaviour.events import Event
from tasteloop.errors import TasteloopError
from tasteloop.privacy.pseudonyms import pseudonym
from tests.support.histories import DAY, NOW

KEY = b"key of these tests"
READER = EventReader(KEY, characters=50)
GOOD = {"user": "u", "kind": "rate", "item": "50", "value": 0.5, "time": NOW - DAY}

# what a row says in place of GOOD, and the rule that it breaks, here and at ingest
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"user": None}, "missing"),
    ({"user": ""}, "missing"),
    ({"kind": None}, "missing"),
    ({"kind": "zap"}, "unknown_kind"),
    ({"time": NOW + 25 * DAY // 24}, "impossible_time"),
    ({"time": 0}, "impossible_time"),
    ({"value": 1.5}, "off_scale"),
    ({"value": -0.1}, "off_scale"),
    ({"item": None}, "incomplete"),
    ({"item": ""}, "incomplete"),
    ({"value": None}, "incomplete"),
    ({"kind": "search"}, "incomplete"),
    ({"kind": "review", "value": None}, "incomplete"),
]


def read(*rows: Any, request: str | None = None) -> Arrived:
    return READER.read(list(rows), NOW, request)


def reasons(arrived: Arrived) -> dict[int, str]:
    return {refusal.index: refusal.reason for refusal in arrived.refused}


@pytest.mark.parametrize(("change", "rule"), BROKEN)
def test_a_row_is_refused_by_the_rule_that_it_would_break_at_ingest(
    change: dict[str, Any], rule: str
) -> None:
    row = {"text": None, **GOOD, **change}
    of_ingest = {
        **{name: value or None for name, value in row.items()},
        "value": row["value"],
        "time": row["time"],
        ROW: 1,
        TIME_WRITTEN: "t",
        VALUE_WRITTEN: None if row["value"] is None else "v",
    }
    types = {"text": pl.String, "item": pl.String, "user": pl.String, "value": pl.Float64}
    frame = nw.from_native(pl.DataFrame([of_ingest], schema_overrides=types).lazy())
    now = datetime.fromtimestamp(NOW / 1e6, UTC)

    judged = judge(frame, now=now).collect()

    assert judged[REASON].to_list() == [rule]
    assert reasons(read(GOOD, row)) == {1: rule}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("click", "unreadable"),
        ({**GOOD, "value": True}, "unreadable"),
        ({**GOOD, "value": "0.5"}, "unreadable"),
        ({**GOOD, "time": 1_700_000_000}, "unreadable"),
        ({**GOOD, "time": "yesterday"}, "unreadable"),
        ({**GOOD, "user": "x" * 257}, "unreadable"),
        ({**GOOD, "user": "\ud800"}, "unreadable"),
        ({**GOOD, "user": "a\nb"}, "unreadable"),
        ({**GOOD, "item": ["50"]}, "unreadable"),
        ({**GOOD, "id": ""}, "unreadable"),
        ({**GOOD, "id": 7}, "unreadable"),
        ({**GOOD, "colour": "red"}, "unknown_field"),
        ({**GOOD, "text": "x" * 51}, "too_long"),
        ({**GOOD, "time": NOW + DAY}, "impossible_time"),
    ],
)
def test_what_cannot_be_read_is_refused_and_its_neighbours_are_not(row: Any, reason: str) -> None:
    arrived = read(row, GOOD)

    assert reasons(arrived) == {0: reason}
    [[(index, stored)]] = arrived.events.values()
    assert index == 1
    assert stored.event == Event("rate", "50", NOW - DAY, 0.5)


def test_no_raw_user_leaves_the_reader_but_for_the_answer() -> None:
    arrived = read(GOOD)

    assert list(arrived.events) == [pseudonym("u", KEY)]
    assert arrived.users == {pseudonym("u", KEY): "u"}


def test_rows_without_a_time_keep_the_order_of_their_request() -> None:
    rows = [{"user": "u", "kind": "click", "item": str(n)} for n in range(9)]

    [events] = read(*rows).events.values()

    in_order = sorted((stored for _, stored in events), key=lambda each: each.order)
    assert [stored.event.item for stored in in_order] == [str(n) for n in range(9)]
    assert in_order[0].event.time == NOW


def test_an_event_has_the_same_id_whenever_it_is_sent_again() -> None:
    def ids(*rows: Any, request: str | None = None) -> list[bytes]:
        [events] = read(*rows, request=request).events.values()
        return [stored.id for _, stored in events]

    bare = {"user": "u", "kind": "click", "item": "50"}
    assert ids({**bare, "id": "7"}) == ids({**GOOD, "id": "7"})
    assert ids(GOOD) == ids(dict(reversed(GOOD.items())))
    assert ids(bare, bare, request="r") == ids(bare, bare, request="r")
    assert len({*ids(bare, bare, request="r"), *ids(bare, request="q"), *ids(GOOD)}) == 4
    assert ids({**bare, "id": "7"}) != ids({**bare, "id": "8"})
    assert ids(GOOD, request="r") == ids(GOOD)


def test_a_key_that_is_used_again_when_it_is_forgotten_names_other_events() -> None:
    bare = {"user": "u", "kind": "click", "item": "50"}

    [[(_, first)]] = READER.read([bare], NOW, "r").events.values()
    [[(_, later)]] = READER.read([bare], NOW + 2 * DAY, "r").events.values()

    assert first.id != later.id


def test_a_value_has_as_many_decimals_as_one_that_a_data_set_has_kept() -> None:
    [[(_, sent)]] = read({**GOOD, "value": 1 / 3}).events.values()
    [[(_, kept)]] = read({**GOOD, "value": float(np.float32(1 / 3))}).events.values()

    assert sent == kept


def test_a_word_of_another_specification_is_the_kind_that_it_means() -> None:
    [[(_, stored)]] = read({**GOOD, "kind": "add_to_cart"}).events.values()

    assert stored.event.kind == "cart"


def test_a_request_has_at_least_one_event_and_not_too_many() -> None:
    for rows in ([], [GOOD] * (MOST_EVENTS + 1)):
        with pytest.raises(TasteloopError, match="send 1 to 1000"):
            READER.read(rows, NOW)


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_what_the_official_sdk_of_cloud_events_writes_is_read(mode: str) -> None:
    from cloudevents.http import CloudEvent, to_binary, to_structured

    attributes = {
        "type": "com.example.purchase",
        "source": "/shop",
        "id": "7",
        "subject": "zoë",
        "time": "2026-11-01T10:00:00Z",
    }
    event = CloudEvent(attributes, {"item": "50", "value": 0.5, "basket": 9})
    headers, body = (to_structured if mode == "structured" else to_binary)(event)
    lower = {name.lower(): value for name, value in headers.items()}

    rows = cloud_events(lower.get("content-type", ""), lower, body)

    assert rows == [
        {
            "id": "/shop 7",
            "user": "zoë",
            "kind": "purchase",
            "time": "2026-11-01T10:00:00Z",
            "item": "50",
            "value": 0.5,
        }
    ]


def test_a_batch_of_cloud_events_has_a_verdict_for_each() -> None:
    good = {"specversion": "1.0", "id": "1", "source": "s", "type": "click", "subject": "u"}
    body = [
        {**good, "data": {"item": "50"}},
        {**good, "specversion": "0.3"},
        {"id": "1"},
        7,
        {**good, "data": "text"},
    ]

    import orjson

    rows = cloud_events(BATCH, {}, orjson.dumps(body))

    assert rows is not None
    assert reasons(read(*rows)) == dict.fromkeys(range(1, 5), "unreadable")


def test_a_body_that_is_no_cloud_event_is_refused_and_plain_json_is_left_alone() -> None:
    assert cloud_events("application/json", {}, b"{}") is None
    for content_type, body in ((STRUCTURED, b"{"), (BATCH, b"{}")):
        with pytest.raises(TasteloopError):
            cloud_events(content_type, {}, body)
