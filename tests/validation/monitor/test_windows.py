"""Which windows are closed, whether their data can be trusted, which answers' truth is known."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasteloop.behaviour.events import EVENTS_SCHEMA
from validation.monitor.windows import (
    CLICKED,
    HOUR,
    RELEVANT,
    CheckSettings,
    Span,
    WindowSettings,
    beginning,
    closed,
    distinct,
    facts,
    outcomes,
    problems,
    watermark,
)

DAY = 24 * HOUR
DAILY = WindowSettings()
CHECKS = CheckSettings()
SCHEMA = dict(EVENTS_SCHEMA.to_polars())


def times(*hours: float) -> pl.Series:
    return pl.Series("time", [int(h * HOUR) for h in hours], dtype=pl.Int64)


def table(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """user, item, kind, hour, value, text"""
    return pl.DataFrame(
        [(u, i, k, int(t * HOUR), v, x) for u, i, k, t, v, x in rows], schema=SCHEMA, orient="row"
    )


def test_the_watermark_is_the_newest_event_less_the_lateness() -> None:
    assert watermark(times(1, 30, 7), 100 * HOUR, DAILY) == 28 * HOUR
    assert watermark(times(1, 30, 90), 31 * HOUR, DAILY) == 28 * HOUR  # a sender's clock is ahead
    assert watermark(times(90), 31 * HOUR, DAILY) is None
    assert watermark(times(), 31 * HOUR, DAILY) is None


def test_windows_by_length_lie_on_a_grid_and_close_at_the_watermark() -> None:
    seen = times(25, 30, 50, 97)
    assert closed(seen, DAY, 95 * HOUR, DAILY) == [Span(DAY, 2 * DAY), Span(2 * DAY, 3 * DAY)]
    # empty, and closed all the same
    assert closed(seen, 0, 96 * HOUR, DAILY)[-1] == Span(3 * DAY, 4 * DAY)
    assert closed(seen, 2 * DAY, 96 * HOUR, DAILY)[0] == Span(2 * DAY, 3 * DAY)
    # no window is cut in two
    assert closed(seen, 2 * DAY - HOUR, 96 * HOUR, DAILY)[0] == Span(2 * DAY, 3 * DAY)
    assert closed(seen, 3 * DAY, 95 * HOUR, DAILY) == []
    assert beginning(seen, 0, DAILY) == DAY
    assert beginning(seen, DAY + HOUR, DAILY) == 2 * DAY
    # years without data are no windows
    assert beginning(times(3, 1000), 4 * HOUR, DAILY) == 41 * DAY
    assert beginning(seen, 98 * HOUR, DAILY) is None
    assert beginning(seen, 0, WindowSettings(hours=None, events=2)) == 25 * HOUR


def test_windows_by_count_never_part_an_instant() -> None:
    pairs = WindowSettings(hours=None, events=2)
    assert closed(times(1, 2, 3, 4, 5), 0, 100 * HOUR, pairs) == [
        Span(0, 3 * HOUR),
        Span(3 * HOUR, 5 * HOUR),
    ]
    assert closed(times(1, 2, 2, 2, 3), 0, 100 * HOUR, pairs) == [
        Span(0, 2 * HOUR),
        Span(2 * HOUR, 3 * HOUR),
    ]
    assert closed(times(2, 2, 2, 2, 3), 2 * HOUR, 100 * HOUR, pairs) == [Span(2 * HOUR, 3 * HOUR)]
    assert closed(times(2, 2, 2), 0, 100 * HOUR, pairs) == []
    with pytest.raises(ValidationError, match="set one"):
        WindowSettings(events=5)


@given(
    st.lists(st.integers(0, 400), max_size=60),
    st.integers(0, 300),
    st.integers(0, 400),
    st.booleans(),
    st.randoms(),
)
@settings(max_examples=100, deadline=None)
def test_windows_do_not_depend_on_order_repetitions_or_when_they_are_asked_for(
    hours: list[int], since: int, until: int, by_count: bool, chance: random.Random
) -> None:
    rules = WindowSettings(hours=None, events=4) if by_count else DAILY
    found = closed(times(*hours), since * HOUR, until * HOUR, rules)
    shuffled = list(hours)
    chance.shuffle(shuffled)
    assert closed(times(*shuffled), since * HOUR, until * HOUR, rules) == found
    assert all(a.end <= b.start for a, b in zip(found, found[1:], strict=False))
    assert all(since * HOUR <= span.start < span.end <= until * HOUR for span in found)
    later = closed(
        times(*hours, *range(until, until + 50)), since * HOUR, (until + 50) * HOUR, rules
    )
    assert later[: len(found)] == found  # what was closed stays as it was
    if found:
        # asked again after a restart
        assert closed(times(*hours), found[0].end, until * HOUR, rules) == found[1:]


def behaviour(users: int = 40, start: int = 24, **of: Any) -> pl.DataFrame:
    rng = np.random.default_rng(of.pop("seed", 0))
    rows = []
    for user in range(users):
        for _ in range(rng.integers(5, 15)):
            value = float(rng.choice([0.0, 0.25, 0.5, 0.75, 1.0]))
            row = {
                "item": f"i{rng.integers(30)}",
                "kind": "rate",
                "value": value,
                "text": None,
                **of,
            }
            time = start + 24 * float(rng.random())
            rows.append((f"u{user}", row["item"], row["kind"], time, row["value"], row["text"]))
    return table(rows)


LISTED = [f"i{n}" for n in range(30)]
USUAL = [facts(distinct(behaviour(seed=n)), LISTED) for n in range(5)]


def found(events: pl.DataFrame, listed: list[str] = LISTED) -> list[str]:
    rows = distinct(events)
    return problems(rows, facts(rows, listed, events.height), USUAL, CHECKS)


def test_usual_data_is_trusted() -> None:
    assert found(behaviour(seed=9)) == []
    # delivered twice
    assert found(pl.concat([behaviour(seed=9)] * 2).sample(fraction=1, shuffle=True, seed=1)) == []
    assert found(behaviour(users=20, seed=9)) == []  # a quiet day
    assert found(behaviour(users=90, seed=9)) == []  # a busy one


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (behaviour(0), "0 events, where"),
        (behaviour(3), "events, where the reference's windows had"),
        (behaviour(400), "events, where the reference's windows had"),
        (behaviour(value=None), "100% ratings without a value"),
        (behaviour(value=1.0), "every value is the same"),
        (behaviour(item=None), "100% events without an item"),
        (behaviour(item="lost"), "100% events on items that no catalogue lists"),
        (behaviour(kind="veiw"), "unknown kind"),
        (behaviour(value=4.0), "outside [0, 1]"),
        (behaviour(value=float("nan")), "outside [0, 1]"),
        (pl.concat([behaviour()] * 3), "67% of the rows repeat"),
        (behaviour(kind="search", text=""), "100% searches without a text"),
    ],
)
def test_broken_data_is_named(events: pl.DataFrame, why: str) -> None:
    assert any(why in problem for problem in found(events)), found(events)


def test_a_new_catalogue_is_no_broken_data() -> None:
    assert found(behaviour(item="new"), [*LISTED, "new"]) == []


def test_automated_traffic_is_named() -> None:
    rng = np.random.default_rng(0)
    calls = [
        ("bot", f"i{rng.integers(30)}", "rate", 24 + n / 100, float(rng.integers(5)) / 4, None)
        for n in range(200)
    ]
    (problem,) = found(pl.concat([behaviour(seed=9), table(calls)]))
    assert "1 users" in problem and "automated traffic?" in problem


FEEDBACK_TYPE = pl.List(
    pl.Struct({"kind": pl.String(), "item": pl.String(), "value": pl.Float32(), "time": pl.Int64()})
)


def answers(*rows: tuple[str | None, float, list[str], list[dict[str, Any]]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "request": [f"q{n}" for n in range(len(rows))],
            "user": pl.Series([r[0] for r in rows], dtype=pl.String),
            "time": [int(r[1] * HOUR) for r in rows],
            "names": [r[2] for r in rows],
            "feedback": pl.Series([r[3] for r in rows], dtype=FEEDBACK_TYPE),
        }
    )


def told(kind: str, item: str | None, hour: float, value: float | None = None) -> dict[str, Any]:
    return {"kind": kind, "item": item, "value": value, "time": int(hour * HOUR)}


def test_what_followed_within_the_horizon_is_the_truth() -> None:
    events = table(
        [
            ("u", "same instant", "rate", 10, 1.0, None),
            ("u", "b", "rate", 12, 1.0, None),
            ("u", "a", "rate", 11, 1.0, None),
            ("u", "a", "rate", 13, 1.0, None),  # again
            ("u", "disliked", "rate", 12, 0.0, None),
            ("u", "too late", "rate", 34.1, 1.0, None),
            ("v", "another's", "rate", 12, 1.0, None),
        ]
    )
    seen = outcomes(
        answers(
            ("u", 10, ["a"], []),
            ("u", 10, ["x", "y"], [told("click", "y", 10.5), told("click", "z", 40)]),
            (None, 10, ["x"], [told("purchase", "elsewhere", 11), told("rate", "w", 11, 0.2)]),
            ("w", 10, ["x"], [told("click", "x", 9)]),
        ),
        events,
        DAY,
        0.7,
    )
    assert seen[RELEVANT].to_list() == [["a", "b"], ["y", "a", "b"], ["elsewhere"], []]
    assert seen[CLICKED].to_list() == [False, True, False, False]
    assert "row" not in seen.columns and seen["request"].to_list() == ["q0", "q1", "q2", "q3"]


def test_an_answer_counts_in_the_window_in_which_its_horizon_ends() -> None:
    asked = answers(("u", 10, [], []), ("u", 23, [], []), ("u", 24, [], []))
    first, second = Span(DAY, 2 * DAY), Span(2 * DAY, 3 * DAY)
    assert first.of(asked, shift=DAY)["request"].to_list() == ["q0", "q1"]
    assert second.of(asked, shift=DAY)["request"].to_list() == ["q2"]
    assert first.of(asked)["request"].to_list() == ["q2"]


def test_repetitions_and_order_change_nothing() -> None:
    events = behaviour()
    again = pl.concat([events, events.head(50)]).sample(fraction=1, shuffle=True, seed=3)
    assert distinct(again).equals(distinct(events))
