"""How many questions a model is asked."""

from __future__ import annotations

from pydantic import BaseModel, Field


class UnderstandingSettings(BaseModel, frozen=True, extra="forbid"):
    """How many questions a model is asked to see what it understands."""

    cases: int = Field(9450, ge=20, description="About so many, the same number of each kind.")
    seed: int = 0
