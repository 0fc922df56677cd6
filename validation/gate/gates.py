"""Whether a candidate may become the champion: the rules, and a sentence for each of them.

`decide` is pure: an evaluation and settings in, a verdict out. It answers no whenever it cannot
answer: a number that is missing, NaN or infinite, an empty test set, an interval upside down, a
slice or a comparison that was not made, two models that were not measured on the same rows.

The statistics are those of paired bootstrap intervals (95%, candidate minus other, on the same
rows):

- floor, ceiling: the measured value itself lies on the right side of the bound.
- at least: the measured value reaches a share of a baseline's value, and is above 0.
- beats: superiority; the interval's lower bound lies above 0.
- not worse: non-inferiority; the interval's lower bound lies above -epsilon. With few rows the
  interval is wide and the answer is no, which is right: nothing was shown. For measures where less
  is better (`*.ece`) the difference is negated.

What a good value is depends on the data: an nDCG@10 of 0.1 is little on one catalogue and out of
reach on another. So what is asked of any data is relative, to baselines and to the champion, and an
absolute bound belongs to the data that it was measured on. `GateSettings.sources` holds such bounds
by the name of a source; they are asked where the evaluation's lineage names that source, as its
behaviour or as its reviews, and listed as not asked elsewhere.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from tasteloop.answers import INTERESTS, SENTIMENT
from tasteloop.files import as_mapping

log = logging.getLogger(__name__)

LESS_IS_BETTER = ("ece",)
FORGETTING = ("interests.micro_f1", "recommend.ndcg@10")  # what is compared on earlier data
SAME_ROWS = 0.01  # how far a difference may lie from its two values: rounding, a bootstrap mean

Finite = Annotated[float, Field(allow_inf_nan=False)]
Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


class Beat(BaseModel, frozen=True, extra="forbid"):
    """The candidate is better than this baseline in this metric, beyond doubt."""

    metric: Name
    baseline: Name


class AtLeast(BaseModel, frozen=True, extra="forbid"):
    """The candidate's value reaches at least this share of a baseline's, on the same rows.

    For measures that are no aim of their own and only must not collapse: precision and recall pull
    against each other, so a candidate of a better F1 may well have less of one of them than a
    baseline.
    """

    metric: Name
    baseline: Name
    share: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    @field_validator("metric")
    @classmethod
    def _more_is_better(cls, metric: str) -> str:
        if _less_is_better(metric):
            raise ValueError(
                f"of {metric} less is better: set a ceiling, or list it under not_worse"
            )
        return metric


class Bounds(BaseModel, frozen=True, extra="forbid"):
    """The least and the greatest values of metrics."""

    floors: dict[Name, Finite] = {}
    ceilings: dict[Name, Finite] = {}


class GateSettings(BaseModel, frozen=True, extra="forbid"):
    """What a candidate must show.

    Args:
        floors: the least value of a metric, such as {"sentiment.accuracy": 0.75}, whatever the
            data.
        ceilings: the greatest value of a metric, such as {"interests.ece": 0.1}, whatever the data.
        sources: further floors and ceilings by the source that the data were read from, such as
            {"ml-100k": {"floors": {"recommend.ndcg@10": 0.1}}}; of other data they are not asked.
        beats: baselines that the candidate must beat.
        at_least: shares of baselines' values that the candidate must reach.
        not_worse: metrics in which the candidate may not be worse than the champion by more than
            `epsilon`.
        margins: another `epsilon` for single metrics of `not_worse`.
        required_slices: slices that must have been measured, such as "users=cold".
        slice_floors: the least value of a metric in a slice: {"users=cold": {"recommend.ndcg@10":
            0.05}}.
        forgetting: how much worse than the champion it may be on earlier data, in FORGETTING; None:
            not asked.
        optional_tasks: tasks whose checks are skipped, and listed as skipped, when the data set has
            no such task.
    """

    floors: dict[Name, Finite] = {}
    ceilings: dict[Name, Finite] = {}
    sources: dict[Name, Bounds] = {}
    beats: tuple[Beat, ...] = ()
    at_least: tuple[AtLeast, ...] = ()
    not_worse: tuple[Name, ...] = ()
    epsilon: Margin = 0.01
    margins: dict[Name, Margin] = {}
    required_slices: tuple[Name, ...] = ()
    slice_floors: dict[Name, dict[Name, Finite]] = {}
    forgetting: Margin | None = None
    optional_tasks: tuple[Name, ...] = (INTERESTS, SENTIMENT)


@dataclass(frozen=True)
class Check:
    """One rule applied: its name, its outcome and the sentence that says why."""

    name: str
    outcome: Literal["pass", "fail", "skip"]
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer.

    Attributes:
        passed: at least one rule was applied and none failed.
        reasons: the sentence of every check, failures first.
        checks: every rule in the settings' order.
        unchanged: the candidate is the champion, or answers exactly like it: there is nothing to
            promote.
    """

    passed: bool
    reasons: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    unchanged: bool = False

    @property
    def promote(self) -> bool:
        return self.passed and not self.unchanged


class _Missing(Exception):
    """A number the gate needs cannot be used; the text says why."""


@dataclass(frozen=True)
class _Measure:
    value: float
    low: float
    high: float
    n: int


def decide(evaluation: Mapping[str, Any], settings: GateSettings) -> Verdict:
    """Apply every rule of the settings to an evaluation (evaluation.json)."""
    gate = _Gate(as_mapping(evaluation), settings)
    gate.bounds(settings.floors, settings.ceilings)
    for source, bounds in settings.sources.items():
        gate.source(source, bounds)
    for beat in settings.beats:
        gate.beats(beat)
    for least in settings.at_least:
        gate.at_least(least)
    for name in dict.fromkeys([*settings.required_slices, *settings.slice_floors]):
        gate.slice(name, settings.slice_floors.get(name, {}))
    gate.champion()
    gate.forgetting()
    checks = gate.checks
    if not any(check.outcome == "pass" for check in checks):
        checks.append(
            Check(
                "gate", "fail", "nothing was checked: the settings name no rule that applies here"
            )
        )
    order = {"fail": 0, "pass": 1, "skip": 2}
    verdict = Verdict(
        passed=all(check.outcome != "fail" for check in checks),
        reasons=[check.reason for check in sorted(checks, key=lambda check: order[check.outcome])],
        checks=checks,
        unchanged=gate.unchanged,
    )
    answer = "passed" if verdict.passed else "refused"
    log.info("gate %s: %s", answer, "; ".join(verdict.reasons))
    return verdict


class _Gate:
    """One evaluation under one set of rules; each method adds its checks."""

    def __init__(self, evaluation: Mapping[str, Any], settings: GateSettings) -> None:
        self.evaluation, self.settings = evaluation, settings
        self.checks: list[Check] = []
        self.unchanged = False
        tasks = evaluation.get("tasks")
        self.tasks = [str(task) for task in tasks] if isinstance(tasks, list | tuple) else None

    def add(self, name: str, passed: bool, reason: str) -> None:
        self.checks.append(Check(name, "pass" if passed else "fail", reason))

    def skip(self, name: str, reason: str) -> None:
        self.checks.append(Check(name, "skip", reason))

    def absent(self, name: str, metric: str) -> bool:
        """Whether a check is skipped: the data set has no such task, and the settings allow
        that.
        """
        task = metric.partition(".")[0]
        measured = metric in as_mapping(self.evaluation.get("metrics"))
        if (
            self.tasks is None
            or task in self.tasks
            or measured
            or task not in self.settings.optional_tasks
        ):
            return False
        self.skip(name, f"{metric}: skipped, this data set has no {task} task")
        return True

    def bounds(
        self, floors: Mapping[str, float], ceilings: Mapping[str, float], of: str = ""
    ) -> None:
        for metric, floor in floors.items():
            self.bound(f"floor {metric}{of}", metric, floor, +1)
        for metric, ceiling in ceilings.items():
            self.bound(f"ceiling {metric}{of}", metric, ceiling, -1)

    def source(self, source: str, bounds: Bounds) -> None:
        """The bounds of one source, if that is what was read."""
        lineage = as_mapping(self.evaluation.get("lineage"))
        read = [str(name) for key in ("source", "reviews_source") if (name := lineage.get(key))]
        if not read:
            self.add(
                f"bounds of {source}",
                False,
                f"the evaluation does not say whether its data are {source}",
            )
        elif source in read:
            self.bounds(bounds.floors, bounds.ceilings, f" of {source}")
        else:
            # of a file of one's own not where it lies
            names = " and ".join(Path(name).name for name in read)
            self.skip(f"bounds of {source}", f"bounds of {source}: not asked, the data are {names}")

    def bound(self, name: str, metric: str, limit: float, sign: int) -> None:
        if self.absent(name, metric):
            return None
        try:
            m = _measure(as_mapping(self.evaluation.get("metrics")).get(metric), metric)
        except _Missing as missing:
            return self.add(name, False, str(missing))
        self.add(name, *_against(metric, m, limit, sign))

    def compared(self, metric: str, other: str, others: Any) -> _Measure:
        """The difference to another model, after checking that it is one."""
        mine = _measure(as_mapping(self.evaluation.get("metrics")).get(metric), metric)
        theirs = _measure(as_mapping(others).get(metric), f"{metric} of {other}")
        differences = as_mapping(as_mapping(self.evaluation.get("differences")).get(other))
        what = f"the comparison with {other} in {metric}"
        difference = _measure(differences.get(metric), what)
        if not mine.n == theirs.n == difference.n:
            raise _Missing(
                f"{what} was not made on the same rows: {mine.n:,} for the candidate, {theirs.n:,} for it, "
                f"{difference.n:,} for the difference"
            )
        if abs(mine.value - theirs.value - difference.value) > SAME_ROWS:
            raise _Missing(
                f"{what} says {difference.value:+.4f}, the values {mine.value:.4f} and {theirs.value:.4f}: "
                "not measured on the same rows"
            )
        return difference

    def beats(self, beat: Beat) -> None:
        name = f"beats {beat.baseline} {beat.metric}"
        if self.absent(name, beat.metric):
            return None
        if beat.baseline == "champion":
            return self.add(
                name, False, "the champion is not a baseline: list the metric under not_worse"
            )
        try:
            baselines = as_mapping(self.evaluation.get("baselines"))
            d = _turned(
                beat.metric, self.compared(beat.metric, beat.baseline, baselines.get(beat.baseline))
            )
        except _Missing as missing:
            return self.add(name, False, str(missing))
        if d.value == d.low == d.high == 0:
            return self.add(
                name,
                False,
                f"{beat.metric}: exactly equal to {beat.baseline} on every row; compared with itself?",
            )
        verb = "beats" if d.low > 0 else "does not clearly beat"
        self.add(
            name, d.low > 0, f"{beat.metric} {verb} {beat.baseline}: {_spread(d)}, must lie above 0"
        )

    def at_least(self, least: AtLeast) -> None:
        metric, baseline = least.metric, least.baseline
        name = f"at least {baseline} {metric}"
        if self.absent(name, metric):
            return None
        if baseline == "champion":
            return self.add(
                name, False, "the champion is not a baseline: list the metric under not_worse"
            )
        try:
            theirs = as_mapping(as_mapping(self.evaluation.get("baselines")).get(baseline))
            # raises unless both were measured on the same rows
            self.compared(metric, baseline, theirs)
            mine = _measure(as_mapping(self.evaluation.get("metrics")).get(metric), metric)
            theirs_value = _measure(theirs.get(metric), metric).value
        except _Missing as missing:
            return self.add(name, False, str(missing))
        if mine.value <= 0:
            return self.add(
                name, False, f"{metric} is {mine.value:.4f} (n = {mine.n:,}): nothing was right"
            )
        limit = least.share * theirs_value
        passed = mine.value >= limit
        where = f"{'at least' if passed else 'below'} {limit:.4f}"
        of = f"{least.share:g} of {baseline}, {theirs_value:.4f}"
        self.add(name, passed, f"{metric} is {mine.value:.4f}, {where} ({of}; n = {mine.n:,})")

    def slice(self, wanted: str, floors: Mapping[str, float]) -> None:
        rows = self.evaluation.get("slices")
        rows = [as_mapping(row) for row in rows] if isinstance(rows, list | tuple) else []
        rows = [row for row in rows if row.get("slice") == wanted]
        if not rows:
            return self.add(f"slice {wanted}", False, f"slice {wanted} was not measured")
        for metric in floors:
            if all(row.get("metric") != metric for row in rows):
                rows.append({"metric": metric})
        for row in rows:
            metric = str(row.get("metric"))
            what, floor = f"{metric} for {wanted}", floors.get(metric)
            name = f"slice {wanted} {metric}" if floor is None else f"slice floor {wanted} {metric}"
            if self.absent(name, metric):
                continue
            try:
                m = _measure(row, what)
            except _Missing as missing:
                self.add(name, False, str(missing))
                continue
            if floor is None:
                self.add(name, True, f"{what} was measured: {m.value:.4f} (n = {m.n:,})")
            else:
                self.add(name, *_against(what, m, floor, -1 if _less_is_better(metric) else +1))

    def champion(self) -> None:
        if "champion" not in self.evaluation:
            return self.add(
                "champion", False, "the evaluation does not say whether there is a champion"
            )
        champion = self.evaluation["champion"]
        if champion is None:
            return self.skip("champion", "no champion: first model, nothing to compare with")
        champion = as_mapping(champion)
        theirs, mine = (
            champion.get("digest"),
            as_mapping(self.evaluation.get("lineage")).get("bundle"),
        )
        if not (isinstance(theirs, str) and theirs and isinstance(mine, str) and mine):
            return self.add(
                "champion",
                False,
                "a digest is missing: cannot tell the candidate from the champion",
            )
        if theirs == mine:
            self.unchanged = True
            return self.skip(
                "champion", f"the candidate is the champion ({theirs[:12]}): nothing to promote"
            )
        lost = [
            t
            for t in _listed(champion.get("tasks"))
            if self.tasks is not None and t not in self.tasks
        ]
        if lost:
            self.add(
                "champion tasks",
                False,
                f"the champion answers {', '.join(lost)}; the candidate does not",
            )
        if not self.settings.not_worse:
            return self.skip("champion", "the settings ask for no comparison with the champion")
        differences = []
        for metric in self.settings.not_worse:
            name = f"not worse {metric}"
            if metric not in as_mapping(champion.get("metrics")) and self.absent(name, metric):
                continue
            try:
                difference = self.compared(metric, "champion", champion.get("metrics"))
            except _Missing as missing:
                self.add(name, False, str(missing))
                continue
            differences.append(difference)
            d, epsilon = (
                _turned(metric, difference),
                self.settings.margins.get(metric, self.settings.epsilon),
            )
            verb = "is not worse" if d.low > -epsilon else "may be worse"
            self.add(
                name,
                d.low > -epsilon,
                f"{metric} {verb} than the champion's by more than {epsilon:g}: {_spread(d)}, must lie above "
                f"{-epsilon:g}",
            )
        if differences and all(d.value == d.low == d.high == 0 for d in differences):
            self.unchanged = True
            self.skip(
                "champion",
                "the candidate answers exactly like the champion on every row: nothing to promote",
            )

    def forgetting(self) -> None:
        margin = self.settings.forgetting
        if margin is None or self.unchanged or self.evaluation.get("champion") is None:
            return
        old = as_mapping(self.evaluation.get("old"))
        theirs = as_mapping(old.get("baselines")).get("champion")
        for metric in FORGETTING:
            name = f"forgetting {metric}"
            if self.absent(name, metric):
                continue
            try:
                d = _Gate(old, self.settings).compared(metric, "champion", theirs)
            except _Missing as missing:
                self.add(name, False, f"on earlier data, {missing}")
                continue
            verb = "is not worse" if d.low > -margin else "may be worse"
            self.add(
                name,
                d.low > -margin,
                f"{metric} on earlier data {verb} than the champion's by more than {margin:g}: {_spread(d)}",
            )


def _measure(found: object, what: str) -> _Measure:
    """Four sound numbers, or `_Missing`."""
    if not isinstance(found, Mapping):
        raise _Missing(f"{what} is missing")
    numbers = {}
    for key in ("value", "low", "high"):
        number = found.get(key)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise _Missing(f"{what} has no number as its {key}: {_shown(number)}")
        if not math.isfinite(number):
            raise _Missing(f"{what} is not a finite number ({key}: {number})")
        numbers[key] = float(number)
    n = found.get("n")
    if (
        isinstance(n, bool)
        or not isinstance(n, int | float)
        or not math.isfinite(n)
        or n != int(n)
        or n < 0
    ):
        raise _Missing(f"{what} does not say on how many rows it was measured (n: {_shown(n)})")
    if n == 0:
        raise _Missing(f"{what} was measured on an empty test set (n = 0)")
    if numbers["low"] > numbers["high"]:
        raise _Missing(f"{what} has an interval upside down: {numbers['low']} to {numbers['high']}")
    return _Measure(numbers["value"], numbers["low"], numbers["high"], int(n))


def _against(what: str, m: _Measure, limit: float, sign: int) -> tuple[bool, str]:
    bound = "floor" if sign > 0 else "ceiling"
    passed = sign * (m.value - limit) >= 0
    where = ("above" if sign > 0 else "below") if passed else ("below" if sign > 0 else "above")
    if m.value == limit:
        where = "at"
    return passed, f"{what} is {m.value:.4f}, {where} its {bound} of {limit:g} (n = {m.n:,})"


def _less_is_better(metric: str) -> bool:
    return metric.rpartition(".")[2] in LESS_IS_BETTER


def _turned(metric: str, d: _Measure) -> _Measure:
    """The difference so that more is better."""
    return _Measure(-d.value, -d.high, -d.low, d.n) if _less_is_better(metric) else d


def _spread(d: _Measure) -> str:
    return f"difference {d.value:+.4f}, interval {d.low:+.4f} to {d.high:+.4f} (n = {d.n:,})"


def _listed(value: object) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list | tuple) else []


def _shown(value: object) -> str:
    return repr(value)[:60]
