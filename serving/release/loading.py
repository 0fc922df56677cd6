"""Loading a version into a running server: whole, rehearsed, or refused for a while."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import Counter

from serving.answering.predictor import Predictor
from serving.release import registry
from serving.release.rehearsal import check
from serving.release.trial import CheckedPredictor
from serving.release.versions import VersionId
from serving.settings import Limits
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

SWAPS = Counter(
    "tasteloop_swaps", "Versions that were to be swapped in, by what became of it", ("outcome",)
)

_RETRY_SECONDS = 60.0  # after which a version that was refused is tried again


@dataclass(frozen=True)
class Refusal:
    """A version that was not swapped in.

    Attributes:
        at: when, as ISO 8601.
        retry: `time.monotonic()` from which it may be tried again.
    """

    version: str
    digest: str
    reason: str
    at: str
    retry: float

    @property
    def id(self) -> VersionId:
        return VersionId(self.version, self.digest)


class VersionLoader:
    """Loads versions, and remembers by role (champion, challenger) which one was refused."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits
        self.refusals: dict[str, Refusal] = {}

    def load(self, role: str, version: VersionId, current: str) -> Predictor | None:
        """A version that is complete and answers as its trainer did; None where it is refused.

        Args:
            current: the version that goes on answering meanwhile, for the log.
        """
        refusal = self.refusals.get(role)
        if refusal and refusal.id == version and time.monotonic() < refusal.retry:
            return None
        try:
            started = time.monotonic()
            local = registry.find(version.version)
            predictor = CheckedPredictor.load(local.path, version.version, self._limits)
            check(predictor, local.path)
            logger.info(
                "version %s is loaded and answers as recorded (%.1f s)",
                version.version,
                time.monotonic() - started,
            )
        except Exception as error:
            self._refuse(role, version, current, error)
            return None
        self.accept(role)
        return predictor

    def accept(self, role: str) -> None:
        """Forget the refusal of a role."""
        self.refusals.pop(role, None)

    def _refuse(self, role: str, version: VersionId, current: str, error: Exception) -> None:
        is_expected = isinstance(error, TasteloopError)
        reason = str(error) if is_expected else f"loading failed: {type(error).__name__}"
        logger.error(
            "version %s is not swapped in, version %s goes on: %s",
            version.version,
            current,
            reason,
            exc_info=None if is_expected else error,
        )
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.refusals[role] = Refusal(*version, reason, at, time.monotonic() + _RETRY_SECONDS)
        SWAPS.labels("refused").inc()
