"""The laws of the queue: it never waits for a batch, never loses a call, and computes for nobody
who left.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from kserve.errors import ModelNotFound

from serving.answering.batching import Answered, Batcher, DeadlineExceeded, Disconnected, QueueFull
from serving.answering.call import Call
from serving.answering.live import Live
from serving.answering.predictor import Predictor
from serving.settings import QueueSettings
from tasteloop.language.hearing import Hearing


class Session:
    """Answers with the text itself, and holds the thread at the text "hold" until `go` is set."""

    digest = "d" * 64
    models = ("interests", "recommend", "sentiment")

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.held, self.go = threading.Event(), threading.Event()

    def compute(self, model: str, questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        texts = [question["text"] for question in questions]
        self.batches.append(texts)
        if "hold" in texts:
            self.held.set()
            assert self.go.wait(30)
        if "bad" in texts:
            raise RuntimeError("a secret of the house")
        return [{"sentiment": text} for text in texts]

    def heard(
        self, model: str, questions: Sequence[dict[str, Any]], hearing: Hearing
    ) -> list[dict[str, Any]]:
        assert isinstance(hearing, Hearing)
        return [{"searches": len(question["text"])} for question in questions]


def call(model: str = "sentiment", seconds: float = 30, version: str | None = None) -> Call:
    return Call("id", "v1", {}, time.monotonic() + seconds, model, version)


class House:
    """A batcher over `Session`, for the length of a test."""

    def __init__(self, **settings: Any) -> None:
        self.session = Session()
        self.live = Live(Predictor(self.session, "1"))  # type: ignore[arg-type]
        self.answered: list[Answered] = []
        self.batcher = Batcher(self.live, QueueSettings(**settings), self.answered.append)

    async def ask(self, *texts: str, **options: Any) -> tuple[str, list[str]]:
        return await self.send(call(**options), *texts)

    async def send(self, request: Call, *texts: str) -> tuple[str, list[str]]:
        instances = [{"text": text} for text in texts]
        predictor, answers = await self.batcher.ask(request, instances, instances)
        return predictor.version, [answer["sentiment"] for answer in answers]

    async def hold(self) -> asyncio.Task[Any]:
        """The thread is busy from now on, until `go`."""
        held = asyncio.create_task(self.ask("hold"))
        assert await asyncio.to_thread(self.session.held.wait, 30)
        return held

    def go(self) -> None:
        self.session.go.set()


def run(work: Callable[[House], Coroutine[Any, Any, None]], **settings: Any) -> House:
    house = House(**settings)

    async def inside() -> None:
        async with asyncio.timeout(60):
            await work(house)

    try:
        asyncio.run(inside())
    finally:
        house.go()
        house.batcher.close()
    return house


async def queued(house: House, *texts: str, **options: Any) -> asyncio.Task[Any]:
    """A call that is in the queue, since the thread is held."""
    task = asyncio.create_task(house.ask(*texts, **options))
    await asyncio.sleep(0)
    return task


def test_one_call_is_not_made_to_wait_for_others() -> None:
    async def work(house: House) -> None:
        assert await house.ask("a", "b") == ("1", ["a", "b"])

    assert run(work).session.batches == [["a", "b"]]


def test_what_is_queued_is_taken_together_up_to_the_bound_and_in_order() -> None:
    async def work(house: House) -> None:
        held = await house.hold()
        tasks = [await queued(house, *texts) for texts in (["a"], ["b", "c"], ["d"], ["e"])]
        house.go()
        assert [answers for _, answers in await asyncio.gather(held, *tasks)] == [
            ["hold"],
            ["a"],
            ["b", "c"],
            ["d"],
            ["e"],
        ]

    assert run(work, batch=3).session.batches == [["hold"], ["a", "b", "c"], ["d", "e"]]


def test_a_call_larger_than_a_batch_is_one() -> None:
    async def work(house: House) -> None:
        assert await house.ask(*"abcd") == ("1", list("abcd"))

    assert run(work, batch=2).session.batches == [list("abcd")]


def test_a_full_queue_refuses_and_an_idle_thread_never_does() -> None:
    async def work(house: House) -> None:
        assert await house.ask(*"abcde") == ("1", list("abcde"))
        held = await house.hold()
        tasks = [await queued(house, "a"), await queued(house, "b")]
        with pytest.raises(QueueFull):
            await house.ask("c")
        house.go()
        await asyncio.gather(held, *tasks)
        assert await house.ask("d") == ("1", ["d"])

    assert run(work, instances=2).session.batches[-1] == ["d"]


def test_a_queue_that_would_take_too_long_refuses_and_says_when_to_come_back() -> None:
    async def work(house: House) -> None:
        house.batcher._seconds["sentiment", False] = 5.0
        held = await house.hold()
        task = await queued(house, "a")
        with pytest.raises(QueueFull) as caught:
            await house.ask("b")
        # what is computed, then what waits
        assert caught.value.retry_after == pytest.approx(10.0, abs=1)
        with pytest.raises(QueueFull):
            house.batcher.admit()  # as every request is asked before it is read
        house.go()
        await asyncio.gather(held, task)
        house.batcher.admit()

    run(work, wait=4.0)


def test_a_call_whose_deadline_passes_in_the_queue_is_not_computed() -> None:
    async def work(house: House) -> None:
        held = await house.hold()
        with pytest.raises(DeadlineExceeded):
            await house.ask("late", seconds=0.05)
        house.go()
        await held
        assert await house.ask("after") == ("1", ["after"])

    assert run(work).session.batches == [["hold"], ["after"]]


@pytest.mark.parametrize("how", ["abandoned", "cancelled"])
def test_a_caller_who_left_is_not_computed_for(how: str) -> None:
    async def work(house: House) -> None:
        held = await house.hold()
        abandoned = call()
        task = asyncio.create_task(house.send(abandoned, "gone"))
        await asyncio.sleep(0)
        if how == "abandoned":
            abandoned.abandon()
        else:
            task.cancel()
        with pytest.raises((Disconnected, asyncio.CancelledError)):
            await task
        house.go()
        await held
        await house.ask("after")

    house = run(work)
    assert house.session.batches == [["hold"], ["after"]]
    assert [answered.instances for answered in house.answered] == [
        [{"text": "hold"}],
        [{"text": "after"}],
    ]


def test_a_call_that_fails_does_not_fail_its_neighbours() -> None:
    async def work(house: House) -> None:
        held = await house.hold()
        tasks = [await queued(house, text) for text in ("a", "bad", "b")]
        house.go()
        first, bad, last = await asyncio.gather(*tasks, return_exceptions=True)
        assert (first, last) == (("1", ["a"]), ("1", ["b"]))
        assert isinstance(bad, RuntimeError)
        await held

    run(work)


def test_a_swap_is_between_batches_and_everyone_is_told_who_answered() -> None:
    async def work(house: House) -> None:
        held = await house.hold()
        waiting = await queued(house, "a", "b")
        pinned = await queued(house, "c", version="1")
        new = Session()
        before = house.live.swap(Predictor(new, "2"))  # type: ignore[arg-type]
        assert before.version == "1"
        house.go()
        assert await held == ("1", ["hold"])  # it was begun before the swap
        assert await waiting == ("2", ["a", "b"])
        with pytest.raises(ModelNotFound):
            await pinned
        assert new.batches == [["a", "b"]]

    house = run(work)
    assert [(answered.version, len(answered.outputs)) for answered in house.answered] == [
        ("1", 1),
        ("2", 2),
    ]


def test_a_version_that_was_swapped_out_is_not_kept_by_the_calls_it_answered() -> None:
    async def work(house: House) -> None:
        before = weakref.ref(house.live.current)
        finished = call()
        assert await house.send(finished, "a") == ("1", ["a"])
        finished.abandon()  # the caller leaves after the answer: nothing to do
        del finished
        house.live.swap(Predictor(house.session, "2"))  # type: ignore[arg-type]
        assert await house.ask("b") == ("2", ["b"])
        assert before() is None

    gc.disable()  # what only gc would find stays for thousands of requests: gigabytes, with a model
    try:
        run(work)
    finally:
        gc.enable()


def test_models_are_not_mixed_and_none_starves() -> None:
    async def work(house: House) -> None:
        held = await house.hold()
        tasks = [
            await queued(house, text, model=model)
            for text, model in zip("abcd", MODELS, strict=True)
        ]
        house.go()
        await asyncio.gather(held, *tasks)

    MODELS = ("sentiment", "interests", "sentiment", "interests")
    assert run(work).session.batches == [["hold"], ["a", "c"], ["b", "d"]]


def test_closing_answers_what_is_queued() -> None:
    async def work(house: House) -> None:
        held = await house.hold()
        task = await queued(house, "a")
        closing = asyncio.create_task(asyncio.to_thread(house.batcher.close))
        await asyncio.sleep(0)
        house.go()
        await closing
        assert await asyncio.gather(held, task) == [("1", ["hold"]), ("1", ["a"])]
        assert not house.batcher.alive

    run(work)


def test_the_journal_hears_what_was_understood_of_each_call_s_own_words() -> None:
    async def work(house: House) -> None:
        await house.hold()
        tasks = [await queued(house, *texts) for texts in (("a", "bb"), ("ccc",))]
        house.go()
        await asyncio.gather(*tasks)

    house = run(work)

    assert house.session.batches[-1] == ["a", "bb", "ccc"]  # one batch
    heard = [[each["searches"] for each in answered.heard] for answered in house.answered]
    assert heard == [[4], [1, 2], [3]]


def test_the_journal_cannot_fail_a_call() -> None:
    def fails(_: Answered) -> None:
        raise RuntimeError("the disk is full")

    async def work(house: House) -> None:
        house.batcher.on_answer = fails
        assert await house.ask("a") == ("1", ["a"])
        assert await house.ask("b") == ("1", ["b"])

    run(work)


def test_many_callers_get_their_own_answers() -> None:
    async def work(house: House) -> None:
        questions = [[f"{n}-{m}" for m in range(n % 4 + 1)] for n in range(300)]
        answers = await asyncio.gather(*(house.ask(*texts) for texts in questions))
        assert [answer for _, answer in answers] == questions

    house = run(work, instances=10_000)
    assert sum(map(len, house.session.batches)) == sum(n % 4 + 1 for n in range(300))
    assert max(map(len, house.session.batches)) <= 32
