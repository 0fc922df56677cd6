"""What a data set must satisfy before anything is trained on it.

Each table has two suites of Great Expectations: the contract (columns, types, nulls), made from the
schemas in `tasteloop.behaviour.events` and `tasteloop.behaviour.items`, and, for a table that keeps
the contract, its rules (sets, ranges, uniqueness, references, volume, balance). A rule is an error,
which stops the pipeline, or a warning, which is reported. Some are both, at two levels: one
unlisted item is a warning, a tenth of all events is an error.

Nothing that data can be makes `validate` raise: what cannot be read or checked is an error with its
reason.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tasteloop.behaviour.partitions import DataSettings, scan
from tasteloop.errors import TasteloopError
from tasteloop.files import read_parquet, write_json
from validation.data.checks import LEVELS, VALIDATION_FILE, DataCheck, ValidationResult
from validation.data.running import gx_context, run_suite, to_pandas
from validation.data.settings import ValidationSettings
from validation.data.suites import (
    contract,
    rules_of_events,
    rules_of_ingest,
    rules_of_items,
    rules_of_labels,
    rules_of_reviews,
    rules_of_texts,
)
from validation.data.tables import (
    SCHEMAS,
    SPARK_TYPES,
    events_for_rules,
    events_on_spark,
    ingest_columns,
    items_for_rules,
    joined_texts,
    labels_of_items,
    labels_present,
    previous_counts,
    read_ingest,
    statistics,
    text_columns,
)
from validation.markup.formats import plural

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

__all__ = ["ValidationResult", "ValidationSettings", "validate"]

log = logging.getLogger(__name__)


def validate(
    dataset: Path,
    settings: ValidationSettings,
    out: Path,
    previous: Path | None = None,
    data: DataSettings | None = None,
) -> ValidationResult:
    """Check a data set directory and write validation.json into `out`.

    Args:
        previous: a validation.json, or its "stats" alone, of the last accepted data set; where
            there is no such file yet, volume is not compared.
        data: the engine on which Great Expectations checks the events; the findings are the same.

    Returns:
        passed is False when any error was found; bad data never raises.
    """
    stats: dict[str, Any] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        data = data or DataSettings()
        with data.work(out) as work:
            checks = _check(dataset, settings, previous, stats, data, work)
    # a check that cannot run is a failed check, whatever the data did to it
    except Exception as error:
        log.exception("validation of %s could not be completed", dataset)
        about, observed = "the data can be checked", f"{type(error).__name__}: {error}"[:300]
        checks = [DataCheck("data set", "checkable", about, "error", False, observed)]
    result = _summarise(checks)
    record = {
        "schema": 1,
        **asdict(result),
        "checks": [{**asdict(check), "found": check.observation} for check in checks],
        "stats": stats,
        "settings": settings.model_dump(mode="json"),
    }
    if texts := joined_texts(dataset):
        record["item_text"] = texts
    write_json(out / VALIDATION_FILE, record)
    if result.passed:
        log.info("data accepted: %s", result.reason)
    else:
        log.error("data refused: %s", result.reason)
    return result


def _summarise(checks: Sequence[DataCheck]) -> ValidationResult:
    """The result of all checks; its reason names the failed errors, or else the failed warnings."""
    errors, warnings = (
        [check for check in checks if not check.passed and check.severity == severity]
        for severity in LEVELS
    )
    counts = (
        f"{plural(len(errors), 'error')}, {plural(len(warnings), 'warning')} "
        f"in {plural(len(checks), 'check')}"
    )
    reason = ". ".join([counts, *(str(check) for check in errors or warnings)])
    return ValidationResult(not errors, reason, len(errors), len(warnings))


def _check(
    dataset: Path,
    settings: ValidationSettings,
    previous: Path | None,
    stats: dict[str, Any],
    data: DataSettings,
    work: Path,
) -> list[DataCheck]:
    """All checks of a data set, in the order of its tables.

    With Spark the events stay there, but for what is counted of their texts; all other tables are
    small. Those are checked in this process.

    Args:
        stats: is filled with `statistics`, also where a later check raises.
        work: a folder for what lies between, which is removed afterwards.
    """
    checks: list[DataCheck] = []
    context = gx_context()

    # 1. the tables that can be read
    before = previous_counts(previous, checks)
    frames = _read_tables(dataset, before, data, checks)

    # 2. each table's contract; rules are for the tables that keep theirs
    sound: dict[str, Any] = {}
    on_spark: Any = None
    for name, frame in frames.items():
        columns = frame.collect_schema().names()
        suite = f"{name} contract"
        if isinstance(frame, pl.DataFrame):
            results = run_suite(context, suite, to_pandas(frame), contract(name, columns))
        else:
            from tasteloop.behaviour import spark

            on_spark = spark.events(dataset / f"{name}.parquet", data, work)
            results = run_suite(context, suite, on_spark, contract(name, columns, SPARK_TYPES))
        results = [replace(check, table=name) for check in results]
        checks += results
        if all(check.passed or check.severity == "warning" for check in results):
            sound[name] = frame
    stats |= statistics(sound)

    # 3. the rules of each table
    rules: list[tuple[str, Any, Iterator[Expectation]]] = []
    items = sound.get("items")
    if "events" in sound:
        if isinstance(sound["events"], pl.DataFrame):
            events = to_pandas(events_for_rules(sound["events"], items, settings))
        else:
            events = events_on_spark(on_spark, items, settings, data, work)
        rules.append(("events", events, rules_of_events(settings, before, items is not None)))
        for column, values in text_columns(sound["events"], items, settings).items():
            table = to_pandas(pl.DataFrame({column: values}))
            rules.append(("texts", table, rules_of_texts(settings, column)))
    if items is not None:
        has_labels = bool(stats["labels"])
        checks += labels_present(has_labels, before)
        item_rules = rules_of_items(settings, before, has_labels)
        rules.append(("items", to_pandas(items_for_rules(items)), item_rules))
        if has_labels:
            labels = to_pandas(labels_of_items(items, settings))
            rules.append(("labels", labels, rules_of_labels(settings)))
    if "reviews" in sound:
        rules.append(("reviews", to_pandas(sound["reviews"]), rules_of_reviews(settings, before)))

    # 4. the rules of ingest's record, a column at a time
    record = read_ingest(dataset, checks)
    if record is not None:
        for column, values in ingest_columns(record, settings).items():
            table = to_pandas(pl.DataFrame({column: values}))
            rules.append(("ingest", table, rules_of_ingest(settings, column)))

    for name, table, expectations in rules:
        checks += run_suite(context, name, table, expectations)
    return checks


def _read_tables(
    dataset: Path, before: Mapping[str, int], data: DataSettings, checks: list[DataCheck]
) -> dict[str, pl.DataFrame | pl.LazyFrame]:
    """The tables that can be read and have rows; what is wrong with the others is among `checks`.

    Reviews may be absent, unless the last accepted data set had some.
    """
    frames: dict[str, pl.DataFrame | pl.LazyFrame] = {}
    for name in SCHEMAS:
        path = dataset / f"{name}.parquet"
        if name == "reviews" and not path.exists():
            if before.get("reviews"):
                about = f"reviews are there, as the {before['reviews']:,} of the last accepted data set were"
                checks.append(DataCheck(name, "present", about, "error", False, "no reviews"))
            continue
        is_on_spark = data.engine == "spark" and name == "events"
        try:
            frame = scan(path) if is_on_spark else read_parquet(path)
            is_empty = frame.lazy().head(1).collect().is_empty()
        except (TasteloopError, pl.exceptions.PolarsError, OSError) as error:
            about = "the table can be read"
            checks.append(DataCheck(name, "readable", about, "error", False, str(error)[:300]))
            continue
        if is_empty:
            about = "the table has rows"
            checks.append(DataCheck(name, "rows", about, "error", False, "an empty table"))
        else:
            frames[name] = frame
    return frames
