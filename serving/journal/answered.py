"""One answered request, and the rows that the journal keeps of it.

A raw user id is never written: a user comes here as a pseudonym or not at all. What a user wrote is
written only where the setting `text` allows it. A request's id is written as it came, so callers
must not make it of a user's id.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeGuard

from tasteloop.answers import CONFIDENT, PREDICTED, SERVED_MODELS
from tasteloop.behaviour.events import KIND, TEXT, TIME, USER, Event
from tasteloop.behaviour.times import SECOND, whole
from tasteloop.journal import (
    ANSWER,
    CHARACTERS,
    CONTRIBUTION,
    EVENTS,
    HEARD,
    INPUT,
    INSTANCE,
    LATEST,
    MODEL,
    NAMES,
    NUMBERS,
    PROTOCOL,
    REASONS,
    REQUEST,
    ROLE,
    SECONDS,
    VERSION,
    K,
)

if TYPE_CHECKING:
    from tasteloop.runtime.questions import Exceptions

LONGEST_REQUEST_ID = 128  # characters
CLOCK_SKEW = 300 * SECOND  # by which another machine's clock may be ahead of this one's, µs

Row = dict[str, Any]
"""A row of the journal, by the names of its columns."""

_STAGES = ("queue", "tokenise", "encode", "rank")
_REQUEST_ID = re.compile(rf"[!-~]{{1,{LONGEST_REQUEST_ID}}}")


@dataclass(frozen=True)
class Answered:
    """One request and its answer.

    Args:
        time: µs since 1970 UTC at which the answer was ready.
        instances: as V1 instances, without users; empty where only the answers are known.
        outputs: as V1 predictions, one for each instance.
        timings: seconds by stage (queue, tokenise, encode, rank), beside counts.
        headers: the caller's; they are not written.
        users: each instance's pseudonym, or None.
        answer: the id that the answer's feedback token names; None where the answer has no token.
        heard: what was understood of each instance's words (`tasteloop.language.hearing`); empty
            where that is not known.
        exceptions: what a stored history said of each instance beside its events, for another
            version that answers the same; not written. Empty where no history was read.
    """

    request_id: str
    model: str
    version: str
    protocol: str
    time: int
    instances: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    timings: Mapping[str, float] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Sequence[str | None] = ()
    answer: str | None = None
    heard: Sequence[Mapping[str, Any]] = ()
    exceptions: Sequence[Exceptions | None] = ()

    @property
    def seconds(self) -> float | None:
        """From the request's arrival in the queue to its answer; None where no stage was timed."""
        timed = [self.timings[stage] for stage in _STAGES if stage in self.timings]
        return sum(timed) if timed else None


def rows(answered: Answered, role: str, text: bool = False) -> list[Row]:
    """The rows of `schema(ANSWERS)`, one for each instance; `text`: they hold the instances."""
    out = []
    for index, answer in enumerate(answered.outputs):
        instance = answered.instances[index] if index < len(answered.instances) else {}
        out.append(
            {
                REQUEST: answered.request_id,
                ANSWER: answered.answer,
                INSTANCE: index,
                TIME: answered.time,
                USER: answered.users[index] if index < len(answered.users) else None,
                MODEL: answered.model,
                VERSION: answered.version,
                ROLE: role,
                PROTOCOL: answered.protocol,
                SECONDS: answered.seconds,
                **_outline(instance, text),
                **_outputs(answered.model, answer),
                HEARD: dict(answered.heard[index]) if index < len(answered.heard) else None,
            }
        )
    return out


def _outline(instance: Mapping[str, Any], text: bool) -> Row:
    """What may be kept of an instance. It was answered, so its events are valid."""
    import orjson

    events = [Event.parse(event, "event") for event in instance.get("events", ())]
    times = [event.time for event in events if event.time is not None]
    texts = [event.text for event in events if event.text]
    if TEXT in instance:
        texts = [instance[TEXT]]
    return {
        EVENTS: len(events) if "events" in instance else None,
        LATEST: max(times, default=None),
        CHARACTERS: sum(len(written) for written in texts) if instance else None,
        K: whole(instance.get(K)),
        INPUT: orjson.dumps(instance).decode() if text and instance else None,
    }


def _outputs(model: str, answer: Mapping[str, Any]) -> Row:
    """What is kept of an answer: its names and numbers, best first, and whether each was predicted
    and confident.
    """
    served = SERVED_MODELS[model]
    entries = served.entries(answer)
    return {
        NAMES: [entry[served.label] for entry in entries],
        NUMBERS: [entry[served.number] for entry in entries],
        PREDICTED: [entry[PREDICTED] for entry in entries] if served.has(PREDICTED) else None,
        # an answer of another server may lack it
        CONFIDENT: [entry.get(CONFIDENT) for entry in entries] if served.has(CONFIDENT) else None,
        REASONS: [_kinds(entry.get(REASONS)) for entry in entries] if served.has(REASONS) else None,
    }


def _kinds(reasons: object) -> list[Row]:
    """What is kept of an entry's reasons: kinds with numbers, nothing of what a user did or wrote.
    Another server's may be of another form.
    """
    return [
        {KIND: reason[KIND], CONTRIBUTION: float(reason[CONTRIBUTION])}
        for reason in (reasons if isinstance(reasons, list) else ())
        if isinstance(reason, Mapping)
        and isinstance(reason.get(KIND), str)
        and isinstance(reason.get(CONTRIBUTION), int | float)
    ]


def now() -> int:
    """µs since 1970 UTC."""
    return time.time_ns() // 1000


def is_request_id(text: object) -> TypeGuard[str]:
    """Whether a text may name a request. It is written to logs, headers and the journal as it
    came.
    """
    return isinstance(text, str) and _REQUEST_ID.fullmatch(text) is not None


def iso_time(micros: Any) -> str:
    """µs since 1970 UTC as ISO 8601."""
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="seconds")
