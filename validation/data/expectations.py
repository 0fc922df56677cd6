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
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasteloop.behaviour import items as it
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
)
from validation.data.tables import (
    SCHEMAS,
    SPARK_TYPES,
    UNLABELLED,
    events_for_rules,
    events_on_spark,
    ingest_columns,
    labels_of_items,
    labels_present,
    previous_counts,
    read_ingest,
    statistics,
)
from validation.markup.formats import plural

if TYPE_CHECKING:
    import polars as pl
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
        about, found = "the data can be checked", f"{type(error).__name__}: {error}"[:300]
        checks = [DataCheck("data set", "checkable", about, "error", False, found)]
    failed = {
        severity: [c for c in checks if not c.passed and c.severity == severity]
        for severity in LEVELS
    }
    errors, warnings = len(failed["error"]), len(failed["warning"])
    counts = f"{plural(errors, 'error')}, {plural(warnings, 'warning')} in {plural(len(checks), 'check')}"
    reason = ". ".join([counts, *(str(check) for check in failed["error"] or failed["warning"])])
    result = ValidationResult(not errors, reason, errors, warnings)
    record = {
        "schema": 1,
        **asdict(result),
        "checks": [{**asdict(check), "found": check.found} for check in checks],
        "stats": stats,
        "settings": settings.model_dump(mode="json"),
    }
    write_json(out / VALIDATION_FILE, record)
    if result.passed:
        log.info("data accepted: %s", reason)
    else:
        log.error("data refused: %s", reason)
    return result


def _check(
    dataset: Path,
    settings: ValidationSettings,
    previous: Path | None,
    stats: dict[str, Any],
    data: DataSettings,
    work: Path,
) -> list[DataCheck]:
    """Of Spark, the events stay there; all other tables are small, and checked here."""
    import polars as pl

    checks: list[DataCheck] = []
    before = previous_counts(previous, checks)
    frames: dict[str, pl.DataFrame | pl.LazyFrame] = {}
    for name in SCHEMAS:
        path = dataset / f"{name}.parquet"
        if name == "reviews" and not path.exists():
            if before.get("reviews"):
                about = f"reviews are there, as the {before['reviews']:,} of the last accepted data set were"
                checks.append(DataCheck(name, "present", about, "error", False, "no reviews"))
            continue
        try:
            frame = (
                scan(path) if data.engine == "spark" and name == "events" else read_parquet(path)
            )
            empty = frame.lazy().head(1).collect().is_empty()
        except (TasteloopError, pl.exceptions.PolarsError, OSError) as error:
            checks.append(
                DataCheck(
                    name, "readable", "the table can be read", "error", False, str(error)[:300]
                )
            )
            continue
        if empty:
            checks.append(
                DataCheck(name, "rows", "the table has rows", "error", False, "an empty table")
            )
        else:
            frames[name] = frame

    context = gx_context()
    sound: dict[str, Any] = {}
    for name, frame in frames.items():
        columns = frame.collect_schema().names()
        if isinstance(frame, pl.DataFrame):
            found = run_suite(
                context, f"{name} contract", to_pandas(frame), contract(name, columns)
            )
        else:
            from tasteloop.behaviour import spark

            on_spark = spark.events(dataset / f"{name}.parquet", data, work)
            found = run_suite(
                context, f"{name} contract", on_spark, contract(name, columns, SPARK_TYPES)
            )
        found = [replace(check, table=name) for check in found]
        checks += found
        if all(check.passed or check.severity == "warning" for check in found):
            sound[name] = frame
    stats |= statistics(sound)
    rules: list[tuple[str, Any, Iterator[Expectation]]] = []
    if "events" in sound:
        items = sound.get("items")
        if isinstance(sound["events"], pl.DataFrame):
            seen = to_pandas(events_for_rules(sound["events"], items, settings))
        else:
            seen = events_on_spark(on_spark, items, settings, data, work)
        rules.append(("events", seen, rules_of_events(settings, before, items is not None)))
    if "items" in sound:
        unlabelled = (
            pl.when(pl.col(it.LABELS).list.len() == 0).then(pl.col(it.ITEM)).alias(UNLABELLED)
        )
        labelled = bool(stats["labels"])
        checks += labels_present(labelled, before)
        items = to_pandas(sound["items"].with_columns(unlabelled))
        rules.append(("items", items, rules_of_items(settings, before, labelled)))
        if labelled:
            rules.append(
                (
                    "labels",
                    to_pandas(labels_of_items(sound["items"], settings)),
                    rules_of_labels(settings),
                )
            )
    if "reviews" in sound:
        rules.append(("reviews", to_pandas(sound["reviews"]), rules_of_reviews(settings, before)))
    if (record := read_ingest(dataset, checks)) is not None:
        for column, values in ingest_columns(record, settings).items():
            rules.append(
                (
                    "ingest",
                    to_pandas(pl.DataFrame({column: values})),
                    rules_of_ingest(settings, column),
                )
            )
    for name, table, expectations in rules:
        checks += run_suite(context, name, table, expectations)
    return checks
