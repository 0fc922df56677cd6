"""Feedback: what users did with answers, as callers send it; checked, as rows of the journal."""

from __future__ import annotations

from collections.abc import Mapping

from serving.journal.answered import CLOCK_SKEW, LONGEST_REQUEST_ID, Row, iso_time
from serving.journal.tokens import FeedbackTokens
from tasteloop.behaviour.events import ITEM, KIND, TIME, VALUE, Event
from tasteloop.behaviour.times import SECOND, whole
from tasteloop.errors import TasteloopError
from tasteloop.journal import ANSWER, ARRIVED, INSTANCE, REQUEST

TOKEN = "token"  # of an entry, besides the columns
MOST_FEEDBACK = 256  # entries in one request


def parse_feedback(body: object, at: int, tokens: FeedbackTokens | None = None) -> list[Row]:
    """The rows of a feedback request, checked.

    Args:
        body: {"feedback": [{"request": id, "token": token, "instance": 0, "kind": "click", "item":
            "50", "value": 1.0, "time": ...}]}; `request`, `token` and `kind` are needed.
        at: when it arrived, in µs; also the time of entries that name none.
        tokens: they check the entries' tokens. Without them no token is needed, which is only for
            programs that write the journal themselves.

    Raises:
        TasteloopError: a field, type or value that is not allowed, or the token of another answer;
            it names the entry by its index.
    """
    if (
        not isinstance(body, Mapping)
        or set(body) != {"feedback"}
        or not isinstance(body["feedback"], list)
    ):
        raise TasteloopError(
            'the body must be a JSON object {"feedback": [{"request": id, "kind": "click", ...}]}'
        )
    entries = body["feedback"]
    if not 1 <= len(entries) <= MOST_FEEDBACK:
        raise TasteloopError(
            f"{len(entries)} entries of feedback; send 1 to {MOST_FEEDBACK} at a time"
        )
    return [
        _outcome(entry, f"feedback[{index}]", at, tokens) for index, entry in enumerate(entries)
    ]


def _outcome(entry: object, where: str, at: int, tokens: FeedbackTokens | None) -> Row:
    # 1. its fields
    known = (REQUEST, TOKEN, INSTANCE, KIND, ITEM, VALUE, TIME)
    if not isinstance(entry, Mapping):
        raise TasteloopError(
            f'{where}: an object is expected, such as {{"request": id, "kind": "click"}}'
        )
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise TasteloopError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(known)}")

    # 2. which answer it is about
    request, instance = entry.get(REQUEST), whole(entry.get(INSTANCE, 0))
    if not isinstance(request, str) or not 0 < len(request) <= LONGEST_REQUEST_ID:
        raise TasteloopError(
            f"{where}: request is the id that came with the answer, of 1 to {LONGEST_REQUEST_ID} characters"
        )
    if instance is None or not 0 <= instance < 2**31:
        raise TasteloopError(
            f"{where}: instance is the place in the request, a whole number from 0 on"
        )

    # 3. what happened, and when
    event = Event.parse({key: entry.get(key) for key in (KIND, ITEM, VALUE, TIME)}, where)
    if event.time is not None and event.time > at + CLOCK_SKEW:
        raise TasteloopError(
            f"{where}: time {entry[TIME]!r} is more than {CLOCK_SKEW // SECOND} s ahead of this server's clock, "
            f"{iso_time(at)}; send when it happened, or leave time out"
        )

    # 4. the token of the answer
    answer = None
    if tokens is not None:
        try:
            answer = tokens.answer_of(entry.get(TOKEN), request)
        except TasteloopError as error:
            raise TasteloopError(f"{where}: {error}") from None
    return {
        REQUEST: request,
        ANSWER: answer,
        INSTANCE: instance,
        TIME: at if event.time is None else event.time,
        ARRIVED: at,
        KIND: event.kind,
        ITEM: event.item,
        VALUE: event.value,
    }
