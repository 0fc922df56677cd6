"""The interests of a catalogue: its own labels, discovered ones, and labels that are inferred where
that is proven.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tasteloop.behaviour.interests import InterestSettings
from tasteloop.behaviour.items import INFERRED, Catalogue
from tasteloop.behaviour.prepare import prepare
from tasteloop.behaviour.snapshots import PrepareSettings, Snapshots
from tasteloop.errors import TasteloopError
from tasteloop.files import read_parquet, write_parquet
from tasteloop.interests.discovery import adjusted_rand, complete_labels, find_interests

TOPICS = ("garden roses", "moon rocket", "pasta kitchen", "guitar chords")
ITEMS, USERS = 80, 200
DISCOVER = InterestSettings(source="discovered", encoder=None, count=4)


def catalogue(labelled: float = 0.0, titled: bool = True) -> Catalogue:
    """Item j is about topic j % 4; the first so many bear its first word as label."""
    items = [f"i{j}" for j in range(ITEMS)]
    titles = [f"{TOPICS[j % 4]} {chr(97 + j % 23)}{chr(97 + j % 19)}" for j in range(ITEMS)]
    labels = [[TOPICS[j % 4].split()[0]] if j < labelled * ITEMS else [] for j in range(ITEMS)]
    return Catalogue(items, titles if titled else items, labels, [None] * ITEMS, [None] * ITEMS)


def events(users: int = USERS, seed: int = 0) -> pl.LazyFrame:
    """User u takes items of topic u % 4, and now and then another."""
    rng = np.random.default_rng(seed)
    rows = []
    for u in range(users):
        for _ in range(10):
            topic = u % 4 if rng.random() < 0.9 else int(rng.integers(4))
            rows.append((f"u{u}", f"i{4 * int(rng.integers(ITEMS // 4)) + topic}"))
    return pl.LazyFrame(rows, schema=["user", "item"], orient="row")


def groups_of(labels: list[list[str]]) -> np.ndarray:
    return np.unique([each[0] for each in labels], return_inverse=True)[1]


def test_interests_are_the_groups_of_behaviour_named_by_their_words():
    found = find_interests(catalogue(), events(), DISCOVER)

    assert found.origin == "discovered" and all(found.inferred)
    assert adjusted_rand(groups_of(found.labels), np.arange(ITEMS) % 4) > 0.9
    for topic in range(4):
        assert set(found.labels[topic][0].split(" / ")) == set(TOPICS[topic].split())
    assert found.record["seed_agreement"] > 0.9


@pytest.mark.parametrize("labelled", [0.9, 1])
def test_a_catalogue_with_labels_keeps_them_and_neither_events_nor_encoder_are_read(labelled):
    whole, nowhere = catalogue(labelled), pl.scan_parquet("no such file.parquet")
    found = find_interests(whole, nowhere, InterestSettings(encoder="no such encoder"))

    assert (found.origin, found.labels) == ("labels", whole.labels) and not any(found.inferred)
    with pytest.raises(TasteloopError, match=r"prepare\.interests\.encoder to a directory"):
        find_interests(catalogue(), events(), InterestSettings(encoder="./no such encoder"))


def test_labels_stay_as_they_are_where_no_encoder_can_be_had(caplog):
    partly = replace(catalogue(), labels=[["a"] if j < 40 else [] for j in range(ITEMS)])
    found = find_interests(partly, events(), InterestSettings(encoder="./no such encoder"))

    assert (found.origin, found.labels) == ("labels", partly.labels)
    assert "no encoder './no such encoder'" in caplog.text


def test_a_last_version_of_other_items_begins_anew(tmp_path):
    old = {"item": ["x", "y"], "title": ["", ""], "labels": [["ours"], ["theirs"]]}
    write_parquet(
        tmp_path / "items.parquet",
        pl.DataFrame(old).with_columns(
            text=pl.lit(None, pl.String), released=pl.lit(None, pl.Date)
        ),
    )
    going_on = DISCOVER.model_copy(update={"continues": tmp_path})
    found = find_interests(catalogue(), events(), going_on)

    assert found.labels == find_interests(catalogue(), events(), DISCOVER).labels


def test_of_many_labels_the_most_frequent_are_inferred(monkeypatch):
    monkeypatch.setattr("tasteloop.interests.discovery._MOST_LABELS", 2)
    names = ("rare", "often", "mostly")
    labels = [[name for n, name in enumerate(names) if j % 6 <= n] for j in range(600)]
    large = Catalogue([str(j) for j in range(600)], [""] * 600, labels, [None] * 600)
    vectors = np.eye(6, dtype=np.float32)[np.arange(600) % 6]

    completion = complete_labels(vectors, large, np.arange(500), np.arange(500, 600))

    assert completion.names == ["mostly", "often"]


def test_nothing_is_discovered_where_nothing_could_be_named():
    found = find_interests(catalogue(titled=False), events(), InterestSettings(encoder=None))

    assert found.origin == "none" and not any(found.labels)
    with pytest.raises(TasteloopError, match="0 of 80 items have a title"):
        find_interests(catalogue(titled=False), events(), DISCOVER)


def test_the_next_version_keeps_the_names_that_go_on(tmp_path):
    first = find_interests(catalogue(), events(), DISCOVER)
    renamed = [[f"our {each[0].split()[0]}"] for each in first.labels]
    old = {"item": [f"i{j}" for j in range(ITEMS)], "title": [""] * ITEMS, "labels": renamed}
    write_parquet(
        tmp_path / "items.parquet",
        pl.DataFrame(old).with_columns(
            text=pl.lit(None, pl.String), released=pl.lit(None, pl.Date)
        ),
    )
    going_on = DISCOVER.model_copy(update={"continues": tmp_path, "seed": 7})
    second = find_interests(catalogue(), events(seed=1), going_on)

    assert {each[0] for each in second.labels} == {each[0] for each in renamed}
    assert second.record["version_agreement"] > 0.9 and second.record["ended"] == []
    with pytest.raises(TasteloopError, match="no items table"):
        find_interests(
            catalogue(), events(), DISCOVER.model_copy(update={"continues": tmp_path / "none"})
        )


def test_labels_are_inferred_where_held_out_precision_is_proven():
    found = find_interests(catalogue(0.8), events(), InterestSettings(encoder=None))

    assert found.origin == "labels"  # 16 of each label are too few to prove anything
    rng = np.random.default_rng(0)
    topic = np.arange(2000) % 4
    vectors = np.eye(4, dtype=np.float32)[topic] + 0.2 * rng.standard_normal((2000, 4))
    labels = [[TOPICS[t]] for t in topic]
    large = Catalogue([str(j) for j in range(2000)], [""] * 2000, labels, [None] * 2000)
    known = np.arange(1000)
    completion = complete_labels(vectors.astype(np.float32), large, known, np.arange(1000, 2000))
    said = completion.probabilities >= completion.threshold

    assert completion.is_proven and completion.low >= 0.8
    assert large.membership(completion.names)[1000:][said].mean() > 0.9
    assert said.any(1).mean() > 0.9


def test_labels_that_nothing_tells_apart_are_left():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2000, 4)).astype(np.float32)
    labels = [[TOPICS[t]] for t in rng.integers(0, 4, 2000)]
    large = Catalogue([str(j) for j in range(2000)], [""] * 2000, labels, [None] * 2000)
    completion = complete_labels(vectors, large, np.arange(1000), np.arange(1000, 2000))

    assert not completion.is_proven


@pytest.fixture
def unlabelled(tiny_dataset: Path, tmp_path: Path) -> Path:
    """The tiny data set without labels."""
    out = tmp_path / "data"
    out.mkdir()
    for path in tiny_dataset.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    items = read_parquet(out / "items.parquet")
    write_parquet(out / "items.parquet", items.with_columns(labels=pl.lit([], pl.List(pl.String))))
    return out


def prepared(dataset: Path, out: Path, **interests) -> Snapshots:
    chosen = InterestSettings(encoder=None, count=4, **interests)
    settings = PrepareSettings(horizon=5, stride=5, interests=chosen)
    prepare(dataset, settings, out, discover=find_interests)
    return Snapshots.read(out)


def test_snapshots_of_an_unlabelled_catalogue_have_marked_interests(unlabelled, tmp_path):
    data = prepared(unlabelled, tmp_path / "out")

    assert data.origin_of_interests == "discovered" and "interests" in data.tasks
    assert set(data.labels) <= {each["name"] for each in data.meta["interests"]["interests"]}
    assert read_parquet(data.directory / "items.parquet")[INFERRED].all()
    assert json.loads((data.directory / "snapshots.json").read_text())["labels"] == data.labels


def test_nothing_after_the_cut_is_seen(unlabelled, tmp_path):
    before = prepared(unlabelled, tmp_path / "before")
    events = read_parquet(unlabelled / "events.parquet")
    later = pl.col("time") >= before.meta["validation_from"]
    shuffled = events.filter(later).with_columns(pl.col("item").shuffle(seed=0))
    write_parquet(
        unlabelled / "events.parquet", pl.concat([events.filter(~later), shuffled]).sort("time")
    )
    after = prepared(unlabelled, tmp_path / "after")

    assert after.catalogue.labels == before.catalogue.labels
    assert not replace(after).events.equals(before.events)


def test_discovery_can_be_turned_off(unlabelled, tmp_path):
    data = prepared(unlabelled, tmp_path / "out", source="labels")

    assert (data.labels, data.origin_of_interests) == ([], "labels")
