"""The champion pointer as a running server sees it: asked again where it may have moved."""

from __future__ import annotations

import logging
import time

from prometheus_client import Gauge

from serving.release import registry
from serving.release.database import change_stamp
from serving.release.versions import VersionId
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

AWAY = Gauge(
    "tasteloop_registry_away",
    "1 while the registry that is followed does not say which version is live",
)

REMOTE_INTERVAL = 30.0  # seconds between questions to a registry elsewhere
_AWAY_INTERVAL = 5.0  # seconds between questions to a local registry that does not answer


class ChampionWatch:
    """The champion pointer as it was when the registry was last asked.

    Attributes:
        champion: None while nothing has been promoted.
        away: why the registry did not answer; None where it did.
    """

    def __init__(self, away: str | None) -> None:
        self.champion: VersionId | None = None
        self.away = away
        AWAY.set(away is not None)
        self.forget()

    def forget(self) -> None:
        """Ask at the next look, whatever has changed."""
        self._stamp: tuple[int, ...] | None = None
        self._last_look = -REMOTE_INTERVAL

    def look(self, current: str) -> None:
        """Ask the registry for the champion where it may be another than when it was last asked.

        Args:
            current: the version that goes on answering meanwhile, for the log.
        """
        stamp = change_stamp()
        if not self._may_have_moved(stamp):
            return
        self._stamp, self._last_look = stamp, time.monotonic()
        try:
            self.champion = registry.pointer()
        except TasteloopError as error:
            if str(error) != self.away:
                logger.error(
                    "version %s goes on, and the registry is asked again: %s", current, error
                )
            self.away = str(error)
        else:
            if self.away is not None:
                logger.warning("the registry answers again")
            self.away = None
        AWAY.set(self.away is not None)

    def _may_have_moved(self, stamp: tuple[int, ...] | None) -> bool:
        waited = time.monotonic() - self._last_look
        if stamp is None:  # the store is not on this machine
            return waited >= REMOTE_INTERVAL
        if self.away is not None:
            return stamp != self._stamp or waited >= _AWAY_INTERVAL
        # A file system's clock ticks: a change within the same tick as the one before could go
        # unseen.
        return stamp != self._stamp or time.time() - stamp[0] / 1e9 < 1.0
