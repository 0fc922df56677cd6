"""The reference of the tiny bundle, made once."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tasteloop.files import read_parquet
from tasteloop.runtime.session import Session
from tests.support.references import SETTINGS
from validation.monitor.reference import Reference, save_reference


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return Session.load(tiny_bundle)


@pytest.fixture(scope="module")
def reference(
    session: Session, tiny_snapshots: Path, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    return save_reference(
        session, tiny_snapshots, SETTINGS, tmp_path_factory.mktemp("reference") / "out"
    )


@pytest.fixture(scope="module")
def behaviour(tiny_dataset: Path) -> pl.DataFrame:
    """Every user of the data set, once more, at another time: in the window after the reference."""
    events = read_parquet(tiny_dataset / "events.parquet")
    return events.with_columns(time=(pl.col("time") - events["time"].min()) // 5)  # type: ignore[operator]
