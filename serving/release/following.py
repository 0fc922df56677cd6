"""A server that follows the registry: the champion is swapped in under load, a challenger is tried
beside it.

One thread of low priority looks for a new champion and for a rollout, loads, compares the golden
answers and swaps. It never touches a request: what answers is `Live.pick`'s one reference. Whatever
fails leaves the version that answers where it is, and is told by `status`, the log and the metrics.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter, Gauge

from serving.answering.live import Live
from serving.answering.predictor import Predictor, Question
from serving.answering.tensors import Answer
from serving.journal.writer import CHALLENGER, CHAMPION, Answered, Journal, now
from serving.release import bundles, registry
from serving.release import rollout as canary
from serving.release.rollout import Agreement, Observed, Rollout, Tally, agreement, finite, tally
from serving.release.database import address, change_stamp
from serving.release.last_versions import note_served, served_version
from serving.release.rehearsal import check
from serving.release.versions import VersionId
from serving.settings import Limits
from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    from serving.answering.call import Call

logger = logging.getLogger(__name__)

SWAPS = Counter(
    "tasteloop_swaps", "Versions that were to be swapped in, by what became of it", ("outcome",)
)
AWAY = Gauge(
    "tasteloop_registry_away",
    "1 while the registry that is followed does not say which version is live",
)
CHALLENGED = Counter(
    "tasteloop_challenger_failures", "Calls that the champion answered in the challenger's place"
)

INTERVAL = 0.5  # seconds between looks at the local registry, which cost a file's `stat`
REMOTE_INTERVAL = 30.0  # seconds between questions to a registry elsewhere
_AWAY_INTERVAL = 5.0  # seconds between questions to a local registry that does not answer
_AGAIN = 60.0  # seconds after which a version that was refused is tried again
_FLUSH = 1.0  # seconds between additions to the rollout's state
_SEEN = 20_000  # answers that wait to be counted
_OFFERED = 64  # requests that wait for the shadow
_SPARE = 2.0  # seconds that a request waits for spare time
_NICE = 10


class NotFinite(Exception):
    """A number among the answers is none."""


class Checked(Predictor):
    """A predictor that fails rather than answers with NaN, so that the champion answers in its
    place.
    """

    def answer(self, model: str, questions: Sequence[Question]) -> list[Answer]:
        answers = super().answer(model, questions)
        if not finite(answers):
            raise NotFinite(f"an answer of {model} by version {self.version} is not finite")
        return answers


class Trial:
    """A running rollout in this server: who gets a call, and what was seen."""

    def __init__(self, rollout: Rollout, predictor: Predictor) -> None:
        self.id, self.share, self.shadow = rollout.id, rollout.share, rollout.shadow
        self.predictor = predictor
        self._seen: deque[tuple[bool, Tally]] = deque(maxlen=_SEEN)
        self._errors: deque[tuple[bool, bool]] = deque(maxlen=_SEEN)
        self._offered: deque[tuple[float, Answered]] = deque()
        self._compared: deque[tuple[str, Tally, Tally, Agreement]] = deque(maxlen=_SEEN)
        self._skipped = 0
        self._ended = threading.Event()
        self._wake = threading.Event()

    def takes(self, call: Call) -> bool:
        """Whether the challenger answers a call."""
        if self.shadow or call.model not in self.predictor.models:
            return False
        if call.version is not None:
            return call.version == self.predictor.version
        return bool(call.route) and canary.draw(self.id, call.route) < self.share

    def saw(self, answered: Answered, role: str) -> None:
        """An answer was given; in the compute thread."""
        if not self.shadow:
            self._seen.append(
                (role == CHALLENGER, tally(answered.model, answered.outputs, answered.seconds))
            )
        elif (
            answered.model in self.predictor.models
            and canary.draw(self.id, answered.request_id) < self.share
        ):
            if len(self._offered) < _OFFERED:
                self._offered.append((time.monotonic(), answered))
                self._wake.set()
            else:
                self._skipped += 1

    def failed(self, challenger: bool, error: Exception) -> None:
        self._errors.append((challenger, isinstance(error, NotFinite)))

    def drain(self) -> Observed:
        """What was seen since the last time."""
        sides = {False: Tally(), True: Tally()}
        agreed: dict[str, Agreement] = {}
        while self._seen:
            challenger, counts = self._seen.popleft()
            sides[challenger] += counts
        while self._compared:
            model, ours, theirs, said = self._compared.popleft()
            sides[False] += ours
            sides[True] += theirs
            agreed[model] = agreed[model] + said if model in agreed else said
        while self._errors:
            challenger, not_finite = self._errors.popleft()
            sides[challenger] += Tally(errors=1, not_finite=int(not_finite))
        skipped, self._skipped = self._skipped, 0
        return Observed(
            champion=sides[False], challenger=sides[True], agreement=agreed, skipped=skipped
        )

    def start(self, idle: Callable[[], bool]) -> None:
        if self.shadow:
            threading.Thread(target=self._score, args=(idle,), name="shadow", daemon=True).start()

    def end(self) -> None:
        self._ended.set()
        self._wake.set()

    def _score(self, idle: Callable[[], bool]) -> None:
        """Score what was offered while nobody waits for an answer."""
        _be_nice()
        while not self._ended.is_set():
            self._wake.wait()
            self._wake.clear()
            while self._offered and not self._ended.is_set():
                since, answered = self._offered.popleft()
                while not idle() and time.monotonic() - since < _SPARE:
                    time.sleep(0.005)
                if not idle():
                    self._skipped += 1
                    continue
                started = time.monotonic()
                try:
                    answers = self.predictor.predict(answered.model, list(answered.instances))
                except Exception as error:
                    logger.warning(
                        "the shadow version %s failed", self.predictor.version, exc_info=error
                    )
                    self.failed(True, error)
                else:
                    theirs = tally(answered.model, answers, time.monotonic() - started)
                    ours = tally(answered.model, answered.outputs, answered.seconds)
                    self._compared.append(
                        (answered.model, ours, theirs, agreement(answered.outputs, answers))
                    )


@dataclass(frozen=True)
class Refused:
    """A version that was not swapped in."""

    version: str
    digest: str
    reason: str
    at: str
    again: float  # time.monotonic() from which it may be tried again


class Following(Live):
    """`Live` that the registry's champion and its rollout decide on.

    Args:
        away: why the registry did not answer at the start.

    Attributes:
        idle: whether nobody waits for an answer.
    """

    def __init__(
        self,
        predictor: Predictor,
        journal: Journal | None = None,
        key: bytes | None = None,
        limits: Limits | None = None,
        interval: float = INTERVAL,
        away: str | None = None,
    ) -> None:
        super().__init__(predictor, journal, key)
        self._away = away
        AWAY.set(away is not None)
        self.idle: Callable[[], bool] = lambda: True
        self._limits = limits
        self._interval = interval
        self._trial: Trial | None = None
        self._refused: dict[str, Refused] = {}  # by role
        self._problem: str | None = None
        self._since = _now()
        self._mark: object = None
        self._asked = -REMOTE_INTERVAL
        self._pointer: tuple[str, str] | None = None
        self._flushed = 0.0
        self._left_over = False  # memory of a version that was swapped out
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)

    # who answers

    @property
    def serving(self) -> tuple[Predictor, ...]:
        trial = self._trial
        return (self.current, trial.predictor) if trial and not trial.shadow else (self.current,)

    def pick(self, call: Call) -> Predictor | None:
        trial = self._trial
        if trial is not None and trial.takes(call):
            return trial.predictor
        return super().pick(call)

    def instead(self, call: Call, predictor: Predictor, error: Exception) -> Predictor | None:
        """The champion, where it was another version that failed."""
        if isinstance(error, TasteloopError):  # the caller's mistake
            return None
        if self.journal is not None:
            self.journal.failed(call.id, call.model, predictor.version, now())
        trial, champion = self._trial, self.current
        if trial is not None and predictor in (trial.predictor, champion):
            trial.failed(predictor is not champion, error)
        if predictor is champion or call.version is not None or call.model not in champion.models:
            return None
        CHALLENGED.inc()
        logger.warning(
            "version %s failed; the champion answers request %s",
            predictor.version,
            call.id,
            exc_info=error,
        )
        return champion

    def on_answer(self, answered: Answered) -> None:
        trial = self._trial
        role = CHALLENGER if trial and answered.version == trial.predictor.version else CHAMPION
        if answered.version == self.current.version:
            role = CHAMPION
        if trial is not None:
            trial.saw(answered, role)
        if self.journal is not None:
            self.journal.answered(answered, role)

    # the thread

    def start(self, idle: Callable[[], bool]) -> None:
        self.idle = idle
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(30)
        if self._trial is not None:
            self._trial.end()

    def status(self) -> dict[str, Any]:
        """What answers since when, what was refused and why, and the rollout."""
        trial = self._trial
        return {
            **super().status(),
            "since": self._since,
            "refused": [
                {
                    "role": role,
                    "version": r.version,
                    "digest": r.digest,
                    "reason": r.reason,
                    "at": r.at,
                }
                for role, r in self._refused.items()
            ],
            "problem": self._away or self._problem,
            "challenger": None
            if trial is None
            else {"version": trial.predictor.version, "share": trial.share, "shadow": trial.shadow},
        }

    def _run(self) -> None:
        _be_nice()
        while not self._stopped.wait(self._interval):
            try:
                self.step()
                self._problem = None
            except Exception as error:  # what answers goes on answering
                problem = str(error) if isinstance(error, TasteloopError) else type(error).__name__
                if problem != self._problem:
                    logger.exception(
                        "following the registry failed; version %s goes on", self.current.version
                    )
                self._problem = problem

    def step(self) -> None:
        """One look at the registry and the rollout."""
        if self._left_over:
            _trim()
            self._left_over = False
        self._look()
        if self._away is not None:
            return
        if self._pointer is not None:
            self._follow_champion(*self._pointer)
        self._follow_rollout()

    def _look(self) -> None:
        """Ask the registry for the champion where it may be another than when it was last asked."""
        mark, waited = change_stamp(), time.monotonic() - self._asked
        if mark is None:  # not on this machine
            moved = waited >= REMOTE_INTERVAL
        elif self._away is not None:
            moved = mark != self._mark or waited >= _AWAY_INTERVAL
        # a file system's clock ticks: a change within the same tick as the one before could go
        # unseen
        else:
            moved = mark != self._mark or time.time() - mark[0] / 1e9 < 1.0
        if not moved:
            return
        self._mark, self._asked = mark, time.monotonic()
        try:
            self._pointer = registry.pointer()
        except TasteloopError as error:
            if str(error) != self._away:
                logger.error(
                    "version %s goes on, and the registry is asked again: %s",
                    self.current.version,
                    error,
                )
            self._away = str(error)
        else:
            if self._away is not None:
                logger.warning("the registry answers again")
            self._away = None
        AWAY.set(self._away is not None)

    def _follow_champion(self, version: str, digest: str) -> None:
        current = self.current
        if (current.version, current.digest) == (version, digest):
            self._refused.pop(CHAMPION, None)
            return
        predictor = self._load(CHAMPION, version, digest)
        if predictor is None:
            return
        self.swap(predictor)
        self._left_over = True
        self._since = _now()
        note_served(VersionId(predictor.version, predictor.digest))
        SWAPS.labels("swapped").inc()
        logger.info("version %s answers now, in place of version %s", version, current.version)

    def _load(self, role: str, version: str, digest: str) -> Predictor | None:
        """A version that is whole and answers as its trainer did; None where it is refused, which
        is told.
        """
        trial = self._trial
        if trial is not None and (trial.predictor.version, trial.predictor.digest) == (
            version,
            digest,
        ):
            return trial.predictor
        before = self._refused.get(role)
        if (
            before
            and (before.version, before.digest) == (version, digest)
            and time.monotonic() < before.again
        ):
            return None
        try:
            started = time.monotonic()
            found = registry.find(version)
            predictor = Checked.load(found.path, version, self._limits)
            check(predictor, found.path)
            logger.info(
                "version %s is loaded and answers as recorded (%.1f s)",
                version,
                time.monotonic() - started,
            )
        except Exception as error:
            reason = (
                str(error)
                if isinstance(error, TasteloopError)
                else f"loading failed: {type(error).__name__}"
            )
            logger.error(
                "version %s is not swapped in, version %s goes on: %s",
                version,
                self.current.version,
                reason,
                exc_info=None if isinstance(error, TasteloopError) else error,
            )
            self._refused[role] = Refused(
                version, digest, reason, _now(), time.monotonic() + _AGAIN
            )
            SWAPS.labels("refused").inc()
            return None
        self._refused.pop(role, None)
        return predictor

    def _follow_rollout(self) -> None:
        rollout = canary.current()
        if rollout is None or not rollout.running:
            self._drop()
            return
        live, challenger = self._pointer, (rollout.challenger.version, rollout.challenger.digest)
        if live == challenger:
            canary.end(rollout.id, "promoted", (f"version {challenger[0]} is the champion",))
            return
        if live is not None and live != (rollout.champion.version, rollout.champion.digest):
            reason = f"the champion is version {live[0]} now; the rollout compares with {rollout.champion.version}"
            canary.end(rollout.id, "aborted", (reason,))
            return
        if self.current.version != rollout.champion.version:
            return  # not swapped in yet
        trial = self._trial
        if trial is None or trial.id != rollout.id:
            self._drop()
            predictor = self._load(CHALLENGER, *challenger)
            if predictor is None:
                canary.end(rollout.id, "rolled back", (self._refused[CHALLENGER].reason,))
                return
            trial = Trial(rollout, predictor)
            trial.start(lambda: self.idle())
            self._trial = trial
            what = "scores in the shadow" if trial.shadow else "answers"
            logger.info(
                "version %s %s a share of %g of the requests", challenger[0], what, trial.share
            )
        self._judge(trial)

    def _judge(self, trial: Trial) -> None:
        if time.monotonic() - self._flushed < _FLUSH:
            return
        self._flushed = time.monotonic()
        seen = trial.drain()
        rollout = canary.observe(trial.id, seen) if seen != Observed() else canary.current()
        if rollout is None or not rollout.running or not rollout.automatic:
            return
        decision = rollout.decision()
        if decision.verdict == "roll back":
            canary.end(trial.id, "rolled back", decision.reasons)
            logger.warning(
                "version %s is rolled back: %s",
                trial.predictor.version,
                "; ".join(decision.reasons),
            )
        elif decision.verdict == "promote":
            try:
                canary.promote(decision.reasons, trial.id)
            except TasteloopError as error:
                canary.end(trial.id, "aborted", (str(error),))
                logger.warning("version %s is not promoted: %s", trial.predictor.version, error)
            else:
                self._mark, self._asked = None, -REMOTE_INTERVAL
                logger.info(
                    "version %s is promoted: %s",
                    trial.predictor.version,
                    "; ".join(decision.reasons),
                )

    def _drop(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.end()
            self._left_over = True


def reach_registry() -> str | None:
    """Why the registry does not answer which version is live; None where it does.

    Asked before anything is made: a port, a journal, a key.

    Raises:
        TasteloopError: there is no champion, or the registry does not answer and this home has
            served none before.
    """
    try:
        if registry.pointer() is None:
            raise no_champion()
    except TasteloopError as error:
        if served_version() is None:
            raise
        return str(error)
    return None


def first(limits: Limits | None = None, away: str | None = None) -> Predictor:
    """What a start serves: the champion; where that cannot be served, the last version that this
    home did serve.

    A version's golden answers are compared the first time only: `served.json` remembers.

    Args:
        away: why the registry does not answer; then it is not asked again, and the last version is
            served.

    Raises:
        TasteloopError: no champion, or neither can be served; the reason is the champion's.
    """
    served = served_version()
    try:
        if away is not None:
            raise TasteloopError(away)
        live = registry.champion()
        if live is None:
            raise no_champion()
        predictor = Checked.load(live.path, live.version, limits)
        if (live.version, live.digest) != served:
            check(predictor, live.path)
        else:
            predictor.warm_up(live.path)
        note_served(VersionId(predictor.version, predictor.digest))
        return predictor
    except TasteloopError as error:
        if served is None:
            raise
        try:
            path = _bundle_of(*served)
            predictor = Checked.load(path, served[0], limits)
            predictor.warm_up(path)
        except TasteloopError:
            raise error from None
        logger.error(
            "the champion cannot be served, version %s is, which was before: %s", served[0], error
        )
        return predictor


def _bundle_of(version: str, digest: str) -> Path:
    """The bundle of a version that was served: as a rule it is on this machine, whatever the
    registry says.
    """
    try:
        return bundles.find_bundle(digest)
    except TasteloopError:
        found = registry.find(version)
        if found.digest != digest:
            raise
        return found.path


def no_champion() -> TasteloopError:
    return TasteloopError(
        f"there is no champion in {address()} yet; train one with `tasteloop run`, "
        "or serve a bundle directory with --bundle DIR"
    )


def _be_nice() -> None:
    """Give this thread's work to requests first; Linux has a priority for each thread."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _trim() -> None:
    """Give what a version left back to the system.

    glibc keeps freed memory in the arena of the thread that asked for it, here another one than
    frees it, and so grew by 70 MB a swap of MiniLM.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
