"""Snapshots: nothing after the cut is seen, and training text equals serving text."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tasteloop.behaviour.events import EVENTS_SCHEMA
from tasteloop.behaviour.items import ITEMS_SCHEMA
from tasteloop.behaviour.partitions import DataSettings
from tasteloop.behaviour.prepare import prepare
from tasteloop.behaviour.snapshots import (
    EVENTS,
    SNAPSHOTS,
    SPLITS,
    PrepareSettings,
    Snapshots,
    history_lengths,
)
from tasteloop.behaviour.text import behaviour_text
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json, read_parquet, write_json, write_parquet


@pytest.fixture
def snapshots(tiny_snapshots: Path) -> Snapshots:
    return Snapshots.read(tiny_snapshots)


def test_no_rows_have_no_histories(snapshots: Snapshots) -> None:
    assert snapshots.histories(snapshots.table.head(0)) == []


def test_history_ends_before_the_future_begins(snapshots: Snapshots) -> None:
    events = read_parquet(snapshots.directory / EVENTS)
    times, users = events["time"].to_list(), events["user"].to_list()
    for row in snapshots.table.iter_rows(named=True):
        assert row["history"], "a snapshot looks back on something"
        assert {users[i] for i in row["history"]} == {row["user"]}
        assert max(times[i] for i in row["history"]) == row["time"]


def test_no_split_sees_into_the_next(snapshots: Snapshots) -> None:
    events = read_parquet(snapshots.directory / EVENTS)
    liked = {(u, i): t for u, i, t in events.select("user", "item", "time").iter_rows()}
    items = snapshots.catalogue.items
    first, second = snapshots.meta["validation_from"], snapshots.meta["test_from"]
    for row in snapshots.table.iter_rows(named=True):
        future = [liked[row["user"], items[j]] for j in row["future"]]
        assert min(future) > row["time"]
        bounds = {"train": (0, first), "validation": (first, second), "test": (second, 2**62)}[
            row["split"]
        ]
        assert bounds[0] <= row["time"] if row["split"] != "train" else True
        assert max(future) < bounds[1]
    assert set(snapshots.table["split"]) == set(SPLITS)


def test_training_text_equals_serving_text(snapshots: Snapshots) -> None:
    rows = snapshots.split("test")
    served = [
        behaviour_text(h, snapshots.catalogue, snapshots.text) for h in snapshots.histories(rows)
    ]
    assert served == rows["text"].to_list()


def test_truth_by_hand(snapshots: Snapshots) -> None:
    rows = snapshots.split("test").head(3)
    truth = snapshots.truth(rows)
    for row, future in enumerate(rows["future"].to_list()):
        for k, label in enumerate(snapshots.labels):
            share = np.mean([label in snapshots.catalogue.labels[j] for j in future])
            assert truth[row, k] == (share >= 0.25)


def test_a_cut_never_falls_within_one_instant() -> None:
    settings = PrepareSettings(positions=(1, 2, 3), stride=2)
    assert history_lengths([0, 0, 0, 5, 5, 9, 10], settings) == [3, 5]
    assert history_lengths([7, 7, 7], settings) == []


def test_a_review_repeated_is_on_one_side(tiny_dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("events", "items"):
        write_parquet(folder / f"{name}.parquet", read_parquet(tiny_dataset / f"{name}.parquet"))
    reviews = read_parquet(tiny_dataset / "reviews.parquet")
    shouted = reviews.with_columns(pl.col("text").str.to_uppercase() + "  ")
    write_parquet(folder / "reviews.parquet", pl.concat([reviews, shouted]))
    write_json(folder / "ingest.json", {})
    prepare(folder, PrepareSettings(horizon=5), tmp_path / "out")
    split = Snapshots.read(tmp_path / "out").reviews()
    assert split is not None
    folded = split.with_columns(pl.col("text").str.to_lowercase().str.strip_chars())
    assert folded.group_by("text").agg(pl.col("split").n_unique())["split"].max() == 1


def test_too_little_behaviour_says_what_to_change(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    events = [("u", f"i{n}", "click", n * 10**6, None, None) for n in range(6)]
    items = [(f"i{n}", "t", ["A" if n % 2 else "B"], None, None, None) for n in range(6)]
    write_parquet(
        folder / "events.parquet",
        pl.DataFrame(events, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row"),
    )
    write_parquet(
        folder / "items.parquet",
        pl.DataFrame(items, schema=dict(ITEMS_SCHEMA.to_polars()), orient="row"),
    )
    write_json(folder / "ingest.json", {})
    with pytest.raises(
        TasteloopError, match=r"no snapshots for .*1 users with 6 events.*minimum_future"
    ):
        prepare(folder, PrepareSettings(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_was_merely_shown_changes_no_snapshot(
    tiny_dataset: Path, tiny_snapshots: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny_dataset, folder)
    events = read_parquet(folder / EVENTS)
    shown = events.with_columns(pl.lit("impression").alias("kind"), pl.col("time") - 1)
    write_parquet(folder / EVENTS, pl.concat([events, shown]).sort("time", maintain_order=True))

    prepare(folder, PrepareSettings(horizon=5, stride=5), tmp_path / "out")

    for name in (EVENTS, SNAPSHOTS):
        ours, theirs = read_parquet(tmp_path / "out" / name), read_parquet(tiny_snapshots / name)
        assert_frame_equal(ours, theirs)


def timeless(tiny_dataset: Path, folder: Path, times: str) -> Path:
    shutil.copytree(tiny_dataset, folder)
    write_json(folder / "ingest.json", read_json(folder / "ingest.json") | {"times": times})
    return folder


def test_data_without_times_are_split_at_random_by_the_seed(
    tiny_dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = timeless(tiny_dataset, tmp_path / "data", "none")
    runs = []
    for name, seed, rows in (("a", 0, 1_000_000), ("b", 0, 300), ("c", 1, 1_000_000)):
        settings = PrepareSettings(horizon=5, stride=5, seed=seed)
        with caplog.at_level("WARNING"):
            prepare(folder, settings, tmp_path / name, DataSettings(rows_a_part=rows))
        runs.append(Snapshots.read(tmp_path / name))

    first, in_parts, other_seed = (run.table for run in runs)
    assert_frame_equal(first, in_parts)
    assert not first.equals(other_seed)
    assert runs[0].meta["split_by"] == "users at random"
    assert first.group_by("user").agg(pl.col("split").n_unique())["split"].max() == 1
    assert "the split is random" in caplog.text and "prepare.seed 1" in caplog.text
    # a user's acts lie in an order that is not that of the file
    user = first["user"][0]
    written = read_parquet(folder / EVENTS).filter(pl.col("user") == user)["item"].to_list()
    drawn = runs[0].events.filter(pl.col("user") == user)["item"].to_list()
    assert sorted(drawn) == sorted(written) and drawn != written


def test_snapshots_say_what_they_are_split_by(
    tiny_dataset: Path, tiny_snapshots: Path, tmp_path: Path
) -> None:
    prepare(
        timeless(tiny_dataset, tmp_path / "data", "order"),
        PrepareSettings(horizon=5, stride=5),
        tmp_path / "out",
    )

    assert Snapshots.read(tiny_snapshots).meta["split_by"] == "time"
    assert Snapshots.read(tmp_path / "out").meta["split_by"] == "order of the rows"
