"""The environment in which templates are rendered, and the few things that are rendered alone.

Escaping is always on, and a name that a template does not get is an error (StrictUndefined). Pages
hold no script, load nothing, and say so to the browser in a Content Security Policy. Jinja2 is
imported when the first page is made: the command line starts without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from validation.markup import formats, plots
from validation.markup.check import check_page
from validation.markup.elements import Child, Safe, join, visible
from validation.markup.style import stylesheet

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Column:
    """A column's head; `name` is read out where the head shows no words, such as an axis."""

    title: Child
    numeric: bool = False
    name: str | None = None


def render(template: str, **values: object) -> str:
    """A whole page.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not there.
        ValueError: the page holds what could run or load something, or is not well formed.
    """
    return check_page(_environment().get_template(template).render(values))


def table(
    caption: str,
    columns: Sequence[Column | str],
    rows: Iterable[Sequence[Child]],
    note: str = "",
    full: bool = False,
) -> Safe:
    """A table whose first cell of each row is its header; it scrolls sideways where it does not
    fit.

    Args:
        note: said after the caption, less loudly.
        full: as wide as the page, for columns of sentences.
    """
    cells = [[join([cell]) for cell in row] for row in rows]
    return _macro("rows_table", caption, _columns(columns), cells, note, full)


def confusion_matrix(caption: str, matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Safe:
    """Counts by truth (rows) and prediction (columns), each cell shaded by its share of the row."""
    return _macro("confusion_matrix", caption, matrix, names)


def badge(text: str, tone: str) -> Safe:
    """A word in a tone: good, bad, warn or quiet. The word has the meaning, the colour repeats
    it.
    """
    return _macro("badge", text, tone)


def page(
    title: str, body: Child, lang: str = "en", banner: Child = None, foot: Child = None
) -> str:
    """A whole document: no script, no outside resource, light and dark by the reader's preference.

    Args:
        banner: what stands above on every page of a site; the first thing to reach is then a link
            past it.
        foot: what stands below.
    """
    parts = {
        "banner": None if banner is None else join([banner]),
        "foot": None if foot is None else join([foot]),
    }
    return render("document.html", title=title, body=join([body]), lang=lang, **parts)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalise,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": formats.number,
        "interval_text": formats.interval_text,
        "minute": formats.minute,
        "day": formats.day,
        "moment": formats.moment,
        "duration": formats.duration,
        "shortened": formats.shortened,
        "columns": _columns,
    }
    environment.globals |= {
        "POLICY": Safe(POLICY),  # its quotes stand inside double ones
        "stylesheet": lambda: Safe(stylesheet()),
        "Column": Column,
        "plural": formats.plural,
        "axis": plots.axis,
        "interval": plots.interval,
        "bar": plots.bar,
        "signed_bar": plots.signed_bar,
        "distribution": plots.distribution,
        "histogram": plots.histogram,
        "trend": plots.trend,
    }
    return environment


def _columns(columns: Sequence[Column | str]) -> list[Column]:
    """The heads of a table; a title that ends in ` #` is one of numbers, which stand to the
    right.
    """
    heads = []
    for column in columns:
        if isinstance(column, str) and column.endswith(" #"):
            heads.append(Column(column[:-2], numeric=True))
        else:
            heads.append(column if isinstance(column, Column) else Column(column))
    return heads


def _macro(name: str, *values: object) -> Safe:
    macro = getattr(_environment().get_template("blocks.html").module, name)
    return Safe(macro(*values))


def _finalise(value: object) -> object:
    """What a template writes: nothing for None, and text without control characters."""
    from jinja2 import Undefined

    if value is None:
        return ""
    if isinstance(value, Undefined) or hasattr(value, "__html__"):
        return value
    if isinstance(value, list | tuple):
        return join(value)
    return visible(value)
