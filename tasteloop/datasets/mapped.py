"""Anyone's CSV or Parquet, through a small YAML mapping of columns, kinds, scale and time
(docs/data.md).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tasteloop.behaviour.kinds import ALIASES, KINDS
from tasteloop.datasets.reading import Behaviour, Times, TimeUnit, as_events, as_items
from tasteloop.datasets.tables import read_table, scan_table
from tasteloop.errors import TasteloopError
from tasteloop.files import read_yaml


class _EventColumns(BaseModel, frozen=True, extra="forbid"):
    user: str
    time: str | None = None
    item: str | None = None
    kind: str | None = None
    value: str | None = None
    text: str | None = None


class _ItemColumns(BaseModel, frozen=True, extra="forbid"):
    item: str
    title: str | None = None
    labels: str | None = None
    text: str | None = None
    domain: str | None = None
    released: str | None = None


def _known_zone(name: str) -> str:
    try:
        pl.select(pl.lit(datetime(2000, 1, 1)).dt.replace_time_zone(name))
    except pl.exceptions.PolarsError:
        raise ValueError(
            f"unknown time zone {name!r}; give an IANA name such as Europe/Berlin or UTC"
        ) from None
    return name


class _Time(BaseModel, frozen=True, extra="forbid"):
    """How times are written, or, of a source without any, whether the order of its rows counts."""

    times: Times = "given"
    unit: TimeUnit = "iso"
    zone: Annotated[str, AfterValidator(_known_zone)] = "UTC"

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: object) -> object:
        """`time: order` is short for `time: {times: order}`."""
        return {"times": value} if isinstance(value, str) else value


class _Items(BaseModel, frozen=True, extra="forbid"):
    file: Path
    columns: _ItemColumns
    separator: str = Field("|", min_length=1)
    domain: str | None = None


def _known_kind(word: str) -> str:
    if word not in KINDS:
        expected = " or ".join(", ".join(map(repr, KINDS)).rsplit(", ", 1))
        raise PydanticCustomError(
            "unknown_kind", "Input should be {expected}", {"expected": expected}
        )
    return word


_Kind = Annotated[str, AfterValidator(_known_kind)]


class Mapping(BaseModel, frozen=True, extra="forbid"):
    """Paths are relative to the mapping's own folder."""

    events: Path
    columns: _EventColumns
    kind: _Kind | None = None
    kinds: dict[str, _Kind] = {}
    scale: tuple[float, float] = (0.0, 1.0)
    time: _Time = _Time()
    items: _Items | None = None
    terms: str = "yours"

    @model_validator(mode="after")
    def _consistent(self) -> Mapping:
        if (self.kind is None) == (self.columns.kind is None):
            raise ValueError(
                "give either `columns.kind`, a column, or `kind`, one kind for all rows"
            )
        if self.time.times == "given" and self.columns.time is None:
            raise ValueError(
                "columns.time: Field required; of data without times say `time: order` where the order "
                "of the rows is that of the acts, else `time: none`"
            )
        if self.time.times != "given" and self.columns.time is not None:
            raise ValueError(f"give either `columns.time` or `time: {self.time.times}`")
        if not self.scale[0] < self.scale[1]:
            raise ValueError(f"scale is [lowest, highest], not {list(self.scale)}")
        return self


def load(path: Path) -> Mapping:
    """Read and check a mapping; its paths come back resolved."""
    if not path.exists():
        raise TasteloopError(f"no file {path}; docs/data.md has a mapping to start from")
    try:
        mapping = Mapping.model_validate(read_yaml(path, words=True))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'mapping'}: {e['msg']}"
            for e in error.errors(include_url=False)
        )
        raise TasteloopError(
            f"{path}: {faults}. Kinds: {', '.join(KINDS)}; docs/data.md has a complete mapping"
        ) from None
    items = mapping.items and mapping.items.model_copy(
        update={"file": path.parent / mapping.items.file}
    )
    return mapping.model_copy(update={"events": path.parent / mapping.events, "items": items})


def files(path: Path) -> list[Path]:
    """The mapping and the files it names."""
    mapping = load(path)
    return [path, mapping.events, *([mapping.items.file] if mapping.items else [])]


def read(path: Path) -> Behaviour:
    mapping = load(path)
    events = as_events(
        scan_table(mapping.events, mapping.columns.model_dump(exclude_none=True)),
        mapping.events,
        kind=mapping.kind,
        kinds={**ALIASES, **mapping.kinds},
        unit=mapping.time.unit,
        zone=mapping.time.zone,
        times=mapping.time.times,
    )
    items = None
    if mapping.items:
        table = read_table(mapping.items.file, mapping.items.columns.model_dump(exclude_none=True))
        items = as_items(
            table,
            mapping.items.file,
            separator=mapping.items.separator,
            domain=mapping.items.domain,
        )
    return Behaviour(
        events, items, mapping.scale, mapping.terms, path=mapping.events, times=mapping.time.times
    )
