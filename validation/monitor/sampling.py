"""Which units are looked at, and how a measure of them becomes numbers that can be compared.

A unit is a user in a window: what one user does is not independent, so a user is one row, whatever
they did. Samples depend on names and the seed only, not on the order of rows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tasteloop.behaviour.events import USER
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings
from validation.monitor.statistics import Array, Matrix

if TYPE_CHECKING:
    import polars as pl

    from tasteloop.language.hearing import Gist
    from tasteloop.runtime.session import Session

WINDOW = "window"  # column: which of the reference's windows a row lies in
UNIT = "unit"  # column: the number of a row's unit

SCRIPTS = (
    "LATIN",
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "HANGUL",
    "CYRILLIC",
    "GREEK",
    "ARABIC",
    "HEBREW",
    "DEVANAGARI",
    "THAI",
)
CHARACTERS = 2000  # of a text that are looked at
_WORD = re.compile(r"[぀-ヿ㐀-鿿]|[^\W\d_]+")


class DriftSettings(BaseModel, frozen=True, extra="forbid"):
    """How much is looked at; samples are fixed by the seed and the ids, not by the order of
    rows.
    """

    seed: int = 0
    units: int = Field(2000, ge=50, description="Users in a window at most, on each side.")
    texts: int = Field(300, ge=50, description="Of those, whose behaviour is read by the encoder.")
    draws: int = Field(
        1999, ge=99, description="Permutations; the least p-value is one over one more."
    )
    cells: int = Field(
        20, ge=2, description="Into which a quantity is cut, at the reference's quantiles."
    )
    label_share: float = Field(
        0.25, gt=0, le=1, description="An interest: so many of the following items bear it."
    )
    minimum_future: int = Field(
        3, ge=1, description="Following items without which an interest is not judged."
    )
    alpha: float = Field(0.01, gt=0, lt=1, description="Level at which `detectable` is stated.")


@dataclass(frozen=True)
class Sample:
    """One measure on one side: z [n, d] and the reference's window of each unit [n] (0 in a current
    window).
    """

    z: Matrix
    window: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.z)


Profile = dict[str, Sample]


@dataclass(frozen=True)
class Scale:
    """Cells of a quantity on the reference: inner edges [d - 1], where each lies [d], and the
    standard deviation.
    """

    edges: tuple[float, ...]
    places: tuple[float, ...]
    deviation: float

    @classmethod
    def of(cls, values: Array, cells: int) -> Scale:
        """Cells between quantiles; fewer where values repeat."""
        edges = np.unique(np.quantile(values, np.linspace(0, 1, cells + 1)[1:-1]))
        cell = np.searchsorted(edges, values, side="left")
        held = [values[cell == k] for k in range(len(edges) + 1)]
        low, high = float(values.min()), float(values.max())
        around = [low, *edges, high]
        places = [
            float(v.mean()) if len(v) else (around[k] + around[k + 1]) / 2
            for k, v in enumerate(held)
        ]
        return cls(tuple(map(float, edges)), tuple(places), max(float(values.std()), 1e-3))

    def cell(self, values: Array) -> Array:
        return np.searchsorted(np.array(self.edges), values, side="left")

    def z(self, shares: Array) -> Array:
        """[n, d] shares of cells -> [n, d - 1], whose L1 distance of means is Wasserstein's in
        deviations.
        """
        return np.cumsum(shares, 1)[:, :-1] * (np.diff(self.places) / self.deviation)


@dataclass(frozen=True)
class Codebook:
    """What the reference fixes for every later window.

    Attributes:
        labels: whose mix is watched.
        tenths: item -> its tenth by popularity, 0 the most popular.
        words: the vocabulary.
        scales: the quantities' cells.
    """

    labels: tuple[str, ...]
    tenths: Mapping[str, int]
    words: frozenset[str]
    scales: Mapping[str, Scale]


@dataclass(frozen=True)
class Reader:
    """The champion as a reader of behaviour: texts as vectors, as probabilities of being positive,
    as being for or against an item (`Session.stance`), and as wishes (`Session.readings`, as
    `hearing.Gist`). None where it has no such part.
    """

    catalogue: Catalogue
    text: TextSettings
    encode: Callable[[Sequence[str]], Matrix]
    sentiment: Callable[[Sequence[str]], Matrix] | None
    stance: Callable[[Sequence[str]], Mapping[str, float | None]] | None = None
    listen: Callable[[Sequence[str]], list[Gist]] | None = None

    @classmethod
    def of(cls, session: Session, newer_titles: Sequence[str | None] = ()) -> Reader:
        """A champion as a reader.

        Args:
            newer_titles: of today's catalogue, those of items that the champion does not know: who
                asks for them asks for nothing that is lacking.
        """
        from tasteloop.language.hearing import Gist
        from tasteloop.language.titles import TitleIndex

        encoder, catalogue, newer = session.reader, session.catalogue, None
        if titles := [title for title in newer_titles if title]:
            newer = TitleIndex.of([*catalogue.titles, *titles])

        def listen(texts: Sequence[str]) -> list[Gist]:
            return [Gist.of(each, session.labels) for each in session.readings(texts, newer)]

        return cls(
            catalogue,
            session.text,
            lambda texts: encoder.pool(texts, session.text.max_tokens),
            session.sentiment if session.has_sentiment else None,
            session.stance if session.has_sentiment else None,
            listen if session.listens else None,
        )


# Sampling


def chosen(names: Iterable[str], most: int, seed: int) -> list[str]:
    """At most so many names: always the same of the same names, whatever their order."""
    return sorted(
        set(names), key=lambda name: blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    )[:most]


def sampled(frame: pl.DataFrame, settings: DriftSettings) -> pl.DataFrame:
    """The rows of the chosen units; which they are depends on the user and the window only."""
    import polars as pl

    units = frame.select(USER, WINDOW).unique()
    if units.height > settings.units:
        names = {f"{user}\0{window}": (user, window) for user, window in units.rows()}
        selected = [names[name] for name in chosen(names, settings.units, settings.seed)]
        table = pl.DataFrame(selected, schema=units.schema, orient="row")
        frame = frame.join(table, on=[USER, WINDOW], how="semi")
    return frame.sort(WINDOW, USER, maintain_order=True)


@dataclass(frozen=True)
class Units:
    """Rows of sampled units, and the user and window that each number in `unit` stands for."""

    rows: pl.DataFrame
    names: Mapping[int, tuple[str, int]]

    @classmethod
    def of(cls, frame: pl.DataFrame, settings: DriftSettings) -> Units:
        """The rows of at most `settings.units` units."""
        rows = sampled(frame, settings)
        units = rows.select(USER, WINDOW).unique(maintain_order=True).with_row_index(UNIT)
        rows = rows.join(units, on=[USER, WINDOW], how="left", maintain_order="left")
        return cls(rows, {number: (user, window) for number, user, window in units.rows()})

    def shares(
        self,
        unit: Array,
        cell: Array,
        width: int,
        weight: Array | None = None,
        scale: Scale | None = None,
    ) -> Sample | None:
        """Of units that have at least one row: in which cells their rows lie.

        Args:
            unit, cell, weight: of each row [r]: its unit, its cell, and how much it counts.
            width: how many cells there are.
            scale: of a quantity, whose cells have a distance.
        """
        present, position = np.unique(unit, return_inverse=True)
        shares = np.zeros((len(present), width))
        np.add.at(shares, (position, cell), 1.0 if weight is None else weight)
        shares /= np.maximum(shares.sum(1, keepdims=True), 1e-12)
        return self.vectors(present, scale.z(shares) if scale else shares / 2)

    def quantity(self, unit: Array, values: Array, scale: Scale | None) -> Sample | None:
        """In which cells of the scale the values [r] of units lie; None without a scale."""
        if scale is None or not len(values):
            return None
        return self.shares(unit, scale.cell(values), len(scale.places), scale=scale)

    def vectors(self, unit: Array, z: Array) -> Sample | None:
        """Vectors [n, d] of units [n]."""
        if not len(unit):
            return None
        windows = np.array([self.names[int(number)][1] for number in unit], np.int32)
        return Sample(z.astype(np.float32), windows)


# Words and scripts


def words(text: str) -> list[str]:
    """The words of the beginning of a text; each character of scripts without spaces is one."""
    return _WORD.findall(text[:CHARACTERS].lower())


@cache
def script(character: str) -> int:
    """The place in SCRIPTS, or one beyond."""
    name = unicodedata.name(character, "").partition(" ")[0]
    return SCRIPTS.index(name) if name in SCRIPTS else len(SCRIPTS)


def script_of(text: str) -> str:
    """The script of most of a text's letters."""
    counts = [0] * (len(SCRIPTS) + 1)
    for character in filter(str.isalpha, text[:CHARACTERS]):
        counts[script(character)] += 1
    return "none" if not any(counts) else (*SCRIPTS, "other")[counts.index(max(counts))].lower()
