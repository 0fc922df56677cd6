"""An interval: what is read leniently, and what is refused where numbers decide."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasteloop.intervals import Interval, SoundInterval, UnsoundInterval

SOUND: dict[str, Any] = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 120}


def test_a_sound_interval_is_read_and_written_as_it_was() -> None:
    interval = Interval.parse(SOUND)

    assert interval.json() == SOUND
    assert interval.require("nDCG@10") == SoundInterval(0.5, 0.4, 0.6, 120)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"value": None}, "m has no number as its value: None"),
        ({"low": "0.4"}, "m has no number as its low: '0.4'"),
        ({"high": True}, "m has no number as its high: True"),
        ({"value": math.nan}, "m is not a finite number (value: nan)"),
        ({"high": math.inf}, "m is not a finite number (high: inf)"),
        ({"n": None}, "m does not say on how many rows it was measured (n: None)"),
        ({"n": 3.5}, "m does not say on how many rows it was measured (n: 3.5)"),
        ({"n": -1}, "m does not say on how many rows it was measured (n: -1)"),
        ({"n": 0}, "m was measured on an empty test set (n = 0)"),
        ({"low": 0.7}, "m has an interval upside down: 0.7 to 0.6"),
    ],
)
def test_an_unsound_interval_is_refused_with_its_reason(
    changed: dict[str, Any], reason: str
) -> None:
    interval = Interval.parse(SOUND | changed)

    with pytest.raises(UnsoundInterval) as refused:
        interval.require("m")
    assert str(refused.value) == reason


@pytest.mark.parametrize("raw", [None, [], "0.5", 0.5])
def test_what_is_no_interval_is_missing(raw: object) -> None:
    with pytest.raises(UnsoundInterval, match="m is missing"):
        Interval.parse(raw).require("m")


def test_an_interval_that_was_measured_is_checked_like_one_that_was_read() -> None:
    with pytest.raises(UnsoundInterval, match="no number as its value"):
        Interval(None, None, None, 0).require("m")


@given(
    st.dictionaries(
        st.sampled_from(["value", "low", "high", "n"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()),
    )
)
def test_reading_never_raises_and_leaves_finite_numbers_alone(raw: dict[str, Any]) -> None:
    for number in Interval.parse(raw).json().values():
        assert number is None or math.isfinite(number)
