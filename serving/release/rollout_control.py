"""Beginning and ending a rollout, by hand or as the rules decide."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from serving.release import promotion, registry
from serving.release.rollout import (
    Rollout,
    Side,
    change_rollout,
    current_rollout,
    end_rollout,
    now,
)
from serving.release.rollout_decision import Rules
from serving.release.versions import LocalVersion
from tasteloop.errors import TasteloopError


def start_rollout(
    version: str,
    share: float,
    shadow: bool = False,
    automatic: bool = True,
    rules: Rules | None = None,
) -> Rollout:
    """Begin to roll a registered version out; servers that follow the registry take part within a
    second or so.

    Args:
        share: of the requests, in (0, 1]: answered by the challenger, or scored by the shadow.
        automatic: whether servers promote or roll back when the rules say so, or only report it.

    Raises:
        TasteloopError: one is running, the version is the champion or has not passed gate and
            rehearsal.
    """
    if not 0 < share <= 1:
        raise TasteloopError(
            f"share {share:g}: a number above 0 and up to 1 is expected, such as 0.1"
        )
    champion = registry.champion()
    if champion is None:
        raise TasteloopError(
            "there is no champion to compare with; promote a first version with `tasteloop run`"
        )
    challenger = _find_challenger(version)
    new = Rollout(
        id=uuid.uuid4().hex[:12],
        champion=Side(version=champion.version, digest=champion.digest),
        challenger=Side(version=challenger.version, digest=challenger.digest),
        share=share,
        shadow=shadow,
        automatic=automatic,
        rules=rules or Rules(),
        started=now(),
    )

    def begin(before: Rollout | None) -> Rollout:
        if before is not None and before.running:
            raise TasteloopError(
                f"version {before.challenger.version} is being rolled out since {before.started}; end that with "
                "`tasteloop rollout promote` or `tasteloop rollout abort` first"
            )
        return new

    return change_rollout(begin)


def _find_challenger(version: str) -> LocalVersion:
    """A registered version that may be rolled out, its bundle verified."""
    registered = {each.version: each for each in registry.versions()}
    if version not in registered:
        raise TasteloopError(
            f"there is no version {version!r}; registered: {', '.join(sorted(registered, key=int))}"
        )
    candidate = registered[version]
    if candidate.champion:
        raise TasteloopError(f"version {version} is the champion already; roll out another one")
    for passed, examination in (
        (candidate.passed, "the gate"),
        (candidate.rehearsed, "a rehearsal"),
    ):
        if not passed:
            raise TasteloopError(
                f"version {version} has not passed {examination}, so it cannot be rolled out"
            )
    return registry.find(version)


def promote_challenger(
    reasons: Sequence[str] = ("promoted by hand",), rollout_id: str | None = None
) -> Rollout:
    """Make the running rollout's challenger the champion, if the champion still is the one it was
    compared with.

    Args:
        rollout_id: the rollout that is meant; None: whichever is running.
    """
    rollout = _running_rollout(rollout_id)
    promotion.promote(rollout.challenger.version, rollout.champion.digest)
    return end_rollout(rollout.id, "promoted", reasons) or rollout


def abort_rollout(reason: str = "aborted by hand") -> Rollout:
    """End the running rollout; the champion answers all requests again."""
    rollout = _running_rollout(None)
    return end_rollout(rollout.id, "aborted", (reason,)) or rollout


def _running_rollout(rollout_id: str | None) -> Rollout:
    rollout = current_rollout()
    if rollout is None or not rollout.running or rollout_id not in (None, rollout.id):
        raise TasteloopError(
            "no rollout is running; begin one with `tasteloop rollout start --version N --share 0.1`"
        )
    return rollout
