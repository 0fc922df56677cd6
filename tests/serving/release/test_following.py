"""Who answers while versions change, in one process: whole answers, and a challenger that fails
costs nobody one.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving.answering.batching import Batcher
from serving.answering.call import Call
from serving.answering.users import route
from serving.histories.service import HistoryUse
from serving.journal.reader import read_failures, read_journal
from serving.journal.writer import Journal
from serving.release.following import Following
from serving.release.rollout import Rollout, Side
from serving.release.trial import CheckedPredictor, Trial
from serving.settings import JournalSettings
from tasteloop.errors import TasteloopError
from tasteloop.language.hearing import Hearing
from tasteloop.runtime.questions import Exceptions, with_exceptions


class Session:
    """`runtime.Session` without a model: one probability for all, and moods."""

    labels = ["a"]
    digest = "d" * 64
    models = ("interests", "recommend", "sentiment")

    def __init__(self, probability: float, moody: bool = False) -> None:
        self.probability, self.moody = probability, moody

    def compute(self, model: str, questions: Sequence[Any]) -> list[dict[str, Any]]:
        texts = [question["text"] for question in questions]
        if "refuse" in texts:
            raise TasteloopError("the caller's mistake")
        if self.moody and "fail" in texts:
            raise RuntimeError("a secret of the house")
        nan = self.moody and "nan" in texts
        return [
            {"sentiment": "positive", "probability": math.nan if nan else self.probability}
            for _ in texts
        ]

    def heard(self, model: str, questions: Sequence[Any], hearing: Hearing) -> list[dict[str, Any]]:
        return []


def version(number: int, moody: bool = False) -> CheckedPredictor:
    return CheckedPredictor(Session(number / 1000, moody), str(number))  # type: ignore[arg-type]


def tried(share: float = 1.0, shadow: bool = False) -> Rollout:
    sides = {
        side: Side(version=v, digest="d" * 64)
        for side, v in (("champion", "1"), ("challenger", "2"))
    }
    return Rollout(id="r", share=share, shadow=shadow, started="2026-11-24T10:00:00+00:00", **sides)


def call(n: int = 0, text: str = "fine") -> Call:
    made = Call(f"id{n}", "v1", {}, time.monotonic() + 60, "sentiment")
    made.route = route(made.id, [{"text": f"{text} {n}"}], [])
    return made


@pytest.fixture
def live() -> Following:
    return Following(version(1))


@pytest.fixture
def batcher(live: Following) -> Iterator[Batcher]:
    batcher = Batcher(live, on_answer=live.on_answer)
    yield batcher
    batcher.close()


def ask(batcher: Batcher, calls: Sequence[tuple[Call, str]]) -> list[Any]:
    """(version, probability) or the error of each call; all at once."""

    async def one(call: Call, text: str) -> Any:
        instances = [{"text": text}]
        predictor, answers = await batcher.ask(call, instances, instances)
        return predictor.version, answers[0]["probability"]

    async def everything() -> list[Any]:
        return await asyncio.gather(*(one(*each) for each in calls), return_exceptions=True)

    found = asyncio.run(everything())
    while not batcher.idle:  # what is told of answers is told after they were handed over
        time.sleep(0.001)
    return found


@pytest.mark.parametrize("mood", ["fail", "nan"])
def test_where_the_challenger_fails_the_champion_answers(
    live: Following, batcher: Batcher, mood: str
) -> None:
    live._trial = Trial(tried(), version(2, moody=True))
    texts = ["fine", mood, "fine", "fine", mood]
    found = ask(batcher, [(call(n), text) for n, text in enumerate(texts)])
    assert found == [("1", 0.001) if text == mood else ("2", 0.002) for text in texts]
    seen = live._trial.drain()
    assert (seen.challenger.answers, seen.challenger.errors) == (3, 2)
    assert seen.challenger.not_finite == (2 if mood == "nan" else 0)
    assert (seen.champion.answers, seen.champion.errors) == (2, 0)


def test_where_the_champion_fails_nobody_answers(live: Following, batcher: Batcher) -> None:
    live.swap(version(1, moody=True))
    live._trial = Trial(tried(share=1e-9), version(2))
    found = ask(batcher, [(call(), "fail"), (call(1), "fine")])
    assert isinstance(found[0], RuntimeError)
    assert found[1] == ("1", 0.001)
    assert live._trial.drain().champion.errors == 1


def test_a_callers_mistake_is_nobodys_failure(live: Following, batcher: Batcher) -> None:
    live._trial = Trial(tried(), version(2))
    assert isinstance(ask(batcher, [(call(), "refuse")])[0], TasteloopError)
    seen = live._trial.drain()
    assert (seen.champion.errors, seen.challenger.errors) == (0, 0)


def test_who_names_a_version_gets_it_or_its_failure(live: Following, batcher: Batcher) -> None:
    live._trial = Trial(tried(share=1e-9), version(2, moody=True))
    named = [call(n) for n in range(3)]
    for one, number in zip(named, ("1", "2", "2"), strict=True):
        one.version = number
    found = ask(batcher, list(zip(named, ("fine", "fine", "fail"), strict=True)))
    assert found[:2] == [("1", 0.001), ("2", 0.002)]
    assert isinstance(found[2], RuntimeError)


def test_a_shadow_answers_nobody_and_is_scored_in_spare_time(
    live: Following, batcher: Batcher
) -> None:
    trial = live._trial = Trial(tried(shadow=True), version(2, moody=True))
    trial.start(lambda: batcher.idle)
    texts = ["fine"] * 5 + ["fail", "nan"]
    assert ask(batcher, [(call(n), text) for n, text in enumerate(texts)]) == [("1", 0.001)] * 7
    seen, deadline = trial.drain(), time.monotonic() + 30
    while seen.challenger.answers + seen.challenger.errors < 7:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        seen += trial.drain()
    trial.end()
    assert (seen.challenger.answers, seen.challenger.errors, seen.challenger.not_finite) == (
        5,
        2,
        1,
    )
    assert (seen.champion.answers, seen.skipped) == (5, 0)
    assert seen.agreement["sentiment"].compared == 5
    assert seen.agreement["sentiment"].distance == pytest.approx(5 * 0.001)
    assert live.serving == (live.current,)


def test_a_shadow_leaves_out_what_the_stored_history_says(
    live: Following, batcher: Batcher
) -> None:
    class Recommends(Session):
        def compute(self, model: str, questions: Sequence[Any]) -> list[dict[str, Any]]:
            asked.extend(questions)
            entry = {"item": "1", "title": "One", "score": 0.5, "reasons": []}
            return [{"recommendations": [entry]} for _ in questions]

    asked: list[Any] = []
    trial = live._trial = Trial(
        tried(shadow=True),
        CheckedPredictor(Recommends(0.5), "2"),  # type: ignore[arg-type]
    )
    live.swap(CheckedPredictor(Recommends(0.5), "1"))  # type: ignore[arg-type]
    exceptions = Exceptions(left_out=frozenset({"7"}))
    one = call()
    one.model, one.histories = "recommend", [HistoryUse(0, 3, exceptions), None]
    instances = [{"events": []}] * 2
    questions = with_exceptions(live.current.questions("recommend", instances), [exceptions, None])

    asyncio.run(batcher.ask(one, instances, questions))
    trial.start(lambda: True)
    deadline = time.monotonic() + 30
    while len(asked) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    trial.end()

    assert asked[:2] == asked[2:] == questions


def test_a_busy_server_has_no_time_for_the_shadow(
    live: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.release.trial._SPARE_SECONDS", 0.05)
    trial = live._trial = Trial(tried(shadow=True), version(2))
    trial.start(lambda: False)
    batcher = Batcher(live, on_answer=live.on_answer)
    ask(batcher, [(call(n), "fine") for n in range(3)])
    batcher.close()
    skipped, deadline = 0, time.monotonic() + 30
    while skipped < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        skipped += trial.drain().skipped
    trial.end()
    assert trial.drain().challenger.answers == 0


def test_a_thousand_swaps_between_many_calls_mix_nothing(
    live: Following, batcher: Batcher, tmp_path: Path
) -> None:
    live.journal = Journal(JournalSettings(directory=tmp_path, bound=10_000, seconds=0.1))
    versions = [version(number) for number in range(1, 6)]
    stop = threading.Event()
    swapped = 0

    def swap() -> None:
        nonlocal swapped
        while not stop.is_set():
            live.swap(versions[swapped % 5])
            swapped += 1
            time.sleep(0)

    thread = threading.Thread(target=swap)
    thread.start()
    found: list[Any] = []
    while swapped < 1000 or len(found) < 400:
        found += ask(batcher, [(call(n), "fine") for n in range(40)])
    stop.set()
    thread.join()
    assert all(probability == int(answered) / 1000 for answered, probability in found)
    assert len({answered for answered, _ in found}) > 1
    live.journal.close()
    rows = read_journal(tmp_path)
    assert rows.height == len(found)
    for row in rows.iter_rows(named=True):
        assert row["numbers"] == pytest.approx([int(row["version"]) / 1000])


def test_roles(live: Following, batcher: Batcher, tmp_path: Path) -> None:
    live.journal = Journal(JournalSettings(directory=tmp_path))
    live._trial = Trial(tried(share=0.5), version(2))
    found = ask(batcher, [(call(n), "fine") for n in range(40)])
    live.journal.close()
    roles = {"1": "champion", "2": "challenger"}
    assert {answered for answered, _ in found} == {"1", "2"}
    by_request = dict(
        zip((f"id{n}" for n in range(40)), (roles[answered] for answered, _ in found), strict=True)
    )
    assert {row["request"]: row["role"] for row in read_journal(tmp_path).to_dicts()} == by_request


def test_a_failure_is_in_the_journal_under_the_version_that_failed(
    live: Following, batcher: Batcher, tmp_path: Path
) -> None:
    live.journal = Journal(JournalSettings(directory=tmp_path))
    live._trial = Trial(tried(share=1e-9), version(2, moody=True))
    named = [call(n) for n in range(3)]
    for one, number in zip(named, ("1", "2", "2"), strict=True):
        one.version = number
    # the last is the caller's mistake
    ask(batcher, list(zip(named, ("fine", "fail", "refuse"), strict=True)))
    live.journal.close()
    failed = read_failures(tmp_path, 0, 2**62)
    assert failed.select("request", "model", "version").rows() == [("id1", "sentiment", "2")]
    assert read_journal(tmp_path)["request"].to_list() == ["id0"]
