"""Events: one, what a positive one is, and the cleaning of many."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import narwhals as nw
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tasteloop.behaviour.cleaning import REASON, ROW, RULES, Cleaned, CleaningSettings, clean
from tasteloop.behaviour.events import EVENTS_SCHEMA, Event, positive
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.times import SECOND, microseconds
from tasteloop.errors import TasteloopError

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NOON = microseconds(datetime(2026, 11, 1, 12, tzinfo=UTC))
ANY = CleaningSettings(min_user_events=1)


# one event


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"kind": "click", "item": "a"}, Event("click", "a")),
        ({"kind": "view", "item": None, "value": None}, Event("view")),
        ({"kind": "rate", "item": "a", "value": 1}, Event("rate", "a", value=1.0)),
        (
            {"kind": "search", "text": "noir", "time": "2026-11-01T12:00:00Z"},
            Event("search", time=NOON, text="noir"),
        ),
        ({"kind": "search", "time": "2026-11-01T13:00:00+01:00"}, Event("search", time=NOON)),
        ({"kind": "search", "time": "2026-11-01T12:00"}, Event("search", time=NOON)),
        ({"kind": "search", "time": NOON}, Event("search", time=NOON)),
        ({"kind": "search", "time": float(NOON)}, Event("search", time=NOON)),
    ],
)
def test_parse_accepts(event: dict[str, Any], expected: Event) -> None:
    assert Event.parse(event, "events[0]") == expected


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ("click", "an event is an object, not 'click'"),
        ({}, "unknown event kind None; known: view, search"),
        ({"kind": "veiw"}, "unknown event kind 'veiw'"),
        ({"kind": ["view"]}, "unknown event kind"),
        ({"kind": "view", "itme": "a"}, "unknown key 'itme'; known: kind, item"),
        ({"kind": "view", "item": 7}, "item is a string"),
        ({"kind": "view", "item": " "}, "item is a string that is not blank"),
        ({"kind": "review", "text": ["a"]}, "text is a string"),
        ({"kind": "rate", "value": 4}, "value is a number from 0 to 1"),
        ({"kind": "rate", "value": -0.1}, "value is a number"),
        ({"kind": "rate", "value": True}, "value is a number"),
        ({"kind": "rate", "value": "0.5"}, "value is a number"),
        ({"kind": "rate", "value": float("nan")}, "value is a number"),
        ({"kind": "view", "time": "yesterday"}, "time is an ISO 8601 string"),
        ({"kind": "view", "time": 1.5}, "time is an ISO 8601 string"),
        ({"kind": "view", "time": float("inf")}, "time is"),
        ({"kind": "view", "time": True}, "time is"),
        ({"kind": "view", "time": -1}, "time is"),
        ({"kind": "view", "time": 10**30}, "time is"),
        ({"kind": "view", "time": "0001-01-01T00:00:00+23:59"}, "time is"),
    ],
)
def test_parse_refuses(event: Any, says: str) -> None:
    with pytest.raises(TasteloopError) as raised:
        Event.parse(event, "instances[2].events[1]")
    assert str(raised.value).startswith("instances[2].events[1]: ")
    assert says in str(raised.value)


def test_parse_quotes_a_long_value_shortly() -> None:
    with pytest.raises(TasteloopError) as raised:
        Event.parse({"kind": "x" * 10_000}, "e")
    assert len(str(raised.value)) < 300  # of which the known kinds are 147


# what is positive

POSITIVE = [
    (Event("click", "a"), True),
    (Event("share", "a", value=0.0), True),
    (Event("purchase", "a"), True),
    (Event("rate", "a", value=0.75), True),
    (Event("rate", "a", value=0.7), True),
    (Event("rate", "a", value=0.5), False),
    (Event("rate", "a"), False),
    (Event("review", "a", value=0.9), True),
    (Event("review", "a", text="fine"), False),
    (Event("view", "a"), True),
    (Event("view", "a", value=0.8), True),
    (Event("view", "a", value=0.1), False),
    (Event("search", "a", text="x"), False),
    (Event("click"), False),
]


def table(events: list[Event]) -> pl.DataFrame:
    columns = {c: [None if c == "user" else getattr(e, c) for e in events] for c in EVENTS_SCHEMA}
    return pl.DataFrame(columns, schema=EVENTS_SCHEMA.to_polars())


@pytest.mark.parametrize(("event", "expected"), POSITIVE)
def test_positive(event: Event, expected: bool) -> None:
    assert event.positive() is expected


events_strategy = st.builds(
    Event,
    st.sampled_from(list(KINDS)),
    st.none() | st.just("a"),
    value=st.none() | st.sampled_from([0.0, 0.25, 0.5, 0.7, 0.75, 1.0]),
)


@given(st.lists(events_strategy), st.sampled_from([0.25, 0.5, 0.7, 1.0]))
def test_positive_is_one_rule_for_a_table_and_for_one_event(
    events: list[Event], threshold: float
) -> None:
    column = nw.from_native(table(events)).select(positive(threshold).alias("p"))["p"]
    assert column.to_list() == [e.positive(threshold) for e in events]


# cleaning

# user, item, kind, time in seconds after NOON, value, text
Row = tuple[Any, Any, Any, Any, Any, Any]


def frame(rows: list[Row]) -> nw.LazyFrame[Any]:
    """What a format adapter hands to cleaning; a str as time or value is one that could not be
    read.
    """
    data: list[dict[str, Any]] = []
    for number, (user, item, kind, time, value, text) in enumerate(rows, 1):
        micros = NOON + round(time * SECOND) if isinstance(time, int | float) else None
        data.append(
            {
                "user": user,
                "item": item,
                "kind": kind,
                "time": micros,
                "value": value if isinstance(value, float) else None,
                "text": text,
                "time_written": None if time is None else str(time),
                "value_written": None if value is None else str(value),
                ROW: number,
            }
        )
    written = {"time_written": pl.String, "value_written": pl.String, ROW: pl.Int64}
    schema = {**EVENTS_SCHEMA.to_polars(), "value": pl.Float64, **written}
    return nw.from_native(pl.DataFrame(data, schema=schema).lazy())


def run(
    rows: list[Row], limits: CleaningSettings = ANY, scale: tuple[float, float] = (1.0, 5.0)
) -> Cleaned:
    return clean(frame(rows), scale, limits, NOW)


def reasons(cleaned: Cleaned) -> dict[int, str]:
    return dict(
        zip(cleaned.quarantine[ROW].to_list(), cleaned.quarantine[REASON].to_list(), strict=True)
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("u", "a", "rate", 0, 3.0, None), None),
        ((None, "a", "rate", 0, 3.0, None), "missing"),
        (("u", "a", None, 0, 3.0, None), "missing"),
        (("u", "a", "rate", None, 3.0, None), "missing"),
        (("u", "a", "rate", "soon", 3.0, None), "unreadable"),
        (("u", "a", "rate", 0, "many", None), "unreadable"),
        (("u", "a", "veiw", 0, None, None), "unknown_kind"),
        (("u", "a", "View", 0, None, None), "unknown_kind"),
        (("u", "a", "view", -2e9, None, None), "impossible_time"),  # before 1970
        (("u", "a", "view", -1.3e9, None, None), "impossible_time"),  # before 1990
        (("u", "a", "view", 86_400 * 23, None, None), None),  # tomorrow, a clock that is fast
        (("u", "a", "view", 86_400 * 24, None, None), "impossible_time"),
        (("u", "a", "rate", 0, 5.5, None), "off_scale"),
        (("u", "a", "rate", 0, 0.0, None), "off_scale"),
        (("u", None, "click", 0, None, None), "incomplete"),
        (("u", "a", "rate", 0, None, None), "incomplete"),
        (("u", None, "search", 0, None, None), "incomplete"),
        (("u", None, "search", 0, None, "noir"), None),
        (("u", "a", "review", 0, None, None), "incomplete"),
        (("u", "a", "review", 0, None, "fine"), None),
        (("u", "a", "review", 0, 4.0, None), None),
        ((None, None, "veiw", "soon", "many", None), "missing"),  # the first broken rule counts
    ],
)
def test_each_rule_on_one_row(row: Row, reason: str | None) -> None:
    cleaned = run([row])
    assert reasons(cleaned) == ({} if reason is None else {1: reason})
    assert {rule: n for rule, n in cleaned.removed.items() if n} == (
        {} if reason is None else {reason: 1}
    )
    assert list(cleaned.removed) == list(RULES)


def test_values_are_normalised_by_the_scale_and_rows_come_in_time_order() -> None:
    cleaned = run([("u", "b", "rate", 9, 5.0, None), ("u", "a", "rate", 0, 2.0, None)])
    expected = pl.DataFrame(
        {
            "user": ["u", "u"],
            "item": ["a", "b"],
            "kind": ["rate", "rate"],
            "time": [NOON, NOON + 9 * SECOND],
            "value": [0.25, 1.0],
            "text": [None, None],
        },
        schema=EVENTS_SCHEMA.to_polars(),
    )
    assert_frame_equal(cleaned.events.to_native(), expected)


def test_duplicates() -> None:
    rows: list[Row] = [
        ("u", "a", "rate", 0, 3.0, None),
        ("u", "a", "rate", 0, 3.0, None),  # the same
        ("u", "a", "rate", 0.9, 4.0, None),  # second thoughts within a second
        ("u", "a", "rate", 5, 4.0, None),
        ("u", "b", "rate", 0, 3.0, None),  # another item in the same second
        ("v", "a", "rate", 0, 3.0, None),  # another user
        ("u", "a", "view", 0, 3.0, None),  # another kind
        ("u", None, "search", 0, None, "noir"),
        ("u", None, "search", 0.5, None, "noir"),
        ("u", None, "search", 0.5, None, "western"),  # another query
        ("u", "a", "veiw", 0, 3.0, None),
        ("u", "a", "veiw", 0, 3.0, None),  # a repeated bad row is counted for what is bad in it
    ]
    assert reasons(run(rows)) == {
        2: "exact_duplicate",
        3: "near_duplicate",
        9: "near_duplicate",
        11: "unknown_kind",
        12: "unknown_kind",
    }
    same_instant = CleaningSettings(min_user_events=1, near_duplicate_seconds=0)
    assert reasons(run(rows, same_instant)) == {
        2: "exact_duplicate",
        11: "unknown_kind",
        12: "unknown_kind",
    }


def test_the_first_of_near_duplicates_is_the_earliest_not_the_first_written() -> None:
    rows: list[Row] = [("u", "a", "view", 0.5, None, None), ("u", "a", "view", 0, None, None)]
    assert reasons(run(rows)) == {1: "near_duplicate"}


def test_minimums_are_applied_until_nothing_changes() -> None:
    # v leaves (1 event); then b has 1 event and leaves; then u has 1 and leaves; then a has 1:
    # nobody is left
    rows: list[Row] = [
        ("u", "a", "click", 0, None, None),
        ("u", "b", "click", 10, None, None),
        ("v", "b", "click", 20, None, None),
        ("w", "a", "click", 30, None, None),
        ("w", None, "search", 40, None, "noir"),
    ]
    cleaned = run(rows, CleaningSettings(min_user_events=2, min_item_events=2))
    assert cleaned.events.shape[0] == 0
    assert reasons(cleaned) == {
        1: "few_user_events",
        2: "few_item_events",
        3: "few_user_events",
        4: "few_item_events",
        5: "few_user_events",
    }


rows_strategy = st.lists(
    st.tuples(
        st.sampled_from([None, "u", "v", "w"]),
        st.sampled_from([None, "a", "b"]),
        st.sampled_from([None, "veiw", "view", "rate", "search", "review", "purchase"]),
        st.sampled_from([None, "soon", 0, 0.4, 1, 3, 7, 1e12, -2e9]),
        st.sampled_from([None, "many", 0.0, 1.0, 3.5, 5.0, 9.0]),
        st.sampled_from([None, "noir", "<b>bold</b>"]),
    ),
    max_size=25,
)
limits_strategy = st.builds(
    CleaningSettings,
    near_duplicate_seconds=st.sampled_from([0, 0.5, 1, 5]),
    min_user_events=st.integers(1, 4),
    min_item_events=st.integers(1, 3),
)


@settings(max_examples=60, deadline=None)
@given(rows_strategy, limits_strategy)
def test_every_row_is_in_exactly_one_table_and_counted_once(
    rows: list[Row], limits: CleaningSettings
) -> None:
    cleaned = run(rows, limits)
    assert len(rows) == cleaned.events.shape[0] + cleaned.quarantine.shape[0]
    assert cleaned.quarantine.shape[0] == sum(cleaned.removed.values())
    assert cleaned.events.schema == EVENTS_SCHEMA
    rejected = cleaned.quarantine[ROW].to_list()
    assert rejected == sorted(set(rejected))
    # and what was rejected is there as it was written
    for record in cleaned.quarantine.iter_rows(named=True):
        user, item, kind, time, value, text = rows[record[ROW] - 1]
        assert (record["user"], record["item"], record["kind"], record["text"]) == (
            user,
            item,
            kind,
            text,
        )
        assert record["time"] == (None if time is None else str(time))
        assert record["value"] == (None if value is None else str(value))


@settings(max_examples=40, deadline=None)
@given(rows_strategy, limits_strategy)
def test_cleaning_what_is_clean_changes_nothing(rows: list[Row], limits: CleaningSettings) -> None:
    once = run(rows, limits).events
    again: list[Row] = [
        (
            e["user"],
            e["item"],
            e["kind"],
            (e["time"] - NOON) / SECOND,
            None if e["value"] is None else float(e["value"]),
            e["text"],
        )
        for e in once.iter_rows(named=True)
    ]
    twice = run(again, limits, scale=(0.0, 1.0))
    assert_frame_equal(twice.events.to_native(), once.to_native())


def test_settings_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="min_user_event"):
        CleaningSettings(min_user_event=3)  # type: ignore[call-arg]
