"""CloudEvents 1.0 over HTTP as rows of `POST /v1/events`: structured, binary and in batches.

Which field is what: the id is `source` and `id` together, as the specification has them unique;
`subject` is the user; the last part of `type` is the kind, as in `com.example.purchase`; `data` is
an object with `item`, `value` and `text`, and may have `user` and `kind` too, which then count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from serving.histories.events import ID, Malformed
from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE
from tasteloop.errors import TasteloopError

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
_DATA = (USER, KIND, ITEM, VALUE, TEXT)


def cloud_events(content_type: str, headers: Mapping[str, str], body: bytes) -> list[Any] | None:
    """The rows of a request that carries CloudEvents; None where it carries none.

    Args:
        headers: by lower-case names.

    Raises:
        TasteloopError: it announces CloudEvents, and has none.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media == BATCH:
        events = _json(body)
        if not isinstance(events, list):
            raise TasteloopError(f"a body of {BATCH} is a JSON list of CloudEvents")
        return [_row(event) for event in events]
    if media == STRUCTURED:
        return [_row(_json(body))]
    if "ce-specversion" not in headers:
        return None
    attributes: dict[str, Any] = {
        name.removeprefix("ce-"): unquote(value)
        for name, value in headers.items()
        if name.startswith("ce-")
    }
    return [_row({**attributes, "data": _json(body) if body else None})]


def _row(event: Any) -> Any:
    """One CloudEvent as a row. What is wrong with it is left in, for the row to be refused."""
    if not isinstance(event, Mapping):
        return event
    for name in ("specversion", ID, "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            return Malformed(f"a CloudEvent has {name}, a string that is not empty")
    data = event.get("data")
    if event["specversion"] != "1.0" or not isinstance(data, Mapping | None):
        return Malformed("a CloudEvent of specversion 1.0, with a JSON object as data, is expected")
    row = {
        ID: f"{event['source']} {event[ID]}",
        USER: event.get("subject"),
        KIND: event["type"].rsplit(".", 1)[-1],
        TIME: event.get("time"),
    }
    return {**row, **{name: value for name, value in (data or {}).items() if name in _DATA}}


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError as error:
        raise TasteloopError(f"the body is not JSON: {error}") from None
