"""How the encoder is fine-tuned."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, field_validator


class ConfidentPrecision(BaseModel, frozen=True, extra="forbid"):
    """Share of statements called confident that shall be right, by task."""

    interests: float = Field(0.8, gt=0, le=1)
    sentiment: float = Field(0.9, gt=0, le=1)


class TrainingSettings(BaseModel, frozen=True, extra="forbid"):
    """How the encoder is fine-tuned."""

    encoder: str = Field(
        "minilm", description="Catalogue name, local directory or hub id of a BERT-family encoder."
    )
    encoder_layers: int | None = Field(
        None, ge=1, description="Use only so many of its lowest layers; null: all."
    )
    tasks: tuple[Literal["interests", "sentiment"], ...] = ("interests", "sentiment")
    intent_texts: int = Field(
        12000,
        ge=0,
        description="Learn from at most so many phrases whether a text wants something or refuses "
        "it; 0: no text is listened to.",
    )
    speech_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="In this share of the training snapshots the user says something that fits what they chose next.",
    )
    together: bool = Field(True, description="One encoder for all tasks; false: one encoder each.")
    epochs: int = Field(3, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-4, gt=0, description="Peak rate of the encoder.")
    head_learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_share: float = Field(
        0.1, ge=0, lt=1, description="Share of steps in which the rate rises."
    )
    clip_norm: float = Field(1.0, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1, description="On the pooled vector.")
    encoder_dropout: float = Field(0.0, ge=0, lt=1, description="Within the encoder's layers.")
    frozen_layers: int = Field(
        3, ge=-1, description="Lowest layers not trained; 0: embeddings only; -1: none."
    )
    cache_megabytes: int = Field(
        1024, ge=0, description="Room for the frozen layers' outputs; 0: recompute them."
    )
    averaging: float = Field(
        0.99, ge=0, lt=1, description="Decay of the running mean of weights; 0: the last ones."
    )
    class_weights: bool = Field(
        False, description="Weigh each label's positives by its odds, at most 10."
    )
    patience: int = Field(
        1, ge=1, description="Epochs without a better validation window before stopping."
    )
    bag_of_words: bool = Field(
        True,
        description="Mix a bag of words into sentiment, as much as the validation reviews say.",
    )
    familiar: tuple[float, float] | None = Field(
        (0.5, 0.8),
        description="Shares of known words up to which a text's sentiment counts least, and from "
        "which on fully; null: all count.",
    )
    no_opinions: int = Field(
        0,
        ge=0,
        description="So many made-up texts without an opinion are learned as neither favourable nor not.",
    )
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    review_max_tokens: int = Field(128, ge=8, le=512)
    review_training_tokens: int | None = Field(
        None,
        ge=8,
        description="Train on the beginnings of reviews, of so many tokens; null: as read.",
    )
    snapshots_an_epoch: int | None = Field(
        None, ge=1, description="So many of them, others each epoch; null: all."
    )
    checkpoint_seconds: float = Field(60, ge=0)
    habits: bool = Field(
        True, description="Add what counts say of interests to what the encoder reads."
    )
    confident_precision: ConfidentPrecision = ConfidentPrecision()
    tensorboard: bool = True
    seed: int = 0

    @field_validator("familiar")
    @classmethod
    def _rises(cls, shares: tuple[float, float] | None) -> tuple[float, float] | None:
        if shares is not None and not 0 <= shares[0] < shares[1] <= 1:
            raise ValueError("two shares from 0 to 1, the lower one first")
        return shares
