"""Events as callers send them: each row is taken, or refused by a rule of ingest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as show_briefly
from typing import Any

import orjson

from serving.histories.protocol import ID_BYTES, StoredEvent
from serving.journal.answered import CLOCK_SKEW, iso_time
from tasteloop.behaviour.cleaning import CleaningSettings
from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE, Event
from tasteloop.behaviour.kinds import ALIASES, KINDS
from tasteloop.behaviour.times import SECOND, parse_iso, parse_time
from tasteloop.errors import TasteloopError
from tasteloop.privacy.pseudonyms import LONGEST_USER, is_user, pseudonym

ID = "id"
MOST_EVENTS = 1_000  # of one request
LONGEST_ID = 256  # characters of an event's id, and of an idempotency key

MISSING, UNREADABLE, UNKNOWN_KIND = "missing", "unreadable", "unknown_kind"
IMPOSSIBLE_TIME, OFF_SCALE, INCOMPLETE = "impossible_time", "off_scale", "incomplete"
UNKNOWN_FIELD, TOO_LONG = "unknown_field", "too_long"
"""Why a row is refused: the first six are rules of `tasteloop.behaviour.cleaning`, which these rows
would break at ingest."""

# Of a user: a path cannot carry them, so that nobody could erase the history.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DECIMALS = 6  # of a value: a data set has the nearest float32
_FIELDS = (USER, ID, KIND, ITEM, TIME, VALUE, TEXT)
_EARLIEST = parse_iso(CleaningSettings().earliest.isoformat()) or 0


class Malformed(str):
    """A row that was no event before it came here; the text says why."""


@dataclass(frozen=True)
class Refusal:
    """A row that is not taken."""

    index: int
    reason: str
    message: str

    def json(self) -> dict[str, Any]:
        return {"index": self.index, "reason": self.reason, "message": self.message}


@dataclass(frozen=True)
class Arrived:
    """The rows of one request.

    Attributes:
        events: by pseudonym, with the index that each had in the request.
        users: the pseudonyms' users, as they were sent; they are for the answer alone.
        refused: the other rows.
    """

    events: dict[str, list[tuple[int, StoredEvent]]] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)


class EventReader:
    """Reads rows of requests.

    Args:
        key: of the users' pseudonyms; event ids are digested under it too, because they may be made
            of a user's id.
        characters: of one text, and of one item.
    """

    def __init__(self, key: bytes, characters: int) -> None:
        self._key = key
        self._id_key = hashlib.blake2b(key, digest_size=32, person=b"tasteloop events").digest()
        self._characters = characters

    def user(self, user: str) -> str:
        """The pseudonym of a user."""
        return pseudonym(user, self._key)

    def digest(self, *parts: str | bytes, size: int = 16) -> bytes:
        """A keyed digest of some parts, such as an idempotency key."""
        digest = hashlib.blake2b(key=self._id_key, digest_size=size)
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.digest()

    def event_id(self, row: Mapping[str, Any], event: Event) -> bytes:
        """The id of an event: of what its row calls it, else of what it says."""
        if row.get(ID) is not None:
            return self.digest("id", str(row[ID]), size=ID_BYTES)
        value = None if event.value is None else round(event.value, _DECIMALS)
        content = (event.kind, event.item, event.time, value, event.text)
        return self.digest("content", orjson.dumps(content), size=ID_BYTES)

    def read(self, rows: Sequence[Any], now: int, request: str | None = None) -> Arrived:
        """The rows of one request.

        Args:
            now: when it came (µs), under a key for the first time; the time of events that name
                none.
            request: its idempotency key, from which rows without id and time get an id by their
                place. It counts with `now`, because a key may be used again once it is forgotten.

        Raises:
            TasteloopError: no row, or too many.
        """
        check_count(rows)
        arrived = Arrived()
        for index, row in enumerate(rows):
            event = self._event(row, now, index)
            if isinstance(event, tuple):
                arrived.refused.append(Refusal(index, *event))
                continue
            if row.get(ID) is None and row.get(TIME) is None and request is not None:
                event_id = self.digest("request", request, str(now), str(index), size=ID_BYTES)
            else:
                event_id = self.event_id(row, event)
            user = self.user(row[USER])
            arrived.users[user] = row[USER]
            arrived.events.setdefault(user, []).append((index, StoredEvent(event_id, event)))
        return arrived

    def _event(self, row: Any, now: int, index: int) -> Event | tuple[str, str]:
        """The event of a row, or the reason and the words with which it is refused."""
        # 1. who did what
        if isinstance(row, Malformed):
            return UNREADABLE, str(row)
        if not isinstance(row, Mapping):
            return UNREADABLE, f"an event is an object, not {show_briefly(row)}"
        for name in row:
            if name not in _FIELDS:
                known = ", ".join(_FIELDS)
                return UNKNOWN_FIELD, f"unknown field {show_briefly(name)}; known: {known}"
        if row.get(USER) in (None, ""):
            return MISSING, "user is missing"
        if not is_user(row[USER]):
            return UNREADABLE, f"user is a string of 1 to {LONGEST_USER} characters"
        if _CONTROL.search(row[USER]):
            return UNREADABLE, "user has a control character; a path could not name it"
        if row.get(KIND) in (None, ""):
            return MISSING, "kind is missing"
        word = row[KIND] if isinstance(row[KIND], str) else ""
        kind = KINDS.get(ALIASES.get(word, word))
        if kind is None:
            return (
                UNKNOWN_KIND,
                f"unknown kind {show_briefly(row[KIND])}; known: {', '.join(KINDS)}",
            )
        event_id = row.get(ID)
        if event_id is not None and not is_id(event_id):
            return UNREADABLE, f"id is a string of 1 to {LONGEST_ID} characters, or null"

        # 2. when
        try:
            time = parse_time(row.get(TIME), "event")
        except TasteloopError as error:
            return UNREADABLE, str(error).removeprefix("event: ")
        time = now + index if time is None else time  # in the order of the request
        if time < _EARLIEST or time > now + CLOCK_SKEW:
            return IMPOSSIBLE_TIME, (
                f"time is before {iso_time(_EARLIEST)}, or more than {CLOCK_SKEW // SECOND} s ahead of this "
                f"server's clock, {iso_time(now)}; send when it happened, or leave time out"
            )

        # 3. what it says
        value = row.get(VALUE)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            return UNREADABLE, f"value is a number from 0 to 1, not {show_briefly(value)}"
        if value is not None and not 0 <= value <= 1:
            return OFF_SCALE, f"value is from 0 to 1, not {show_briefly(value)}; normalise it"
        texts: list[str | None] = []
        for name in (ITEM, TEXT):
            text = row.get(name)
            if text is not None and not (isinstance(text, str) and _is_unicode(text)):
                return UNREADABLE, f"{name} is a string, or null, not {show_briefly(text)}"
            if text is not None and len(text) > self._characters:
                return TOO_LONG, f"{name} has {len(text)} characters; at most {self._characters}"
            texts.append(text if text and text.strip() else None)
        item, text = texts
        rounded = None if value is None else round(float(value), _DECIMALS)
        event = Event(kind.word, item, time, rounded, text)
        present = {ITEM: item, VALUE: value, TEXT: text}
        for group in kind.needs:
            if all(present[name] is None for name in group):
                return INCOMPLETE, f"{kind.word} needs {' or '.join(group)}"
        return event


def check_count(rows: Sequence[Any]) -> None:
    """Check how many rows a request has.

    Raises:
        TasteloopError: none, or too many.
    """
    if not 1 <= len(rows) <= MOST_EVENTS:
        raise TasteloopError(f"{len(rows)} events in one request; send 1 to {MOST_EVENTS}")


def is_id(value: object) -> bool:
    """Whether a value may name an event, or be an idempotency key."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_ID and _is_unicode(value)


def _is_unicode(text: str) -> bool:
    """Whether a text can be written; a JSON escape can spell half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
