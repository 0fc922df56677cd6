"""The records of the ledger, and what each says by its kind.

The body of a record is parsed once, into the entry of its kind. An entry of what came of something
may hold more than is named here: whoever trained or rolled back adds what people want to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from tasteloop.errors import TasteloopError
from validation.monitor.decision import Decision, Evidence, Result

Kind = Literal[
    "window", "decided", "alerted", "started", "finished", "rolling-back", "rolled-back", "pruned"
]


class Record(BaseModel, frozen=True, extra="forbid"):
    """One line.

    Attributes:
        number: 1, 2, 3, ...
        time: the writer's clock, µs since 1970 UTC.
        key: of the evidence that it is about (`validation.monitor.decision.key_of`).
        token: of the lease under which it was written; never falls.
        before: hash of the line before.
        body: what `entry` parses.
    """

    number: int = Field(ge=1)
    time: int
    kind: Kind
    key: str
    token: int
    before: str
    body: dict[str, Any] = {}

    @property
    def entry(self) -> Entry:
        """What the record says.

        Raises:
            TasteloopError: the body is not one of its kind.
        """
        try:
            return parse_entry(self.kind, self.body)
        except ValidationError as error:
            fault = error.errors()[0]
            field = ".".join(map(str, fault["loc"]))
            raise TasteloopError(
                f"record {self.number} of the ledger is no entry of the kind {self.kind!r}: {field}: {fault['msg']}; "
                "another program wrote it, or another version. Restore the ledger from a backup"
            ) from None


class _Extensible(BaseModel, frozen=True, extra="allow"):
    """Fields that are named here, and others that are retained as they come."""

    def json_facts(self) -> dict[str, Any]:
        """As JSON has them: what was set, in the order of the fields."""
        return self.model_dump(mode="json", exclude_unset=True)


WindowEntry = Evidence  # a window was looked at


class DecidedEntry(Decision, frozen=True, extra="forbid"):
    """Something was decided; `now`: the time on which it rests, µs since 1970 UTC."""

    now: int

    @property
    def decision(self) -> Decision:
        """The decision alone, as it was made."""
        return Decision.model_validate(self.model_dump(exclude={"now"}))

    def json_facts(self) -> dict[str, Any]:
        """As JSON has them: what was set, in the order of the fields."""
        return self.model_dump(mode="json", exclude_unset=True)


class AlertedEntry(_Extensible, frozen=True):
    """The alert of a decision has reached its receiver."""


class StartedEntry(_Extensible, frozen=True):
    """A retraining was begun, for the `attempt`th time."""

    run: str
    attempt: int


class RetrainingResult(_Extensible, frozen=True):
    """What came of a retraining, as whoever trained reports it.

    Attributes:
        reason: why it ended so.
        training_run: the id of the run of the training pipeline.
        data: counts of the data window that was trained on.
        version: the version that was registered or promoted.
        forgetting: the difference to the champion on earlier data, by metric.
    """

    result: Result
    reason: str | None = None
    training_run: str | None = None
    data: dict[str, int] | None = None
    version: str | None = None
    forgetting: dict[str, float | None] | None = None


class FinishedEntry(_Extensible, frozen=True):
    """A retraining ended; `run`: its id. What else it holds is a `RetrainingResult`."""

    run: str | None = None
    result: str
    reason: str | None = None
    training_run: str | None = None
    version: str | None = None


class RollingBackEntry(_Extensible, frozen=True):
    """The champion is worse than the one before it, `to`; both are digests."""

    window: str
    champion: str
    to: str
    reasons: tuple[str, ...]
    evidence: tuple[str, ...]


class RolledBackEntry(_Extensible, frozen=True):
    """The champion before was made live again, as `version`; or not, and `reason` says why.

    Attributes:
        result: "rolled back", or "moved" where another version was promoted meanwhile.
    """

    result: str
    version: str | None = None
    reason: str | None = None


class PrunedEntry(_Extensible, frozen=True):
    """What the retention removed."""

    removed: tuple[str, ...] = ()


Entry = (
    WindowEntry
    | DecidedEntry
    | AlertedEntry
    | StartedEntry
    | FinishedEntry
    | RollingBackEntry
    | RolledBackEntry
    | PrunedEntry
)

_BY_KIND: dict[Kind, type[Entry]] = {
    "window": WindowEntry,
    "decided": DecidedEntry,
    "alerted": AlertedEntry,
    "started": StartedEntry,
    "finished": FinishedEntry,
    "rolling-back": RollingBackEntry,
    "rolled-back": RolledBackEntry,
    "pruned": PrunedEntry,
}


def parse_entry(kind: Kind, body: Mapping[str, Any]) -> Entry:
    """The entry of a record.

    Raises:
        pydantic.ValidationError: the body is not one of its kind.

    >>> parse_entry("finished", {"run": "retrain-1", "result": "promoted"}).result
    'promoted'
    """
    return _BY_KIND[kind].model_validate(body)
