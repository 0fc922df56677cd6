"""Whether a candidate may become the champion: the rules, and a sentence for each of them.

`decide` is pure: an evaluation and settings in, a verdict out. It answers no whenever it cannot
answer: a number that is missing, NaN or infinite, an empty test set, an interval upside down, a
slice or a comparison that was not made, two models that were not measured on the same rows.

The statistics are those of paired bootstrap intervals (95%, candidate minus other, on the same
rows):

- floor, ceiling: the measured value itself lies on the right side of the bound. Those under
  `reported` refuse nothing.
- at least: the measured value reaches a share of a baseline's value, and is above 0.
- beats: superiority; the interval's lower bound lies above 0.
- not worse: non-inferiority; the interval's lower bound lies above -epsilon. With few rows the
  interval is wide and the answer is no, which is right: nothing was shown. For measures where less
  is better (`*.ece`) the difference is negated.

What a good value is depends on the data: an nDCG@10 of 0.1 is little on one catalogue and out of
reach on another. So what is asked of any data is relative, to baselines and to the champion, and an
absolute bound belongs to the data that it was measured on. `GateSettings.sources` holds such bounds
by the name of a source; they are asked where the evaluation's lineage names that source, as its
behaviour or as its reviews, and listed as not asked elsewhere. Where the reviews are of several
sources, the bounds of one of them are asked of its own reviews.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, field_validator

from tasteloop.answers import INTERESTS, SENTIMENT
from tasteloop.evaluation.record import (
    CHAMPION,
    UNDERSTANDING,
    Comparison,
    Evaluation,
    Metrics,
    slice_of_source,
)
from tasteloop.intervals import MISSING, Interval, SoundInterval, UnsoundInterval
from tasteloop.verdicts import GateCheck, Verdict

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
        reported: floors and ceilings that are reported where they are not met, and refuse nothing:
            for a measure that no model reaches yet.
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
    reported: Bounds = Bounds()
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


def decide(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Apply every rule of the settings to an evaluation.

    >>> settings = GateSettings(floors={"sentiment.accuracy": 0.75})
    >>> accuracy = Interval(value=0.8, low=0.78, high=0.82, n=900)
    >>> measured = Evaluation(metrics={"sentiment.accuracy": accuracy}, says_champion=True)
    >>> decide(measured, settings).passed
    True
    >>> decide(Evaluation(tasks=("sentiment",), says_champion=True), settings).reasons[0]
    'sentiment.accuracy is missing'
    """
    gate = Gate(evaluation, settings)
    for rule in RULES:
        rule(gate)
    checks = gate.checks
    if not any(check.outcome == "pass" for check in checks):
        checks.append(
            GateCheck(
                "gate", "fail", "nothing was checked: the settings name no rule that applies here"
            )
        )
    gate.report()
    order = {"fail": 0, "warn": 1, "pass": 2, "skip": 3}
    failures_first = sorted(checks, key=lambda check: order[check.outcome])
    verdict = Verdict(
        passed=all(check.outcome != "fail" for check in checks),
        reasons=tuple(check.reason for check in failures_first),
        checks=tuple(checks),
        unchanged=gate.unchanged,
    )
    answer = "passed" if verdict.passed else "refused"
    log.info("gate %s: %s", answer, "; ".join(verdict.reasons))
    return verdict


class Gate:
    """One evaluation under one set of settings; each rule adds its checks."""

    def __init__(self, evaluation: Evaluation, settings: GateSettings) -> None:
        self.evaluation, self.settings = evaluation, settings
        self.checks: list[GateCheck] = []
        self.unchanged = False
        self.tasks = evaluation.tasks

    def add(self, name: str, passed: bool, reason: str) -> None:
        self.checks.append(GateCheck(name, "pass" if passed else "fail", reason))

    def skip(self, name: str, reason: str) -> None:
        self.checks.append(GateCheck(name, "skip", reason))

    def absent(self, name: str, metric: str) -> bool:
        """Whether a check is skipped: the data set has no such task, and the settings allow that;
        or the data and the model do not allow a question of understanding.
        """
        task, _, kind = metric.partition(".")
        measured = metric in self.evaluation.metrics
        if task == UNDERSTANDING and not measured:
            not_asked = {each.kind for each in self.evaluation.understanding if not each.asked}
            if kind in not_asked:
                self.skip(name, f"{metric}: skipped, this data set or model cannot be asked it")
            return kind in not_asked
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
        self,
        floors: Mapping[str, float],
        ceilings: Mapping[str, float],
        of: str = "",
        part: str | None = None,
    ) -> None:
        """Floors and ceilings; `part` names the slice that is measured, None for all rows."""
        for metric, floor in floors.items():
            self.bound(f"floor {metric}{of}", metric, floor, +1, part)
        for metric, ceiling in ceilings.items():
            self.bound(f"ceiling {metric}{of}", metric, ceiling, -1, part)

    def report(self) -> None:
        """The bounds that refuse nothing, after all rules that do."""
        judged = len(self.checks)
        self.bounds(self.settings.reported.floors, self.settings.reported.ceilings, ", reported")
        for n, check in enumerate(self.checks[judged:], judged):
            if check.outcome == "fail":
                reason = f"{check.reason}; reported, it refuses nothing"
                self.checks[n] = replace(check, outcome="warn", reason=reason)

    def source(self, source: str, bounds: Bounds) -> None:
        """The bounds of one source, if that is what was read."""
        read = self.evaluation.lineage.sources
        if not read:
            self.add(
                f"bounds of {source}",
                False,
                f"the evaluation does not say whether its data are {source}",
            )
        elif source in read:
            of_reviews = self.evaluation.lineage.reviews_sources
            is_one_of_many = source in of_reviews and len(of_reviews) > 1
            part = slice_of_source(source) if is_one_of_many else None
            self.bounds(bounds.floors, bounds.ceilings, f" of {source}", part)
        else:
            # of a file of one's own not where it lies
            names = " and ".join(Path(name).name for name in read)
            self.skip(f"bounds of {source}", f"bounds of {source}: not asked, the data are {names}")

    def bound(
        self, name: str, metric: str, limit: float, sign: int, part: str | None = None
    ) -> None:
        if self.absent(name, metric):
            return None
        try:
            m = self.evaluation.metric_of(part, metric).require(metric)
        except UnsoundInterval as unsound:
            return self.add(name, False, str(unsound))
        self.add(name, *_against(metric, m, limit, sign))

    def beats(self, beat: Beat) -> None:
        name = f"beats {beat.baseline} {beat.metric}"
        if self.absent(name, beat.metric):
            return None
        if beat.baseline == CHAMPION:
            return self.add(
                name, False, "the champion is not a baseline: list the metric under not_worse"
            )
        try:
            baseline = self.evaluation.other(beat.baseline)
            difference = compared(self.evaluation, beat.metric, beat.baseline, baseline)
            d = _turned(beat.metric, difference)
        except UnsoundInterval as unsound:
            return self.add(name, False, str(unsound))
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
        if baseline == CHAMPION:
            return self.add(
                name, False, "the champion is not a baseline: list the metric under not_worse"
            )
        try:
            # raises unless both were measured on the same rows
            compared(self.evaluation, metric, baseline, self.evaluation.other(baseline))
            mine = self.evaluation.metric(metric).require(metric)
            theirs_value = self.evaluation.baseline(baseline, metric).require(metric).value
        except UnsoundInterval as unsound:
            return self.add(name, False, str(unsound))
        if mine.value <= 0:
            return self.add(
                name, False, f"{metric} is {mine.value:.4f} (n = {mine.n:,}): nothing was right"
            )
        limit = least.share * theirs_value
        passed = mine.value >= limit
        where = f"{'at least' if passed else 'below'} {limit:.4f}"
        of = f"{least.share:g} of {baseline}, {theirs_value:.4f}"
        self.add(name, passed, f"{metric} is {mine.value:.4f}, {where} ({of}; n = {mine.n:,})")

    def slice(self, slice_name: str, floors: Mapping[str, float]) -> None:
        """A slice that must have been measured, and its floors."""
        rows = [
            (part.metric, part.interval)
            for part in self.evaluation.slices
            if part.name == slice_name
        ]
        if not rows:
            return self.add(f"slice {slice_name}", False, f"slice {slice_name} was not measured")
        measured = {metric for metric, _ in rows}
        rows += [(metric, Interval.parse({})) for metric in floors if metric not in measured]
        for metric, interval in rows:
            what, floor = f"{metric} for {slice_name}", floors.get(metric)
            rule = "slice" if floor is None else "slice floor"
            name = f"{rule} {slice_name} {metric}"
            if self.absent(name, metric):
                continue
            try:
                m = interval.require(what)
            except UnsoundInterval as unsound:
                self.add(name, False, str(unsound))
                continue
            if floor is None:
                self.add(name, True, f"{what} was measured: {m.value:.4f} (n = {m.n:,})")
            else:
                self.add(name, *_against(what, m, floor, -1 if _less_is_better(metric) else +1))

    def champion(self) -> None:
        """The candidate beside the champion: another model, of all its tasks, and not worse."""
        # 1. which of them is the champion
        if not self.evaluation.says_champion:
            return self.add(
                "champion", False, "the evaluation does not say whether there is a champion"
            )
        champion = self.evaluation.champion
        if champion is None:
            return self.skip("champion", "no champion: first model, nothing to compare with")
        theirs, mine = champion.digest, self.evaluation.lineage.bundle
        if theirs is None or mine is None:
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

        # 2. what only the champion answers
        answered = champion.tasks if self.tasks is None else self.tasks
        lost = [task for task in champion.tasks if task not in answered]
        if lost:
            self.add(
                "champion tasks",
                False,
                f"the champion answers {', '.join(lost)}; the candidate does not",
            )

        # 3. the metrics in which the candidate may not be worse
        if not self.settings.not_worse:
            return self.skip("champion", "the settings ask for no comparison with the champion")
        differences = []
        for metric in self.settings.not_worse:
            name = f"not worse {metric}"
            if metric not in champion.metrics and self.absent(name, metric):
                continue
            try:
                difference = compared(self.evaluation, metric, CHAMPION, champion.metrics)
            except UnsoundInterval as unsound:
                self.add(name, False, str(unsound))
                continue
            differences.append(difference)
            d = _turned(metric, difference)
            epsilon = self.settings.margins.get(metric, self.settings.epsilon)
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
        if margin is None or self.unchanged or self.evaluation.champion is None:
            return
        old = self.evaluation.old or Comparison()
        theirs = old.baselines.get(CHAMPION, {})
        for metric in FORGETTING:
            name = f"forgetting {metric}"
            if self.absent(name, metric):
                continue
            try:
                d = compared(old, metric, CHAMPION, theirs)
            except UnsoundInterval as unsound:
                self.add(name, False, f"on earlier data, {unsound}")
                continue
            verb = "is not worse" if d.low > -margin else "may be worse"
            self.add(
                name,
                d.low > -margin,
                f"{metric} on earlier data {verb} than the champion's by more than {margin:g}: {_spread(d)}",
            )


def compared(measured: Comparison, metric: str, other: str, others: Metrics) -> SoundInterval:
    """The difference to another model, after checking that it is one.

    Raises:
        UnsoundInterval: a number cannot be relied on, or the rows were not the same.
    """
    mine = measured.metric(metric).require(metric)
    theirs = others.get(metric, MISSING).require(f"{metric} of {other}")
    what = f"the comparison with {other} in {metric}"
    difference = measured.difference(other, metric).require(what)
    if not mine.n == theirs.n == difference.n:
        raise UnsoundInterval(
            f"{what} was not made on the same rows: {mine.n:,} for the candidate, {theirs.n:,} for it, "
            f"{difference.n:,} for the difference"
        )
    if abs(mine.value - theirs.value - difference.value) > SAME_ROWS:
        raise UnsoundInterval(
            f"{what} says {difference.value:+.4f}, the values {mine.value:.4f} and {theirs.value:.4f}: "
            "not measured on the same rows"
        )
    return difference


def _against(what: str, m: SoundInterval, limit: float, sign: int) -> tuple[bool, str]:
    bound = "floor" if sign > 0 else "ceiling"
    passed = sign * (m.value - limit) >= 0
    where = ("above" if sign > 0 else "below") if passed else ("below" if sign > 0 else "above")
    if m.value == limit:
        where = "at"
    return passed, f"{what} is {m.value:.4f}, {where} its {bound} of {limit:g} (n = {m.n:,})"


def _less_is_better(metric: str) -> bool:
    return metric.rpartition(".")[2] in LESS_IS_BETTER


def _turned(metric: str, d: SoundInterval) -> SoundInterval:
    """The difference so that more is better."""
    return SoundInterval(-d.value, -d.high, -d.low, d.n) if _less_is_better(metric) else d


def _spread(d: SoundInterval) -> str:
    return f"difference {d.value:+.4f}, interval {d.low:+.4f} to {d.high:+.4f} (n = {d.n:,})"


# The rules, in the order in which their checks are listed


def _floors_and_ceilings(gate: Gate) -> None:
    gate.bounds(gate.settings.floors, gate.settings.ceilings)


def _bounds_of_sources(gate: Gate) -> None:
    for source, bounds in gate.settings.sources.items():
        gate.source(source, bounds)


def _better_than_baselines(gate: Gate) -> None:
    for beat in gate.settings.beats:
        gate.beats(beat)


def _shares_of_baselines(gate: Gate) -> None:
    for least in gate.settings.at_least:
        gate.at_least(least)


def _slices(gate: Gate) -> None:
    settings = gate.settings
    for name in dict.fromkeys([*settings.required_slices, *settings.slice_floors]):
        gate.slice(name, settings.slice_floors.get(name, {}))


Rule = Callable[[Gate], None]
"""Reads `gate.evaluation` and `gate.settings`, and adds checks with `gate.add` or `gate.skip`."""

RULES: tuple[Rule, ...] = (
    _floors_and_ceilings,
    _bounds_of_sources,
    _better_than_baselines,
    _shares_of_baselines,
    _slices,
    Gate.champion,
    Gate.forgetting,
)
