"""Running a suite with Great Expectations, and reading its results as checks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tasteloop.behaviour import events as ev
from tasteloop.behaviour import items as it
from validation.data.checks import DataCheck
from validation.data.suites import PSEUDONYM

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from great_expectations.data_context.data_context.abstract_data_context import (
        AbstractDataContext,
    )
    from great_expectations.expectations.expectation import Expectation

SAMPLES = 5
_NULL = "null"
_SHOWN_CHARACTERS = 60  # of a value that breaks a rule


def gx_context() -> AbstractDataContext:
    """An in-memory GX context that sends nothing and draws nothing."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # it narrates its own start
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """The frame as GX can check it.

    pandas has one missing value where Polars has null and NaN, and GX passes missing values in
    ranges: NaN becomes infinite first, so that a range refuses it. Integers stay integers beside
    nulls, and lists become Python lists.
    """
    import pandas as pd
    import polars as pl
    from polars import selectors as cs

    table = frame.with_columns(cs.float().fill_nan(float("inf"))).to_pandas()
    for name, dtype in frame.schema.items():
        if dtype.is_integer() and frame[name].null_count():
            values = frame[name]
            table[name] = (
                pd.Series(values.fill_null(0).to_numpy())
                .astype(str(dtype))
                .mask(values.is_null().to_numpy())
            )
        elif dtype == pl.List(pl.String):
            table[name] = pd.Series(frame[name].to_list(), dtype=object)
    return table


def run_suite(
    context: AbstractDataContext, name: str, frame: Any, suite: Iterable[Expectation]
) -> list[DataCheck]:
    """Check a table of pandas or Spark.

    Returns:
        A check for each rule, in the order of the suite; the two levels of a rule are one check,
        that of the worse result.
    """
    import pandas as pd
    from great_expectations.core.expectation_suite import ExpectationSuite

    expectations = list(suite)
    if isinstance(frame, pd.DataFrame):
        batch = context.data_sources.pandas_default.read_dataframe(frame)
    else:
        asset = context.data_sources.add_or_update_spark("spark").add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe(name).get_batch({"dataframe": frame})
    result = batch.validate(
        ExpectationSuite(name=name, expectations=expectations),
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": SAMPLES},
    )
    checks: dict[str, DataCheck] = {
        expectation.meta["rule"]: _NOT_RUN for expectation in expectations if expectation.meta
    }
    for expectation_result in result.results:  # in GX's order, which is not the suite's
        check = _outcome(name, expectation_result.to_json_dict())
        if _weight(check) >= _weight(checks[check.rule]):
            checks[check.rule] = check
    return [
        check if check is not _NOT_RUN else replace(check, table=name, rule=rule)
        for rule, check in checks.items()
    ]


_NOT_RUN = DataCheck(
    "", "", "the rule was checked", "error", False, "no result from Great Expectations"
)


def _weight(check: DataCheck) -> int:
    """Orders the levels of a rule: a failed error is 2, a failed warning 1, what passed 0."""
    if check is _NOT_RUN:
        return -1
    if check.passed:
        return 0
    return 2 if check.severity == "error" else 1


def _outcome(name: str, result: Mapping[str, Any]) -> DataCheck:
    """A result of GX as a check of the table `name`."""
    config = result["expectation_config"]
    meta = config["meta"]
    check = DataCheck(
        table=name,
        rule=meta["rule"],
        about=meta["about"],
        severity="error" if config["severity"] == "critical" else "warning",
        passed=bool(result["success"]),
        expectation=config["type"],
    )
    column = config["kwargs"].get("column")
    details = result["result"]

    # 1. a rule that could not be checked
    fault = _exception_message(result.get("exception_info") or {})
    if fault is not None:
        return replace(check, passed=False, observed=f"a check that could not run: {fault[:200]}")

    # 2. a rule on rows
    if "element_count" in details:
        values = details.get("partial_unexpected_list") or ()
        samples = dict.fromkeys(_show(column, value) for value in values)
        return replace(
            check,
            unexpected=details["unexpected_count"],
            rows=details["element_count"],
            samples=tuple(sample for sample in samples if sample != _NULL),
        )

    # 3. a rule on a column or a table as one
    if not details:
        return check
    return replace(check, observed=_observed(details, column, check.passed))


def _observed(details: Mapping[str, Any], column: str | None, passed: bool) -> str:
    """What GX saw of a column or a table, in words."""
    observed = details.get("observed_value")
    names = details.get("partial_unexpected_list")
    if names:  # of a rule on the distinct values of a column
        more = details["unexpected_count"] - len(names)
        observed = ", ".join(map(str, names)) + (f" and {more:,} more" if more else "")
    if column == ev.TIME and isinstance(observed, int):
        observed = _show_time(observed)
    if isinstance(observed, float):
        observed = f"{observed:.4g}"
    if isinstance(observed, list):  # columns
        missing = details.get("details", {}).get("mismatched", {}).get("missing")
        if missing:
            observed = f"no {', '.join(missing)}"
        elif passed:
            observed = None
    if observed is None:
        observed = "all" if passed else "nothing"
    return str(observed)


def _exception_message(info: Mapping[str, Any]) -> str | None:
    """The message of the exception that a check raised; None where it raised none.

    GX reports an exception either flat or under the id of the metric that raised it.
    """
    for entry in (info, *info.values()):
        if isinstance(entry, Mapping) and entry.get("raised_exception"):
            return str(entry.get("exception_message") or "unknown error")
    return None


def _show(column: str | None, value: Any) -> str:
    """A value that breaks a rule, for people: short, no free text, no raw user id."""
    import re

    if isinstance(value, Mapping):
        entries = [
            _show(key, entry)
            for key, entry in value.items()
            if entry is not None and key != ev.TEXT
        ]
        return " ".join(entries)
    if column == ev.USER and not (isinstance(value, str) and re.match(PSEUDONYM, value)):
        return "(hidden)" if value is not None else _NULL
    if column == ev.TIME and isinstance(value, int):
        return _show_time(value)
    if column in (ev.TEXT, it.REVIEW) and isinstance(value, str) and value.strip():
        return f"(a text of {len(value):,} characters)" if column == ev.TEXT else value[:40]
    if value is None:
        return _NULL
    text = repr(value) if isinstance(value, str) else str(value)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return text[: _SHOWN_CHARACTERS - 3] + "…"


def _show_time(micros: int) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    except OverflowError:
        return f"{micros} µs"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
