"""What can be set of a server; `python -m serving --help` has every setting."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import BaseModel, Field

from tasteloop.errors import TasteloopError

API_TOKEN, ADMIN_TOKEN = "TASTELOOP_API_TOKEN", "TASTELOOP_ADMIN_TOKEN"
GATEWAY_TOKEN = "TASTELOOP_GATEWAY_TOKEN"  # a caller's, for a gateway before the server
HISTORIES_PASSWORD = "TASTELOOP_HISTORIES_PASSWORD"
_SHORTEST = 16  # characters


class ServerSettings(BaseModel, frozen=True, extra="forbid"):
    """Where a server listens, and how much and how long it listens to one caller."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="REST port, 0: any free one")
    grpc_port: int = Field(default=8081, ge=0, le=65535, description="gRPC port, 0: any free one")
    body: int = Field(
        default=4 * 1024 * 1024, ge=1024, description="bytes of one request, REST and gRPC"
    )
    bodies: int = Field(
        default=256 * 1024 * 1024, ge=1024, description="bytes of all requests under way"
    )
    answers: int = Field(
        default=64 * 1024 * 1024,
        ge=1024,
        description="bytes of all answers that callers have not taken yet",
    )
    connections: int = Field(
        default=768, ge=1, description="HTTP connections at once, fewer where few files are allowed"
    )
    connections_of_one: int = Field(
        default=512, ge=1, description="HTTP connections at once from one address"
    )
    requests: int = Field(
        default=512, ge=1, description="requests under way at once; more are refused"
    )
    timeout: float = Field(
        default=30.0, gt=0, description="seconds from a request's arrival to its answer"
    )
    linger: float = Field(
        default=0.5,
        ge=0,
        description="seconds after SIGTERM in which requests are still taken, readiness being false",
    )
    grace: int = Field(
        default=25, ge=1, description="seconds after that for the requests under way"
    )
    ready_file: Path | None = Field(default=None, description="written once both protocols answer")


class QueueSettings(BaseModel, frozen=True, extra="forbid"):
    """How much may wait, and how much is computed at once."""

    instances: int = Field(
        default=512, ge=1, description="instances that may wait; more are refused"
    )
    wait: float = Field(
        default=0.25, gt=0, description="seconds that what waits may be expected to take"
    )
    batch: int = Field(
        default=32, ge=1, description="instances computed at once; a larger request is one batch"
    )


class Limits(BaseModel, frozen=True, extra="forbid"):
    """What one request may ask for; more is the caller's mistake."""

    instances: int = Field(default=256, ge=1, description="instances of one request")
    rows: int = Field(
        default=5_000,
        ge=1,
        description="answer rows of one request: its instances times the largest k among them",
    )
    characters: int = Field(
        default=20_000, ge=1, description="characters of one text, also inside an event"
    )
    events: int = Field(default=2_000, ge=1, description="events of one history")


class JournalSettings(BaseModel, frozen=True, extra="forbid"):
    """Where the journal is written, and how much of it stays."""

    directory: Path = Field(description="Where the segments go.")
    bound: int = Field(
        1000,
        ge=1,
        description="Rows accepted and not yet on the disk: what a kill loses at most. Above it rows drop.",
    )
    seconds: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="How long a row waits for its segment."
    )
    days: int = Field(
        30, ge=1, description="Days of segments that are kept, the day of writing not counted."
    )
    text: bool = Field(
        False, description="Whether the questions themselves, raw text included, are written."
    )


class HistorySettings(BaseModel, frozen=True, extra="forbid"):
    """How much of users' histories a server keeps, and what it makes of them."""

    events: int = Field(500, ge=1, description="newest events that are kept of a user")
    days: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="days after which an event is dropped, 0: never",
    )
    items: int = Field(
        10_000,
        ge=0,
        description="items of a user that stay known as consumed or refused when their events are dropped",
    )
    waiting: int = Field(10_000, ge=1, description="events that may wait; more are refused")
    megabytes: int = Field(
        0, ge=0, description="size of SQLite's files, 0: what the disk has; more events are refused"
    )
    repeat_days: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="days after which what was consumed may be recommended again, 0: never",
    )
    seconds: float = Field(
        300.0, gt=0, allow_inf_nan=False, description="seconds between two files for the monitor"
    )


def token(name: str) -> str | None:
    """The token in the variable `name`, or in the file that `name`_FILE names; None where neither
    is set.

    Raises:
        TasteloopError: a file that cannot be read, or a token that is too short or has other
            characters than visible ASCII.
    """
    value, path = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if value is None and path:
        try:
            value = Path(path).read_text().strip()
        except (OSError, UnicodeError) as error:
            raise TasteloopError(f"{name}_FILE: cannot read {path}: {error}") from None
    if value is None:
        return None
    if len(value) < _SHORTEST or not re.fullmatch(r"[!-~]+", value):
        raise TasteloopError(
            f"{name}: a token has at least {_SHORTEST} visible ASCII characters and no spaces; "
            'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return value
