"""Histories in Valkey or Redis, for several servers.

A user has three keys with one hash tag, so that a cluster keeps them together: the order of events
(a sorted set of ids by time), the events by id (a hash, which also has `seq` and `erased`), and the
items of events that are no longer kept (a sorted set by time, infinity where they were refused).
One script adds events to them, and no other client sees a part of it. It is `merge` of
`serving.histories.protocol` in Lua; the same laws hold it.

A thread sends all that waits in one exchange. Whether the server then has it on its disk or with a
replica depends on how it is set up (`appendfsync always`, replicas), and is told with each answer.
"""

from __future__ import annotations

import logging
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any, TypeVar

import orjson

from serving.histories.protocol import (
    COUNTED,
    DISK,
    MEMORY,
    REPLICAS,
    Appended,
    Bounds,
    Erasure,
    History,
    KeyReused,
    Outgoing,
    Statistics,
    StoreAway,
    StoredEvent,
    StoreFull,
    consumption,
)
from serving.histories.writing import Change, Writer
from serving.settings import HISTORIES_PASSWORD, token
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.kinds import DECLARED
from tasteloop.errors import TasteloopError
from tasteloop.redaction import redact

logger = logging.getLogger(__name__)

_APPEND = """
local times, events, items = KEYS[1], KEYS[2], KEYS[3]
local horizon, most, most_items = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local function pass(time, body)
  local says = string.sub(body, 1, 1)
  if says == '0' then return end
  local item = string.sub(body, 6, 5 + struct.unpack('>I4', body, 2))
  redis.call('ZADD', items, 'GT', says == '2' and '+inf' or time, item)
end
local function drop(id, time)
  pass(time, redis.call('HGET', events, id))
  redis.call('HDEL', events, id)
  redis.call('ZREM', times, id)
end
local seq = tonumber(redis.call('HGET', events, 'seq') or '0')
local erased = redis.call('HGET', events, 'erased')
local count = redis.call('ZCARD', times)
local outcomes, changed = {}, false
for n = 4, #ARGV, 3 do
  local id, time, body = ARGV[n], ARGV[n + 1], ARGV[n + 2]
  local known = redis.call('HGET', events, id)
  local outcome
  if known then
    outcome = known == body and 'duplicate' or 'conflict'
  elseif erased and tonumber(time) <= tonumber(erased) then
    outcome = 'erased'
  elseif tonumber(time) < tonumber(horizon) then
    pass(time, body)
    outcome, changed = 'late', true
  else
    redis.call('ZADD', times, time, id)
    redis.call('HSET', events, id, body)
    count, outcome, changed = count + 1, 'new', true
    if count > most then
      local oldest = redis.call('ZRANGE', times, 0, 0, 'WITHSCORES')
      drop(oldest[1], oldest[2])
      count = count - 1
      if oldest[1] == id then outcome = 'late' end
    end
    if outcome == 'new' then seq = seq + 1 end
  end
  outcomes[#outcomes + 1] = outcome
end
if changed then
  local old = redis.call('ZRANGEBYSCORE', times, '-inf', '(' .. horizon, 'WITHSCORES')
  for n = 1, #old, 2 do drop(old[n], old[n + 1]) end
  local surplus = redis.call('ZCARD', items) - most_items
  if surplus > 0 then redis.call('ZREMRANGEBYRANK', items, 0, surplus - 1) end
  redis.call('HSET', events, 'seq', seq)
end
return {seq, outcomes}
"""

_ERASE = """
local times, events, items = KEYS[1], KEYS[2], KEYS[3]
local count = redis.call('ZCARD', times)
local newest = redis.call('ZRANGE', times, -1, -1, 'WITHSCORES')[2] or '0'
local before = redis.call('HGET', events, 'erased') or '0'
local erased = ARGV[1]
if tonumber(newest) > tonumber(erased) then erased = newest end
if tonumber(before) > tonumber(erased) then erased = before end
local seq = tonumber(redis.call('HGET', events, 'seq') or '0') + 1
redis.call('DEL', times, events, items)
redis.call('HSET', events, 'seq', seq, 'erased', erased)
return {count, seq}
"""

_READ = """
return {redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[2]),
        redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')}
"""

_CLAIM = """
local known = redis.call('GET', KEYS[1])
if known then return known end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return ARGV[1]
"""

_PREFIX = "tasteloop"
_KEYS_STAY = 86_400  # seconds
_DIGEST = 16  # bytes of a body's digest
_LENGTH = struct.Struct(">I")
_PATIENCE = 10.0  # seconds of a failover, in which the same changes are sent again
_REPLICA_WAIT = 100  # milliseconds that an answer waits for a replica
_LOADED = 500  # histories of one exchange of `load`
_OUTGOING = 5_000  # events of one file for the monitor
_WAITING_FOR_FILES = 1_000_000  # events in memory, where their files cannot be written
_NUMBER = {kind.word: number for number, kind in enumerate(DECLARED)}
_WORDS = [kind.word for kind in DECLARED]

Result = TypeVar("Result")


class ValkeyHistories:
    """A store on a Valkey or Redis server.

    What is to go to the monitor waits in this process: a kill loses what came since the last file
    (`--history-seconds`) for the monitor, and nothing of the histories. So does an answer of the
    server that was lost: what it had stored is a duplicate when it is sent again.

    Args:
        address: `valkey://HOST:PORT/DATABASE`, `valkeys://` with TLS; without a password, which
            `TASTELOOP_HISTORIES_PASSWORD` (or `_FILE`) has.
        bounds: of every history; all servers of one store have the same.
        waiting: events that may wait to be sent; more are refused.
        forwards: whether events are kept until they went to the monitor.

    Raises:
        TasteloopError: the client is not installed, the server does not answer, is a node of a
            cluster, or would evict histories.
    """

    def __init__(
        self,
        address: str,
        bounds: Bounds = Bounds(),
        waiting: int = 10_000,
        forwards: bool = False,
    ) -> None:
        self.bounds = bounds
        self._forwards = forwards
        self._client = _connect(address)
        self._scripts = {
            name: self._client.register_script(text)
            for name, text in (
                ("append", _APPEND),
                ("erase", _ERASE),
                ("read", _READ),
                ("claim", _CLAIM),
            )
        }
        self._syncs = _check(self._client, redact(address))
        self._id = secrets.token_hex(4)
        self._rows: list[tuple[str, Event]] = []  # that wait for the monitor
        self._first = 0  # the number of the first of them
        self._turn = threading.Lock()
        self._closed = False
        self._writer = Writer(self._write, waiting, "histories")

    def append(self, user: str, events: Sequence[StoredEvent], now: int) -> Future[Appended]:
        return self._writer.submit(Change("append", user, now, events))

    def erase(self, user: str, now: int) -> Future[Erasure]:
        return self._writer.submit(Change("erase", user, now))

    def claim(self, key: bytes, body: bytes, now: int) -> Future[int]:
        return self._writer.submit(Change("claim", key.hex(), now, body=body))

    def read(self, user: str, now: int, newest: int | None = None) -> History:
        answer = self._insist(lambda: self._scripts["read"](keys=_keys(user)))
        history = _history(*answer).within(self.bounds.horizon(now))
        if newest is None or newest >= len(history.events):
            return history
        events = history.events[len(history.events) - newest :]
        return History(history.seq, events, history.passed, history.erased)

    def load(self, histories: Iterable[tuple[str, Sequence[StoredEvent]]], now: int) -> int:
        rows, new = iter(histories), 0
        while block := list(islice(rows, _LOADED)):
            changes = [Change("append", user, now, events) for user, events in block]
            for answer in self._exchange(changes)[0]:
                if isinstance(answer, Exception):
                    raise _as_ours(answer)
                new += sum(outcome.decode() in COUNTED for outcome in answer[1])
        return new

    def outgoing(self) -> list[Outgoing]:
        with self._turn:
            rows, first = self._rows[:_OUTGOING], self._first
        if not rows:
            return []
        name = f"events-{self._id}-{first:012}.parquet"
        return [Outgoing(name, rows, (first, first + len(rows)))]

    def confirm(self, sent: Outgoing) -> None:
        with self._turn:
            first, end = sent.token
            if first == self._first:
                del self._rows[: end - first]
                self._first = end

    def statistics(self) -> Statistics:
        pattern = _key("*", "e")
        users = self._insist(lambda: sum(1 for _ in self._client.scan_iter(pattern, count=1_000)))
        memory = self._insist(lambda: self._client.info("memory"))
        return Statistics(users, None, int(memory["used_memory"]))

    def close(self) -> None:
        self._writer.close()
        self._closed = True
        self._client.close()

    def _write(self, changes: list[Change]) -> None:
        """Send changes in one exchange, and end their futures when they are durable."""
        answers, durable = self._exchange(changes)
        for change, answer in zip(changes, answers, strict=True):
            if isinstance(answer, Exception):
                change.future.set_exception(_as_ours(answer))
            elif change.kind == "append":
                outcomes = tuple(outcome.decode() for outcome in answer[1])
                self._note(change, outcomes)
                change.future.set_result(Appended(answer[0], outcomes, durable))
            elif change.kind == "erase":
                change.future.set_result(Erasure(*answer))
            elif answer[:_DIGEST] != change.body:
                text = "this idempotency key came before with another body; use a new one"
                change.future.set_exception(KeyReused(text))
            else:
                change.future.set_result(int(answer[_DIGEST:]))

    def _exchange(self, changes: Sequence[Change]) -> tuple[list[Any], str]:
        """The answer to each change, in one exchange, and where the changes are by then; an error
        that is of one change alone is its answer.
        """

        def send() -> tuple[list[Any], str]:
            waits = not self._syncs and self._has_replicas()
            pipeline = self._client.pipeline(transaction=False)
            for change in changes:
                script, keys, values = self._call(change)
                script(keys=keys, args=values, client=pipeline)
            if waits:  # WAIT is about what was written before it on the same connection
                pipeline.wait(1, _REPLICA_WAIT)
            # the pipeline loads the scripts that the server does not have (NOSCRIPT)
            answers = pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and _is_passing(answer):
                    raise answer  # of the server, not of the change: all are sent again
            confirmed = answers.pop() if waits else 0
            if self._syncs:  # the server flushes before it answers
                return list(answers), DISK
            has_replica = isinstance(confirmed, int) and confirmed > 0
            return list(answers), REPLICAS if has_replica else MEMORY

        return self._insist(send)

    def _call(self, change: Change) -> tuple[Any, list[str], list[Any]]:
        """The script of a change, its keys and its values."""
        if change.kind == "claim":
            value = change.body + str(change.now).encode()
            return self._scripts["claim"], [_key(change.subject, "k")], [value, _KEYS_STAY]
        keys = _keys(change.subject)
        if change.kind == "erase":
            return self._scripts["erase"], keys, [change.now]
        bounds = self.bounds
        values: list[Any] = [bounds.horizon(change.now), bounds.events, bounds.items]
        for each in change.events:
            values += [each.id, each.event.time, _body(each.event)]
        return self._scripts["append"], keys, values

    def _has_replicas(self) -> bool:
        return bool(self._client.info("replication").get("connected_slaves", 0))

    def _note(self, change: Change, outcomes: Sequence[str]) -> None:
        if not self._forwards:
            return
        counted = [
            (change.subject, event)
            for (_, event), outcome in zip(change.events, outcomes, strict=True)
            if outcome in COUNTED
        ]
        with self._turn:
            if len(self._rows) + len(counted) <= _WAITING_FOR_FILES:
                self._rows += counted
                return
        logger.error(
            "%d events are lost for the monitor: its files cannot be written, and %d wait",
            len(counted),
            _WAITING_FOR_FILES,
        )

    def _insist(self, ask: Callable[[], Result]) -> Result:
        """What the server answers; during a failover it is asked again for some seconds.

        Raises:
            StoreAway: it did not answer. StoreFull: it has no room.
        """
        deadline = time.monotonic() + _PATIENCE
        pause = 0.02
        while True:
            try:
                return ask()
            except Exception as error:
                if not _is_passing(error) or time.monotonic() > deadline or self._closed:
                    raise _as_ours(error) from error
                logger.warning("the store of histories did not answer (%s); asking again", error)
                time.sleep(pause)
                pause = min(2 * pause, 1.0)


def _connect(address: str) -> Any:
    try:
        import valkey
    except ImportError:
        raise TasteloopError(
            "histories in Valkey need its client: pip install 'tasteloop[valkey]'"
        ) from None
    if "@" in address:
        raise TasteloopError(
            f"the address of the histories names a user or a password; put the password into {HISTORIES_PASSWORD} "
            f"or the file of {HISTORIES_PASSWORD}_FILE"
        )
    url = address.replace("redis", "valkey", 1) if address.startswith("redis") else address
    try:
        return valkey.Valkey.from_url(
            url,
            password=token(HISTORIES_PASSWORD),
            socket_timeout=5.0,
            socket_connect_timeout=2.0,
            health_check_interval=30,
        )
    except ValueError as error:
        raise TasteloopError(f"--histories {redact(address)!r:.200}: {error}") from None


def _check(client: Any, address: str) -> bool:
    """Whether the server flushes each write to its disk before it answers.

    Raises:
        TasteloopError: it does not answer, is a node of a cluster, or evicts keys where memory is
            short.
    """
    import valkey

    try:
        is_cluster = bool(client.info("cluster").get("cluster_enabled"))
    except valkey.ValkeyError as error:
        raise TasteloopError(
            f"the store of histories at {address} does not answer ({error}); check its address, and "
            f"{HISTORIES_PASSWORD} where it asks for a password"
        ) from None
    if is_cluster:
        raise TasteloopError(
            f"the store of histories at {address} is a node of a cluster, which keeps only some of the users; name a "
            "server that is no cluster, alone or with replicas"
        )
    try:
        policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "noeviction")
        flushes = client.config_get("append*")
    except valkey.ResponseError:  # a managed server may forbid it
        logger.warning("the store of histories does not say whether it keeps what it is given")
        return False
    if policy not in ("noeviction", b"noeviction"):
        raise TasteloopError(
            f"the store of histories at {address} has maxmemory-policy {policy}: it would forget users where memory "
            "is short; set it to noeviction"
        )
    return (flushes.get("appendonly"), flushes.get("appendfsync")) == ("yes", "always")


def _is_passing(error: Exception) -> bool:
    """Whether an error may be over in a moment: the connection, or a server that just starts or is
    no primary (any more, or yet).
    """
    import valkey

    passing = (
        valkey.ConnectionError,
        valkey.TimeoutError,
        valkey.BusyLoadingError,
        valkey.exceptions.NoScriptError,  # forgotten between the pipeline's look and its use
        valkey.ReadOnlyError,
    )
    if isinstance(error, valkey.AuthenticationError):
        return False
    return isinstance(error, passing) or str(error).startswith(("MASTERDOWN", "NOREPLICAS"))


def _as_ours(error: Exception) -> Exception:
    """A client's error as the protocol's."""
    import valkey

    if isinstance(error, valkey.OutOfMemoryError) or str(error).startswith(("OOM", "MISCONF")):
        return StoreFull("the store of histories has no room; nothing was stored: make room")
    if isinstance(error, valkey.ValkeyError):
        return StoreAway("the store of histories does not answer")
    return error


def _key(subject: str, role: str) -> str:
    return f"{_PREFIX}:{{{subject}}}:{role}"


def _keys(user: str) -> list[str]:
    return [_key(user, role) for role in ("t", "e", "i")]


def _body(event: Event) -> bytes:
    """An event without its time: what it says of its item, the item, and the rest as JSON."""
    consumed = consumption(event)
    says = b"0" if consumed is None else b"2" if consumed == float("inf") else b"1"
    item = (event.item or "").encode()
    rest = orjson.dumps([_NUMBER[event.kind], event.value, event.text])
    return says + _LENGTH.pack(len(item)) + item + rest


def _event(body: bytes, when: int) -> Event:
    end = 5 + _LENGTH.unpack_from(body, 1)[0]
    kind, value, text = orjson.loads(body[end:])
    return Event(_WORDS[kind], body[5:end].decode() or None, when, value, text)


def _history(times: list[bytes], fields: list[bytes], items: list[bytes]) -> History:
    """The history that `_READ` has read."""
    bodies = dict(zip(fields[::2], fields[1::2], strict=True))
    events = tuple(
        StoredEvent(event_id, _event(bodies[event_id], int(when)))
        for event_id, when in zip(times[::2], times[1::2], strict=True)
    )
    passed = {
        item.decode(): None if when == b"inf" else int(when)
        for item, when in zip(items[::2], items[1::2], strict=True)
    }
    erased = bodies.get(b"erased")
    return History(
        int(bodies.get(b"seq", 0)), events, passed, None if erased is None else int(erased)
    )
