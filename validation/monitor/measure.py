"""What a measure of drift is, and the two sides that it reads.

A measure of behaviour or of predictions is a vector z a unit (a user in a window), and the distance
of two windows the L1 norm of the difference of their means:

- shares (kinds, labels, ...): half of it is the total variation, the share of behaviour that moved.
- quantities (value, text length, ...), in cells between the reference's quantiles: with z the
  cumulative shares times the cells' widths it is the first Wasserstein distance, here in standard
  deviations of the reference.

Embeddings have two more: how well a linear classifier tells the windows apart (2 AUC - 1,
cross-fitted ridge), and the maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012).

`validation.monitor.measures` declares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, model_validator

from tasteloop.answers import INTERESTS, RECOMMEND
from tasteloop.behaviour.events import ITEM, KIND, TEXT, USER, VALUE
from tasteloop.behaviour.kinds import KINDS
from tasteloop.journal import HEARD, MODEL, NUMBERS
from validation.monitor.sampling import (
    CHARACTERS,
    UNIT,
    Codebook,
    DriftSettings,
    Reader,
    Sample,
    Units,
    chosen,
)
from validation.monitor.statistics import Array, Compare, compare_means

if TYPE_CHECKING:
    import polars as pl

    from tasteloop.language.hearing import Gist

Effect = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Answer = Literal["watch", "retrain", "alert-human"]

_TEXTS = 20  # of a unit that are looked at
_ROW = "row"


class Severity(BaseModel, frozen=True, extra="forbid"):
    """From which effect on a measure is watched and acted upon, and what the act is."""

    watch: Effect
    act: Effect
    answer: Answer = "retrain"

    @model_validator(mode="after")
    def _in_order(self) -> Severity:
        if self.watch > self.act:
            raise ValueError(f"watch ({self.watch:g}) must not lie above act ({self.act:g})")
        return self


@dataclass(frozen=True)
class Recorded:
    """The rows of one side, before units are chosen: those of the reference, or of a window.

    Attributes:
        events: behaviour with WINDOW, repetitions removed.
        answers: of the journal, with WINDOW; those without a user are units of their own.
    """

    events: pl.DataFrame
    answers: pl.DataFrame
    reader: Reader
    settings: DriftSettings

    @property
    def texts(self) -> list[str]:
        return [str(text) for text in self.events[TEXT].drop_nulls().to_list()]

    def best_numbers(self, model: str) -> Array:
        """The best number of each answer of a served model that has one."""
        import polars as pl

        return best_numbers(self.answers.filter(pl.col(MODEL) == model))


class Search(NamedTuple):
    """A text about no item that was read: its place among the rows of behaviour, its unit, and what
    it says.
    """

    row: int
    unit: int
    gist: Gist


class Opinion(NamedTuple):
    """A text about an item that was read: its place among the rows of behaviour, its unit, how
    probable it is that its words are favourable (None: neither for nor against), and the value of
    the act (None: without).
    """

    row: int
    unit: int
    stance: float | None
    value: float | None


@dataclass(frozen=True)
class Side(Recorded):
    """One side as measures read it: the rows of its chosen units.

    Attributes:
        book: what the reference fixes.
    """

    book: Codebook

    @cached_property
    def behaviour(self) -> Units:
        return Units.of(self.events, self.settings)

    @cached_property
    def predictions(self) -> Units:
        import polars as pl

        named = self.answers.with_columns(pl.coalesce(pl.col(USER), "request").alias(USER))
        return Units.of(named, self.settings)

    @cached_property
    def interests(self) -> pl.DataFrame:
        """Answers with all labels: of a short one nobody knows the rest."""
        import polars as pl

        rows = self.predictions.rows.filter(pl.col(MODEL) == INTERESTS)
        return rows.filter(pl.col("k").is_null()) if "k" in rows.columns else rows

    @cached_property
    def recommended(self) -> pl.DataFrame:
        import polars as pl

        return self.predictions.rows.filter(pl.col(MODEL) == RECOMMEND)

    def one_a_unit(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The first of the rows of each unit, of at most `settings.texts` units: as many texts as
        an encoder reads of a side.
        """
        first = rows.unique(UNIT, keep="first", maintain_order=True)
        place_of = {str(unit): place for place, unit in enumerate(first[UNIT].to_list())}
        names = chosen(place_of, self.settings.texts, self.settings.seed)
        return first[sorted(place_of[name] for name in names)]

    @cached_property
    def searches(self) -> list[Search]:
        """What one text about no item says, of each chosen unit that wrote one; none where the
        champion reads no wishes.
        """
        import polars as pl

        if self.reader.listen is None:
            return []
        says = pl.col(ITEM).is_null() & (pl.col(TEXT).str.len_chars() > 0)
        rows = self.one_a_unit(self.behaviour.rows.with_row_index(_ROW).filter(says))
        gists = self.reader.listen([text[:CHARACTERS] for text in rows[TEXT].to_list()])
        places = rows.select(_ROW, UNIT).rows()
        return [Search(row, unit, each) for (row, unit), each in zip(places, gists, strict=True)]

    @cached_property
    def opinions(self) -> list[Opinion]:
        """One text about an item, of each chosen unit that wrote one, one with a value where there
        is one; none where the champion has no sentiment.
        """
        import polars as pl

        if self.reader.stance is None:
            return []
        kinds = [kind.word for kind in KINDS.values() if kind.value_matters]
        says = pl.col(ITEM).is_not_null() & (pl.col(TEXT).str.len_chars() > 0)
        rows = self.behaviour.rows.with_row_index(_ROW).filter(says & pl.col(KIND).is_in(kinds))
        rows = self.one_a_unit(rows.sort(pl.col(VALUE).is_null(), maintain_order=True))
        texts = [text[:CHARACTERS] for text in rows[TEXT].to_list()]
        stances = self.reader.stance(list(dict.fromkeys(texts))) if texts else {}
        return [
            Opinion(row, unit, stances[text], value)
            for text, (row, unit, value) in zip(
                texts, rows.select(_ROW, UNIT, VALUE).rows(), strict=True
            )
        ]

    @cached_property
    def heard(self) -> pl.DataFrame:
        """What the journal says of the words that answers rest on: the fields of HEARD beside UNIT;
        no row of a journal that has none.
        """
        import polars as pl

        rows = self.predictions.rows
        if HEARD not in rows.columns:
            return pl.DataFrame(schema={UNIT: pl.UInt32()})
        told = rows.filter(pl.col(HEARD).is_not_null())
        return told.select(UNIT, HEARD).unnest(HEARD)

    @cached_property
    def written(self) -> pl.DataFrame:
        """The first texts of each unit."""
        import polars as pl

        texts = self.behaviour.rows.filter(pl.col(TEXT).is_not_null()).select(UNIT, TEXT)
        return texts.group_by(UNIT, maintain_order=True).head(_TEXTS)


Cells = Callable[[Codebook], Sequence[str]]


@dataclass(frozen=True)
class Spread:
    """How the units of one side are spread over a measure's cells.

    Attributes:
        shares: of the cells [d].
        cells: their names [d], of shares.
        edges: between which they lie [d + 1], of a quantity.
    """

    shares: Array
    cells: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Measure:
    """A measure of behaviour or of predictions.

    Attributes:
        name: in reports, in the ledger, and in settings of the decision.
        about: what the page says below its distribution.
        read: from a side to z [n, d] of its units; None where the side has nothing to read.
        severity: from which effect on it is watched and acted upon by default; None: it is only
            reported.
        cells: names of the cells of shares, for the page.
        quantity: the reference's values, which fix the cells of a quantity.
        compare: how two sides are compared.
        sample: the name under which the reference stores z; two measures may read the same.
    """

    name: str
    about: str
    read: Callable[[Side], Sample | None]
    severity: Severity | None = None
    cells: Cells | None = None
    quantity: Callable[[Recorded], Array] | None = None
    compare: Compare = compare_means
    sample: str = field(default="")

    @property
    def stored_as(self) -> str:
        return self.sample or self.name

    def spread(self, book: Codebook, z: Array) -> Spread | None:
        """The mean shares of its cells; None for a measure without cells.

        Args:
            z: of the units of a side [n, d].
        """
        if not len(z):
            return None
        mean = z.mean(0).astype(float)
        if self.cells is not None:
            names = tuple(map(str, self.cells(book)))
            return Spread(2 * mean, names) if len(names) == len(mean) else None
        scale = book.scales.get(self.name)
        if scale is None or len(scale.edges) < 1:
            return None

        # z is the cumulative shares times the cells' widths, in deviations of the reference
        widths = np.maximum(np.diff(scale.places), 1e-12)
        cumulative = np.concatenate([[0.0], mean * scale.deviation / widths, [1.0]])
        low = 2 * scale.places[0] - scale.edges[0]
        high = 2 * scale.places[-1] - scale.edges[-1]
        edges = (min(low, scale.edges[0]), *scale.edges, max(high, scale.edges[-1]))
        return Spread(np.clip(np.diff(cumulative), 0, 1), edges=edges)


def best_numbers(answers: pl.DataFrame) -> Array:
    """The best number of each answer that has one."""
    return answers[NUMBERS].list.first().drop_nulls().to_numpy().astype(float)
