"""Running a suite with Great Expectations, and reading what it says as checks."""

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
_NOTHING = "null"


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
    ranges: NaN
        becomes infinite first, so that a range refuses it. Integers stay integers beside nulls,
        lists become Python lists.
    """
    import pandas as pd
    import polars as pl
    from polars import selectors as cs

    whole = frame.with_columns(cs.float().fill_nan(float("inf")))
    made = whole.to_pandas()
    for name, dtype in frame.schema.items():
        if dtype.is_integer() and frame[name].null_count():
            values = frame[name]
            made[name] = (
                pd.Series(values.fill_null(0).to_numpy())
                .astype(str(dtype))
                .mask(values.is_null().to_numpy())
            )
        elif dtype == pl.List(pl.String):
            made[name] = pd.Series(frame[name].to_list(), dtype=object)
    return made


def run_suite(
    context: AbstractDataContext, name: str, frame: Any, made: Iterable[Expectation]
) -> list[DataCheck]:
    """Check a table of pandas or Spark; results come in the order of the rules, the two levels of a
    rule as one.
    """
    import pandas as pd
    from great_expectations.core.expectation_suite import ExpectationSuite

    expectations = list(made)
    if isinstance(frame, pd.DataFrame):
        batch = context.data_sources.pandas_default.read_dataframe(frame)
    else:
        asset = context.data_sources.add_or_update_spark("spark").add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe(name).get_batch({"dataframe": frame})
    result = batch.validate(
        ExpectationSuite(name=name, expectations=expectations),
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": SAMPLES},
    )
    found: dict[str, DataCheck] = {
        expectation.meta["rule"]: _NOT_RUN for expectation in expectations if expectation.meta
    }
    for one in result.results:  # in GX's order, which is not the suite's
        check = _outcome(name, one.to_json_dict())
        if _weight(check) >= _weight(found[check.rule]):
            found[check.rule] = check
    return [
        check if check is not _NOT_RUN else replace(check, table=name, rule=rule)
        for rule, check in found.items()
    ]


_NOT_RUN = DataCheck(
    "", "", "the rule was checked", "error", False, "no result from Great Expectations"
)


def _weight(check: DataCheck) -> int:
    """Of a rule's levels the one that tells most: a failed error, then a failed warning, then what
    passed.
    """
    if check is _NOT_RUN:
        return -1
    return (2 if check.severity == "error" else 1) if not check.passed else 0


def _outcome(name: str, result: Mapping[str, Any]) -> DataCheck:
    config, found = result["expectation_config"], result["result"]
    meta, column = config["meta"], config["kwargs"].get("column")
    check = DataCheck(
        table=name,
        rule=meta["rule"],
        about=meta["about"],
        severity="error" if config["severity"] == "critical" else "warning",
        passed=bool(result["success"]),
        expectation=config["type"],
    )
    if raised := _raised(result.get("exception_info") or {}):
        return replace(check, passed=False, observed=f"a check that could not run: {raised[:200]}")
    if "element_count" in found:
        samples = dict.fromkeys(
            _shown(column, value) for value in found.get("partial_unexpected_list") or ()
        )
        return replace(
            check,
            unexpected=found["unexpected_count"],
            rows=found["element_count"],
            samples=tuple(sample for sample in samples if sample != _NOTHING),
        )
    observed = found.get("observed_value")
    # of a rule on the distinct values of a column
    if names := found.get("partial_unexpected_list"):
        more = found["unexpected_count"] - len(names)
        observed = ", ".join(map(str, names)) + (f" and {more:,} more" if more else "")
    if column == ev.TIME and isinstance(observed, int):
        observed = _day(observed)
    if isinstance(observed, float):
        observed = f"{observed:.4g}"
    if isinstance(observed, list):  # columns
        missing = found.get("details", {}).get("mismatched", {}).get("missing")
        observed = f"no {', '.join(missing)}" if missing else None if check.passed else observed
    if observed is None:
        observed = "all" if check.passed else "nothing"
    return replace(check, observed=str(observed)) if found else check


def _raised(info: Mapping[str, Any]) -> str | None:
    """GX reports an exception either flat or under the id of the metric that raised it."""
    for one in (info, *info.values()):
        if isinstance(one, Mapping) and one.get("raised_exception"):
            return str(one.get("exception_message") or "unknown error")
    return None


def _shown(column: str | None, value: Any) -> str:
    """A value that breaks a rule, for people: short, no free text, no raw user id."""
    import re

    if isinstance(value, Mapping):
        return " ".join(
            _shown(key, entry)
            for key, entry in value.items()
            if entry is not None and key != ev.TEXT
        )
    if column == ev.USER and not (isinstance(value, str) and re.match(PSEUDONYM, value)):
        return "(hidden)" if value is not None else _NOTHING
    if column == ev.TIME and isinstance(value, int):
        return _day(value)
    if column in (ev.TEXT, it.REVIEW) and isinstance(value, str) and value.strip():
        return f"(a text of {len(value):,} characters)" if column == ev.TEXT else value[:40]
    if value is None:
        return _NOTHING
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _day(micros: int) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    except OverflowError:
        return f"{micros} µs"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
