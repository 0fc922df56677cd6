"""Snapshots: nothing after the cut is seen, and training text equals serving text."""

from __future__ import annotations

import shutil
from pathlib import Path

import narwhals as nw
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tasteloop.behaviour.events import EVENTS_SCHEMA, TIME, positive
from tasteloop.behaviour.items import ITEMS_SCHEMA
from tasteloop.behaviour.partitions import DataSettings
from tasteloop.behaviour.prepare import prepare
from tasteloop.behaviour.snapshots import (
    EVENTS,
    SNAPSHOTS,
    SPLIT,
    SPLITS,
    TRAIN,
    PrepareSettings,
    Snapshots,
    draw_rows,
    history_lengths,
)
from tasteloop.behaviour.text import behaviour_text
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json, read_parquet, sha256_tree, write_json, write_parquet


@pytest.fixture
def snapshots(tiny_snapshots: Path) -> Snapshots:
    return Snapshots.read(tiny_snapshots)


def test_no_rows_have_no_histories(snapshots: Snapshots) -> None:
    assert list(snapshots.histories(snapshots.table.head(0))) == []


def test_histories_and_truth_are_the_same_in_blocks_of_any_size(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories, truth = snapshots.histories(snapshots.table), snapshots.truth(snapshots.table)
    expected = histories[:]

    monkeypatch.setattr("tasteloop.behaviour.snapshots._BLOCK", 3)

    assert list(histories) == expected
    assert [histories[0], histories[-1]] == [expected[0], expected[-1]]
    assert histories[4:9] == expected[4:9]
    assert np.array_equal(snapshots.truth(snapshots.table), truth)


def test_rows_are_drawn_alike_each_time_and_only_where_there_are_more() -> None:
    assert draw_rows(5, 5).tolist() == [0, 1, 2, 3, 4]
    drawn = draw_rows(1000, 10)
    assert len(set(drawn.tolist())) == 10
    assert drawn.tolist() == sorted(draw_rows(1000, 10).tolist())


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


def test_in_order_without_times_the_last_positive_act_is_tested_and_the_one_before_validates(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    folder = timeless(tiny_dataset, tmp_path / "data", "order")
    prepare(folder, PrepareSettings(horizon=5, stride=5), tmp_path / "out")
    data = Snapshots.read(tmp_path / "out")

    # what the file says of each user, by hand
    acts = read_parquet(folder / EVENTS).with_row_index("row")
    acts = acts.filter(pl.col("kind") != "impression")
    liked = nw.from_native(acts).filter(positive(data.text.positive)).to_native()
    tested, validated = {}, {}
    for (user,), own in liked.group_by("user"):
        if len(own) >= 3:
            validated[user], tested[user] = own.sort("row")["row"].to_list()[-2:]

    item = dict(acts.select("row", "item").iter_rows())
    for split, rows in (("test", tested), ("validation", validated)):
        snapshots = data.split(split)
        futures = [[data.catalogue.items[j] for j in future] for future in snapshots["future"]]
        targets = {user: [item[row]] for user, row in rows.items()}
        assert dict(zip(snapshots["user"], futures, strict=True)) == targets
        seen = dict(snapshots.select("user", "events_seen").iter_rows())
        for user, row in rows.items():
            before = acts.filter(pl.col("user") == user, pl.col("row") < row)
            assert seen[user] == len(before)


def test_nothing_that_is_fitted_sees_the_act_that_is_left_out(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    folder = timeless(tiny_dataset, tmp_path / "data", "order")
    prepare(folder, PrepareSettings(horizon=5, stride=5), tmp_path / "out")
    data = Snapshots.read(tmp_path / "out")
    order = {user: own["item"].to_list() for (user,), own in data.events.group_by("user")}
    test = data.split("test")
    validation = data.split("validation")

    for rows, cut in ((validation, "validation_from"), (test, "test_from")):
        fitted = data.events.filter(pl.col("time") < data.meta[cut])
        held = {user: own["item"].to_list() for (user,), own in fitted.group_by("user")}
        for user, seen in rows.select("user", "events_seen").iter_rows():
            assert held[user] == order[user][:seen]
    for user, time, future in data.split("train").select("user", "time", "future").iter_rows():
        assert time < data.meta["validation_from"] and 3 <= len(future) <= 5
        seen = dict(validation.select("user", "events_seen").iter_rows()).get(user)
        assert {data.catalogue.items[j] for j in future} <= set(order[user][:seen])


def test_who_has_two_positive_acts_is_trained_on_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    acts = [("a", n, "click") for n in range(6)]
    acts += [("b", 0, "dislike"), ("b", 1, "click"), ("b", 2, "click"), ("b", 3, "dislike")]
    acts += [("c", n, "click") for n in range(3)] + [("c", 3, "dislike")]
    events = [(user, f"i{n}", kind, t, None, None) for t, (user, n, kind) in enumerate(acts)]
    items = [(f"i{n}", "t", ["A" if n % 2 else "B"], None, None, None) for n in range(6)]
    write_parquet(
        folder / "events.parquet",
        pl.DataFrame(events, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row"),
    )
    write_parquet(
        folder / "items.parquet",
        pl.DataFrame(items, schema=dict(ITEMS_SCHEMA.to_polars()), orient="row"),
    )
    write_json(folder / "ingest.json", {"times": "order"})

    prepare(folder, PrepareSettings(minimum_future=1), tmp_path / "out")

    data = Snapshots.read(tmp_path / "out")
    tested = data.split("test").select("user", "events_seen", "future").rows()
    assert tested == [("a", 5, [5]), ("c", 2, [2])]
    assert data.split("validation")["user"].to_list() == ["a", "c"]
    last = data.events.filter(pl.col("user") == "c")["time"].to_list()
    assert last[-1] > last[-2] >= data.meta["test_from"], (
        "what follows the tested act is not fitted"
    )
    two = data.events.filter(pl.col("user") == "b")
    assert two["time"].max() < data.meta["validation_from"]  # type: ignore[operator]


def test_left_out_acts_do_not_depend_on_the_number_of_parts(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    folder = timeless(tiny_dataset, tmp_path / "data", "order")
    for name, rows in (("one", 1_000_000), ("many", 300)):
        settings = PrepareSettings(horizon=5, stride=5)
        prepare(folder, settings, tmp_path / name, DataSettings(rows_a_part=rows))

    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "many")


def test_snapshots_say_what_they_are_split_by(
    tiny_dataset: Path, tiny_snapshots: Path, tmp_path: Path
) -> None:
    prepare(
        timeless(tiny_dataset, tmp_path / "data", "order"),
        PrepareSettings(horizon=5, stride=5),
        tmp_path / "out",
    )

    assert Snapshots.read(tiny_snapshots).meta["split_by"] == "time"
    assert Snapshots.read(tmp_path / "out").meta["split_by"] == "leave last out"


def test_earlier_windows_lie_one_before_the_other_in_the_training_window(
    snapshots: Snapshots, tiny_dataset: Path, tmp_path: Path
) -> None:
    windows = snapshots.earlier_windows()

    assert len(windows) == 2
    until = snapshots.meta["validation_from"]
    for begins, rows in windows:
        assert set(rows[SPLIT]) == {TRAIN}
        assert begins <= rows[TIME].min() and rows[TIME].max() < until
        before = (snapshots.events[TIME] < begins).mean()
        assert before is not None and before > 0.4
        until = begins
    in_order = timeless(tiny_dataset, tmp_path / "data", "order")
    prepare(in_order, PrepareSettings(horizon=5, stride=5), tmp_path / "out")
    assert Snapshots.read(tmp_path / "out").earlier_windows() == []
