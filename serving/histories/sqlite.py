"""Histories in SQLite: files of one directory, for one server.

Users are spread over a few files by their pseudonym, each with a thread that writes. It commits all
changes that wait together, flushed to the disk (`synchronous=FULL`), before it acknowledges any of
them. Readers see the last commit, and wait for nobody.

Beside the histories, the same commit writes what is to go to the monitor. It is removed once it
lies in a file there, so that a kill loses none: a second file of the same name has the same events,
and those that came since.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

import orjson

from serving.histories.packing import pack, unpack
from serving.histories.protocol import (
    COUNTED,
    DAY,
    DISK,
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
    erase,
    merge,
)
from serving.histories.writing import Change, Writer
from tasteloop.behaviour.events import Event
from tasteloop.errors import TasteloopError
from tasteloop.files import make_directory, read_json, write_json

logger = logging.getLogger(__name__)

SHARDS = 4
"""Files of a new store. More of them write more at once where the disk flushes several files in
parallel; the number of a store that exists is its own."""

_DESCRIPTION = "store.json"
_LOCK = "store.lock"
_FORMAT = 1
_KEYS_STAY = DAY  # µs
# A commit that has to move 1,000 pages (SQLite's default) into the file makes its callers wait for
# as many random writes. So a thread moves them beside the commits, and a commit only where that
# thread does not keep up.
_MOVED = 2 * 2**20  # bytes of a log from which on it is moved
_OVERDUE = 8_000  # pages of a log, 64 MB, that a commit moves itself
_INTERVAL = 0.5  # seconds
# Rows of 40 events are 800 to 900 bytes: four of them leave much of SQLite's 4,096 bytes empty,
# nine little of these. Rows lie in the order of arrival; by pseudonym a third of each page would be
# empty.
_PAGE = 8_192
_LOADED = 2_000  # histories of one commit of `load`
_OUTGOING = 5_000  # events of one file for the monitor
_TABLES = """
CREATE TABLE IF NOT EXISTS histories (
    user BLOB NOT NULL UNIQUE, seq INTEGER NOT NULL, erased INTEGER, events INTEGER NOT NULL,
    packed BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS keys (key BLOB PRIMARY KEY, body BLOB NOT NULL, at INTEGER NOT NULL)
WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_by_time ON keys (at);
CREATE TABLE IF NOT EXISTS outgoing (number INTEGER PRIMARY KEY AUTOINCREMENT, events BLOB NOT NULL);
"""


class SqliteHistories:
    """A store in a directory.

    Args:
        directory: is made where it does not exist.
        bounds: of every history.
        waiting: events that may wait to be written, of all files; more are refused.
        megabytes: that all files may have; None: what the disk has.
        forwards: whether events are kept until they went to the monitor.
        alone: hold the directory against other servers. A reader needs not, and makes no store.

    Raises:
        TasteloopError: another server has the directory, or it holds no store of this format.
        StoreFull, StoreAway: a file of it cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        bounds: Bounds = Bounds(),
        waiting: int = 10_000,
        megabytes: int | None = None,
        forwards: bool = False,
        alone: bool = True,
        shards: int = SHARDS,
    ) -> None:
        self.bounds, self.directory = bounds, directory
        if not alone and not (directory / _DESCRIPTION).exists():
            raise TasteloopError(f"no histories are kept in {directory}")
        make_directory(directory)
        self._lock = _lock(directory) if alone else None
        self._id, count = _describe(directory, shards)
        self._forwards = forwards
        self._local = threading.local()
        self._files = [directory / f"{n:02}.db" for n in range(count)]
        pages = None if megabytes is None else max(16, megabytes * 2**20 // _PAGE // count)
        self._shards = [_Shard(file, bounds, forwards, pages) for file in self._files]
        self._writers = [
            Writer(shard.write, max(1, waiting // count), f"histories-{n}")
            for n, shard in enumerate(self._shards)
        ]
        self._closed = threading.Event()
        self._mover = threading.Thread(target=self._move_logs, name="histories-log", daemon=True)
        if alone:
            self._mover.start()

    def append(self, user: str, events: Sequence[StoredEvent], now: int) -> Future[Appended]:
        return self._writer(user).submit(Change("append", user, now, events))

    def erase(self, user: str, now: int) -> Future[Erasure]:
        return self._writer(user).submit(Change("erase", user, now))

    def claim(self, key: bytes, body: bytes, now: int) -> Future[int]:
        subject = key.hex()
        return self._writer(subject).submit(Change("claim", subject, now, body=body))

    def read(self, user: str, now: int, newest: int | None = None) -> History:
        with _store_errors():
            connection = self._reader(self._number(user))
            history = _select(connection, user).within(self.bounds.horizon(now))
        if newest is None or newest >= len(history.events):
            return history
        events = history.events[len(history.events) - newest :]
        return History(history.seq, events, history.passed, history.erased)

    def load(self, histories: Iterable[tuple[str, Sequence[StoredEvent]]], now: int) -> int:
        rows, new = iter(histories), 0
        while block := list(islice(rows, _LOADED)):
            by_shard: dict[int, list[tuple[str, Sequence[StoredEvent]]]] = {}
            for user, events in block:
                by_shard.setdefault(self._number(user), []).append((user, events))
            for number, part in by_shard.items():
                new += self._shards[number].load(part, now)
        return new

    def outgoing(self) -> list[Outgoing]:
        if not self._forwards:
            return []
        batches = []
        for number in range(len(self._files)):
            rows: list[tuple[str, Event]] = []
            first = last = 0
            cursor = self._reader(number).execute(
                "SELECT number, events FROM outgoing ORDER BY number"
            )
            for at, events in cursor:
                first = first or at
                last = at
                rows += [(user, Event(*fields)) for user, *fields in orjson.loads(events)]
                if len(rows) >= _OUTGOING:
                    break
            cursor.close()
            if rows:
                name = f"events-{self._id}-{number:02}-{first:012}.parquet"
                batches.append(Outgoing(name, rows, (number, last)))
        return batches

    def confirm(self, sent: Outgoing) -> None:
        number, last = sent.token
        self._shards[number].remove_outgoing(last)

    def statistics(self) -> Statistics:
        users = events = size = 0
        for number, file in enumerate(self._files):
            row = self._reader(number).execute("SELECT count(*), sum(events) FROM histories")
            of_shard, of_events = row.fetchone()
            users, events = users + of_shard, events + (of_events or 0)
            size += sum(path.stat().st_size for path in (file, _log(file)) if path.exists())
        return Statistics(users, events, size)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self._closed.set()
        if self._mover.ident is not None:
            self._mover.join()
        for shard in self._shards:
            shard.close()
        if self._lock is not None:
            self._lock.close()

    def _move_logs(self) -> None:
        """Move what the logs hold into the files, beside the commits."""
        connections = [_connect(file) for file in self._files]
        while not self._closed.wait(_INTERVAL):
            for file, connection in zip(self._files, connections, strict=True):
                log = _log(file)
                if not log.exists() or log.stat().st_size < _MOVED:
                    continue
                try:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                except sqlite3.Error as error:  # a full disk, which commits tell
                    logger.debug("the log of %s was not moved: %s", file.name, error)
        for connection in connections:
            connection.close()

    def _number(self, subject: str) -> int:
        return int(subject[:8], 16) % len(self._files)

    def _writer(self, subject: str) -> Writer:
        return self._writers[self._number(subject)]

    def _reader(self, number: int) -> sqlite3.Connection:
        """This thread's connection to a file."""
        connections: dict[int, sqlite3.Connection] = self._local.__dict__.setdefault("of", {})
        if number not in connections:
            connections[number] = _connect(self._files[number])
            connections[number].execute("PRAGMA query_only=ON")
        return connections[number]


class _Shard:
    """One file, as its writing thread sees it."""

    def __init__(self, path: Path, bounds: Bounds, forwards: bool, pages: int | None) -> None:
        self._bounds, self._forwards = bounds, forwards
        self._turn = threading.Lock()
        with _store_errors():
            self._connection = _connect(path)
            self._connection.executescript(_TABLES)
            if pages is not None:
                self._connection.execute(f"PRAGMA max_page_count={pages}")

    def write(self, changes: list[Change]) -> None:
        """Carry out changes in one commit, and end their futures after it."""
        results: list[object] = []
        with self._commit():
            cached: dict[str, History] = {}
            touched: set[str] = set()
            outgoing: list[list[str | int | float | None]] = []
            for change in changes:
                if change.kind == "claim":
                    results.append(self._claim(change))
                    continue
                user = change.subject
                if user not in cached:
                    cached[user] = _select(self._connection, user)
                if change.kind == "erase":
                    before = cached[user]
                    cached[user] = erase(before, change.now)
                    touched.add(user)
                    results.append(Erasure(len(before.events), cached[user].seq))
                    continue
                cached[user], outcomes = merge(
                    cached[user], change.events, self._bounds, change.now
                )
                counted = [
                    [user, event.kind, event.item, event.time, event.value, event.text]
                    for (_, event), outcome in zip(change.events, outcomes, strict=True)
                    if outcome in COUNTED
                ]
                if counted:
                    touched.add(user)
                    outgoing += counted
                results.append(Appended(cached[user].seq, outcomes, DISK))
            self._save((user, cached[user]) for user in touched)
            if outgoing and self._forwards:
                self._connection.execute(
                    "INSERT INTO outgoing (events) VALUES (?)", (orjson.dumps(outgoing),)
                )
        for change, result in zip(changes, results, strict=True):
            if isinstance(result, Exception):
                change.future.set_exception(result)
            else:
                change.future.set_result(result)

    def load(self, histories: Sequence[tuple[str, Sequence[StoredEvent]]], now: int) -> int:
        new = 0
        with self._commit():
            changed = []
            for user, events in histories:
                history, outcomes = merge(
                    _select(self._connection, user), events, self._bounds, now
                )
                new += sum(outcome in COUNTED for outcome in outcomes)
                changed.append((user, history))
            self._save(changed)
        return new

    def remove_outgoing(self, last: int) -> None:
        with self._commit():
            self._connection.execute("DELETE FROM outgoing WHERE number <= ?", (last,))

    def close(self) -> None:
        self._connection.close()

    def _claim(self, change: Change) -> object:
        """The time of the first claim of a key, or why it cannot be claimed."""
        key, oldest = bytes.fromhex(change.subject), change.now - _KEYS_STAY
        self._connection.execute("DELETE FROM keys WHERE at < ?", (oldest,))
        row = self._connection.execute("SELECT body, at FROM keys WHERE key = ?", (key,)).fetchone()
        if row is None:
            values = (key, change.body, change.now)
            self._connection.execute("INSERT INTO keys VALUES (?, ?, ?)", values)
            return change.now
        if row[0] != change.body:
            return KeyReused("this idempotency key came before with another body; use a new one")
        return int(row[1])

    def _save(self, histories: Iterable[tuple[str, History]]) -> None:
        self._connection.executemany(
            "INSERT INTO histories (user, seq, erased, events, packed) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (user) DO UPDATE SET seq = excluded.seq, erased = excluded.erased, events = excluded.events, "
            "packed = excluded.packed",
            (
                (
                    bytes.fromhex(user),
                    history.seq,
                    history.erased,
                    len(history.events),
                    pack(history),
                )
                for user, history in histories
            ),
        )

    @contextmanager
    def _commit(self) -> Iterator[None]:
        """All that is done in the block, or nothing of it."""
        with self._turn, _store_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _log(file: Path) -> Path:
    """SQLite's write-ahead log of a file."""
    return file.with_name(f"{file.name}-wal")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA page_size={_PAGE}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint={_OVERDUE}")
    connection.execute("PRAGMA secure_delete=ON")  # what is erased is zeros in the file
    return connection


def _select(connection: sqlite3.Connection, user: str) -> History:
    row = connection.execute(
        "SELECT packed, seq, erased FROM histories WHERE user = ?", (bytes.fromhex(user),)
    ).fetchone()
    return History() if row is None else unpack(*row)


@contextmanager
def _store_errors() -> Iterator[None]:
    """SQLite's errors as the protocol's."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR"):
            raise StoreFull(
                "the store of histories has no room, or its disk refuses to write; nothing was "
                "stored: make room, then send the same again"
            ) from error
        raise StoreAway(f"the store of histories cannot be used ({name or error})") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("the disk of the histories is full; nothing was stored") from error
        raise


def _lock(directory: Path) -> IO[str]:
    """The directory, held until the file is closed or the process ends."""
    lock = (directory / _LOCK).open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise TasteloopError(
            f"another process serves or loads the histories in {directory}; SQLite keeps them for one server. "
            "End the other one, or use Valkey for several: --histories valkey://HOST:6379"
        ) from None
    return lock


def _describe(directory: Path, shards: int) -> tuple[str, int]:
    """The id of a store and the number of its files, written when it is made."""
    path = directory / _DESCRIPTION
    if not path.exists():
        if any(directory.glob("*.db")):
            raise TasteloopError(f"{directory} has histories but no {_DESCRIPTION}; restore it")
        write_json(path, {"format": _FORMAT, "id": secrets.token_hex(4), "shards": shards})
    description = read_json(path)
    try:
        if description["format"] != _FORMAT:
            raise ValueError
        return str(description["id"]), int(description["shards"])
    except (KeyError, TypeError, ValueError):
        raise TasteloopError(
            f"{path} describes no store that this version reads (format {_FORMAT}); name another directory"
        ) from None
