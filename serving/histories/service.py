"""Histories as a server uses them: events go in, questions get them, users are erased."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter as Count
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from prometheus_client import Counter

from serving.histories.cloud_events import cloud_events
from serving.histories.events import ID, LONGEST_ID, EventReader, Refusal, check_count, is_id
from serving.histories.protocol import (
    CONFLICT,
    COUNTED,
    DAY,
    DUPLICATE,
    ERASED,
    NEW,
    Appended,
    Histories,
    History,
    Stale,
    consumption,
)
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.times import whole
from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    from tasteloop.runtime.questions import Exceptions

EVENTS = "events"
MINIMUM = "min_seq"
"""A field of an instance: the `seq` that its user's history must have reached."""

_OUTCOMES = Counter("tasteloop_history_events", "Events that came for histories", ("outcome",))
_REFUSED = {
    CONFLICT: "another event of this user has this id; give each event an id of its own",
    ERASED: "this user was erased after it",
}
_INFINITE = float("inf")

Result = TypeVar("Result")


@dataclass(frozen=True)
class HistoryUse:
    """Which history an answer used.

    Attributes:
        events: of the history, those that were sent along included.
        seq: of the stored one.
        exceptions: what it says of recommending items, beside its events.
    """

    events: int
    seq: int
    exceptions: Exceptions

    def json(self) -> dict[str, int]:
        return {"events": self.events, "seq": self.seq}


class HistoryService:
    """One store of histories, for one server.

    Args:
        key: of the users' pseudonyms.
        characters: of one text.
        repeat_days: after so many days what was consumed may be recommended again; None: never.
            What was refused is not.
    """

    def __init__(
        self,
        store: Histories,
        key: bytes,
        characters: int = 20_000,
        repeat_days: float | None = None,
    ) -> None:
        self.store = store
        self._reader = EventReader(key, characters)
        self._repeat = None if repeat_days is None else int(repeat_days * DAY)

    async def take(
        self, content_type: str, headers: Mapping[str, str], body: bytes
    ) -> dict[str, Any]:
        """Store the events of a request, JSON or CloudEvents; the answer, once they are durable.

        Args:
            headers: by lower-case names; `idempotency-key` is read.

        Raises:
            TasteloopError: the body has no list of events.
            KeyReused, StoreBusy, StoreFull, StoreAway: see `serving.histories.protocol`. The same
                request can be sent again: what was stored of it is not counted twice.
        """
        rows = cloud_events(content_type, headers, body)
        key = headers.get("idempotency-key")
        if rows is None:
            return await self.store_rows(_rows(body), key, body)
        # a binary CloudEvent says in its headers whom and what it is about
        return await self.store_rows(rows, key, orjson.dumps(rows))

    async def store_rows(self, rows: list[Any], request: str | None, body: bytes) -> dict[str, Any]:
        """`take`, for rows that were read already.

        Args:
            request: the idempotency key of the request; body: what came under it.
        """
        check_count(rows)  # before the key is bound to them

        # 1. the rows; under a key that came before they get the time of its first request
        now = _now()
        if request is not None:
            if not is_id(request):
                raise TasteloopError(f"an idempotency key has 1 to {LONGEST_ID} characters")
            key = self._reader.digest("key", request)
            digest = hashlib.blake2b(body, digest_size=16).digest()
            now = await _result(self.store.claim(key, digest, now))
        arrived = self._reader.read(rows, now, request)

        # 2. into the store, all users at once
        waiting: dict[str, asyncio.Future[Appended]] = {}
        for user, events in arrived.events.items():
            added = [event for _, event in events]
            waiting[user] = asyncio.wrap_future(self.store.append(user, added, now))
        await asyncio.gather(*waiting.values())

        # 3. what became of them
        outcomes: Count[str] = Count()
        refused = list(arrived.refused)
        sequence, durable = {}, set()
        for user, future in waiting.items():
            appended = future.result()
            sequence[arrived.users[user]] = appended.seq
            durable.add(appended.durable)
            for (index, _), outcome in zip(arrived.events[user], appended.outcomes, strict=True):
                outcomes[outcome] += 1
                if outcome in _REFUSED:
                    refused.append(Refusal(index, outcome, _REFUSED[outcome]))
        for outcome, count in outcomes.items():
            _OUTCOMES.labels(outcome).inc(count)
        for refusal in arrived.refused:
            _OUTCOMES.labels(refusal.reason).inc()
        return {
            "accepted": sum(outcomes[outcome] for outcome in (*COUNTED, DUPLICATE)),
            "new": outcomes[NEW],
            "refused": [each.json() for each in sorted(refused, key=lambda each: each.index)],
            "seq": sequence,
            "durable": min(durable, default=None),
        }

    async def resolve(
        self, instances: object, users: Sequence[str | None]
    ) -> tuple[object, list[HistoryUse | None]]:
        """Instances of a request about histories, those with a user with the history of that user.

        An instance without `events` gets what is stored. One with events gets what is stored and,
        after it, those of its own that are not stored yet: their `id` says so, or their content.

        Args:
            instances: V1's, without users; users: the pseudonym of each, or None.

        Raises:
            TasteloopError: `min_seq` is no number, or an event's `id` is none.
            Stale: a history has not reached its `min_seq`.
        """
        if not isinstance(instances, list) or not any(users):
            return instances, []
        return await asyncio.to_thread(self._resolve, instances, users)

    async def export(self, user: str) -> dict[str, Any]:
        """Everything that is kept of a user, as JSON."""
        history = await asyncio.to_thread(self.store.read, self._reader.user(user), _now())
        return {"user": user, **history.export()}

    async def erase(self, user: str) -> dict[str, Any]:
        """Forget a user; the answer, once that is durable."""
        erasure = await _result(self.store.erase(self._reader.user(user), _now()))
        return {"erased": erasure.events, "seq": erasure.seq}

    def _resolve(
        self, instances: list[Any], users: Sequence[str | None]
    ) -> tuple[list[Any], list[HistoryUse | None]]:
        now = _now()
        resolved: list[Any] = []
        uses: list[HistoryUse | None] = []
        for index, (instance, user) in enumerate(zip(instances, users, strict=True)):
            if user is None or not isinstance(instance, dict):
                resolved.append(instance)
                uses.append(None)
                continue
            where = f"instances[{index}]"
            history = self.store.read(user, now)
            _require(history, instance.get(MINIMUM), where)
            rest = {name: value for name, value in instance.items() if name != MINIMUM}
            sent = rest.get(EVENTS, [])
            if not isinstance(sent, list):
                resolved.append(rest)  # the question's own checks say what is wrong with it
                uses.append(None)
                continue
            unknown = self._unknown(history, sent, where)
            events = [event for _, event in history.events] + unknown
            resolved.append({**rest, EVENTS: [event.json() for event in events]})
            exceptions = self._exceptions(history, unknown, now)
            uses.append(HistoryUse(len(events), history.seq, exceptions))
        return resolved, uses

    def _unknown(self, history: History, sent: list[Any], where: str) -> list[Event]:
        """The events that were sent with a question and are not stored."""
        if not sent:
            return []
        ids = {each.id for each in history.events}
        contents = {each.event for each in history.events}
        unknown = []
        for index, row in enumerate(sent):
            row = row if isinstance(row, dict) else {}
            name = row.get(ID)
            if name is not None and not is_id(name):
                raise TasteloopError(
                    f"{where}.events[{index}].id: a string of 1 to {LONGEST_ID} characters, or null"
                )
            bare = {field: value for field, value in row.items() if field != ID}
            event = Event.parse(bare or sent[index], f"{where}.events[{index}]")
            if self._reader.event_id(row, event) not in ids and event not in contents:
                unknown.append(event)
        return unknown

    def _exceptions(self, history: History, sent: Sequence[Event], now: int) -> Exceptions:
        """What to leave out beside the items of a question's events, and what to allow of them."""
        from tasteloop.runtime.questions import Exceptions

        if self._repeat is None:
            return Exceptions(frozenset(history.passed))
        consumed = {
            item: _INFINITE if time is None else time for item, time in history.passed.items()
        }
        for event in (*(event for _, event in history.events), *sent):
            time = consumption(event if event.time is not None else replace(event, time=now))
            if time is not None and event.item is not None:
                consumed[event.item] = max(time, consumed.get(event.item, 0))
        oldest = now - self._repeat
        left_out = frozenset(item for item, time in consumed.items() if time >= oldest)
        return Exceptions(left_out, frozenset(consumed.keys() - left_out))


def _require(history: History, least: object, where: str) -> None:
    """Check that a history has reached a `seq`."""
    if least is None:
        return
    number = whole(least)
    if number is None or number < 0:
        raise TasteloopError(
            f"{where}.{MINIMUM}: the seq of an acknowledged event is expected, not {least!r:.40}"
        )
    if history.seq < number:
        raise Stale(
            f"{where}: the history that can be read has seq {history.seq}, {MINIMUM} is {number}; ask again, "
            "or send the events along"
        )


def _rows(body: bytes) -> list[Any]:
    try:
        parsed = orjson.loads(body)
    except ValueError as error:
        raise TasteloopError(f"the body is not JSON: {error}") from None
    if (
        not isinstance(parsed, dict)
        or set(parsed) != {EVENTS}
        or not isinstance(parsed[EVENTS], list)
    ):
        raise TasteloopError(
            'the body must be a JSON object {"events": [{"user": "u1", "kind": "click", "item": "50"}, ...]}, '
            "or CloudEvents"
        )
    return list(parsed[EVENTS])


async def _result(future: Future[Result]) -> Result:
    return await asyncio.wrap_future(future)


def _now() -> int:
    return time.time_ns() // 1000
