"""The first step: a source becomes a data set directory, cleaned and without a raw user id in it.

events.parquet  items.parquet  reviews.parquet          what the contract says
quarantine.parquet  reviews_quarantine.parquet          the rejected rows, each with its row number
and reason ingest.json                                             where it came from, what each
rule removed, its hash truth/                                                  of synthetic data
only: what the users' tastes are
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, Field, field_validator

from tasteloop.behaviour import partitions
from tasteloop.behaviour.cleaning import REASON, ROW, RULES, CleaningSettings
from tasteloop.behaviour.events import EVENTS_SCHEMA, KIND, USER
from tasteloop.behaviour.items import ITEM, ITEMS_SCHEMA, LABELS, REVIEW, TITLE
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.partitions import DataSettings, count, write_rows
from tasteloop.datasets import atomic, mapped, movielens, reviews, statements, synthetic
from tasteloop.datasets.catalogue import CATALOGUE
from tasteloop.datasets.fetch import fetch_origin
from tasteloop.datasets.item_text import JoinCounts, join_texts
from tasteloop.datasets.reading import Behaviour, as_events, as_items
from tasteloop.datasets.synthetic import SyntheticSettings
from tasteloop.datasets.tables import check_file, files_of, read_table, scan_table, whole_table
from tasteloop.errors import TasteloopError
from tasteloop.files import (
    atomic_directory,
    read_json,
    sha256_file,
    sha256_tree,
    write_json,
    write_parquet,
)
from tasteloop.privacy.pseudonyms import pseudonym_key, pseudonymise

log = logging.getLogger(__name__)

EVENTS_FILE = "events.parquet"
ITEMS_FILE = "items.parquet"
REVIEWS_FILE = "reviews.parquet"
QUARANTINE_FILE = "quarantine.parquet"
REVIEWS_QUARANTINE_FILE = "reviews_quarantine.parquet"
INGEST_FILE = "ingest.json"

# What programs write for a value that they do not have. As an id it makes one user, or one item, of
# all that lack one.
NULL_WORDS = (
    "nan",
    "null",
    "none",
    "undefined",
    "nil",
    "na",
    "n/a",
    "#n/a",
    "<na>",
    "nat",
    "\\n",
    "(null)",
)

_HIDDEN = "_hidden"
_QUARANTINE = pl.Schema({**dict.fromkeys((*EVENTS_SCHEMA, REASON), pl.String()), ROW: pl.Int64()})
_MAPPINGS = (".yaml", ".yml")


class IngestSettings(BaseModel, frozen=True, extra="forbid"):
    """What is read.

    Attributes:
        behaviour: a name of the catalogue, a MovieLens CSV folder, a mapping YAML, RecBole's
            `.inter`, `synthetic`, or a data set directory as ingest writes it (its users are
            pseudonyms already).
        synthetic: size and model of the synthetic data, where that is the source.
        reviews: a name of the catalogue, `statements` (`tasteloop.datasets.statements`), or a CSV
            or Parquet with text and sentiment; a list of such; None for no sentiment task.
        review_balance: of each source of reviews at most so many times as many of the commoner
            sentiment as of the rarer, always the same ones; None: all.
        item_text: a file of texts about items, joined by id or title (docs/data.md).
        max_users: take only so many users, always the same ones, before cleaning.
        max_reviews: take only so many reviews, always the same ones, after cleaning.
    """

    behaviour: str = "ml-100k"
    synthetic: SyntheticSettings = SyntheticSettings()
    reviews: str | tuple[str, ...] | None = "rotten-tomatoes"
    review_balance: float | None = Field(default=None, ge=1)
    item_text: str | None = None
    cleaning: CleaningSettings = CleaningSettings()
    max_users: int | None = Field(default=None, ge=1)
    max_reviews: int | None = Field(default=None, ge=1)

    @field_validator("reviews")
    @classmethod
    def _each_once(cls, reviews: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if isinstance(reviews, tuple) and len(set(reviews)) < max(len(reviews), 1):
            raise ValueError("name at least one source of reviews, each once; null for none")
        return reviews

    @property
    def review_sources(self) -> tuple[str, ...]:
        """The sources of reviews; none where there is no sentiment task."""
        if self.reviews is None:
            return ()
        return (self.reviews,) if isinstance(self.reviews, str) else self.reviews


@dataclass(frozen=True)
class IngestResult:
    """`rows_in == rows_out + sum(removed.values())`."""

    path: Path
    rows_in: int
    rows_out: int
    users: int
    items: int
    reviews: int
    removed: dict[str, int]
    sha256: str
    terms: str


def source_fingerprint(settings: IngestSettings) -> str:
    """SHA-256 of what an ingest would read, without reading it as data: the catalogue's pinned
    hashes, the contents
    of local files, and which pseudonym key there is (but not the key).
    """
    total = hashlib.sha256(hmac.digest(pseudonym_key(), b"tasteloop fingerprint", "sha256"))
    for name in (settings.behaviour, *(settings.review_sources or (None,))):
        if name == synthetic.NAME == settings.behaviour:
            total.update(f"{name}\0{settings.synthetic.model_dump_json()}\n".encode())
            continue
        if name in statements.SOURCES:
            total.update(f"{name}\0{statements.read(name).write_csv()}\n".encode())
            continue
        if name is None or name in CATALOGUE:
            total.update(f"{name}\0{CATALOGUE[name].sha256 if name else ''}\n".encode())
            continue
        is_behaviour = name == settings.behaviour
        for path in _behaviour_files(name) if is_behaviour else [Path(name).expanduser()]:
            if not path.exists():
                raise TasteloopError(f"no file {path}; check the path in the ingest settings")
            for file in files_of(path):
                check_file(file)
                total.update(f"{path.name}\0{sha256_file(file)}\n".encode())
    if settings.item_text is not None:
        path = Path(settings.item_text).expanduser()
        if not path.exists():
            raise TasteloopError(f"no file {path}; check ingest.item_text")
        check_file(path)
        total.update(f"item_text\0{path.name}\0{sha256_file(path)}\n".encode())
    return total.hexdigest()


def ingest(settings: IngestSettings, out: Path, data: DataSettings | None = None) -> IngestResult:
    """Read, slice, pseudonymise, clean and write the data set directory `out`, whole or not at all.

    A source of which cleaning leaves nothing is written too, with its quarantine: validation says
    no to it.

    Args:
        data: the engine that cleans; each writes the same bytes.

    Raises:
        TasteloopError: a source that is not there, cannot be read, or lacks a column.
    """
    data = data or DataSettings()
    behaviour = _read_behaviour(settings)
    sentiment = None
    if settings.review_sources:
        sentiment = reviews.clean(
            {source: _read_reviews(source) for source in settings.review_sources}
        )

    terms = [behaviour.terms]
    with atomic_directory(out) as directory:
        with whole_table(behaviour.path):
            rows, rows_source, rows_in, words = _rows(behaviour, settings)
            # from here on no frame has a raw user id
            removed = _clean(rows, rows_in, behaviour, settings, data, directory)
        events = pl.scan_parquet(directory / EVENTS_FILE)
        words |= _null_words(events, ITEM)
        unlisted = None if behaviour.items is None else _unlisted(behaviour.items, events)
        items = _with_unknown(behaviour.items, events)
        joined = None
        if settings.item_text is not None:
            path = Path(settings.item_text).expanduser()
            items, joined = join_texts(items, path, settings.behaviour)
            _report_texts(joined)
        _report(settings.behaviour, removed, rows_in)
        write_parquet(directory / ITEMS_FILE, items)
        for name, table in behaviour.truth.items():
            write_parquet(directory / name, _hidden(table))
        review_count = 0
        if sentiment is not None:
            _report(
                " and ".join(settings.review_sources),
                sentiment.removed,
                sentiment.reviews.height + sentiment.quarantine.height,
            )
            texts = sentiment.reviews
            if settings.review_balance is not None:
                texts = reviews.balance(texts, settings.review_balance)
            # ids are hashes: the smallest are a fixed random sample
            if settings.max_reviews is not None:
                texts = texts.filter(pl.col(REVIEW).rank("ordinal") <= settings.max_reviews)
            review_count = texts.height
            write_parquet(directory / REVIEWS_FILE, texts)
            write_parquet(directory / REVIEWS_QUARANTINE_FILE, sentiment.quarantine)
            terms += [CATALOGUE[s].terms for s in settings.review_sources if s in CATALOGUE]
        result = IngestResult(
            path=out,
            rows_in=rows_in,
            rows_out=count(events),
            users=count(events.select(USER).unique()),
            items=items.height,
            reviews=review_count,
            removed=removed,
            sha256=sha256_tree(directory),
            terms="\n".join(terms),
        )
        write_json(
            directory / INGEST_FILE,
            {
                "source": settings.behaviour,
                "reviews_source": settings.reviews,
                "scale": list(behaviour.scale),
                "times": behaviour.times,
                "rules": {rule: {"removed": n} for rule, n in removed.items()},
                "kinds": _removed_by_kind(events, pl.scan_parquet(directory / QUARANTINE_FILE)),
                "unlisted": unlisted,
                "item_text": joined.record() if joined else None,
                "null_words": words,
                "rows_source": rows_source,
                "rows_in": result.rows_in,
                "rows_out": result.rows_out,
                "users": result.users,
                "items": result.items,
                "reviews": result.reviews,
                "reviews_rules": {r: {"removed": n} for r, n in sentiment.removed.items()}
                if sentiment
                else {},
                "labels": sorted(items[LABELS].explode().drop_nulls().unique()),
                "sha256": result.sha256,
                "terms": result.terms,
            },
        )
    return result


def _rows(
    behaviour: Behaviour, settings: IngestSettings
) -> tuple[pl.LazyFrame, int, int, dict[str, dict[str, int]]]:
    """The rows that are asked for, with pseudonyms; how many the source has, how many these are;
    users' null words.
    """
    rows, rows_source = behaviour.rows, count(behaviour.rows)
    users = rows.select(USER).drop_nulls().unique().collect(engine="streaming").to_series()
    # to look at the few users is quick; the rows are gone through once more only where there is
    # such a word
    words = _null_words(rows, USER) if _is_null_word(users).any() else {}
    rows_in = rows_source
    if settings.max_users is not None:
        users = _some_users(users, settings.max_users)
        rows = rows.filter(pl.col(USER).is_in(users.implode()) | pl.col(USER).is_null())
        rows_in = count(rows)
        log.info(
            "%s: %d of %d rows, of %d users",
            settings.behaviour,
            rows_in,
            rows_source,
            settings.max_users,
        )
    if behaviour.hidden:
        return rows, rows_source, rows_in, words
    hidden = pl.LazyFrame({USER: users, _HIDDEN: pseudonymise(users, pseudonym_key())})
    rows = (
        rows.join(hidden, on=USER, how="left")
        .with_columns(pl.col(_HIDDEN).alias(USER))
        .drop(_HIDDEN)
    )
    return rows, rows_source, rows_in, words


def _clean(
    rows: pl.LazyFrame,
    height: int,
    behaviour: Behaviour,
    settings: IngestSettings,
    data: DataSettings,
    directory: Path,
) -> dict[str, int]:
    """Write events and quarantine; the rows that each rule removed."""
    clean = partitions.clean
    if data.engine == "spark":
        from tasteloop.behaviour import spark

        clean = spark.clean
    with data.work(directory) as work:
        accepted, refused = clean(rows, height, behaviour.scale, settings.cleaning, data, work)
        write_rows(directory / EVENTS_FILE, accepted, EVENTS_SCHEMA.to_polars())
        write_rows(directory / QUARANTINE_FILE, refused, _QUARANTINE)
    reasons = (
        pl.scan_parquet(directory / QUARANTINE_FILE)
        .group_by(REASON)
        .len()
        .collect(engine="streaming")
    )
    counts = dict(reasons.iter_rows())
    return {rule: counts.get(rule, 0) for rule in RULES}


def _hidden(table: pl.DataFrame) -> pl.DataFrame:
    """With pseudonyms for raw user ids, where there are any."""
    if USER not in table.columns:
        return table
    return table.with_columns(pseudonymise(table[USER], pseudonym_key()).alias(USER))


def _behaviour_files(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if (path / INGEST_FILE).is_file():
        return [path / name for name in (EVENTS_FILE, ITEMS_FILE, INGEST_FILE)]
    if path.is_dir():
        return movielens.files(path)
    if path.suffix in _MAPPINGS:
        return mapped.files(path)
    if path.name.endswith(atomic.ENDINGS):
        return atomic.files(path)
    known = ", ".join(
        [
            *(source.name for source in CATALOGUE.values() if source.gives == "behaviour"),
            synthetic.NAME,
        ]
    )
    raise TasteloopError(
        f"behaviour {name!r} is neither a name of the catalogue ({known}), nor a folder that is there, nor "
        "a mapping "
        "(.yaml); docs/data.md says how to bring your own data"
    )


def _read_behaviour(settings: IngestSettings) -> Behaviour:
    name = settings.behaviour
    if name == synthetic.NAME:
        return synthetic.generate(settings.synthetic)
    if name in CATALOGUE:
        source = CATALOGUE[name]
        if source.gives != "behaviour":
            raise _wrong_source(name, "behaviour")
        origin, directory = fetch_origin(name)
        assert origin.read_behaviour is not None, f"{name} gives behaviour"
        return origin.read_behaviour(directory, source.terms)
    first = _behaviour_files(name)[0]
    if first.name == EVENTS_FILE:
        return _read_dataset(first.parent)
    if first.name.endswith(atomic.ENDINGS):
        return atomic.read(first)
    return mapped.read(first) if first.suffix in _MAPPINGS else movielens.read_folder(first.parent)


def _read_dataset(path: Path) -> Behaviour:
    rows = as_events(
        scan_table(path / EVENTS_FILE, {c: c for c in EVENTS_SCHEMA}), path / EVENTS_FILE, unit="us"
    )
    items = as_items(read_table(path / ITEMS_FILE, {c: c for c in ITEMS_SCHEMA}), path / ITEMS_FILE)
    record = read_json(path / INGEST_FILE)
    return Behaviour(
        rows,
        items,
        (0.0, 1.0),
        record["terms"],
        hidden=True,
        times=record.get("times", "given"),
        path=path / EVENTS_FILE,
    )


def _read_reviews(name: str) -> pl.DataFrame:
    if name in statements.SOURCES:
        return statements.read(name)
    if name in CATALOGUE:
        source = CATALOGUE[name]
        if source.gives != "reviews":
            raise _wrong_source(name, "reviews")
        origin, directory = fetch_origin(name)
        assert origin.read_reviews is not None, f"{name} gives reviews"
        return origin.read_reviews(directory)
    return reviews.read(Path(name).expanduser())


def _wrong_source(name: str, gives: str) -> TasteloopError:
    known = ", ".join(source.name for source in CATALOGUE.values() if source.gives == gives)
    return TasteloopError(
        f"{name!r} holds {CATALOGUE[name].gives}, not {gives}; for {gives}: {known}"
    )


def _some_users(users: pl.Series, most: int) -> pl.Series:
    """The users whose hashed ids come first: the same with every pseudonym key."""
    by_hash = sorted(users, key=lambda u: hashlib.sha256(u.encode()).digest())
    return pl.Series(USER, by_hash[:most], pl.String)


def _is_null_word(ids: pl.Series) -> pl.Series:
    return ids.str.to_lowercase().is_in(NULL_WORDS)


def _null_words(rows: pl.LazyFrame, column: str) -> dict[str, dict[str, int]]:
    """How many rows have each of `NULL_WORDS` for an id; nothing where none has."""
    counts = rows.filter(pl.col(column).str.to_lowercase().is_in(NULL_WORDS)).group_by(column).len()
    words = dict(counts.collect(engine="streaming").sort(column).iter_rows())
    return {column: words} if words else {}


def _unlisted(items: pl.DataFrame, events: pl.LazyFrame) -> dict[str, int]:
    """How many events have an item, and how many one that the source's own catalogue lacks."""
    named = events.filter(pl.col(ITEM).is_not_null())
    lacking = named.filter(~pl.col(ITEM).is_in(items[ITEM].implode()))
    return {"events": count(lacking), "of": count(named)}


def _removed_by_kind(events: pl.LazyFrame, quarantine: pl.LazyFrame) -> dict[str, dict[str, Any]]:
    """Rows of each of our kinds, and how many of them each rule removed."""
    remaining = dict(events.group_by(KIND).len().collect(engine="streaming").iter_rows())
    removed: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    counts = quarantine.group_by(KIND, REASON).len().collect(engine="streaming")
    for kind, rule, rows in counts.sort(KIND, REASON).rows():
        if kind in removed:
            removed[kind][rule] = rows
    return {
        kind: {"rows": remaining.get(kind, 0) + sum(rules.values()), "removed": rules}
        for kind, rules in removed.items()
        if kind in remaining or rules
    }


def _with_unknown(items: pl.DataFrame | None, events: pl.LazyFrame) -> pl.DataFrame:
    """The items of the source and, titled by their ids, those that only the events know."""
    schema = ITEMS_SCHEMA.to_polars()
    known = pl.DataFrame(schema=schema) if items is None else items
    ids = events.select(ITEM).drop_nulls().unique().collect(engine="streaming").to_series().sort()
    missing = pl.DataFrame({ITEM: ids}).join(known, on=ITEM, how="anti")
    unknown = missing.select(
        ITEM,
        pl.col(ITEM).alias(TITLE),
        pl.lit([], pl.List(pl.String)).alias(LABELS),
        *(
            pl.lit(None, dtype).alias(c)
            for c, dtype in schema.items()
            if c not in (ITEM, TITLE, LABELS)
        ),
    )
    return pl.concat([known, unknown.cast(schema)])


def _report_texts(joined: JoinCounts) -> None:
    log.info(
        "%s: %d of %d rows joined (%d by id, %d by title), %d unmatched, %d ambiguous, %d repeated; "
        "%d of %d items have a text",
        joined.file,
        joined.by_id + joined.by_title,
        joined.rows,
        joined.by_id,
        joined.by_title,
        joined.unmatched,
        joined.ambiguous,
        joined.repeated,
        joined.items_with_text,
        joined.items,
    )


def _report(source: str, removed: dict[str, int], rows: int) -> None:
    for rule, broke in removed.items():
        if broke:
            log.info("%s: rule %s removed %d of %d rows", source, rule, broke, rows)
