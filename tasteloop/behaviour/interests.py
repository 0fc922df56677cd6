"""What a catalogue's interests are: the labels that it came with, or groups that were discovered.

Discovery itself needs item vectors and lies above (`tasteloop.interests`); here is what `prepare`
knows of it: the settings, and what comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from tasteloop.behaviour.items import Catalogue

if TYPE_CHECKING:
    import polars as pl

Origin = Literal["labels", "discovered", "completed", "none"]


class InterestSettings(BaseModel, frozen=True, extra="forbid"):
    """Where the interests of a catalogue come from."""

    source: Literal["auto", "labels", "discovered"] = Field(
        "auto",
        description="auto: the labels of the catalogue, and discovered interests where it has none; labels: never "
        "discover; discovered: discover, whatever labels there are.",
    )
    count: int | None = Field(
        None, ge=2, le=100, description="Interests to discover; null: by the size of the catalogue."
    )
    encoder: str | None = Field(
        "minilm",
        description="Reads titles and texts: a name of the catalogue or a directory; null: behaviour alone.",
    )
    behaviour_share: float = Field(
        0.7, ge=0, le=1, description="Weight of behaviour beside texts, of an item that many met."
    )
    continues: Path | None = Field(
        None,
        description="A bundle or snapshots whose discovered interests go on under their names; a retraining's is "
        "the champion.",
    )
    complete: bool = Field(
        True,
        description="Infer labels of unlabelled items, where that is proven precise on labelled ones.",
    )
    seed: int = Field(0, ge=0, description="Of the groups.")


@dataclass(frozen=True)
class CatalogueInterests:
    """The labels of every item, and where they are from.

    Attributes:
        labels: of each item of the catalogue.
        origin: `none` where nothing could be discovered.
        inferred: [J] whether an item's labels are not its catalogue's.
        record: what snapshots.json says of it.
    """

    labels: list[list[str]]
    origin: Origin
    inferred: list[bool]
    record: dict[str, Any]


# The catalogue and the events before the validation window -> its interests. The events are read
# only where something is to be found in them.
Discover: TypeAlias = "Callable[[Catalogue, pl.LazyFrame, InterestSettings], CatalogueInterests]"
