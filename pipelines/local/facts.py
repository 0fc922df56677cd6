"""The facts of a run: `runs/<id>/run.json` below the home, which `tasteloop status` reads.

They are written when a run begins and when it ends, however it ends, and are read leniently:
earlier versions wrote less, and a field that cannot be read is as if it were not there.
"""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from components.step import LOCK
from pipelines.local.moves import move_paths
from tasteloop.evaluation.record import UnderstandingSummary
from tasteloop.files import as_mapping, read_json
from tasteloop.home import Home

FACTS_FILE = "run.json"

# A step's plain results, and the paths of its artifacts, by name.
Outputs = Mapping[str, object]
# Where a run's artifacts are below its home. Facts of earlier versions don't say which home it was.
_ARTIFACTS = "/pipeline/artifacts/"


class _Lenient(BaseModel, frozen=True, extra="allow"):
    """A record of which a field that cannot be read has its default."""

    @field_validator("*", mode="wrap")
    @classmethod
    def _default_instead(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        try:
            return handler(value)
        except ValidationError:
            return cls.model_fields[str(info.field_name)].get_default(call_default_factory=True)

    def json_facts(self) -> dict[str, object]:
        """As JSON has them: what was set, in the order of the fields."""
        return self.model_dump(mode="json", exclude_unset=True)


class RunEnd(BaseModel, frozen=True):
    """How a run ended in which every step that began has finished.

    Attributes:
        outcome: promoted, unchanged, or what the step that refused calls it.
        reason: of the gate, or of the step that refused.
        version: that was registered or promoted; it is not set where no model was made.
        code: the exit code.
    """

    outcome: str
    reason: str
    version: str | None = None
    code: int


class StepFacts(_Lenient, frozen=True):
    """The last event of a step of a run.

    Attributes:
        event: started, finished or failed.
        time: when it was, in seconds since 1970 UTC; None of a result that was used again.
        seconds: how long the step worked.
        processor_seconds: how long its threads ran, the start of its process included.
        peak_bytes: the most memory that its process had resident; None where that is not known.
        known: of a failure, whether it is a user's mistake, which `message` explains.
        reused: whether an earlier result was used.
        outputs: its plain results, and the paths of its artifacts.
    """

    time: float | None = None
    step: str = ""
    event: str = ""
    seconds: float | None = None
    processor_seconds: float | None = None
    peak_bytes: int | None = None
    known: bool = False
    message: str | None = None
    outputs: dict[str, object] = {}
    reused: bool = False


class RunFacts(_Lenient, frozen=True):
    """What is known of a run.

    Attributes:
        home: the home that it was in; the paths here are below today's.
        outcome: running, killed, interrupted, failed, promoted, unchanged, or what a step that
            refused calls it.
        started: ISO 8601, UTC.
        settings: the sections that a training run reads.
        steps: the steps that ran, in their order.
        artifacts: the paths of what the steps made, by name.
        metrics: values of the evaluation.
        understanding: how many kinds of questions the model answers rightly; None where it was not
            asked.
        seconds, work, overhead: its whole time, the steps' own, and the rest.
        code: the exit code of a run that came to an end.
    """

    id: str = ""
    home: str = ""
    profile: str = ""
    outcome: str = ""
    started: str = ""
    settings: dict[str, object] = {}
    steps: tuple[StepFacts, ...] = ()
    artifacts: dict[str, Path] = {}
    metrics: dict[str, float | None] = {}
    understanding: UnderstandingSummary | None = None
    reason: str = ""
    version: str | None = None
    code: int | None = None
    seconds: float | None = None
    work: float | None = None
    overhead: float | None = None


def read_facts(path: Path) -> RunFacts:
    """The facts in a `run.json`, its paths below the home of today; one that was killed says so.

    Raises:
        TasteloopError: the file is not readable JSON.
    """
    written = as_mapping(read_json(path))
    home, now = _home_of(written), str(Home.current())
    moved = move_paths(dict(written), home, now)
    facts = RunFacts.model_validate({**moved, "id": path.parent.name, "home": home})
    if facts.outcome == "running" and not is_alive(path.parent):
        facts = facts.model_copy(update={"outcome": "killed"})
    return facts


def list_runs() -> list[RunFacts]:
    """The facts of all runs of this home, newest first."""
    return [read_facts(path) for path in sorted(Home.current().runs.glob(f"*/{FACTS_FILE}"))[::-1]]


def is_alive(directory: Path) -> bool:
    """Whether the run that writes to this directory still lives: it holds the lock there."""
    try:
        with (directory / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _home_of(written: Mapping[str, object]) -> str:
    """The home that a run was in; of earlier versions' runs by where their artifacts were."""
    if written.get("home"):
        return str(written["home"])
    for path in as_mapping(written.get("artifacts")).values():
        home, separator, _ = str(path).partition(_ARTIFACTS)
        if separator:
            return home
    return str(Home.current())
