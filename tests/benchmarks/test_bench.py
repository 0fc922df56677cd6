"""The quality benchmark: tasks leak nothing, methods are what they claim, and a run tells and
carries on.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasteloop
from benchmarks.quality import beyond, linear, protocols, report
from benchmarks.quality import run as harness
from benchmarks.quality import tasks as quality_tasks
from benchmarks.quality.kept import measured_by
from benchmarks.quality.method import Method
from benchmarks.quality.methods import MAIN, METHODS
from benchmarks.quality.options import CUTOFFS, MEASURES, Options
from benchmarks.quality.ours import WITHOUT_NEARBY, bundle, of_bundle, ours, published
from benchmarks.quality.peers import peers
from benchmarks.quality.protocols import PROTOCOLS, Protocol, _share, build, collect, locate
from benchmarks.quality.tasks import Interactions, Past, Rows, Task
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.snapshots import PrepareSettings, Snapshots
from tasteloop.behaviour.text import TextSettings
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json, read_parquet, write_json, write_parquet
from tasteloop.recommender import collaborative
from tasteloop.recommender.folding import FoldedHistories, mark_seen

SOURCE = "made in a test"
PREPARED = PrepareSettings(horizon=5, stride=5)


@pytest.fixture(scope="session")
def work(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "work"
    shutil.copytree(tiny_dataset, out / "data")
    collect(SOURCE, out, PREPARED)
    return out


@pytest.fixture(scope="session")
def work_in_order(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `work`, of data in order without times."""
    out = tmp_path_factory.mktemp("bench-in-order") / "work"
    shutil.copytree(tiny_dataset, out / "data")
    ingested = read_json(out / "data" / "ingest.json")
    write_json(out / "data" / "ingest.json", ingested | {"times": "order"})
    collect(SOURCE, out, PREPARED)
    return out


@pytest.fixture(scope="session")
def tasks(work: Path, work_in_order: Path) -> dict[str, Task]:
    def of(protocol: Protocol) -> Task:
        return build(protocol, work_in_order if protocol.split == "last_out" else work)

    return {name: of(protocol) for name, protocol in PROTOCOLS.items()}


# --- protocols


def _pairs(past: Past) -> set[tuple[int, int]]:
    return set(zip(past.events.user.tolist(), past.events.item.tolist(), strict=True))


def _asked(rows: Rows) -> set[tuple[int, int]]:
    return {
        (int(user), int(item))
        for user, relevant in zip(rows.group, rows.relevant, strict=True)
        for item in relevant
    }


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_is_asked_is_in_nothing_that_is_fitted(tasks: dict[str, Task], name: str) -> None:
    task = tasks[name]
    assert not _pairs(task.fit) & _asked(task.test)
    assert not _pairs(task.tune) & _asked(task.validation)
    assert not _pairs(task.tune) & _asked(task.test)
    assert len(task.test) and len(task.validation)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_row_hides_its_history_and_never_what_it_asks(tasks: dict[str, Task], name: str) -> None:
    for rows in (tasks[name].validation, tasks[name].test):
        hidden = rows.hidden
        for n, (history, relevant) in enumerate(zip(rows.histories, rows.relevant, strict=True)):
            assert hidden[n, rows.events.item[history]].all()
            assert len(relevant) and not hidden[n, relevant].any()
            assert (rows.events.user[history] == rows.group[n]).all()
            in_order = (np.diff(rows.events.time[history]) >= 0).all()
            assert in_order or PROTOCOLS[name].shuffled


@pytest.mark.parametrize("name", [n for n, p in PROTOCOLS.items() if p.split == "time"])
def test_nothing_fitted_is_later_than_its_cut_and_no_history_later_than_its_question(
    tasks: dict[str, Task], name: str
) -> None:
    task = tasks[name]
    for past, rows in ((task.tune, task.validation), (task.fit, task.test)):
        assert past.events.time.max() < past.cut <= rows.time.min()
        when = {
            (u, i): t
            for u, i, t in zip(rows.events.user, rows.events.item, rows.events.time, strict=True)
        }
        for n in range(len(rows)):
            assert rows.events.time[rows.histories[n]].max(initial=0) <= rows.time[n]
            assert all(when[rows.group[n], item] > rows.time[n] for item in rows.relevant[n])
    assert task.validation.time.max() < task.fit.cut


def test_the_rows_of_time_are_those_of_the_pipeline(tasks: dict[str, Task], work: Path) -> None:
    data = Snapshots.read(work / "snapshots")
    test = data.split("test")
    rows = tasks["time"].test
    assert len(rows) == len(test)
    theirs = {  # by what does not depend on the order of users
        (t, tuple(f), tuple(np.flatnonzero(h)))
        for t, f, h in zip(
            test["time"].to_list(),
            test["future"].to_list(),
            mark_seen(data.histories(test), data.catalogue),
            strict=True,
        )
    }
    ours = {
        (int(t), tuple(f.tolist()), tuple(np.flatnonzero(h)))
        for t, f, h in zip(rows.time, rows.relevant, rows.hidden, strict=True)
    }
    assert ours == theirs


@pytest.mark.parametrize(("name", "most"), [("cold_items", 0), ("few_items", 5)])
def test_new_items_are_new(tasks: dict[str, Task], name: str, most: int) -> None:
    task = tasks[name]
    ranked = {
        window: (~rows.hidden).any(0)
        for window, rows in (("validation", task.validation), ("test", task.test))
    }
    assert not (ranked["validation"] & ranked["test"]).any()
    for past, new in (
        (task.fit, ranked["test"]),
        (task.tune, ranked["test"] | ranked["validation"]),
    ):
        assert past.count("all")[new].max() <= most
        assert (most == 0) == (past.count("all")[new].sum() == 0)
        assert past.count("all")[~new].min() > most
    for rows, new in (
        (task.validation, ranked["test"] | ranked["validation"]),
        (task.test, ranked["test"]),
    ):
        assert not any(new[rows.events.item[history]].any() for history in rows.histories)
        assert all(new[relevant].all() for relevant in rows.relevant)


def test_a_last_act_is_asked_after_all_that_its_user_did_before(tasks: dict[str, Task]) -> None:
    task = tasks["last_out"]
    for past, rows in ((task.tune, task.validation), (task.fit, task.test)):
        for n, user in enumerate(rows.user):
            own = past.events.take(past.user == user)
            assert past.users[user] == rows.group[n]
            assert own.item.tolist() == rows.events.item[rows.histories[n]].tolist()
            assert len(rows.relevant[n]) == 1
        assert len(np.unique(rows.group)) == len(rows)
    assert set(task.validation.group) == set(task.test.group)


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if not m.ordered])
def test_what_reads_no_order_scores_shuffled_histories_alike(
    tasks: dict[str, Task], name: str
) -> None:
    method, task, shuffled = METHODS[name], tasks["time"], tasks["shuffled"]
    if method.package:
        pytest.importorskip(method.package)
    settings = _settings(method, task)
    theirs = method.fit(shuffled.fit, settings).scores(shuffled.test)
    assert method.fit(task.fit, settings).scores(task.test) == pytest.approx(theirs, abs=1e-6)


def test_what_reads_sequences_is_run_again_on_shuffled_ones() -> None:
    for method in peers().values():
        assert measured_by("shuffled", method) == "shuffled"
    assert measured_by("shuffled", METHODS["tasteloop"]) == "shuffled"
    assert measured_by("shuffled", METHODS["ease"]) == "time"
    assert measured_by("stratified", METHODS["ease"]) == "stratified"


def test_rows_are_drawn_the_same_for_every_method(tasks: dict[str, Task]) -> None:
    task = tasks["time"]
    few, again = task.drawn(20, 30), tasks["shuffled"].drawn(20, 30)
    assert (len(few.validation), len(few.test)) == (20, 30)
    assert few.drawn_from == (len(task.validation), len(task.test))
    assert few.test.time.tolist() == again.test.time.tolist()
    assert few.test.group.tolist() == again.test.group.tolist()
    assert len(task.drawn(10**6, 10**6).test) == len(task.test)


def test_a_stratified_split_keeps_its_share_of_each_user(tasks: dict[str, Task]) -> None:
    task = tasks["stratified"]
    for past, rows, share in ((task.fit, task.test, 0.75), (task.tune, task.validation, 0.5625)):
        for n, user in enumerate(rows.user):
            known = np.flatnonzero(past.matrix("all")[user])
            assert set(known) == set(rows.events.item[rows.histories[n]])
            assert len(known) == pytest.approx(30 * share, abs=1)
    assert _pairs(task.tune) < _pairs(task.fit)
    assert _asked(task.validation) <= _pairs(task.fit)
    assert len(_pairs(task.fit)) + len(_asked(task.test)) == 60 * 30


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(0, 99))
def test_the_split_is_the_published_one(groups: list[int], seed: int) -> None:
    """Against the published rule, told in pandas: sort by random numbers of the rows, keep the
    first of each group.
    """
    table = pd.DataFrame({"group": groups})
    np.random.seed(seed)
    table["random"] = np.random.rand(len(table))
    ranked = table.sort_values(["group", "random"])
    place = ranked.groupby("group").cumcount() + 1
    kept = place <= round(0.75 * ranked.groupby("group")["group"].transform("count"))
    assert _share(np.array(groups), 0.75, seed).tolist() == kept.sort_index().tolist()


def test_pseudonyms_change_nothing(
    tiny_dataset: Path, tmp_path: Path, tasks: dict[str, Task]
) -> None:
    """Another installation's key sorts the users otherwise; the task is the same."""
    shutil.copytree(tiny_dataset, tmp_path / "data")
    events = read_parquet(tmp_path / "data" / "events.parquet")
    write_parquet(
        tmp_path / "data" / "events.parquet", events.with_columns(pl.col("user").str.reverse())
    )
    collect(SOURCE, tmp_path, PREPARED)
    for name in ("time", "stratified"):
        again, task = build(PROTOCOLS[name], tmp_path), tasks[name]
        assert (again.fit.matrix("all") == task.fit.matrix("all")).all()
        assert (again.test.hidden == task.test.hidden).all()
        assert [r.tolist() for r in again.test.relevant] == [r.tolist() for r in task.test.relevant]


def test_earlier_windows_end_before_the_validation_window(tasks: dict[str, Task]) -> None:
    """No event that a window's past holds is later than its rows, and no row reaches into the
    validation window.
    """
    for name in ("time", "shuffled"):
        task = tasks[name]
        assert task.earlier
        for past, rows in task.earlier:
            assert past.events.time.max() < past.cut <= rows.time.min()
            assert rows.time.max() < task.validation.time.min()
    assert not tasks["cold_items"].earlier
    assert len(tasks["time"].drawn(3, 5).earlier[0][1]) == 3


def test_of_a_thinned_set_those_who_did_least_are_kept_and_all_items(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    whole = read_parquet(tiny_dataset / "events.parquet")

    protocols._keep_thinnest(tiny_dataset, 0.5, "thin", tmp_path / "data")

    kept = read_parquet(tmp_path / "data" / "events.parquet")
    counts = whole.group_by("user").len()
    is_kept = counts["user"].is_in(kept["user"].unique().implode())
    assert is_kept.sum() == round(0.5 * len(counts))
    assert counts.filter(is_kept)["len"].max() <= counts.filter(~is_kept)["len"].min()
    assert len(kept) == counts.filter(is_kept)["len"].sum()
    items = [read_parquet(where / "items.parquet") for where in (tiny_dataset, tmp_path / "data")]
    assert items[0].equals(items[1])
    assert read_json(tmp_path / "data" / "ingest.json")["source"] == "thin"
    with pytest.raises(TasteloopError, match="another --out"):
        collect("ml-1m", tmp_path)
    collect("thin", tmp_path, PREPARED)
    assert len(build(PROTOCOLS["time"], tmp_path).test)


def test_slices_divide_the_rows(tasks: dict[str, Task]) -> None:
    masks = tasks["time"].slices
    assert np.sum(list(masks.values()), 0).tolist() == [1] * len(tasks["time"].test)
    assert {"1 event", "2-5 events"} < set(masks)
    assert (tasks["time"].test.seen[masks["2-5 events"]] <= 5).all()


def test_a_history_folds_in_as_the_library_folds_it_in(tasks: dict[str, Task]) -> None:
    rows, catalogue = tasks["time"].test, tasks["time"].catalogue
    theirs = FoldedHistories.of(rows.event_lists(catalogue), catalogue, 0.9, TextSettings())
    assert rows.matrix("liked", 0.9) == pytest.approx(theirs.recent_liked, rel=1e-5)
    assert rows.matrix("unrejected", 0.9) == pytest.approx(theirs.recent_seen, rel=1e-5)
    assert rows.opinions() == pytest.approx(theirs.opinions, rel=1e-5)
    assert theirs.opinions.min() < 0 < theirs.opinions.max()


def test_another_data_set_is_not_taken_for_this_one(work: Path) -> None:
    with pytest.raises(TasteloopError, match="another --out"):
        collect("ml-100k", work)


# --- methods


def _settings(method: Method, task: Task, **more: Any) -> dict[str, Any]:
    if method.learn:
        return {**method.learn(task)[0], "seed": 0}
    small = {"factors": 8, "iterations": 10, "neighbours": 10, "seed": 0, **more}
    return {**method.start(), **small}


def _method(name: str, encoder: Path) -> Method:
    """With the tiny encoder for MiniLM where the encoder is not a setting."""
    if not name.startswith("tasteloop-minilm"):
        return METHODS[name]
    return ours(name, "", published(str(encoder)), WITHOUT_NEARBY if "no-nearby" in name else None)


@pytest.mark.parametrize("protocol", ["time", "stratified", "cold_items", "last_out"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_scores_every_item_alike_twice(
    tasks: dict[str, Task], tiny_encoder: Path, name: str, protocol: str
) -> None:
    method, task = _method(name, tiny_encoder), tasks[protocol]
    if method.package:
        pytest.importorskip(method.package)
    settings = _settings(method, task, encoder=str(tiny_encoder))
    scores = method.fit(task.fit, settings).scores(task.test)
    assert scores.shape == task.test.shape
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    again = method.fit(replace(task.fit), settings).scores(task.test)
    assert np.array_equal(scores, again)


@pytest.mark.parametrize("name", MAIN)
def test_sparse_tables_and_small_blocks_rank_alike(
    tasks: dict[str, Task], tiny_encoder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, task = _method(name, tiny_encoder), tasks["last_out"]
    if method.package:
        pytest.importorskip(method.package)
    settings = _settings(method, task)
    dense = harness.rank(method.fit(task.fit, settings), task.test, 10)

    for name, cells in (("DENSE_CELLS", 0), ("_BLOCK_CELLS", 500)):
        monkeypatch.setattr(collaborative, name, cells)
    for module in (quality_tasks, linear):
        monkeypatch.setattr(module, "BLOCK_CELLS", 700)
    past = replace(task.fit)  # nothing that was kept of the other
    assert len(list(task.test.blocks())) > 3
    assert not isinstance(past.matrix("all"), np.ndarray)
    sparse = harness.rank(method.fit(past, settings), task.test, 10)

    assert (sparse == dense).mean() > 0.97  # single precision breaks some ties another way


@pytest.mark.parametrize("name", METHODS)
def test_nothing_hidden_is_ranked_and_an_empty_history_is_answered(
    tasks: dict[str, Task], tiny_encoder: Path, name: str
) -> None:
    method, task = _method(name, tiny_encoder), tasks["time"]
    if method.package:
        pytest.importorskip(method.package)
    nobody = replace(task.test, histories=[h[:0] for h in task.test.histories])
    scorer = method.fit(task.fit, _settings(method, task, encoder=str(tiny_encoder)))
    for rows in (task.test, nobody):
        ranked = harness.rank(scorer, rows, 20)
        assert ranked.shape == (len(rows), 20)
        for row, hidden in zip(ranked, rows.hidden, strict=True):
            assert not hidden[row[row >= 0]].any()
            assert (row >= 0).sum() == min(20, (~hidden).sum())
            assert len(set(row[row >= 0])) == (row >= 0).sum()


@pytest.mark.parametrize("name", ["itemknn", "userknn", "ease", "slim", "ials", "bpr", "tasteloop"])
def test_a_personal_method_learns_the_pattern(tasks: dict[str, Task], name: str) -> None:
    """Users of the tiny data like two of four labels: better than popularity, or it is wired
    wrongly.
    """
    method, task = METHODS[name], tasks["stratified"]
    if method.package:
        pytest.importorskip(method.package)

    wanted = replace(task, validation=_only_liked(task.validation))

    def quality(method: Method, **more: Any) -> float:
        ranked = harness.rank(
            method.fit(task.fit, _settings(method, wanted, feedback="liked", **more)), task.test, 10
        )
        return harness.metrics.ndcg(ranked, _only_liked(task.test).relevant).value

    assert (
        quality(method, iterations=100, rate=0.05, l1=0.1, l2=1.0)
        > quality(METHODS["popularity"]) + 0.05
    )


def _only_liked(rows: Rows) -> Rows:
    events = rows.events
    liked = [events.item[(events.user == user) & events.liked] for user in rows.group]
    return replace(
        rows, relevant=[r[np.isin(r, mine)] for r, mine in zip(rows.relevant, liked, strict=True)]
    )


def _small(matrix: list[list[int]], histories: list[list[int]]) -> tuple[Past, Rows]:
    """A past of all-liked events, and rows that look back on some of them."""
    user, item = np.nonzero(matrix)
    items, n = len(matrix[0]), len(user)
    catalogue = Catalogue(
        [f"i{j}" for j in range(items)],
        ["war film", "love film", "war story"],
        [[]] * 3,
        [None] * 3,
    )
    ones = np.ones(n, np.float32)
    past = Past.of(
        Interactions(user, item, np.arange(n), ones, np.array(["rate"] * n), ones > 0),
        catalogue,
        n + 1,
    )
    flat = np.array([j for history in histories for j in history])
    ones = np.ones(len(flat), np.float32)
    events = Interactions(
        0 * flat, flat, np.arange(len(flat)), ones, np.array(["rate"] * len(flat)), ones > 0
    )
    ends = np.cumsum([0, *(len(h) for h in histories)])
    rows = len(histories)
    return past, Rows(
        events,
        [np.arange(a, b) for a, b in zip(ends, ends[1:], strict=False)],
        [np.array([0])] * rows,
        [np.zeros(0, np.int64)] * rows,
        np.ones(items, np.bool_),
        np.full(rows, -1),
        np.arange(rows),
        np.zeros(rows, int),
        np.ones(rows, int),
    )


def test_user_neighbours_by_hand() -> None:
    past, rows = _small([[1, 1, 0], [0, 1, 1], [0, 0, 1]], [[0]])
    scores = (
        METHODS["userknn"].fit(past, {"feedback": "all", "neighbours": 3, "shrink": 0}).scores(rows)
    )
    assert scores[0] == pytest.approx([1 / 2**0.5, 1 / 2**0.5, 0], abs=1e-6)


def test_slim_is_the_elastic_net() -> None:
    """Against scikit-learn's solver with the same penalties and all features."""
    from sklearn.linear_model import ElasticNet

    rng = np.random.default_rng(0)
    x = (rng.random((60, 8)) < 0.4).astype(int)
    x[:, 7] |= x[:, 0]
    catalogue = Catalogue([str(j) for j in range(8)], ["t"] * 8, [[]] * 8, [None] * 8)
    user, item = np.nonzero(x)
    ones = np.ones(len(user), np.float32)
    events = Interactions(
        user, item, np.arange(len(user)), ones, np.array(["rate"] * len(user)), ones > 0
    )
    past = Past.of(events, catalogue, 1000)
    settings = {"feedback": "all", "neighbours": 7, "l1": 2.0, "l2": 3.0, "sweeps": 500}
    weights = METHODS["slim"].fit(past, settings).weights.toarray()  # type: ignore[attr-defined]
    n = len(x)
    net = ElasticNet(
        alpha=5 / n, l1_ratio=2 / 5, positive=True, fit_intercept=False, tol=1e-8, max_iter=10_000
    )
    for j in range(8):
        others = [i for i in range(8) if i != j]
        assert weights[others, j] == pytest.approx(net.fit(x[:, others], x[:, j]).coef_, abs=2e-3)
    assert (weights > 0).any()


def test_ease_of_many_items_is_ease(tasks: dict[str, Task]) -> None:
    table = tasks["stratified"].fit.matrix("all")
    theirs = collaborative.ease(table, 20.0)
    assert linear.ease_in_single_precision(table, 20.0) == pytest.approx(theirs, abs=1e-5)


def test_bm25_finds_the_item_that_shares_the_rarer_word() -> None:
    past, rows = _small([[1, 1, 1]], [[0]])
    settings = {"feedback": "all", "decay": 1.0, "k1": 1.2, "b": 0.0, "dated": False}
    scores = METHODS["bm25"].fit(past, settings).scores(rows)[0]
    shared = np.log1p((3 - 2 + 0.5) / (2 + 0.5))  # "war" and "film" are each in two of three titles
    assert scores == pytest.approx([2 * shared, shared, shared], rel=1e-5)


def test_recent_popularity_forgets() -> None:
    past, rows = _small([[1, 1, 0], [0, 1, 1]], [[0]])
    days = np.array([0, 5, 6, 9]) * 86_400_000_000
    past = Past.of(replace(past.events, time=days), past.catalogue, 10 * 86_400_000_000)
    assert METHODS["popularity"].fit(past, {"feedback": "all"}).scores(rows)[0].tolist() == [
        1,
        2,
        1,
    ]
    recent = METHODS["popularity-7d"].fit(past, {"feedback": "all", "days": 4}).scores(rows)[0]
    assert recent.tolist() == [0, 1, 1]


def test_a_search_takes_its_stages_in_turn() -> None:
    asked = []

    def fit(past: Past, settings: Any) -> Any:
        asked.append({k: settings[k] for k in ("a", "b")})
        return METHODS["popularity"].fit(past, {"feedback": "all"})

    method = Method("m", "", fit, ({"a": (1, 2)}, {"b": (5, 6)}))
    past, rows = _small([[1, 1, 1]], [[0], [1]])
    task = Task(PROTOCOLS["time"], past.catalogue, past, rows, past, rows)
    best, value = harness.tune(method, task, 0)
    assert asked == [{"a": 1, "b": 5}, {"a": 2, "b": 5}, {"a": 1, "b": 5}, {"a": 1, "b": 6}]
    assert best == {"a": 1, "b": 5}
    assert value is not None and 0 <= value <= 1


def test_a_search_tries_one_feedback_where_all_events_are_liked() -> None:
    asked = []

    def fit(past: Past, settings: Any) -> Any:
        asked.append(settings["feedback"])
        return METHODS["popularity"].fit(past, settings)

    past, rows = _small([[1, 1, 1]], [[0], [1]])
    method = Method("m", "", fit, ({"feedback": ("all", "liked")},))
    best, _ = harness.tune(
        method, Task(PROTOCOLS["time"], past.catalogue, past, rows, past, rows), 0
    )
    assert (asked, best) == (["liked"], {"feedback": "liked"})


def test_all_terms_of_a_bundle_are_fitted_here(
    tasks: dict[str, Task], work: Path, tiny_bundle: Path
) -> None:
    pytest.importorskip("implicit")
    task = tasks["time"]
    all_terms, no_nearby, _ = of_bundle(tiny_bundle, work / "snapshots")
    for method, nearby in ((all_terms, True), (no_nearby, False)):
        assert method.learn is not None
        settings, value = method.learn(task)
        recommender = method.fit(task.fit, settings).recommender  # type: ignore[attr-defined]
        assert recommender.nearby.any() == nearby
        assert recommender.ties.any() and recommender.vectors.any()
        assert 0 < value < 1


def test_a_bundle_ranks_as_its_session_does(tasks: dict[str, Task], tiny_bundle: Path) -> None:
    from tasteloop.runtime.session import Session

    task = tasks["time"]
    few = task.test.take(slice(0, 12))
    ranked = harness.rank(bundle(tiny_bundle).fit(task.fit, {}), few, 10)
    session = Session.load(tiny_bundle)
    for row, answer in zip(
        ranked, session.recommend(few.event_lists(task.catalogue), 10), strict=True
    ):
        assert [task.catalogue.items[j] for j in row[row >= 0]] == [r.item for r in answer]


def test_new_items_are_ranked_by_their_labels(tasks: dict[str, Task]) -> None:
    """Users of the tiny data like two of four labels: of new items these tell, and nothing else
    does.
    """
    task = tasks["cold_items"]
    pytest.importorskip("implicit")
    method = METHODS["tasteloop"]
    scorer = method.fit(task.fit, _settings(method, task))

    def quality(scorer: Any) -> float:
        return harness.metrics.ndcg(harness.rank(scorer, task.test, 2), task.test.relevant).value

    chance = np.mean(
        [quality(METHODS["random"].fit(task.fit, {"seed": seed})) for seed in range(20)]
    )
    assert quality(scorer) > chance + 0.05


# --- beyond accuracy


def test_measures_beyond_accuracy_by_hand() -> None:
    ranked = np.array([[0, 1], [0, -1]])
    count = np.array([4, 1, 0, 0])
    assert beyond.coverage(ranked, 4) == 0.5
    # bits: (0 + 2) / 2, then 0
    assert beyond.novelty(ranked, count, 4) == pytest.approx((1 + 0) / 2)
    assert beyond.average_popularity(ranked, count) == pytest.approx((2.5 + 4) / 2)
    assert beyond.popularity_percentile(ranked, count) == pytest.approx(
        ((7 / 8 + 5 / 8) / 2 + 7 / 8) / 2
    )
    labels = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]])
    assert beyond.diversity(np.array([[0, 1]]), labels) == pytest.approx(1 - 1 / 3)
    assert beyond.diversity(np.array([[2, 3]]), labels) == 0
    assert beyond.diversity(np.array([[0, 0]]), labels) == 0


# --- a run


def _options(work: Path, out: Path, **more: Any) -> Options:
    shutil.copytree(work, out / "work")
    only = more.pop("only", ("random", "ease", "tasteloop", "sasrec"))
    return Options(
        out,
        protocols=("time",),
        only=only,
        seeds=(0, 1),
        behaviour=SOURCE,
        prepared=PREPARED,
        **more,
    )


def test_a_run_tells_everything_and_carries_on(
    work: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(harness, "PYTHON", tmp_path / "no python here")
    options, told = _options(work, tmp_path), []
    results = harness.run(options, told.append)
    assert results == read_json(tmp_path / "results.json")
    [protocol] = results["protocols"]
    by_name = {e["method"]: e for e in protocol["methods"]}
    assert [e["method"] for e in protocol["methods"]][-1] == "sasrec"
    assert by_name["sasrec"]["refused"] == "not run: make bench-peers"
    values = [e["metrics"]["ndcg@10"]["value"] for e in protocol["methods"][:-1]]
    assert values == sorted(values, reverse=True)
    assert (
        by_name["ease"]["metrics"]["ndcg@10"]["value"]
        > by_name["random"]["metrics"]["ndcg@10"]["value"]
    )
    assert len(by_name["random"]["by_seed"]) == 2 and len(set(by_name["random"]["by_seed"])) == 2
    assert by_name["random"]["metrics"]["ndcg@10"]["value"] == pytest.approx(
        np.mean(by_name["random"]["by_seed"])
    )
    for entry in protocol["methods"][:-1]:
        assert set(entry["metrics"]) == {f"{m}@{k}" for m in MEASURES for k in CUTOFFS}
        assert entry["fit_seconds"] >= 0 and entry["score_ms"] > 0 and entry["memory_mb"] >= 0
        assert set(entry["slices"]) == set(protocol["slices"])
    assert by_name["ease"]["ours_minus_this"]["tasteloop"]["n"] == protocol["rows"]
    page = (tmp_path / "plot.html").read_text()
    assert "<svg" in page and "tasteloop" in page and "<script" not in page
    assert "make bench-peers" in (tmp_path / "table.md").read_text()

    kept = tmp_path / "cache" / "full" / "time" / "ease-0.json"
    kept.unlink()  # as if the run had been killed there
    told.clear()
    again = harness.run(options, told.append)
    assert [line for line in told if "(kept)" not in line and "sasrec" not in line][1:] == [
        line for line in told if "ease" in line
    ]
    assert again["protocols"][0]["methods"][0]["metrics"] == protocol["methods"][0]["metrics"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"only": ("eaze",)}, "no method 'eaze'; known: main, random"),
        ({"only": ("tasteloop-bundle",)}, "--bundle DIR"),
        ({"only": ("tasteloop-encoder",)}, "--bundle DIR"),
    ],
)
def test_a_name_that_is_not_known(
    work: Path, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(TasteloopError, match=said):
        harness.run(_options(work, tmp_path, **more), lambda line: None)


def test_data_in_order_are_measured_by_their_last_acts_alone(
    work_in_order: Path, tmp_path: Path
) -> None:
    shutil.copytree(work_in_order, tmp_path / "work")
    options = Options(
        tmp_path,
        only=("popularity", "popularity-7d", "ease"),
        behaviour=SOURCE,
        prepared=PREPARED,
    )
    [protocol] = harness.run(options, lambda line: None)["protocols"]
    assert protocol["name"] == "last_out"
    # days mean nothing here
    assert {e["method"] for e in protocol["methods"]} == {"popularity", "ease"}
    assert protocol["relevant_a_row"] == 1.0 and protocol["rows"] == protocol["users"]
    with pytest.raises(TasteloopError, match=r"time does not go with .*; these do: last_out"):
        harness.run(replace(options, protocols=("time",)), lambda line: None)


def test_a_set_of_the_directory_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TASTELOOP_BENCH_DATA", raising=False)
    with pytest.raises(TasteloopError, match="games are not measured: TASTELOOP_BENCH_DATA is not"):
        locate("games")
    monkeypatch.setenv("TASTELOOP_BENCH_DATA", str(tmp_path))
    with pytest.raises(TasteloopError, match=r"Games-6k.test.inter.gz is no file"):
        locate("games")
    assert locate("ml-1m") == "ml-1m"


def _entry(
    name: str, value: float, difference: tuple[float, float, float] | None
) -> dict[str, Any]:
    d = dict(zip(("value", "low", "high"), difference, strict=True)) if difference else None
    return {
        "method": name,
        "metrics": {f"{m}@10": {"value": value, "low": value, "high": value} for m in MEASURES},
        "beyond": dict.fromkeys(
            ("coverage@10", "novelty@10", "diversity@10", "popularity_percentile@10"), 0.5
        ),
        "ours_minus_this": {"tasteloop": d} if d else {},
        "settings": {},
        "fit_seconds": 1.0,
        "score_ms": 1.0,
        "memory_mb": 1.0,
        "slices": {},
    }


def test_where_ours_loses_comes_first() -> None:
    protocol = {
        "name": "time",
        "about": "",
        "rows": 9,
        "users": 3,
        "ranked_items": 5,
        "relevant_a_row": 1.0,
        "fitted_events": 9,
        "fitted_users": 3,
        "slices": {},
        "methods": [
            _entry("better", 0.3, (-0.1, -0.15, -0.05)),
            _entry("tasteloop", 0.2, None),
            _entry("close", 0.19, (0.01, -0.02, 0.03)),
            _entry("worse", 0.1, (0.1, 0.05, 0.15)),
        ],
    }
    first, second, third = report.verdicts(protocol)
    assert first.startswith("tasteloop loses to better")
    assert second.startswith("tasteloop against close") and "chance" in second
    assert third.startswith("tasteloop is ahead of 1 methods; the nearest of them is worse")


def test_what_terms_add_is_no_loss_of_ours() -> None:
    without, all_terms = (_entry(name, 0.2, None) for name in ("tasteloop", "tasteloop-minilm"))
    d = {"value": -0.01, "low": -0.02, "high": -0.005}
    without["ours_minus_this"] = {"tasteloop-minilm": d}
    protocol = {"methods": [without, all_terms]}
    assert report.verdicts(protocol) == []
    assert report.ablations(protocol) == [
        "tasteloop-minilm minus tasteloop: -0.0100 (-0.0200 to -0.0050)"
    ]


def test_the_command_needs_a_checkout(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from pipelines.cli.app import main

    monkeypatch.setattr(
        tasteloop, "__file__", str(tmp_path / "site-packages" / "tasteloop" / "__init__.py")
    )
    monkeypatch.setattr("sys.argv", ["tasteloop", "bench", "quality", "--quick"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "from a checkout" in capsys.readouterr().err


def test_a_markov_chain_ranks_by_what_came_next_after_the_newest_item(
    tasks: dict[str, Task],
) -> None:
    """Users went 0 1, 0 1 and 0 2: after 0 comes 1 twice and 2 once."""
    past = _past_of_orders(tasks["time"], [[0, 1], [0, 1], [0, 2]])
    rows = replace(
        tasks["time"].test.take(slice(0, 1)),
        events=past.events,
        histories=[np.flatnonzero((past.events.user == 0) & (past.events.item == 0))],
    )

    scores = METHODS["markov"].fit(past, {"feedback": "all", "pseudo_events": 1}).scores(rows)[0]

    # n_0 = 3, m = 1; items 0, 1 and 2 are 3, 2 and 1 of the 6 events
    assert scores[:3] == pytest.approx([3 / 6 / 4, (2 + 2 / 6) / 4, (1 + 1 / 6) / 4], abs=1e-4)


def test_shuffling_moves_events_within_their_sittings_alone(tasks: dict[str, Task]) -> None:
    plain, shuffled = tasks["time"], tasks["shuffled"]

    for one, other in zip(plain.test.histories, shuffled.test.histories, strict=True):
        assert sorted(one) == sorted(other)
        begins = np.diff(plain.test.events.time[one]) >= 3_600_000_000
        sitting = dict(zip(one.tolist(), np.cumsum([0, *begins]).tolist(), strict=True))
        assert (np.diff([sitting[event] for event in other.tolist()]) >= 0).all()
    for row, other in zip(plain.test.relevant, shuffled.test.relevant, strict=True):
        assert row.tolist() == other.tolist()
    for feedback in ("liked", "all"):
        assert np.array_equal(plain.fit.matrix(feedback), shuffled.fit.matrix(feedback))
    assert np.array_equal(plain.fit.events.time, shuffled.fit.events.time)


def _past_of_orders(task: Task, orders: list[list[int]]) -> Past:
    """A past in which each user met these items, in this order."""
    user, item = zip(*((u, i) for u, order in enumerate(orders) for i in order), strict=True)
    count = len(user)
    events = Interactions(
        np.array(user),
        np.array(item),
        np.arange(count),
        np.ones(count, np.float32),
        np.array(["click"] * count),
        np.ones(count, np.bool_),
    )
    return Past.of(events, task.catalogue, count)
