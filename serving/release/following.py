"""A server that follows the registry: the champion is swapped in under load, a challenger is tried
beside it.

One thread of low priority looks for a new champion and for a rollout, loads, compares the golden
answers and swaps. It never touches a request: what answers is `Live.pick`'s one reference. Whatever
fails leaves the version that answers where it is, and is told by `status`, the log and the metrics.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter

from serving.answering.live import Live
from serving.answering.predictor import Predictor
from serving.journal.answered import Answered, now
from serving.journal.writer import Journal
from serving.release.background import lower_priority, return_freed_memory
from serving.release.champion_watch import ChampionWatch
from serving.release.last_versions import note_served
from serving.release.loading import SWAPS, VersionLoader
from serving.release.observations import Observation
from serving.release.rollout import Rollout, add_observation, current_rollout, end_rollout
from serving.release.rollout_control import promote_challenger
from serving.release.trial import Trial
from serving.release.versions import VersionId
from serving.settings import Limits
from tasteloop.errors import TasteloopError
from tasteloop.journal import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from serving.answering.call import Call

logger = logging.getLogger(__name__)

CHALLENGED = Counter(
    "tasteloop_challenger_failures", "Calls that the champion answered in the challenger's place"
)

INTERVAL = 0.5  # seconds between looks at the local registry, which cost a file's `stat`
_FLUSH_INTERVAL = 1.0  # seconds between additions to the rollout's state


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
        self.idle: Callable[[], bool] = lambda: True
        self._loader = VersionLoader(limits)
        self._trial: Trial | None = None
        self._watch = ChampionWatch(away)
        self._problem: str | None = None
        self._since = _now()
        self._flushed = 0.0
        self._left_over = False  # memory of a version that was swapped out
        self._interval = interval
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
            trial.report_failure(predictor is not champion, error)
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
            trial.report_answer(answered, role)
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
        challenger = None
        if trial is not None:
            challenger = {
                "version": trial.predictor.version,
                "share": trial.share,
                "shadow": trial.shadow,
            }
        refused = [
            {
                "role": role,
                "version": refusal.version,
                "digest": refusal.digest,
                "reason": refusal.reason,
                "at": refusal.at,
            }
            for role, refusal in self._loader.refusals.items()
        ]
        return {
            **super().status(),
            "since": self._since,
            "refused": refused,
            "problem": self._watch.away or self._problem,
            "challenger": challenger,
        }

    def _run(self) -> None:
        lower_priority()
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
            return_freed_memory()
            self._left_over = False
        self._watch.look(self.current.version)
        if self._watch.away is not None:
            return
        if self._watch.champion is not None:
            self._follow_champion(self._watch.champion)
        self._follow_rollout()

    def _follow_champion(self, champion: VersionId) -> None:
        current = self.current
        if (current.version, current.digest) == champion:
            self._loader.accept(CHAMPION)
            return
        predictor = self._load(CHAMPION, champion)
        if predictor is None:
            return
        self.swap(predictor)
        self._left_over = True
        self._since = _now()
        note_served(VersionId(predictor.version, predictor.digest))
        SWAPS.labels("swapped").inc()
        logger.info(
            "version %s answers now, in place of version %s", champion.version, current.version
        )

    def _load(self, role: str, version: VersionId) -> Predictor | None:
        """A version's predictor; None where it is refused."""
        trial = self._trial
        if trial is not None and (trial.predictor.version, trial.predictor.digest) == version:
            return trial.predictor
        return self._loader.load(role, version, self.current.version)

    def _follow_rollout(self) -> None:
        rollout = current_rollout()
        if rollout is None or not rollout.running:
            self._drop_trial()
            return
        # 1. a rollout that the champion pointer has ended
        live, challenger = self._watch.champion, rollout.challenger.id
        if live == challenger:
            reason = f"version {challenger.version} is the champion"
            end_rollout(rollout.id, "promoted", (reason,))
            return
        if live is not None and live != rollout.champion.id:
            reason = f"the champion is version {live.version} now; the rollout compares with {rollout.champion.version}"
            end_rollout(rollout.id, "aborted", (reason,))
            return
        if self.current.version != rollout.champion.version:
            return  # not swapped in yet

        # 2. the challenger beside the champion
        trial = self._trial
        if trial is None or trial.id != rollout.id:
            self._drop_trial()
            trial = self._begin_trial(rollout)
        if trial is not None:
            self._judge(trial)

    def _begin_trial(self, rollout: Rollout) -> Trial | None:
        """Load the challenger; one that is refused is rolled back."""
        predictor = self._load(CHALLENGER, rollout.challenger.id)
        if predictor is None:
            reason = self._loader.refusals[CHALLENGER].reason
            end_rollout(rollout.id, "rolled back", (reason,))
            return None
        trial = Trial(rollout, predictor)
        trial.start(lambda: self.idle())
        self._trial = trial
        logger.info(
            "version %s %s a share of %g of the requests",
            rollout.challenger.version,
            "scores in the shadow" if trial.shadow else "answers",
            trial.share,
        )
        return trial

    def _judge(self, trial: Trial) -> None:
        """Add what was observed to the rollout's state, and do what the rules say of it."""
        if time.monotonic() - self._flushed < _FLUSH_INTERVAL:
            return
        self._flushed = time.monotonic()
        observation = trial.drain()
        is_empty = observation == Observation()
        rollout = current_rollout() if is_empty else add_observation(trial.id, observation)
        if rollout is None or not rollout.running or not rollout.automatic:
            return
        decision = rollout.decision()
        version, reasons = trial.predictor.version, "; ".join(decision.reasons)
        if decision.verdict == "roll back":
            end_rollout(trial.id, "rolled back", decision.reasons)
            logger.warning("version %s is rolled back: %s", version, reasons)
        elif decision.verdict == "promote":
            try:
                promote_challenger(decision.reasons, trial.id)
            except TasteloopError as error:
                end_rollout(trial.id, "aborted", (str(error),))
                logger.warning("version %s is not promoted: %s", version, error)
            else:
                self._watch.forget()
                logger.info("version %s is promoted: %s", version, reasons)

    def _drop_trial(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.end()
            self._left_over = True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
