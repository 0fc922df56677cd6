"""The state of a rollout: a challenger answers a share of the requests (a canary), or scores them
in the shadow, until the rules decide.

The state is one file, `rollout.json` under the home, replaced whole and changed under a lock, so
that servers and the command line share it; the next rollout moves it to `rollouts/`. Servers add
what they observed. `serving.release.rollout_decision` makes of it a verdict with reasons, and
`serving.release.rollout_control` begins and ends a rollout.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from serving.release.observations import Observation, Tally
from serving.release.rollout_decision import RolloutDecision, RolloutVerdict, Rules, decide
from serving.release.versions import VersionId
from tasteloop import files
from tasteloop.errors import TasteloopError
from tasteloop.home import Home

_LOCK_SECONDS = 30.0

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
RolloutState = Literal["running", "promoted", "rolled back", "aborted"]
Changed = TypeVar("Changed", bound="Rollout | None")


class Side(BaseModel, frozen=True, extra="forbid"):
    """The version of one side."""

    version: str
    digest: str

    @property
    def id(self) -> VersionId:
        return VersionId(self.version, self.digest)


class Rollout(BaseModel, frozen=True, extra="forbid"):
    """The last rollout, running or ended."""

    format: Literal[1] = 1
    id: str
    state: RolloutState = "running"
    champion: Side
    challenger: Side
    share: Share
    shadow: bool = False
    automatic: bool = True
    rules: Rules = Rules()
    started: str
    ended: str | None = None
    reasons: tuple[str, ...] = ()
    observed: Observation = Observation()

    @property
    def running(self) -> bool:
        return self.state == "running"

    def decision(self) -> RolloutDecision:
        """What the rules say now."""
        elapsed = datetime.now(UTC) - datetime.fromisoformat(self.started)
        return decide(self.observed, self.rules, self.shadow, elapsed.total_seconds() / 3600)

    def status(self) -> RolloutStatus:
        """The rollout with what the rules say of it now."""
        decision = self.decision()
        return RolloutStatus.model_validate(
            {
                **self.model_dump(exclude={"observed"}),
                "verdict": decision.verdict,
                "because": decision.reasons,
                "observed": summarise(self.observed),
            }
        )


def draw(rollout: str, key: str) -> float:
    """A number in [0, 1), always the same for one key in one rollout.

    >>> draw("r1", "user 7") == draw("r1", "user 7") != draw("r2", "user 7")
    True
    """
    hashed = hashlib.blake2b(f"{rollout}\0{key}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(hashed, "big") / 2**64


# The file


def current_rollout() -> Rollout | None:
    """The last rollout of this home; None while there was none.

    Raises:
        TasteloopError: a file that is not a rollout's.
    """
    path = Home.current().rollout
    return _read(path) if path.exists() else None


def rollout_history() -> list[Rollout]:
    """All rollouts of this home, the last one first."""
    last = current_rollout()
    past = [_read(path) for path in Home.current().past_rollouts.glob("*.json")]
    # The last one may just be moving there: it counts once, as it was read first.
    by_id = {rollout.id: rollout for rollout in past}
    if last is not None:
        by_id[last.id] = last
    return sorted(by_id.values(), key=lambda rollout: rollout.started, reverse=True)


def _read(path: Path) -> Rollout:
    try:
        return Rollout.model_validate(files.read_json(path))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise TasteloopError(
            f"{path} is not a rollout of this version ({field}: {problem['msg']}); remove it and start again"
        ) from None


def end_rollout(
    rollout_id: str, state: Literal["promoted", "rolled back", "aborted"], reasons: Sequence[str]
) -> Rollout | None:
    """End a rollout unless that was done already; the last one as it then is."""

    def end(rollout: Rollout | None) -> Rollout | None:
        if rollout is None or rollout.id != rollout_id or not rollout.running:
            return rollout
        return rollout.model_copy(
            update={"state": state, "ended": now(), "reasons": tuple(reasons)}
        )

    return change_rollout(end)


def add_observation(rollout_id: str, observation: Observation) -> Rollout | None:
    """Add what a server observed since it last did; the rollout as it then is."""

    def add(rollout: Rollout | None) -> Rollout | None:
        if rollout is None or rollout.id != rollout_id or not rollout.running:
            return rollout
        return rollout.model_copy(update={"observed": rollout.observed + observation})

    return change_rollout(add)


def change_rollout(change: Callable[[Rollout | None], Changed]) -> Changed:
    """Replace the last rollout by what `change` makes of it, alone among processes."""
    home = Home.current()
    with files.locked(home.rollout_lock, _LOCK_SECONDS, 0.01):
        before = current_rollout()
        after = change(before)
        if after is not None and after is not before:
            if before is not None and before.id != after.id:
                _write(home.past_rollouts / f"{before.id}.json", before)
            _write(home.rollout, after)
        return after


def _write(path: Path, rollout: Rollout) -> None:
    files.write_json(path, json.loads(rollout.model_dump_json()))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# The status, for people and scripts


class LatencyQuantiles(BaseModel, frozen=True):
    """In seconds; None without a request."""

    p50: float | None
    p95: float | None
    p99: float | None


class SideStatus(BaseModel, frozen=True):
    """What one side did."""

    answers: int
    errors: int
    not_finite: int
    seconds: LatencyQuantiles


class AgreementStatus(BaseModel, frozen=True):
    """Means over the instances that were compared."""

    compared: int
    first_differs: float
    overlap: float
    distance: float


class ObservationStatus(BaseModel, frozen=True):
    champion: SideStatus
    challenger: SideStatus
    agreement: dict[str, AgreementStatus]
    skipped: int


class RolloutStatus(BaseModel, frozen=True):
    """A rollout, what was observed in numbers that can be read, and what the rules say of it."""

    format: Literal[1]
    id: str
    state: RolloutState
    champion: Side
    challenger: Side
    share: float
    shadow: bool
    automatic: bool
    rules: Rules
    started: str
    ended: str | None
    reasons: tuple[str, ...]
    verdict: RolloutVerdict
    because: tuple[str, ...]
    observed: ObservationStatus


def rollout_status() -> RolloutStatus | None:
    """The last rollout with what the rules say of it now; None while there was none."""
    rollout = current_rollout()
    return rollout.status() if rollout else None


def summarise(observation: Observation) -> ObservationStatus:
    """Quantiles of the latency, and means of the agreement."""
    agreement = {
        model: AgreementStatus(
            compared=sums.compared,
            first_differs=sums.first / sums.compared,
            overlap=sums.overlap / sums.compared,
            distance=sums.distance / sums.compared,
        )
        for model, sums in sorted(observation.agreement.items())
        if sums.compared
    }
    return ObservationStatus(
        champion=_summarise_side(observation.champion),
        challenger=_summarise_side(observation.challenger),
        agreement=agreement,
        skipped=observation.skipped,
    )


def _summarise_side(tally: Tally) -> SideStatus:
    seconds = LatencyQuantiles(
        p50=tally.latency_quantile(0.5),
        p95=tally.latency_quantile(0.95),
        p99=tally.latency_quantile(0.99),
    )
    return SideStatus(
        answers=tally.answers, errors=tally.errors, not_finite=tally.not_finite, seconds=seconds
    )
