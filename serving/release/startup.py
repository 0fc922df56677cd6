"""What a server serves first: the champion, else the last version that this home did serve."""

from __future__ import annotations

import logging
from pathlib import Path

from serving.answering.predictor import Predictor
from serving.release import registry
from serving.release.bundles import find_bundle
from serving.release.database import address
from serving.release.last_versions import note_served, served_version
from serving.release.rehearsal import check
from serving.release.trial import CheckedPredictor
from serving.release.versions import VersionId
from serving.settings import Limits
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)


def registry_problem() -> str | None:
    """Why the registry does not answer which version is live; None where it does.

    Asked before anything is made: a port, a journal, a key.

    Raises:
        TasteloopError: there is no champion, or the registry does not answer and this home has
            served none before.
    """
    try:
        if registry.pointer() is None:
            raise _no_champion()
    except TasteloopError as error:
        if served_version() is None:
            raise
        return str(error)
    return None


def load_first_version(limits: Limits | None = None, problem: str | None = None) -> Predictor:
    """What a start serves: the champion; where that cannot be served, the last version that this
    home did serve.

    A version's golden answers are compared the first time only: `served.json` remembers.

    Args:
        problem: why the registry does not answer; then it is not asked again, and the last version
            is served.

    Raises:
        TasteloopError: no champion, or neither can be served; the reason is the champion's.
    """
    served = served_version()
    try:
        if problem is not None:
            raise TasteloopError(problem)
        return _load_champion(served, limits)
    except TasteloopError as error:
        if served is None:
            raise
        try:
            path = _bundle_of(served)
            predictor = CheckedPredictor.load(path, served.version, limits)
            predictor.warm_up(path)
        except TasteloopError:
            raise error from None
        logger.error(
            "the champion cannot be served, version %s is, which was before: %s",
            served.version,
            error,
        )
        return predictor


def _load_champion(served: VersionId | None, limits: Limits | None) -> Predictor:
    champion = registry.champion()
    if champion is None:
        raise _no_champion()
    version = VersionId(champion.version, champion.digest)
    predictor = CheckedPredictor.load(champion.path, champion.version, limits)
    if version == served:
        predictor.warm_up(champion.path)
    else:
        check(predictor, champion.path)
    note_served(version)
    return predictor


def _bundle_of(version: VersionId) -> Path:
    """The bundle of a version that was served: as a rule it is on this machine, whatever the
    registry says.
    """
    try:
        return find_bundle(version.digest)
    except TasteloopError:
        local = registry.find(version.version)
        if local.digest != version.digest:
            raise
        return local.path


def _no_champion() -> TasteloopError:
    return TasteloopError(
        f"there is no champion in {address()} yet; train one with `tasteloop run`, "
        "or serve a bundle directory with --bundle DIR"
    )
