"""The replay's world, its shifts, and what is made of the monitor's answers."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.loop.run import summary
from pipelines.settings import load_settings
from pipelines.simulation.champion import (
    TALKING,
    load_simulation_settings,
    overrides_of,
    usual_weeks,
)
from pipelines.simulation.conclusions import WeekRecord, judge
from pipelines.simulation.homes import begin_home, use_home
from pipelines.simulation.quality import question_points
from pipelines.simulation.replay import DAY, Replay, add_searches, place_in_week
from pipelines.simulation.shifts import SHIFTS, Options
from pipelines.simulation.simulator import run_weeks
from pipelines.simulation.words import LACKING
from pipelines.simulation.world import LONGEST_BREAK, Life, World
from serving.journal.reader import read_journal
from serving.release.database import tracking_uri
from tasteloop.behaviour.events import EVENTS_SCHEMA, Event
from tasteloop.errors import TasteloopError
from tasteloop.evaluation.understanding.testing_phrases import TESTING
from tasteloop.files import read_json, read_parquet
from tasteloop.language.phrases import normalise
from tasteloop.language.training_phrases import TRAINING
from tasteloop.metrics import wilson
from tests.support.champions import promote
from validation.monitor.reference import keep_reference
from validation.monitor.windows import HOUR, WEEK

KEY = b"a key of the tests"


@pytest.fixture(scope="module")
def tables(tiny_dataset: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tiny data set, every fifth film of it new, one user's breaks long."""
    events, items = (
        read_parquet(tiny_dataset / "events.parquet"),
        read_parquet(tiny_dataset / "items.parquet"),
    )
    released = [date(1997, 6, 1) if n % 5 == 0 else date(1990, 1, 1) for n in range(items.height)]
    first = events["user"].min()
    times = (
        pl.when(pl.col("user") == first)
        .then(pl.col("time").min() + pl.int_range(pl.len()) * DAY)
        .otherwise("time")
    )
    return events.with_columns(times.over("user").alias("time")), items.with_columns(
        pl.Series("released", released)
    )


@pytest.fixture(scope="module")
def world(tables: tuple[pl.DataFrame, pl.DataFrame]) -> World:
    return World.of(*tables)


def replay(world: World, shift: str, **more: Any) -> Replay:
    return Replay(world, Options(shift, **{"visitors": 30, **more}))


def events_of(some: Replay, week: int) -> pl.DataFrame:
    return some.arrivals(some.visits(week), week, KEY)


def test_a_life_keeps_its_events_and_fits_a_week(
    world: World, tables: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    lives = [life for part in world.lives.values() for life in part]
    lengths = sorted(Counter((e.item, e.value) for e in life).total() for life in lives)
    assert lengths == sorted(tables[0].group_by("user").len()["len"])
    for life in lives:
        times = [event.time or 0 for event in life]
        assert times[0] == 0 and times[-1] < WEEK
        assert all(0 <= b - a <= LONGEST_BREAK for a, b in zip(times, times[1:], strict=False))
    assert max(life[-1].time or 0 for life in lives) == 29 * LONGEST_BREAK  # the breaks of a day


def test_a_life_is_in_one_part_whatever_its_pseudonym(
    world: World, tables: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    events, items = tables
    renamed = World.of(events.with_columns(pl.col("user").str.reverse()), items)
    assert renamed.lives == world.lives
    parts = [set(lives) for lives in world.lives.values()]
    assert all(parts) and sum(map(len, parts)) == len(set.union(*parts)) == 60


def test_a_week_is_decided_by_its_seed_and_lies_within_itself(world: World) -> None:
    for week in (0, 3):
        some = replay(world, "stationary")
        visits = some.visits(week)
        assert (
            visits
            == replay(world, "stationary").visits(week)
            != replay(world, "stationary", seed=1).visits(week)
        )
        begin = some.begin + week * WEEK
        assert all(begin <= (e.time or 0) < begin + WEEK for v in visits for e in v.events)
        assert len({visit.user for visit in visits}) == len(visits) == 30
    frames = [events_of(replay(world, "stationary"), week) for week in (0, 1)]
    # whoever comes again is another user
    assert not set(frames[0]["user"]) & set(frames[1]["user"])
    assert not any(event.item in world.new for visit in visits for event in visit.events)


def test_whoever_searches_goes_on_to_a_film_of_that_name() -> None:
    life: Life = tuple(Event("rate", f"i{n}", n * HOUR, 1.0) for n in range(200))
    titles = {f"i{n}": f"Title {n} of many words" for n in range(200)}
    lived = add_searches(life, titles, np.random.default_rng(0))
    assert tuple(e for e in lived if e.kind == "rate") == life
    searches = [(a, b) for a, b in zip(lived, lived[1:], strict=False) if a.kind == "search"]
    assert 1 <= len(searches) < 40
    for search, then in searches:
        assert (
            search.text and search.text in titles[then.item or ""].lower() and search.item is None
        )
        assert 0 < (then.time or 0) - (search.time or 0) <= 1_000_000


def test_tastes_change_places_one_to_one_and_turn_to_rare_labels(world: World) -> None:
    old = set(world.items["item"]) - world.new
    assert set(world.tastes) == set(world.tastes.values()) == old
    before, after = (replay(world, "taste-change", start=start).visits(2) for start in (3, 2))
    assert [len(visit.events) for visit in before] == [len(visit.events) for visit in after]
    for a, b in zip(before, after, strict=True):
        pairs = [
            (x.item, y.item) for x, y in zip(a.events, b.events, strict=True) if x.item and y.item
        ]
        assert pairs and all(world.tastes[x] == y for x, y in pairs)


@pytest.mark.parametrize("shift", SHIFTS)
def test_nothing_is_shifted_before_the_shift(world: World, shift: str) -> None:
    if shift == "seasonal":
        pytest.skip("the season is always there")
    unchanged = "words" if SHIFTS[shift].talks else "stationary"
    usual, some = replay(world, unchanged), replay(world, shift)
    columns = pl.exclude("user")  # pseudonyms are the replay's own
    assert events_of(some, 1).select(columns).equals(events_of(usual, 1).select(columns))
    if shift != unchanged:
        assert not events_of(some, 2).select(columns).equals(events_of(usual, 2).select(columns))


def test_shifts_are_what_they_say(world: World) -> None:
    usual = events_of(replay(world, "stationary"), 2)
    new = events_of(replay(world, "new-catalogue"), 2)
    assert set(new["item"]) & world.new and not set(usual["item"]) & world.new
    assert (
        replay(world, "new-catalogue").catalogue(2) is not None
        and replay(world, "new-catalogue").catalogue(1) is None
    )
    few = events_of(replay(world, "new-catalogue", severity=0.3), 2)
    share = [frame["item"].is_in(list(world.new)).mean() for frame in (few, new)]
    assert 0 < share[0] < share[1]
    for seed, column in ((0, "value"), (1, "item")):
        broken, whole = (
            events_of(replay(world, shift, seed=seed), 2)
            for shift in ("broken-field", "stationary")
        )
        lost = (
            broken.filter(whole[column].is_not_null())[column].null_count() / whole[column].count()
        )
        assert 0.4 < lost < 0.6
    bots = events_of(replay(world, "bots"), 2)
    busiest = bots.group_by("user").len()["len"].sort(descending=True)
    assert list(busiest[:2]) == [4 * world.busiest] * 2 and busiest[2] <= 2 * world.busiest
    texts = "".join(events_of(replay(world, "language"), 2)["text"].drop_nulls())
    assert not any("a" <= letter <= "z" for letter in texts)


def texts_by_kind(some: Replay, week: int) -> dict[str, pl.DataFrame]:
    written = events_of(some, week).filter(pl.col("text").is_not_null())
    return {str(kind): rows for (kind,), rows in written.group_by("kind")}


def is_for(frame: pl.DataFrame) -> list[bool]:
    return [value >= 0.7 for value in frame["value"]]


def test_visitors_who_talk_search_in_words_and_say_what_they_rate(world: World) -> None:
    usual = texts_by_kind(replay(world, "words"), 1)
    quiet = events_of(replay(world, "stationary"), 1)

    assert set(usual) == {"search", "review"}
    # the same acts, and only some of them say it in words
    columns = ["item", "value"]
    assert events_of(replay(world, "words"), 1).select(columns).equals(quiet.select(columns))
    titles = " ".join(world.titles.values()).lower()
    in_words = [text for text in usual["search"]["text"] if text not in titles]
    assert 0.4 < len(in_words) / usual["search"].height < 0.9
    loved = {*TRAINING["en"].loves, *TRAINING["en"].praise}
    assert [text in loved for text in usual["review"]["text"]] == is_for(usual["review"])
    assert usual["review"]["value"].is_between(0.4, 0.69).sum() == 0
    assert usual["review"]["user"].n_unique() > 20


def test_what_the_catalogue_lacks_is_asked_for_by_the_share_that_is_hit(world: World) -> None:
    def share(severity: float) -> float:
        found = texts_by_kind(replay(world, "new-wishes", severity=severity), 2)["search"]["text"]
        return float(np.mean([any(thing in text for thing in LACKING) for text in found]))

    assert share(1.0) == 1 and 0.3 < share(0.6) < 0.9 and share(1e-9) == 0
    tested = {normalise(phrase) for phrases in TESTING.values() for phrase in phrases.all()}
    assert not tested & set(map(normalise, LACKING))


def test_irony_says_the_opposite_of_the_value_in_as_many_words(world: World) -> None:
    usual, ironic = (
        texts_by_kind(replay(world, shift, **more), 2)["review"]
        for shift, more in (("words", {}), ("irony", {"severity": 1.0}))
    )

    assert ironic.select("item", "value").equals(usual.select("item", "value"))
    loved = {*TRAINING["en"].loves, *TRAINING["en"].praise}
    assert [text not in loved for text in ironic["text"]] == is_for(ironic)


def test_champions_are_shared_by_simulations_with_the_same_usual_weeks() -> None:
    assert usual_weeks(Options("irony", 3)) == usual_weeks(Options("new-wishes", 4, severity=0.2))
    assert usual_weeks(Options("bots")) == usual_weeks(Options()) != usual_weeks(Options("words"))
    assert usual_weeks(Options("seasonal", 2, severity=0.4)) == Options("seasonal", severity=0.4)
    assert set(TALKING) <= set(overrides_of(Options("irony"), ("a.b=1",)))
    assert overrides_of(Options("bots"), ("a.b=1",)) == ("a.b=1",)
    talking = load_simulation_settings(Path("data"), overrides_of(Options("irony")))
    assert talking.ingest.reviews == ("rotten-tomatoes", "statements")


def test_what_is_delayed_arrives_late_twice_and_whole(world: World) -> None:
    late, usual = (
        events_of(replay(world, "delayed-labels"), 2),
        events_of(replay(world, "stationary"), 2),
    )
    columns = [name for name in EVENTS_SCHEMA if name != "user"]
    assert late.height > usual.height
    assert (
        late.select(columns)
        .unique()
        .sort(columns)
        .equals(usual.select(columns).unique().sort(columns))
    )
    behind = late["arrives"] - late["time"]
    assert behind.min() == 0 and HOUR < behind.max() <= 2 * DAY + HOUR
    assert not late["arrives"].is_sorted()
    assert (usual["arrives"] == usual["time"]).all()


def test_a_season_comes_back(world: World) -> None:
    some = replay(world, "seasonal", visitors=40, severity=0.5)
    sizes = [len(some.visits(week)) for week in range(8)]
    assert sizes[:4] == sizes[4:] and max(sizes) == 60 and min(sizes) == 20
    assert not any(some.is_shifted(week) for week in range(8))


def test_questions_are_asked_where_something_follows() -> None:
    settings = load_settings("smoke")
    # two events an instant
    life: Life = tuple(Event("rate", f"i{n}", (n // 2) * HOUR, 1.0) for n in range(20))
    cuts = question_points(life, settings)
    assert cuts == [2, 4, 6, 8]  # 1, 3 and 5 part an instant; after 18 too little follows
    assert question_points(tuple(replace(event, value=0.0) for event in life), settings) == []


def test_a_visit_moves_as_a_whole() -> None:
    life = (Event("rate", "i", 0, 1.0), Event("rate", "j", WEEK - 2, 1.0))
    visit = place_in_week("u", life, 10 * WEEK, np.random.default_rng(0))
    assert [event.time for event in visit.events] == [10 * WEEK + 1, 11 * WEEK - 1]


def passes(*outcomes: str, start: int = 2, result: str | None = None) -> list[WeekRecord]:
    return [
        WeekRecord(
            week=week,
            shifted=week >= start,
            outcome=outcome,
            acted=outcome in ("retrain", "alert-human"),
            result=result if outcome == "retrain" else None,
        )
        for week, outcome in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("shift", "outcomes", "result", "detected", "failures"),
    [
        ("stationary", ("healthy", "watch", "healthy"), None, None, []),
        ("seasonal", ("healthy", "retrain", "alert-human"), "failed", None, ["2 false triggers"]),
        ("taste-change", ("healthy", "watch", "watch", "retrain", "watch"), "promoted", 2, []),
        (
            "taste-change",
            ("healthy", "watch", "watch", "retrain"),
            "rejected",
            2,
            ["no retrained model"],
        ),
        (
            "taste-change",
            ("healthy", "watch", "watch", "watch", "retrain"),
            "promoted",
            3,
            ["not detected"],
        ),
        ("taste-change", ("healthy", "retrain", "retrain"), "promoted", 1, ["1 false triggers"]),
        (
            "taste-change",
            ("healthy", "healthy", "alert-human"),
            None,
            1,
            ["the first answer", "no retrained model"],
        ),
        ("bots", ("healthy", "healthy", "alert-human", "alert-human"), None, 1, []),
        (
            "broken-field",
            ("healthy", "healthy", "alert-human", "retrain"),
            "promoted",
            1,
            ["retrained 1 times"],
        ),
        ("language", ("healthy", "healthy", "watch", "watch"), None, None, ["not detected"]),
    ],
)
def test_what_was_expected_is_held_against_what_was_done(
    shift: str,
    outcomes: tuple[str, ...],
    result: str | None,
    detected: int | None,
    failures: list[str],
) -> None:
    start = 99 if SHIFTS[shift].expected == "nothing" else 2

    conclusion = judge(passes(*outcomes, start=start, result=result), SHIFTS[shift], Options(shift))

    assert conclusion.detected_after == detected
    assert len(conclusion.failures) == len(failures) and conclusion.met == (not failures)
    assert all(
        words in failure for words, failure in zip(failures, conclusion.failures, strict=True)
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shift": "weather"}, "known: stationary"),
        ({"weeks": 2, "start": 2}, "starts before the last"),
        ({"visitors": 0}, "1 or more"),
        ({"severity": 0.0}, "above 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TasteloopError, match=words):
        Options(**options)


def test_a_home_that_is_no_simulation_is_left_alone(tmp_path: Path) -> None:
    base, home = tmp_path / "base", tmp_path / "home"
    for place in (base, home):
        place.mkdir()
        (place / "pseudonym.key").write_text("mine")
    with pytest.raises(TasteloopError, match="is no simulation's"):
        begin_home(base, home)
    assert [path.name for path in home.iterdir()] == ["pseudonym.key"]
    (base / "pipeline").mkdir()
    for _ in range(2):  # the second takes the place of the first
        begin_home(base, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "pseudonym.key",
        "simulation.json",
    ]


def test_a_simulation_sees_no_registry_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    monkeypatch.setenv("TASTELOOP_HOME", "before")
    with use_home(tmp_path / "own"):
        assert tracking_uri() == f"sqlite:///{tmp_path / 'own' / 'mlflow.db'}"
    assert (os.environ["MLFLOW_TRACKING_URI"], os.environ["TASTELOOP_HOME"]) == (
        "http://elsewhere",
        "before",
    )


@pytest.mark.timeout(600)
def test_the_monitor_is_driven_through_the_weeks(
    world: World, tiny_bundle: Path, tiny_snapshots: Path, tmp_path: Path
) -> None:
    settings = load_settings(
        "smoke", ["watch.windows.hours=168", "watch.drift.draws=199", "watch.drift.texts=60"]
    )
    options = Options("broken-field", weeks=2, start=1, visitors=40, serve=False, retrain=False)
    with use_home(tmp_path / "home"):
        promote(tiny_bundle, tmp_path)
        keep_reference(tiny_bundle, tiny_snapshots, settings.watch)
    lines: list[str] = []

    result = run_weeks(Replay(world, options), settings, tmp_path / "home", lines.append)

    assert result.met, result.conclusion.failures
    record = result.json()
    assert read_json(tmp_path / "home" / "simulation.json") == record
    assert [w["shifted"] for w in record["windows"]] == [False, True] and len(lines) == 2
    assert record["windows"][1]["outcome"] == "alert-human"
    assert "ratings without a value" in lines[1]
    answers = read_journal(tmp_path / "home" / "journal")
    assert set(answers["model"]) == {"interests", "recommend"} and answers["user"].null_count() == 0
    (first, second) = sorted((tmp_path / "home" / "monitor" / "windows").iterdir())
    for place in (first, second):
        report = read_json(place / "report.json")
        assert (
            report["answers"]["recommend"] == report["answers"]["interests"] > 40
            and report["mature"] > 0
        )
    measured = {f["measure"]: f["n"] for f in read_json(first / "report.json")["findings"]}
    assert measured["prediction.items"] > 0 and measured["quality.ndcg@10"] > 0
    clicks = (
        answers.filter(pl.col("feedback").list.len() > 0)
        .explode("feedback")
        .unnest("feedback", separator=".")
    )
    assert clicks.height and all(
        item in names for names, item in clicks.select("names", "feedback.item").rows()
    )
    assert (clicks["feedback.time"] > clicks["latest"]).all()


def test_intervals_of_shares() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(0, 120)
    # Wilson's score interval, as tables have it
    assert low == 0.0 and high == pytest.approx(0.0310, abs=1e-4)
    assert wilson(19, 20) == (pytest.approx(0.7639, abs=1e-4), pytest.approx(0.9911, abs=1e-4))


def test_results_of_seeds_are_counted() -> None:
    shift = SHIFTS["bots"]
    seeds = [("healthy", "healthy", "alert-human"), ("retrain", "healthy", "healthy")]
    results = [
        {
            "shift": "bots",
            "severity": 4.0,
            "quality": {},
            "seconds": 2.0,
            **judge(passes(*outcomes), shift, Options("bots")).json(),
        }
        for outcomes in seeds
    ]
    (row,) = summary(results)
    assert (row["seeds"], row["met"], row["false_triggers"], row["clean_windows"]) == (2, 1, 1, 4)
    assert (row["detected"], row["alerts"], row["retrained"]) == (1, 1, 0)
