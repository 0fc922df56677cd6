"""What is measured on the test window, and how finely."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from tasteloop.encoder import bag_of_words
from tasteloop.evaluation.understanding.settings import UnderstandingSettings


class EvaluationSettings(BaseModel, frozen=True, extra="forbid"):
    """What is measured, and how finely."""

    bootstrap: int = Field(1000, ge=100, description="Resamples behind each interval.")
    seed: int = 0
    cold_events: int = Field(5, ge=1, description="A user with at most so many events is cold.")
    active_events: int = Field(50, ge=1, description="From so many events on a user is active.")
    recent_days: tuple[float, ...] = Field(
        (7, 30), description="Windows of recent popularity; validation chooses."
    )
    ease_regularisation: tuple[float, ...] = (300, 1000, 3000)
    ease_items: int = Field(
        5_000,
        ge=1,
        description="Most popular items among which the baseline EASE compares: it is cubic in them.",
    )
    knn_neighbours: tuple[int, ...] = (50, 200)
    knn_shrink: tuple[float, ...] = (10, 100)
    bag_of_words_strengths: tuple[float, ...] = Field(
        bag_of_words.STRENGTHS,
        min_length=1,
        description="Inverse regularisation of the bag of words.",
    )
    understanding: UnderstandingSettings | None = Field(
        UnderstandingSettings(),
        description="Behavioural tests of understanding; null: they are not made.",
    )
    examples: int = Field(4, ge=0)
    old: Path | None = Field(
        None,
        description="Snapshots of earlier data: what was forgotten is measured on their test users not in the new.",
    )
