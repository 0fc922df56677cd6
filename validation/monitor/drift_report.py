"""The drift report: what one window looks like beside the reference, as a record.

<directory>/report.json      the record; its hash is the evidence's id
<directory>/report.html      the same to read
<directory>/evidently.html   Evidently's own page on the samples, made safe
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, model_serializer
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from tasteloop.errors import TasteloopError
from tasteloop.files import read_json
from validation.monitor.decision import Finding
from validation.monitor.windows import WindowFacts

REPORT, PAGE, EVIDENTLY = "report.json", "report.html", "evidently.html"


class _Sparse(BaseModel, frozen=True):
    """A record whose fields without a value are left out of its JSON."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialise(self).items() if value is not None}


class Distribution(_Sparse, frozen=True):
    """How a measure is spread over its cells [d], on both sides.

    Attributes:
        about: what the measure is, in a sentence.
        cells: names of the cells [d], of shares.
        edges: between which the cells lie [d + 1], of a quantity.
        reference, window: shares of the cells [d].
    """

    about: str
    cells: tuple[str, ...] | None = None
    edges: tuple[float, ...] | None = None
    reference: tuple[float, ...]
    window: tuple[float, ...]


class ColumnDrift(BaseModel, frozen=True):
    """Evidently's distance of a column; null where it has none."""

    method: str
    score: float | None


class EvidentlyNumbers(_Sparse, frozen=True):
    """What Evidently says of a window; nothing of an empty one.

    Attributes:
        version: of Evidently.
        rows: of the samples of the reference and of the window.
        recommendations: by side, reference and current, its measures of recommendations.
        error: why it could not report.
    """

    version: str | None = None
    rows: tuple[int, int] | None = None
    columns: dict[str, ColumnDrift] | None = None
    recommendations: dict[str, dict[str, float]] | None = None
    error: str | None = None


class DriftReport(BaseModel, frozen=True):
    """A window beside the reference.

    Attributes:
        window: `start/end`; end: its end, µs since 1970 UTC.
        reference, champion: digests of what it was compared with and of the bundle that was live.
        answers: how many the champion gave in it, by served model.
        mature: how many answers' truth became known in it.
        problems: checks that its data failed, in words.
        distributions: by measure, of those that have cells.
    """

    window: str
    end: int
    reference: str
    champion: str
    facts: WindowFacts
    answers: dict[str, int]
    mature: int
    problems: tuple[str, ...]
    findings: tuple[Finding, ...]
    distributions: dict[str, Distribution] = {}
    evidently: EvidentlyNumbers = EvidentlyNumbers()

    @classmethod
    def read(cls, directory: Path) -> DriftReport:
        """Raises TasteloopError where the directory holds no report."""
        try:
            return cls.model_validate(read_json(directory / REPORT))
        except ValidationError as error:
            fault = error.errors()[0]
            field = ".".join(map(str, fault["loc"]))
            raise TasteloopError(
                f"{directory / REPORT} is no drift report of this version: {field}: {fault['msg']}; remove it, and "
                "the monitor does without it"
            ) from None

    def text(self) -> str:
        """The text of report.json."""
        record = self.model_dump()
        return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
