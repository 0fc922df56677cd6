"""One simulation as it is asked for: a champion is trained, a server answers, the monitor
decides.
"""

from __future__ import annotations

import json

import pytest

from tests.support.homes import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_field_that_breaks_calls_a_human_and_trains_nothing(home: Home) -> None:
    asked = (
        "simulate",
        "--shift",
        "broken-field",
        "--weeks",
        "2",
        "--start",
        "1",
        "--visitors",
        "60",
        "--json",
    )
    told = json.loads(home(*asked, timeout=1500))
    assert told["met"], told["failures"]
    assert [w["outcome"] for w in told["windows"]][1:] == ["alert-human"]
    place = home.path / "simulations" / "broken-field-0"
    assert json.loads((place / "simulation.json").read_text())["windows"] == told["windows"]
    assert list((place / "journal").rglob("answers-*.parquet"))  # from a server
    assert not (home.path / "mlflow.db").exists() and not (home.path / "monitor").exists()
