"""The interests benchmark on a tiny bundle: a table whose numbers agree with each other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.interests import HORIZONS, OURS, Bench, markdown, measure
from tasteloop.behaviour.snapshots import Snapshots
from tasteloop.runtime.session import Session


@pytest.fixture(scope="module")
def results(tiny_bundle: Path, tiny_snapshots: Path) -> dict[str, Any]:
    bench = Bench(Snapshots.read(tiny_snapshots), Session.load(tiny_bundle), draws=100, seed=0)
    return measure(bench, argparse.Namespace(frozen=False, vectors=None))


def test_every_method_is_measured_on_the_same_rows(results: dict[str, Any]) -> None:
    names = [row["method"] for row in results["quality"]]
    assert names[0] == OURS
    assert {"encoder alone", "habits alone", "bag of words", "own frequencies", "majority"} <= set(
        names
    )
    assert {row["micro_f1"]["n"] for row in results["quality"]} == {results["snapshots"]["test"]}
    ours = results["quality"][0]
    for row in results["quality"]:
        gap = ours["micro_f1"]["value"] - row["micro_f1_one"]["value"]
        assert row["ours_minus"]["value"] == pytest.approx(gap)


def test_the_surest_are_fewer(results: dict[str, Any]) -> None:
    for task in ("interests", "sentiment"):
        coverage = [
            r["coverage"]
            for r in results["selective"]
            if r["task"] == task and "surest" in r["statements"]
        ]
        assert coverage[0] == 1
        assert coverage == sorted(coverage, reverse=True)


def test_the_curves_cover_the_rows(results: dict[str, Any]) -> None:
    assert sum(row["snapshots"] for row in results["by_history"]) == results["snapshots"]["test"]
    assert [row["next"] for row in results["by_horizon"]] == list(HORIZONS)


def test_the_tables_are_tables(results: dict[str, Any]) -> None:
    for block in markdown(results).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count(" | ") for line in block.splitlines()}) == 1, block
