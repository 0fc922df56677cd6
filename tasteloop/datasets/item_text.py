"""Texts about items from a file beside the data: plots, directors, actors.

A row belongs to the item whose id it gives, or else to the item with the same title and year. Ids
of one source mean nothing in another, so an id counts only where the titles do not contradict it.
"""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from tasteloop.behaviour.items import ITEM, RELEASED, TEXT, TITLE
from tasteloop.datasets.tables import check_file, header, read_table
from tasteloop.decompression import read_bounded
from tasteloop.errors import TasteloopError

FORMATS = ".jsonl, .csv, .tsv (also .gz), .parquet"

# what a column of the file may be called, in capitals too; the first that is there counts
_NAMES: Mapping[str, tuple[str, ...]] = {
    "item": ("item", "item_id", "movie_id"),
    "title": ("title", "movie_title"),
    "year": ("year", "release_year"),
    "source": ("source",),
    "plot": ("plot", "text", "description"),
    "director": ("director", "directors"),
    "actors": ("actors", "cast"),
}
_TEXTS = ("plot", "director", "actors")
_NOTHING = ("", "n/a", "none", "null", "nan")

_IN_BRACKETS = re.compile(r"\([^()]*\)?")  # the last bracket of a title that was cut is open
_ARTICLES = frozenset(
    ("a", "an", "the", "das", "der", "die", "el", "il", "l", "la", "las", "le", "les", "los")
)


@dataclass(frozen=True)
class TextRow:
    """One row of the file, read once; what it does not say is None."""

    item: str | None = None
    title: str | None = None
    year: str | None = None
    source: str | None = None
    plot: str | None = None
    director: str | None = None
    actors: str | None = None

    @property
    def text(self) -> str:
        """The plot, then the people: 'A cowboy doll … Directed by John Lasseter. With Tom
        Hanks.'
        """
        parts = [
            self.plot or "",
            f"Directed by {self.director}." if self.director else "",
            f"With {self.actors}." if self.actors else "",
        ]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class JoinCounts:
    """What became of the rows and the items.

    Attributes:
        rows: of the file that have a text and are not of another source.
        by_id, by_title: rows that gave an item its text, by what they were joined.
        repeated: rows of items that an earlier row gave a text.
        ambiguous: rows whose title and year several items have.
        unmatched: rows of no item.
        items, items_with_text: of the data set, before and after.
    """

    file: str
    rows: int = 0
    by_id: int = 0
    by_title: int = 0
    repeated: int = 0
    ambiguous: int = 0
    unmatched: int = 0
    items: int = 0
    items_with_text: int = 0

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Joined:
    """Texts by item id, and counts, as the rows go by."""

    texts: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def add(self, item: str, text: str, how: str) -> None:
        """The text of an item that has none yet; `how` it was joined is counted."""
        if item in self.texts:
            self.count("repeated")
            return
        self.count(how)
        self.texts[item] = text


def title_key(title: str) -> str:
    """A title without what two catalogues write differently.

    Without what is in brackets (the year, another title), case, accents, punctuation and an article
    at its beginning or, after a comma, at its end; `&` is `and`.

    >>> title_key("Postino, Il (The Postman) (1994)")
    'postino'
    >>> title_key("The Léon & I") == title_key("Leon and I, The (1995)")
    True
    """
    bare = _IN_BRACKETS.sub(" ", title)
    plain = unicodedata.normalize("NFKD", bare.lower().replace("&", " and "))
    letters = "".join(c for c in plain if not unicodedata.combining(c)).strip()
    before_comma, comma, last = letters.rpartition(",")
    if comma and last.strip(" '") in _ARTICLES:
        letters = before_comma
    letters = re.sub(r"^l'(?=\w)", "", letters)
    words = re.findall(r"\w+", letters.replace("'", ""))
    if len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words) or title.lower().strip()


def title_year(title: str) -> str | None:
    """The year in brackets at a title's end."""
    match = re.search(r"\((\d{4})\)\s*$", title)
    return match[1] if match else None


def join_texts(items: pl.DataFrame, path: Path, source: str) -> tuple[pl.DataFrame, JoinCounts]:
    """The items with the texts of a file after their own, and what was joined.

    1. Rows of another `source` are passed over, where the file has this one.
    2. A row with an item id belongs to that item, unless both have titles and these differ. An item
       that is titled by its id has no title.
    3. Any other row belongs to the one item with its title and year, by `title_key`; where the row
       has no year, to the one item with its title.
    4. Of several rows for one item the first with its id counts, or else the first with its title.

    Args:
        items: in `ITEMS_SCHEMA`.
        path: a file of `FORMATS`.
        source: the name of the behaviour.

    Raises:
        TasteloopError: the file cannot be read, or has neither id nor title, or no text.
    """
    rows = read_rows(path)
    # 1. the rows of this source, where the file tells them apart
    if any(row.source == source for row in rows):
        rows = [row for row in rows if row.source in (source, None)]
    rows = [row for row in rows if row.text]

    # 2. the items by id, by title and year, and by title
    title_of: dict[str, str | None] = {}
    items_of: dict[tuple[str, str | None], set[str]] = {}
    for item, title, released in items.select(ITEM, TITLE, RELEASED).iter_rows():
        if title == item:  # where the source had no title, ingest wrote the id
            title_of[item] = None
            continue
        key, year = title_key(title), str(released.year) if released else title_year(title)
        title_of[item] = key
        for each in {year, None}:
            items_of.setdefault((key, each), set()).add(item)

    # 3. the rows that give an item's id, before the others: an id says more than a title
    joined = _Joined()
    without_id: list[TextRow] = []
    for row in rows:
        if row.item is not None and _is_of(row, row.item, title_of):
            joined.add(row.item, row.text, "by_id")
        else:
            without_id.append(row)

    # 4. the others by title
    for row in without_id:
        candidates: set[str] = set()
        if row.title is not None:
            year = row.year or title_year(row.title)
            candidates = items_of.get((title_key(row.title), year), set())
        if len(candidates) == 1:
            joined.add(next(iter(candidates)), row.text, "by_title")
        else:
            joined.count("ambiguous" if candidates else "unmatched")

    # 5. the items' own texts first
    added = pl.DataFrame(
        {ITEM: list(joined.texts), "added": list(joined.texts.values())},
        schema={ITEM: pl.String, "added": pl.String},
    )
    text = pl.concat_str(pl.col(TEXT), pl.col("added"), separator=" ", ignore_nulls=True)
    with_text = items.join(added, on=ITEM, how="left", maintain_order="left").with_columns(
        pl.when(text != "").then(text).alias(TEXT)
    )
    counts = JoinCounts(
        file=path.name,
        rows=len(rows),
        items=items.height,
        items_with_text=with_text[TEXT].drop_nulls().len(),
        **joined.counts,
    )
    return with_text.select(items.columns), counts


def _is_of(row: TextRow, item: str, title_of: Mapping[str, str | None]) -> bool:
    """Whether there is an item of that id, and its title does not contradict the row's."""
    if item not in title_of:
        return False
    title = title_of[item]
    return row.title is None or title is None or title_key(row.title) == title


def read_rows(path: Path) -> list[TextRow]:
    """The rows of a file of `FORMATS`."""
    if not path.exists():
        raise TasteloopError(f"no file {path}; check ingest.item_text")
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".jsonl"):
        records: Iterable[Mapping[str, Any]] = _read_json_lines(path)
    elif name.endswith((".csv", ".tsv", ".parquet")):
        records = _read_columns(path)
    else:
        raise TasteloopError(f"{path} is of no known format; allowed: {FORMATS}")
    return [TextRow(**{field: _text(record.get(field)) for field in _NAMES}) for record in records]


def _text(value: Any) -> str | None:
    """A value as text; what stands for no value is None, and 114.0 is the whole number."""
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = " ".join(str(value).split()) if value is not None else ""
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    return None if text.lower() in _NOTHING else text


def _fields(names: Iterable[str], path: Path) -> dict[str, str]:
    """Our field -> the file's name for it."""
    lower = {name.lower(): name for name in names}
    fields = {
        ours: next((lower[name] for name in theirs if name in lower), "")
        for ours, theirs in _NAMES.items()
    }
    known = {ours: theirs for ours, theirs in fields.items() if theirs}
    if not {"item", "title"} & set(known):
        raise TasteloopError(
            f"{path} has neither an item id nor a title to join by; allowed: "
            f"{', '.join(_NAMES['item'] + _NAMES['title'])}"
        )
    if not set(_TEXTS) & set(known):
        allowed = ", ".join(name for ours in _TEXTS for name in _NAMES[ours])
        raise TasteloopError(f"{path} has no text about items; allowed: {allowed}")
    return known


def _read_columns(path: Path) -> list[dict[str, Any]]:
    check_file(path)
    fields = _fields(header(path), path)
    return read_table(path, fields).select(*fields).to_dicts()


def _read_json_lines(path: Path) -> list[dict[str, Any]]:
    check_file(path)
    packed = path.stat().st_size
    try:
        if path.name.lower().endswith(".gz"):
            with gzip.open(path) as stream:
                content = b"".join(read_bounded(stream, packed, str(path)))
        else:
            content = path.read_bytes()
        lines = content.decode("utf-8-sig").split("\n")  # JSON may hold U+2028
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TasteloopError(
            f"{path} ({packed} bytes) cannot be read ({type(error).__name__}); copy or export it again"
        ) from None
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # no JSON, or nested thousands deep
            record = None
        if not isinstance(record, dict):
            raise TasteloopError(f"{path}: line {number} is no JSON object")
        records.append(record)
    if not records:
        raise TasteloopError(f"{path} has no rows; export it again")
    fields = _fields(dict.fromkeys(name for record in records for name in record), path)
    return [{ours: record.get(theirs) for ours, theirs in fields.items()} for record in records]
