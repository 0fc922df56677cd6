"""One request on its way through the server, whichever protocol it came by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field


def abandon_nothing() -> None:
    """What abandons a call that waits for nothing."""


@dataclass(eq=False)
class Call:
    """One request on its way, whichever protocol it came by.

    Attributes:
        id: names this request in logs, in the journal and in feedback: the caller's `x-request-id`,
            else ours.
        protocol: v1, v2 or grpc.
        headers: the caller's, lower-case names (gRPC: the metadata).
        deadline: `time.monotonic()` after which nobody waits for an answer.
        model, version: what was asked for; version is None where the caller names none.
        explain: why is asked, not what.
        users: each instance's pseudonym or None; route: what a canary's draw is made of.
        answered_by: the version that answered; None until then.
        answer: an id of the answer's own, for the journal; None where no feedback can be told of
            it.
        feedback_token: what the answer carries for its caller to show with feedback; "" before it
            is given.
        timings: seconds by stage (queue, tokenise, encode, rank) and counts (batch, cache_hits,
            cache_misses).
        is_admin: the caller showed the admin's token.
    """

    id: str
    protocol: str
    headers: Mapping[str, str]
    deadline: float
    model: str = ""
    version: str | None = None
    explain: bool = False
    users: Sequence[str | None] = ()
    route: str = ""
    answered_by: str | None = None
    answer: str | None = None
    feedback_token: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    abandon: Callable[[], None] = abandon_nothing
    is_admin: bool = False

    @property
    def work(self) -> tuple[str, bool]:
        """Calls of one work can be computed together, and take about as long."""
        return self.model, self.explain


CALL: ContextVar[Call] = ContextVar("call")
"""The call that the current task works for."""
