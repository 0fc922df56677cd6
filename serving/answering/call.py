"""One request on its way through the server, whichever protocol it came over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.histories.service import HistoryUse


def abandon_nothing() -> None:
    """The `abandon` of a call that waits for nothing."""


@dataclass(eq=False)
class Call:
    """One request on its way, whichever protocol it came over.

    Attributes:
        id: the name of this request in logs, in the journal and in feedback: the caller's
            `x-request-id`, else one of ours.
        protocol: v1, v2 or grpc.
        headers: the caller's, lower-case names (gRPC: the metadata).
        deadline: `time.monotonic()` after which nobody waits for an answer.
        model, version: which shall answer; version is None where the caller names none.
        explain: the caller asks for an explanation instead of an answer.
        users: each instance's pseudonym, or None.
        route: the text that a canary's draw is computed from.
        answered_by: the version that answered; None until then.
        answer: the answer's own id, for the journal; None where the answer can get no feedback.
        feedback_token: the token that the answer carries, and that its caller shows with feedback;
            "" before the answer.
        timings: seconds by stage (queue, tokenise, encode, rank) and counts (batch, cache_hits,
            cache_misses).
        abandon: ends the call where its caller has left, so that it is not computed.
        histories: which stored history each instance used; empty where none was read.
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
    histories: Sequence[HistoryUse | None] = ()
    is_admin: bool = False

    @property
    def work(self) -> tuple[str, bool]:
        """Which kind of work it is: calls of one kind can be computed together, and take about
        equally long.
        """
        return self.model, self.explain


CALL: ContextVar[Call] = ContextVar("call")
"""The call that the current task works for."""
