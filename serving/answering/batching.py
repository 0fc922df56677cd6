"""One bounded queue in front of one compute thread, for all protocols.

The thread never waits for a batch to fill: it takes what is queued, oldest first, up to a bound.
A question that cannot be answered in time is refused before it is queued, and one that nobody waits
for any more is not computed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kserve.errors import ModelNotFound

from serving.answering.call import Call, abandon_nothing
from serving.answering.live import Live
from serving.answering.predictor import Predictor
from serving.journal.answered import Answered
from serving.observe import telemetry
from serving.settings import QueueSettings
from tasteloop.answers import Answer

if TYPE_CHECKING:
    from tasteloop.language.hearing import Hearing

logger = logging.getLogger(__name__)


class QueueFull(Exception):
    """Too much waits already. `retry_after` seconds from now there should be room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("the queue is full; try again after the seconds of Retry-After")
        self.retry_after = retry_after


class DeadlineExceeded(Exception):
    """The answer did not come before the request's deadline."""


class Disconnected(Exception):
    """The caller has left."""


@dataclass(eq=False)
class _Job:
    """A call in the queue.

    Attributes:
        since: `time.monotonic()` at which it was queued.
        queued: whether it still is.
    """

    call: Call
    instances: Sequence[Mapping[str, Any]]
    questions: Sequence[Mapping[str, Any]]
    future: asyncio.Future[tuple[Predictor, list[Answer]]]
    since: float
    queued: bool = True


class Batcher:
    """The queue and its thread.

    Args:
        live: which predictor answers.
        on_answer: called with every answer, but not with explanations, after the answer was handed
            over, in the compute thread. It must return at once. What it raises is logged; the
            caller does not notice it.
    """

    def __init__(
        self,
        live: Live,
        settings: QueueSettings | None = None,
        on_answer: Callable[[Answered], None] | None = None,
    ) -> None:
        self.live = live
        self.settings = settings or QueueSettings()
        self.on_answer = on_answer
        self._jobs: deque[_Job] = deque()
        self._instances = 0  # how many wait
        # seconds of computing one instance, by `Call.work`: a moving average
        self._seconds: dict[tuple[str, bool], float] = {}
        self._computing = False
        self._expected_end = 0.0  # of the batch that is computed, by time.monotonic()
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="compute", daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return not self._jobs and not self._computing

    @property
    def alive(self) -> bool:
        """Whether the compute thread runs."""
        return self._thread.is_alive()

    async def ask(
        self,
        call: Call,
        instances: Sequence[Mapping[str, Any]],
        questions: Sequence[Mapping[str, Any]],
    ) -> tuple[Predictor, list[Answer]]:
        """Queue the questions of a call and wait; returns the predictor that answered, and an
        answer for each question.

        Args:
            instances: as they came, for the journal.
            questions: the same, as `Predictor.questions` checked them.

        Raises:
            QueueFull: nothing was queued.
            DeadlineExceeded: the deadline passed; what had not begun by then is not computed.
            ModelNotFound: a swap removed the model or the version.
        """
        future = asyncio.get_running_loop().create_future()
        job = _Job(call, instances, questions, future, time.monotonic())
        self._put(job)
        call.abandon = lambda: _set(job, Disconnected())
        try:
            async with asyncio.timeout_at(call.deadline):  # the loop's clock is time.monotonic
                return await job.future
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the answer was ready") from None
        finally:
            self._leave(job)
            # Otherwise call and job would refer to each other, and keep a version that was swapped
            # out in memory until the garbage collector runs.
            call.abandon = abandon_nothing

    def close(self) -> None:
        """Answer what is queued, then end."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def admit(self, size: int = 1) -> None:
        """Check that the queue takes so many more instances. This is also called before a request
        is read.

        Raises:
            QueueFull: it does not.
        """
        with self._change:
            if not self._jobs:  # a request of any size may be the only one that waits
                return
            wait = 0.0
            for job in self._jobs:
                wait += self._seconds.get(job.call.work, 0.0) * len(job.questions)
            wait += max(0.0, self._expected_end - time.monotonic())
            if self._instances + size > self.settings.instances or wait > self.settings.wait:
                telemetry.REFUSED.inc()
                raise QueueFull(wait)

    def _put(self, job: _Job) -> None:
        size = len(job.questions)
        with self._change:
            self.admit(size)
            self._jobs.append(job)
            self._instances += size
            telemetry.QUEUED.set(self._instances)
            self._change.notify()

    def _leave(self, job: _Job) -> None:
        with self._change:
            if job.queued:
                self._jobs.remove(job)
                self._unqueue(job)

    def _unqueue(self, job: _Job) -> None:
        job.queued = False
        self._instances -= len(job.questions)
        telemetry.QUEUED.set(self._instances)

    def _work(self) -> None:
        while batch := self._take():
            self._answer(*batch)
            # A predictor that was swapped out must not stay in memory until the next request.
            del batch

    def _answer(self, predictor: Predictor, jobs: list[_Job]) -> None:
        try:
            self._compute(predictor, jobs)
        except Exception as error:
            if len(jobs) == 1:
                self._rescue(predictor, jobs[0], error)
                return
            for job in jobs:  # one request must not fail its neighbours
                try:
                    self._compute(predictor, [job])
                except Exception as job_error:
                    self._rescue(predictor, job, job_error)

    def _rescue(self, predictor: Predictor, job: _Job, error: Exception) -> None:
        """Let another predictor answer, where there is one; otherwise the call fails."""
        instead = self.live.instead(job.call, predictor, error)
        if instead is None:
            _fail(job, error)
            return
        try:
            self._compute(instead, [job])
        except Exception as second_error:
            self.live.instead(job.call, instead, second_error)
            _fail(job, second_error)

    def _take(self) -> tuple[Predictor, list[_Job]] | None:
        """Wait for a batch: the oldest call with the others that can be computed with it, and who
        answers them. None after `close`.
        """
        with self._change:
            self._computing = False
            while True:
                # 1. something is queued
                while not self._jobs:
                    if self._closed:
                        return None
                    self._change.wait()

                # 2. the oldest call that somebody waits for, and those of the same work
                now = time.monotonic()
                taken: list[_Job] = []
                chosen: Predictor | None = None
                size = 0
                for job in tuple(self._jobs):
                    predictor = self.live.pick(job.call)
                    if predictor is None or job.call.deadline <= now or job.future.done():
                        self._jobs.remove(job)
                        self._unqueue(job)
                        if predictor is None:
                            _fail(job, ModelNotFound(job.call.model))
                        continue
                    if taken and (job.call.work, predictor) != (taken[0].call.work, chosen):
                        continue
                    if taken and size + len(job.questions) > self.settings.batch:
                        break
                    chosen = predictor
                    size += len(job.questions)
                    taken.append(job)

                # 3. they leave the queue
                for job in taken:
                    self._jobs.remove(job)
                    self._unqueue(job)
                if chosen is not None:
                    seconds = self._seconds.get(taken[0].call.work, 0.0) * size
                    self._computing = True
                    self._expected_end = now + seconds
                    return chosen, taken

    def _compute(self, predictor: Predictor, jobs: list[_Job]) -> None:
        from tasteloop.language.hearing import listening
        from tasteloop.runtime.stages import measured

        # 1. the answers
        first = jobs[0].call
        model = first.model
        compute = predictor.explain if first.explain else predictor.answer
        questions = [question for job in jobs for question in job.questions]
        started = time.monotonic()
        with measured() as stages, listening() as hearing:
            answers = compute(model, questions)
        seconds = time.monotonic() - started

        # 2. the usual time of one instance; a slow batch counts as twice the usual at most, since
        # an engine that meets a new length compiles a program for it, once
        each = seconds / len(questions)
        usual = self._seconds.get(first.work, each)
        self._seconds[first.work] = 0.8 * usual + 0.2 * min(each, 2 * usual)

        # 3. each job's own answers
        results: list[tuple[_Job, list[Answer]]] = []
        start = 0
        for job in jobs:
            end = start + len(job.questions)
            job.call.answered_by = predictor.version
            job.call.timings = {**stages, "queue": started - job.since, "batch": len(questions)}
            results.append((job, answers[start:end]))
            start = end

        # 4. who waits for them, then who notes them
        waits = [started - job.since for job in jobs]
        telemetry.batch_computed(model, len(questions), stages, waits)
        _wake(jobs[0], lambda: _hand_over(predictor, results))
        if self.on_answer is not None and not first.explain:
            for job, job_answers in results:
                self._note(self.on_answer, predictor, job, job_answers, hearing)

    def _note(
        self,
        on_answer: Callable[[Answered], None],
        predictor: Predictor,
        job: _Job,
        answers: list[Answer],
        hearing: Hearing,
    ) -> None:
        call, now = job.call, time.time_ns() // 1000
        try:
            on_answer(
                Answered(
                    call.id,
                    call.model,
                    predictor.version,
                    call.protocol,
                    now,
                    job.instances,
                    answers,
                    call.timings,
                    call.headers,
                    call.users,
                    call.answer,
                    predictor.heard(call.model, job.questions, hearing),
                    [None if use is None else use.exceptions for use in call.histories],
                )
            )
        except Exception:
            logger.exception("what is told of answers failed for request %s", call.id)


def _hand_over(predictor: Predictor, results: list[tuple[_Job, list[Answer]]]) -> None:
    for job, answers in results:
        if not job.future.done():
            job.future.set_result((predictor, answers))


def _fail(job: _Job, error: Exception) -> None:
    _wake(job, lambda: _set(job, error))


def _set(job: _Job, error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)


def _wake(job: _Job, deliver: Callable[[], object]) -> None:
    try:
        job.future.get_loop().call_soon_threadsafe(deliver)
    except RuntimeError:  # the loop is closed: nobody waits any more
        logger.warning("request %s was answered after the server had stopped", job.call.id)
