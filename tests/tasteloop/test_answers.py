"""The tasks of a model follow from its data. Whole runs are in
tests/e2e/runs/test_without_labels.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tasteloop.answers import tasks_of_data
from tasteloop.behaviour.items import LABELS
from tasteloop.behaviour.prepare import prepare
from tasteloop.behaviour.snapshots import PrepareSettings, Snapshots
from tasteloop.encoder.settings import TrainingSettings
from tasteloop.encoder.training import finetune
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json, read_parquet, write_json, write_parquet

Prepared = Callable[..., Path]


@pytest.fixture
def prepared(tiny_dataset: Path, tmp_path: Path) -> Prepared:
    """Snapshots of the tiny data set, its items with other labels or none, with its reviews or
    without.
    """

    def make(labels: list[str] | None, reviews: bool) -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        items = read_parquet(tiny_dataset / "items.parquet")
        if labels is not None:
            same = pl.Series(LABELS, [labels] * items.height, dtype=pl.List(pl.String))
            items = items.with_columns(same)
        write_parquet(folder / "items.parquet", items)
        for name in ("events", "reviews") if reviews else ("events",):
            write_parquet(
                folder / f"{name}.parquet", read_parquet(tiny_dataset / f"{name}.parquet")
            )
        write_json(
            folder / "ingest.json",
            {"source": "mine.yaml", "reviews_source": "mine.csv" if reviews else None},
        )
        prepare(folder, PrepareSettings(horizon=5, stride=5), tmp_path / "snapshots")
        return tmp_path / "snapshots"

    return make


@pytest.mark.parametrize(
    ("labels", "reviews", "tasks"),
    [
        (["Drama"], True, ("interests", "recommend", "sentiment")),
        (["Drama"], False, ("interests", "recommend")),
        ([], True, ("recommend", "sentiment")),
        ([], False, ("recommend",)),
    ],
)
def test_labels_give_interests_and_reviews_give_sentiment(
    labels: list[str], reviews: bool, tasks: tuple[str, ...]
) -> None:
    assert tasks_of_data(labels, reviews) == tasks


def test_a_catalogue_without_labels_gives_snapshots_without_interests(prepared: Prepared) -> None:
    data = Snapshots.read(prepared(labels=[], reviews=True))

    assert (data.labels, data.tasks) == ([], ("recommend", "sentiment"))
    assert data.truth(data.split("test")).shape == (len(data.split("test")), 0)
    assert (data.meta["source"], data.meta["reviews_source"]) == ("mine.yaml", "mine.csv")


def test_labels_of_which_none_can_be_learned_are_refused(prepared: Prepared) -> None:
    with pytest.raises(TasteloopError, match="no interest label can be learned: of 1 labels"):
        prepared(labels=["Drama"], reviews=False)


def test_an_encoder_that_nothing_teaches_stays_as_it_came(
    prepared: Prepared, tiny_encoder: Path, tmp_path: Path
) -> None:
    import numpy as np
    from safetensors.numpy import load_file

    snapshots = prepared(labels=[], reviews=False)
    settings = TrainingSettings(
        encoder=str(tiny_encoder), frozen_layers=0, intent_texts=0, tensorboard=False
    )

    result = finetune(snapshots, settings, tmp_path / "model", tmp_path / "work")

    assert (result.validation, result.epochs) == ({}, 0)
    report = read_json(tmp_path / "model" / "training.json")
    assert (report["labels"], report["tasks"], list(report["models"])) == ([], {}, ["encoder"])
    kept, came = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "model" / "models" / "encoder", tiny_encoder)
    )
    assert kept.keys() == came.keys()
    assert all(np.array_equal(kept[name], came[name]) for name in came)


def test_of_data_that_teach_nothing_phrases_teach_a_copy_of_the_encoder(
    prepared: Prepared, tiny_encoder: Path, tmp_path: Path
) -> None:
    import numpy as np
    from safetensors.numpy import load_file

    snapshots = prepared(labels=[], reviews=False)
    settings = TrainingSettings(
        encoder=str(tiny_encoder), epochs=1, frozen_layers=0, intent_texts=300, tensorboard=False
    )

    result = finetune(snapshots, settings, tmp_path / "model", tmp_path / "work")

    report = read_json(tmp_path / "model" / "training.json")
    assert list(result.validation) == list(report["tasks"]) == ["intent"]
    assert list(report["models"]) == ["encoder", "intent"], "the one that reads items is as it came"
    folders = tiny_encoder, *(tmp_path / "model" / "models" / name for name in report["models"])
    came, kept, taught = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(np.array_equal(kept[name], came[name]) for name in came)
    assert any(not np.array_equal(taught[name], came[name]) for name in came)


def test_tasks_that_the_data_does_not_teach_are_named(
    prepared: Prepared, tiny_encoder: Path, tmp_path: Path
) -> None:
    snapshots = prepared(labels=[], reviews=True)
    settings = TrainingSettings(
        encoder=str(tiny_encoder), tasks=("interests",), frozen_layers=0, tensorboard=False
    )

    with pytest.raises(
        TasteloopError,
        match=r"training.tasks is \['interests'\] and the data set teaches \['sentim",
    ):
        finetune(snapshots, settings, tmp_path / "model", tmp_path / "work")
