"""A running rollout in one server: which calls the challenger answers, and what was observed."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from serving.answering.predictor import Predictor
from serving.journal.answered import Answered
from serving.release.background import lower_priority
from serving.release.observations import (
    Agreement,
    Observation,
    Tally,
    all_finite,
    compare_answers,
    tally_answers,
)
from serving.release.rollout import Rollout, draw
from tasteloop.answers import Answer
from tasteloop.journal import CHALLENGER

if TYPE_CHECKING:
    from serving.answering.call import Call
    from tasteloop.runtime.questions import Question

logger = logging.getLogger(__name__)

_WAITING_ANSWERS = 20_000  # that wait to be counted; older ones are dropped
_WAITING_REQUESTS = 64  # that wait for the shadow
_SPARE_SECONDS = 2.0  # that a request waits for spare time


class NotFinite(Exception):
    """A number among the answers is NaN or infinite."""


class CheckedPredictor(Predictor):
    """A predictor that fails rather than answers with NaN, so that the champion answers in its
    place.
    """

    def answer(self, model: str, questions: Sequence[Question]) -> list[Answer]:
        answers = super().answer(model, questions)
        if not all_finite(answers):
            raise NotFinite(f"an answer of {model} by version {self.version} is not finite")
        return answers


class Trial:
    """The challenger of a running rollout in this server.

    Any thread may report what happened; `drain` takes it out to be added to the rollout's state.
    """

    def __init__(self, rollout: Rollout, predictor: Predictor) -> None:
        self.id, self.share, self.shadow = rollout.id, rollout.share, rollout.shadow
        self.predictor = predictor
        self._tallies: deque[tuple[bool, Tally]] = deque(maxlen=_WAITING_ANSWERS)
        self._errors: deque[tuple[bool, bool]] = deque(maxlen=_WAITING_ANSWERS)
        self._comparisons: deque[tuple[str, Tally, Tally, Agreement]] = deque(
            maxlen=_WAITING_ANSWERS
        )
        self._offered: deque[tuple[float, Answered]] = deque()
        self._skipped = 0
        self._ended = threading.Event()
        self._wake = threading.Event()

    def takes(self, call: Call) -> bool:
        """Whether the challenger answers a call."""
        if self.shadow or call.model not in self.predictor.models:
            return False
        if call.version is not None:
            return call.version == self.predictor.version
        return bool(call.route) and draw(self.id, call.route) < self.share

    def report_answer(self, answered: Answered, role: str) -> None:
        """An answer was given. Called in the compute thread."""
        if not self.shadow:
            tally = tally_answers(answered.model, answered.outputs, answered.seconds)
            self._tallies.append((role == CHALLENGER, tally))
            return
        is_drawn = draw(self.id, answered.request_id) < self.share
        if answered.model not in self.predictor.models or not is_drawn:
            return
        if len(self._offered) < _WAITING_REQUESTS:
            self._offered.append((time.monotonic(), answered))
            self._wake.set()
        else:
            self._skipped += 1

    def report_failure(self, challenger: bool, error: Exception) -> None:
        """One of the sides failed on a call."""
        self._errors.append((challenger, isinstance(error, NotFinite)))

    def drain(self) -> Observation:
        """What was observed since the last time."""
        sides = {False: Tally(), True: Tally()}
        agreements: dict[str, Agreement] = {}
        while self._tallies:
            challenger, tally = self._tallies.popleft()
            sides[challenger] += tally
        while self._comparisons:
            model, ours, theirs, agreement = self._comparisons.popleft()
            sides[False] += ours
            sides[True] += theirs
            agreements[model] = agreements.get(model, Agreement()) + agreement
        while self._errors:
            challenger, not_finite = self._errors.popleft()
            sides[challenger] += Tally(errors=1, not_finite=int(not_finite))
        skipped, self._skipped = self._skipped, 0
        return Observation(
            champion=sides[False], challenger=sides[True], agreement=agreements, skipped=skipped
        )

    def start(self, idle: Callable[[], bool]) -> None:
        """Start the shadow's thread, where there is one.

        Args:
            idle: whether nobody waits for an answer.
        """
        if self.shadow:
            threading.Thread(
                target=self._run_shadow, args=(idle,), name="shadow", daemon=True
            ).start()

    def end(self) -> None:
        self._ended.set()
        self._wake.set()

    def _run_shadow(self, idle: Callable[[], bool]) -> None:
        """Score what was offered while nobody waits for an answer."""
        lower_priority()
        while not self._ended.is_set():
            self._wake.wait()
            self._wake.clear()
            while self._offered and not self._ended.is_set():
                since, answered = self._offered.popleft()
                while not idle() and time.monotonic() - since < _SPARE_SECONDS:
                    time.sleep(0.005)
                if idle():
                    self._score(answered)
                else:
                    self._skipped += 1

    def _score(self, answered: Answered) -> None:
        """Answer a request that the champion has answered, and compare."""
        from tasteloop.runtime.questions import with_exceptions

        started = time.monotonic()
        try:
            questions = self.predictor.questions(answered.model, list(answered.instances))
            if answered.exceptions:
                questions = with_exceptions(questions, answered.exceptions)
            answers = self.predictor.answer(answered.model, questions)
        except Exception as error:
            logger.warning("the shadow version %s failed", self.predictor.version, exc_info=error)
            self.report_failure(True, error)
            return
        theirs = tally_answers(answered.model, answers, time.monotonic() - started)
        ours = tally_answers(answered.model, answered.outputs, answered.seconds)
        agreement = compare_answers(answered.outputs, answers)
        self._comparisons.append((answered.model, ours, theirs, agreement))
