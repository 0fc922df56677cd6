"""Histories: what a store of users' events takes and gives, whichever keeps it.

A history is a set of events by their ids, and keeps the newest of them by (time, id). So it does
not depend on the order in which events come, and an event that comes twice counts once. What is no
longer kept leaves its item behind, so that what was consumed or refused long ago is not recommended
again either.

Users are pseudonyms (`tasteloop.privacy.pseudonyms`); event ids are keyed digests of the callers'.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.times import SECOND

ID_BYTES = 8
"""Bytes of an event's id: within one history, two of them are equal by chance once in 10^14."""

NEW, LATE, DUPLICATE, CONFLICT, ERASED = "new", "late", "duplicate", "conflict", "erased"
"""What became of an event. `new`: it is in the history. `late`: accepted, but older than all that
is kept; its item counts as consumed. `duplicate`: it was there. `conflict`: another event has its
id. `erased`: it is not after the erasure of its user."""
COUNTED = (NEW, LATE)
"""The outcomes of events that go to the monitor. A late one may be there already: whether it was in
the history before is no longer known. Ingest leaves out what says exactly the same."""

DISK, REPLICAS, MEMORY = "disk", "replicas", "memory"
"""Where an acknowledged event is: flushed to a disk, also with replicas, or in memory alone."""

DAY = 86_400 * SECOND


class StoreBusy(Exception):
    """Too much waits to be written. `retry_after` seconds from now there should be room."""

    def __init__(self, retry_after: float = 1.0) -> None:
        super().__init__("too many events wait to be stored; try again after Retry-After")
        self.retry_after = retry_after


class StoreFull(Exception):
    """The store or its disk has no room; nothing of the request was acknowledged."""


class StoreAway(Exception):
    """The store does not answer."""


class KeyReused(Exception):
    """An idempotency key came before, with another body."""


class Stale(Exception):
    """The history that could be read does not have yet what the caller has written."""


class StoredEvent(NamedTuple):
    """An event with its id; its time is always there."""

    id: bytes
    event: Event

    @property
    def order(self) -> tuple[int, bytes]:
        """By time, then by id."""
        assert self.event.time is not None, "a stored event has a time"
        return self.event.time, self.id


class Bounds(NamedTuple):
    """How much of a history is kept.

    Attributes:
        events: at most.
        days: how old an event may be; None: any age.
        items: that were consumed or refused by events that are no longer kept.
    """

    events: int = 500
    days: float | None = None
    items: int = 10_000

    def horizon(self, now: int) -> int:
        """µs since 1970 before which nothing is kept."""
        return 0 if self.days is None else max(0, now - int(self.days * DAY))


@dataclass(frozen=True)
class History:
    """What is kept of one user.

    Attributes:
        seq: counts the changes of this history; it never falls.
        events: the newest, oldest first.
        passed: items of events that are no longer kept: when each was last consumed, in µs; None
            where it was refused.
        erased: the time up to which the user was erased; None where that never happened.
    """

    seq: int = 0
    events: tuple[StoredEvent, ...] = ()
    passed: Mapping[str, int | None] = field(default_factory=dict)
    erased: int | None = None

    def export(self) -> dict[str, Any]:
        """Everything that is kept, as JSON."""
        return {
            "seq": self.seq,
            "events": [{"id": each.id.hex(), **each.event.json()} for each in self.events],
            "items": [{"item": item, "consumed": time} for item, time in self.passed.items()],
            "erased": self.erased,
        }

    def within(self, horizon: int) -> History:
        """Without the events before a time (µs), whose items are passed."""
        if not self.events or self.events[0].order[0] >= horizon:
            return self
        passed = dict(self.passed)
        old = [each for each in self.events if each.order[0] < horizon]
        for each in old:
            _pass(passed, each.event)
        return History(self.seq, self.events[len(old) :], passed, self.erased)


class Appended(NamedTuple):
    """What became of events of one user.

    Attributes:
        seq: of the history with them.
        outcomes: one of `NEW`, `LATE`, `DUPLICATE`, `CONFLICT`, `ERASED` for each.
        durable: `DISK`, `REPLICAS` or `MEMORY`.
    """

    seq: int
    outcomes: tuple[str, ...]
    durable: str


class Erasure(NamedTuple):
    """Attributes:
    events: that were kept, and are no longer.
    seq: of the empty history.
    """

    events: int
    seq: int


class Statistics(NamedTuple):
    """Attributes:
    users: with a history or a tombstone.
    events: of all of them; None where counting them would read the whole store.
    bytes: that the store has on its disk, or in its memory.
    """

    users: int
    events: int | None
    bytes: int


class Outgoing(NamedTuple):
    """Events that were counted, for the monitor's `incoming`.

    Attributes:
        name: of the file that they go to; the same events come again under the same name until they
            were `confirmed`.
        rows: (pseudonym, event).
    """

    name: str
    rows: list[tuple[str, Event]]
    token: tuple[int, int]


class Histories(Protocol):
    """A store of histories; safe to share between threads.

    `append`, `erase` and `claim` return at once; their futures end when the change is as durable as
    it gets, with StoreFull or StoreAway where it is not. They raise StoreBusy where too much waits.
    """

    bounds: Bounds

    def append(self, user: str, events: Sequence[StoredEvent], now: int) -> Future[Appended]:
        """Add events to a user's history: all of them or, where the future fails, none."""
        ...

    def read(self, user: str, now: int, newest: int | None = None) -> History:
        """A history; `newest`: so many of its events, the others are not passed."""
        ...

    def erase(self, user: str, now: int) -> Future[Erasure]:
        """Forget a user. A tombstone stays: events up to now, and up to the newest one that was
        kept, are refused from now on.
        """
        ...

    def claim(self, key: bytes, body: bytes, now: int) -> Future[int]:
        """Bind an idempotency key to the digest of a body, for a day at least; the result is the
        time of the first claim. The future fails with KeyReused where the body was another.
        """
        ...

    def load(self, histories: Iterable[tuple[str, Sequence[StoredEvent]]], now: int) -> int:
        """Add whole histories, many a commit; returns how many events were new. Nothing of it goes
        to the monitor.
        """
        ...

    def outgoing(self) -> list[Outgoing]:
        """What was counted and not yet confirmed."""
        ...

    def confirm(self, sent: Outgoing) -> None:
        """Forget what was written to its file."""
        ...

    def statistics(self) -> Statistics: ...

    def close(self) -> None:
        """Write what waits, then end."""
        ...


def consumption(event: Event) -> float | None:
    """What an event says of recommending its item again: the time at which it was consumed (µs),
    infinity where it was refused, None where it says nothing.
    """
    kind = KINDS.get(event.kind)
    if event.item is None or kind is None or not kind.consumes:
        return None
    return float("inf") if kind.refuses else event.time


def merge(
    history: History, added: Iterable[StoredEvent], bounds: Bounds, now: int
) -> tuple[History, tuple[str, ...]]:
    """A history with more events, and what became of each; the rule that every store follows."""
    before, horizon = history, bounds.horizon(now)
    events = list(history.events)
    by_id = {each.id: each.event for each in events}
    passed = dict(history.passed)
    seq, outcomes = history.seq, []
    for each in added:
        known = by_id.get(each.id)
        if known is not None:
            outcomes.append(DUPLICATE if _is_same(known, each.event) else CONFLICT)
            continue
        if history.erased is not None and each.order[0] <= history.erased:
            outcomes.append(ERASED)
            continue
        is_full = len(events) >= bounds.events
        if each.order[0] < horizon or (is_full and each.order < events[0].order):
            _pass(passed, each.event)
            outcomes.append(LATE)
            continue
        if not events or events[-1].order < each.order:
            events.append(each)
        else:
            events.insert(bisect_left(events, each.order, key=lambda one: one.order), each)
        by_id[each.id] = each.event
        seq += 1
        outcomes.append(NEW)
        if len(events) > bounds.events:
            oldest = events.pop(0)
            del by_id[oldest.id]
            _pass(passed, oldest.event)

    history = History(seq, tuple(events), passed, before.erased).within(horizon)
    if len(history.passed) > bounds.items:
        surplus = len(history.passed) - bounds.items
        kept = sorted(history.passed.items(), key=_latest)[surplus:]
        history = History(seq, history.events, dict(kept), before.erased)
    return history, tuple(outcomes)


def erase(history: History, now: int) -> History:
    """The tombstone of a history."""
    newest = history.events[-1].order[0] if history.events else 0
    return History(history.seq + 1, erased=max(now, newest, history.erased or 0))


def _is_same(one: Event, other: Event) -> bool:
    """Whether two events say the same; the time of one may be that of its arrival."""
    return (one.kind, one.item, one.value, one.text) == (
        other.kind,
        other.item,
        other.value,
        other.text,
    )


def _pass(passed: dict[str, int | None], event: Event) -> None:
    time = consumption(event)
    if time is None or event.item is None:
        return
    before = passed.get(event.item, 0)
    if before is not None:
        passed[event.item] = None if time == float("inf") else max(before, int(time))


def _latest(entry: tuple[str, int | None]) -> tuple[float, bytes]:
    item, time = entry
    return float("inf") if time is None else time, item.encode()
