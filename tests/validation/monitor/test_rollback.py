"""When the champion before is made live again, and when not."""

from __future__ import annotations

import pytest

from validation.monitor.decision import Evidence, Finding
from validation.monitor.rollback import ERRORS, Interval, RollbackSettings, share, windows_of, worse

RULES = RollbackSettings()


def of(
    *values: float, half: float = 0.02, n: int = 400, measure: str = "quality.f1"
) -> list[dict[str, Interval]]:
    return [{measure: Interval(v, v - half, v + half, n)} for v in values]


def test_it_is_worse_when_every_window_lies_below_every_interval_of_the_last_ones() -> None:
    (reason,) = worse(of(0.50, 0.52), of(0.60, 0.58), RULES)
    assert reason == (
        "quality.f1 is 0.5400 at most in the last 2 windows, which lies below the previous champion's 0.5600"
    )


@pytest.mark.parametrize(
    ("live", "previous"),
    [
        (of(0.50), of(0.60, 0.58)),  # one bad window
        (of(0.50, 0.55), of(0.60, 0.58)),  # intervals touch
        (of(0.50, 0.52), of(0.60, 0.53)),  # the previous one had such a window too
        (of(0.50, 0.52, n=49), of(0.60, 0.58)),  # too few to say
        (of(0.50, 0.52), of(0.60, 0.58, n=10)),
        (of(0.50, 0.52), []),
        ([], of(0.6, 0.6)),
        (of(0.70, 0.72), of(0.60, 0.58)),  # better
        # not asked for
        (of(0.50, 0.52, measure="quality.recall"), of(0.60, 0.58, measure="quality.recall")),
    ],
)
def test_otherwise_it_stays(
    live: list[dict[str, Interval]], previous: list[dict[str, Interval]]
) -> None:
    assert worse(live, previous, RULES) == []


def test_only_the_last_windows_count() -> None:
    assert worse(of(0.9, 0.50, 0.52), of(0.1, 0.60, 0.58), RULES)
    assert not worse(of(0.50, 0.52, 0.9), of(0.60, 0.58), RULES)


def test_more_errors_are_worse_and_fewer_are_not() -> None:
    quiet, loud = (
        [{ERRORS: share(n, 1000)} for n in (1, 2)],
        [{ERRORS: share(n, 1000)} for n in (40, 50)],
    )
    (reason,) = worse(loud, quiet, RULES)
    assert "lies above the previous" in reason
    assert worse(quiet, loud, RULES) == []


def test_wilson_s_interval() -> None:
    none, half = share(0, 100), share(50, 100)
    assert (none.low, none.high) == (0.0, pytest.approx(0.0370, abs=1e-4))
    assert (half.low, half.high) == (
        pytest.approx(0.4038, abs=1e-4),
        pytest.approx(0.5962, abs=1e-4),
    )


def test_void_windows_say_nothing() -> None:
    found = Finding(measure="quality.f1", value=0.5, low=0.4, high=0.6, n=100)
    common = {
        "reference": "r",
        "champion": "c",
        "findings": (found, Finding(measure="labels", effect=0.1)),
    }
    sound = Evidence(id="2", window="1/2", end=2, **common)  # type: ignore[arg-type]
    void = Evidence(id="1", window="0/1", end=1, problems=("broken",), **common)  # type: ignore[arg-type]
    assert windows_of([sound, void], "c") == {"1/2": {"quality.f1": Interval(0.5, 0.4, 0.6, 100)}}
    assert windows_of([sound, void], "another") == {}
