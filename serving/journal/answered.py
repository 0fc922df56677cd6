"""One answered request, and the rows that the journal keeps of it.

What is never written: a raw user id (a user comes here as a pseudonym or not at all) and, unless
the setting `text` allows it, what a user wrote. A request's id is written as it came, so it must
not be made of a user's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeGuard

from tasteloop.answers import CONFIDENT, PREDICTED, SERVED_MODELS
from tasteloop.behaviour.events import TEXT, TIME, USER, Event
from tasteloop.behaviour.times import SECOND, whole
from tasteloop.journal import (
    ANSWER,
    CHARACTERS,
    EVENTS,
    INPUT,
    INSTANCE,
    LATEST,
    MODEL,
    NAMES,
    NUMBERS,
    PROTOCOL,
    REQUEST,
    ROLE,
    SECONDS,
    VERSION,
    K,
)

LONGEST_REQUEST_ID = 128  # characters
CLOCK_SKEW = 300 * SECOND  # by which another machine's clock may be ahead of this one's, µs

_STAGES = ("queue", "tokenise", "encode", "rank")
_REQUEST_ID = re.compile(rf"[!-~]{{1,{LONGEST_REQUEST_ID}}}")


@dataclass(frozen=True)
class Answered:
    """What was asked and answered in one request.

    Args:
        time: µs since 1970 UTC at which the answer was ready.
        instances: as V1 instances, without users; empty where only the answers are known.
        outputs: as V1 predictions, one for each instance.
        timings: seconds by stage (queue, tokenise, encode, rank), beside counts.
        headers: the caller's; they are not written.
        users: each instance's pseudonym or None.
        answer: the id that the answer's feedback token names; None where it was given none.
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

    @property
    def seconds(self) -> float | None:
        """From the request's arrival in the queue to its answer."""
        found = [self.timings[stage] for stage in _STAGES if stage in self.timings]
        return sum(found) if found else None


def rows(answered: Answered, role: str, text: bool = False) -> list[dict[str, Any]]:
    """The rows of `schema(ANSWERS)`, one an instance."""
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
            }
        )
    return out


def _outline(instance: Mapping[str, Any], text: bool) -> dict[str, Any]:
    """What may be kept of a question. It was answered, so its events are sound."""
    import orjson

    events = (
        [Event.parse(event, "event") for event in instance["events"]]
        if "events" in instance
        else None
    )
    written = (
        [instance[TEXT]]
        if TEXT in instance
        else [event.text for event in events or () if event.text]
    )
    return {
        EVENTS: None if events is None else len(events),
        LATEST: max((event.time for event in events or () if event.time is not None), default=None),
        CHARACTERS: sum(map(len, written)) if instance else None,
        K: whole(instance.get(K)),
        INPUT: orjson.dumps(instance).decode() if text and instance else None,
    }


def _outputs(model: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an answer: its names and numbers, best first, and what was said of them."""
    served = SERVED_MODELS[model]
    entries = served.entries(answer)
    return {
        NAMES: [entry[served.label] for entry in entries],
        NUMBERS: [entry[served.number] for entry in entries],
        PREDICTED: [entry[PREDICTED] for entry in entries] if served.has(PREDICTED) else None,
        # an answer that another server gave may lack it
        CONFIDENT: [entry.get(CONFIDENT) for entry in entries] if served.has(CONFIDENT) else None,
    }


def now() -> int:
    """µs since 1970 UTC."""
    return time.time_ns() // 1000


def is_request_id(text: object) -> TypeGuard[str]:
    """Whether a text may name a request: it is written to logs, headers and the journal as it
    came.
    """
    return isinstance(text, str) and _REQUEST_ID.fullmatch(text) is not None


def iso_time(micros: Any) -> str:
    """µs since 1970 UTC as ISO 8601."""
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="seconds")
