"""The ledger: the evidence of each window, what was decided on it, and what came of that.

    <directory>/ledger.jsonl        one JSON object a line, in order, never changed; each hashes the
    line before <directory>/ledger.head.json    how many lines there are, and the last one's hash
    <directory>/lease.json          which monitor is at work, until when
    <directory>/lock                held while one of these files is written

A record is complete when its line ends: the newline is its last byte, so what a killed writer left
is passed over, and cut off by the next one. A line that was changed or lost in the middle breaks
the chain of hashes and is refused. So is a ledger that is shorter than its head says: lines were
cut from its end. The head is replaced after its line is on the disk, so a writer that was killed in
between leaves a ledger that is longer than its head, which is no damage. A ledger of a version that
wrote no head gets one with its next line.

One monitor works at a time. Its lease carries a token that only grows; a lease that ran out, or
whose process is gone, is taken over with the next token, and whoever held the old one can no longer
write (fencing). So clocks decide only how soon a dead monitor on another machine is replaced, never
how often something is done: that is decided by the key. The first decision on a key stands, and its
retraining is one run, named after the key, which is carried on until it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from tasteloop import files
from tasteloop.errors import TasteloopError
from validation.monitor.decision import Evidence, Trigger
from validation.monitor.entries import DecidedEntry, Kind, Record, WindowEntry
from validation.monitor.history import HistoryEntry, collect_history
from validation.monitor.holder import is_alive, name_of, this_process

log = logging.getLogger(__name__)

LEDGER, HEAD, LEASE, LOCK = "ledger.jsonl", "ledger.head.json", "lease.json", "lock"

_NOTHING = "0" * 16  # what the first record names as the line before
_LEASE_SECONDS = 60.0

Clock = Callable[[], int]


def wall() -> int:
    """µs since 1970 UTC."""
    return time.time_ns() // 1000


class Held(TasteloopError):
    """Another monitor is at work."""


class LeaseLost(TasteloopError):
    """Another monitor has taken over; what this one would have written is its to write."""


class Head(BaseModel, frozen=True, extra="forbid"):
    """The last line that is known to be on the disk.

    Beside its number and hash it says what the line is about, so that people learn what is gone
    where it was cut off.
    """

    number: int = Field(ge=1)
    hash: str
    time: int
    kind: Kind
    key: str


class Ledger:
    """Reading needs nothing; writing needs a `lease`."""

    def __init__(self, directory: Path, clock: Clock = wall) -> None:
        self.directory, self.clock = directory, clock

    # Reading

    def records(self) -> list[Record]:
        """All complete records, oldest first.

        Raises:
            TasteloopError: a line that was changed, lost or is none of ours.
        """
        return self._read().records

    def evidence(self) -> list[Evidence]:
        """The evidence of each window, in the order in which it was recorded."""
        entries = (record.entry for record in self.records() if record.kind == "window")
        return [entry for entry in entries if isinstance(entry, WindowEntry)]

    def triggers(self) -> list[Trigger]:
        """All retrainings that were decided, with what came of them."""
        triggers = []
        for entry in self.history():
            if isinstance(entry.cause, DecidedEntry) and entry.outcome == "retrain":
                trigger = {
                    "key": entry.key,
                    "at": entry.cause.now,
                    "champion": entry.champion or "unknown",
                    "result": entry.result,
                    "causes": entry.cause.causes,
                }
                triggers.append(Trigger.model_validate(trigger))
        return triggers

    def history(self) -> list[HistoryEntry]:
        """Each decision and rollback with what came of it, oldest first."""
        return collect_history(self.records())

    def _read(self) -> _Lines:
        """The lines, checked against each other and against the head."""
        # before the lines: what is appended meanwhile makes them longer, never shorter
        head = self._head()
        path = self.directory / LEDGER
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise TasteloopError(f"the ledger {path} cannot be read: {error}") from error
        lines = _parse(data, path)
        if head is not None and lines.hashes[head.number - 1 : head.number] != [head.hash]:
            raise _cut(path, self.directory / HEAD, head, len(lines.records))
        return lines

    def _head(self) -> Head | None:
        path = self.directory / HEAD
        try:
            return Head.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            raise TasteloopError(
                f"{path} cannot be read, so nobody can tell whether the ledger beside it is whole. Restore both files "
                "from one backup; or remove it to take the ledger as it is, the next entry makes a new one"
            ) from None

    # Writing

    @contextmanager
    def lease(self, seconds: float = _LEASE_SECONDS) -> Iterator[Lease]:
        """Be the one monitor. It is renewed in the background and given back at the end.

        Raises:
            Held: another monitor is.
        """
        with self._locked():
            now, last = self.clock(), self._lease()
            if last["until"] > now and is_alive(last["holder"]):
                raise Held(
                    f"another monitor is at work: {name_of(last['holder'])}, for {(last['until'] - now) / 1e6:.0f} s "
                    f"more unless it renews; wait for it, or end it ({self.directory / LEASE})"
                )
            lease = Lease(self, last["token"] + 1, seconds)
            self._write_lease(lease.token, lease.holder, now + int(seconds * 1e6))
        with lease.renewed():
            yield lease

    def append(
        self, lease: Lease, kind: Kind, key: str, body: dict[str, Any], once: bool = True
    ) -> Record:
        """Add a record and have it on the disk. With `once` the first of its kind and key stands
        and is returned.

        Raises:
            LeaseLost: the lease was taken over.
        """
        with self._locked():
            # 1. whether it may be written
            held = self._lease()
            if held["token"] != lease.token:
                raise LeaseLost(
                    f"the lease {lease.token} was taken over by {name_of(held['holder'])} (lease {held['token']}); "
                    f"nothing was written"
                )
            path = self.directory / LEDGER
            lines = self._read()
            same = [record for record in lines.records if (record.kind, record.key) == (kind, key)]
            if once and same:
                return same[0]

            # 2. the line, then the head
            record = Record(
                number=len(lines.records) + 1,
                time=self.clock(),
                kind=kind,
                key=key,
                token=lease.token,
                before=lines.last,
                body=body,
            )
            text = json.dumps(
                record.model_dump(), ensure_ascii=False, allow_nan=False, separators=(",", ":")
            )
            line = text.encode()
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                if lines.size < os.fstat(handle).st_size:
                    os.ftruncate(handle, lines.size)  # a line that a killed writer left unfinished
                rest = memoryview(line + b"\n")
                while rest:
                    rest = rest[os.write(handle, rest) :]
                os.fsync(handle)
            finally:
                os.close(handle)
            head = Head(
                number=record.number, hash=_hash(line), time=record.time, kind=kind, key=key
            )
            files.write_json(self.directory / HEAD, head.model_dump())
            return record

    @contextmanager
    def _locked(self) -> Iterator[None]:
        files.make_directory(self.directory)
        with (self.directory / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield  # closing the file releases the lock

    def _lease(self) -> dict[str, Any]:
        path = self.directory / LEASE
        if not path.exists():
            # the token never falls, whoever removed the file
            tokens = [r.token for r in self.records()]
            return {"token": max(tokens, default=0), "holder": {}, "until": 0}
        lease: dict[str, Any] = files.read_json(path)
        return lease

    def _write_lease(self, token: int, holder: dict[str, Any], until: int) -> None:
        files.write_json(self.directory / LEASE, {"token": token, "holder": holder, "until": until})


class Lease:
    """The right to write, until another has it."""

    def __init__(self, ledger: Ledger, token: int, seconds: float) -> None:
        self.ledger, self.token, self.seconds = ledger, token, seconds
        self.holder = this_process()
        self._ended = threading.Event()
        self._lost = threading.Event()

    @property
    def lost(self) -> bool:
        """Whether a renewal found another holder. Long work asks, and stops."""
        return self._lost.is_set()

    def renew(self) -> None:
        """Prolong it from now on. Raises LeaseLost where it was taken over."""
        with self.ledger._locked():
            if self.ledger._lease()["token"] != self.token:
                self._lost.set()
                raise LeaseLost(f"the lease {self.token} was taken over")
            until = self.ledger.clock() + int(self.seconds * 1e6)
            self.ledger._write_lease(self.token, self.holder, until)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew it in the background, and give it back at the end."""
        renewal = threading.Thread(target=self._renew_until_ended, name="lease", daemon=True)
        renewal.start()
        try:
            yield
        finally:
            self._ended.set()
            renewal.join()
            with self.ledger._locked():
                if self.ledger._lease()["token"] == self.token:
                    self.ledger._write_lease(self.token, self.holder, 0)

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(self.seconds / 3):
            try:
                self.renew()
            except LeaseLost:
                return
            # a full disk, a share that is away: try again until the lease has run out
            except Exception:
                log.exception("the lease could not be renewed")


# Lines


@dataclass(frozen=True)
class _Lines:
    """The complete lines of a ledger: their records and hashes, and how many bytes they are."""

    records: list[Record]
    hashes: list[str]
    size: int

    @property
    def last(self) -> str:
        """What the next record names as the line before."""
        return self.hashes[-1] if self.hashes else _NOTHING


def _parse(data: bytes, path: Path) -> _Lines:
    lines = data.split(b"\n")
    size = len(data) - len(lines.pop())
    records: list[Record] = []
    hashes: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            record = Record.model_validate_json(line)
        except ValidationError:
            raise _damaged(path, number, "is not a record") from None
        if record.number != number or record.before != (hashes[-1] if hashes else _NOTHING):
            raise _damaged(path, number, "does not follow the one before")
        records.append(record)
        hashes.append(_hash(line))
    return _Lines(records, hashes, size)


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:16]


_REMEDY = (
    f"Restore {LEDGER} and {HEAD} from one backup, or move both aside to begin a new ledger (cooldown and budget then "
    "begin anew)"
)


def _damaged(path: Path, number: int, what: str) -> TasteloopError:
    return TasteloopError(
        f"line {number} of the ledger {path} {what}: it was changed or lost. {_REMEDY}"
    )


def _cut(path: Path, anchor: Path, head: Head, left: int) -> TasteloopError:
    at = datetime.fromtimestamp(head.time / 1e6, UTC).isoformat(timespec="seconds")
    last = f"entry {head.number}, {head.kind!r} of {at} on {head.key[:12] or 'no key'}"
    if left >= head.number:
        return TasteloopError(
            f"the ledger {path} is another one than {anchor.name} was written for: its line {head.number} is not "
            f"{last}. {_REMEDY}"
        )
    gone = (
        f"entries {left + 1} to {head.number} are"
        if left + 1 < head.number
        else f"entry {head.number} is"
    )
    return TasteloopError(
        f"the ledger {path} was cut: {gone} gone, the last of which was {last}. {_REMEDY}; or, to go on without what "
        f"is gone, remove {anchor}"
    )
