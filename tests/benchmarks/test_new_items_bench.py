"""The benchmark of new items that are asked for in words, on a tiny bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality.new_items import OURS, WAYS, main, markdown, measure, rank, searches
from tasteloop.behaviour.snapshots import FUTURE, TEST, Snapshots
from tasteloop.errors import TasteloopError
from tasteloop.runtime.session import Session


@pytest.fixture(scope="module")
def data(tiny_snapshots: Path) -> Snapshots:
    return Snapshots.read(tiny_snapshots)


@pytest.fixture(scope="module")
def session(tiny_bundle: Path, data: Snapshots) -> Session:
    """To which every third item that is chosen in the test window is new."""
    session = Session.load(tiny_bundle)
    assert session.recommender
    chosen = data.split(TEST)[FUTURE].explode().unique().sort().to_numpy()
    session.recommender = replace(session.recommender, new=chosen[::3].astype(np.int32))
    return session


@pytest.fixture(scope="module")
def rows(data: Snapshots, session: Session) -> list[dict[str, Any]]:
    return measure(data, session, draws=50)


def test_a_search_is_made_from_a_new_item_that_the_user_chose(
    data: Snapshots, session: Session
) -> None:
    assert session.recommender
    asked = searches(data, session, "a title", seed=0)
    assert asked.texts and len(asked.texts) == len(asked.histories) == len(asked.aims)
    assert set(asked.aims) <= set(session.recommender.new.tolist())
    assert searches(data, session, "a title", seed=0).texts == asked.texts


def test_new_items_alone_are_ranked(data: Snapshots, session: Session) -> None:
    assert session.recommender
    asked = searches(data, session, "a title", seed=0)
    scores = np.tile(np.arange(len(session.catalogue), dtype=float), (len(asked.texts), 1))
    best = rank(asked, session, lambda part: scores[part])
    new = session.recommender.new
    assert np.isin(best[:, : min(3, len(new))], new).all()


def test_each_method_is_asked_the_same(rows: list[dict[str, Any]]) -> None:
    for way in WAYS:
        of_way = [row for row in rows if row["way"] == way]
        assert len({row["searches"] for row in of_way}) <= 1
        ours = [row for row in of_way if row["method"] == OURS]
        for row in of_way:
            gap = ours[0]["ndcg@10"]["value"] - row["ndcg@10"]["value"]
            assert row["ours_minus"]["value"] == pytest.approx(gap)
    assert {row["method"] for row in rows} >= {OURS, "tasteloop, nothing asked", "bm25"}


def test_a_title_that_is_asked_for_is_found(rows: list[dict[str, Any]]) -> None:
    by_method = {r["method"]: r["ndcg@10"]["value"] for r in rows if r["way"] == "a title"}
    assert by_method[OURS] > by_method["tasteloop, nothing asked"]


def test_the_table_is_a_table(rows: list[dict[str, Any]]) -> None:
    assert len({line.count(" | ") for line in markdown(rows).splitlines()[2:]}) == 1


def test_without_new_items_nothing_can_be_asked(
    tiny_bundle: Path, data: Snapshots, tiny_snapshots: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session.load(tiny_bundle)
    assert session.recommender
    session.recommender = replace(session.recommender, new=np.zeros(0, np.int32))
    with pytest.raises(TasteloopError, match="nothing new can be asked for"):
        measure(data, session)
    assert main(["--bundle", "no bundle", "--snapshots", str(tiny_snapshots)]) == 2
    assert "no bundle" in capsys.readouterr().err
