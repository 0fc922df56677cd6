"""RecBole's atomic files: `NAME.inter`, and beside it `NAME.item` where there is one.

Tab separated, with a header of `name:type`. The types are token, token_seq, float and float_seq;
a space separates the parts of a sequence. A benchmark file has a user's items as a sequence,
`item_id_list`, and the item that follows, `item_id`.
https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from tasteloop.behaviour.cleaning import ROW
from tasteloop.behaviour.events import ITEM, TIME, USER, VALUE
from tasteloop.behaviour.items import LABELS, RELEASED, TEXT, TITLE
from tasteloop.datasets.reading import Behaviour, Times, as_events, as_items, read_value
from tasteloop.datasets.tables import collect, header, read_table, scan_table, whole_table
from tasteloop.errors import TasteloopError

ENDINGS = (".inter", ".inter.gz")
TERMS = "yours"
_BEFORE = "before"  # the items of a sequence
# our name -> what a field may be called, the first that is there
_OF_AN_ACT = {VALUE: ("rating",), TIME: ("timestamp",), _BEFORE: ("item_id_list",)}
_OF_AN_ITEM = {
    TITLE: ("title", "movie_title", "name"),
    LABELS: ("class", "genre", "genres", "categories", "category"),
    TEXT: ("description",),
    RELEASED: ("release_year",),
}


def files(path: Path) -> list[Path]:
    """The acts and, where they are there, the items: `NAME.item` of `NAME.inter` or
    `NAME.test.inter`, each also `.gz`.
    """
    name = re.sub(r"(\.(train|valid|test|part\d+))?\.inter(\.gz)?$", "", path.name)
    beside = [path.with_name(f"{name}.item{gz}") for gz in ("", ".gz")]
    return [path, *[item for item in beside if item.is_file()][:1]]


def read(path: Path) -> Behaviour:
    """The acts of a file of `ENDINGS` in the order of its rows, or by `timestamp` in seconds.

    With `rating` the acts are ratings, on the scale from the lowest to the highest that is there;
    without they are clicks. Of a file of sequences each user's longest row counts: the items of
    `item_id_list` in their order, then `item_id`. It has the order, and neither times nor ratings.

    Raises:
        TasteloopError: no field `user_id` or `item_id`, or a file that cannot be read.
    """
    acts, *described = files(path)
    names = _field_names(acts)
    missing = [name for name in ("user_id", "item_id") if name not in names]
    if missing:
        raise TasteloopError(
            f"{acts} has no field {', '.join(missing)}; it has: {', '.join(names)}"
        )
    columns = {USER: names["user_id"], ITEM: names["item_id"]} | _present(_OF_AN_ACT, names)
    if _BEFORE in columns:  # the rating is of the last item alone
        columns.pop(VALUE, None)
    rows = scan_table(acts, columns, separator="\t", quote=None)
    has_times = TIME in columns
    if _BEFORE in columns:
        rows, has_times = _act_by_act(collect(rows, acts)).lazy(), False

    scale = (0.0, 1.0)
    if VALUE in columns:
        value = read_value(rows.collect_schema())
        finite = value.filter(value.is_finite())
        with whole_table(acts):
            low, high = (
                rows.select(finite.min().alias("low"), finite.max().alias("high")).collect().row(0)
            )
        if low is None or not low < high:
            raise TasteloopError(f"{acts}: all ratings are {low}; remove the field rating")
        scale = (float(low), float(high))
    times: Times = "given" if has_times else "order"
    events = as_events(
        rows if has_times else rows.select(pl.exclude(TIME)),
        acts,
        kind="rate" if VALUE in columns else "click",
        unit="s",
        times=times,
    )
    items = _read_items(described[0]) if described else None
    return Behaviour(events, items, scale, TERMS, path=acts, times=times)


def _read_items(path: Path) -> pl.DataFrame:
    names = _field_names(path)
    if "item_id" not in names:
        raise TasteloopError(f"{path} has no field item_id; it has: {', '.join(names)}")
    columns = {ITEM: names["item_id"]} | _present(_OF_AN_ITEM, names)
    table = read_table(path, columns, separator="\t", quote=None)
    return as_items(table, path, separator=" ")


def _field_names(path: Path) -> dict[str, str]:
    """Field -> column of the header: `user_id` -> `user_id:token`."""
    columns = header(path, separator="\t", quote=None)
    return {column.partition(":")[0]: column for column in columns}


def _present(wanted: Mapping[str, tuple[str, ...]], names: Mapping[str, str]) -> dict[str, str]:
    """Our name -> column, of the fields that are there."""
    chosen = {
        ours: [names[name] for name in theirs if name in names] for ours, theirs in wanted.items()
    }
    return {ours: columns[0] for ours, columns in chosen.items() if columns}


def _act_by_act(table: pl.DataFrame) -> pl.DataFrame:
    """A row for each item of each user's longest sequence, numbered in the order of the file."""
    items = "items"
    sequences = table.with_columns(
        pl.concat_list(
            pl.col(_BEFORE)
            .fill_null("")
            .str.split(" ")
            .list.eval(pl.element().filter(pl.element() != "")),
            pl.col(ITEM),
        ).alias(items)
    )
    longest = (
        sequences.sort(pl.col(items).list.len(), descending=True, maintain_order=True)
        .unique(USER, keep="first", maintain_order=True)
        .sort(ROW)
    )
    return (
        longest.select(USER, pl.col(items).alias(ITEM))
        .explode(ITEM)
        .with_row_index(ROW, offset=1)
        .with_columns(pl.col(ROW).cast(pl.Int64))
    )
