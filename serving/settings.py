"""What can be set of a server; `python -m serving --help` has every setting."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field


class ServerSettings(BaseModel, frozen=True, extra="forbid"):
    """Where a server listens, and how much and how long it listens to one caller."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="REST port, 0: any free one")
    grpc_port: int = Field(default=8081, ge=0, le=65535, description="gRPC port, 0: any free one")
    body: int = Field(default=4 * 1024 * 1024, ge=1024, description="bytes of one request, REST and gRPC")
    timeout: float = Field(default=30.0, gt=0, description="seconds from a request's arrival to its answer")
    linger: float = Field(
        default=0.5, ge=0, description="seconds after SIGTERM in which requests are still taken, readiness being false"
    )
    grace: int = Field(default=25, ge=1, description="seconds after that for the requests under way")
    ready_file: Path | None = Field(default=None, description="written once both protocols answer")


class QueueSettings(BaseModel, frozen=True, extra="forbid"):
    """How much may wait, and how much is computed at once."""

    instances: int = Field(default=512, ge=1, description="instances that may wait; more are refused")
    wait: float = Field(default=1.0, gt=0, description="seconds that what waits may be expected to take")
    batch: int = Field(default=32, ge=1, description="instances computed at once; a larger request is one batch")


class Limits(BaseModel, frozen=True, extra="forbid"):
    """What one request may ask for; more is the caller's mistake."""

    instances: int = Field(default=256, ge=1, description="instances of one request")
    characters: int = Field(default=20_000, ge=1, description="characters of one text, also inside an event")
    events: int = Field(default=2_000, ge=1, description="events of one history")
