"""What the monitor did in a simulation beside what was expected of it, and both in lines for a
console.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.loop.contracts import PassReport
from pipelines.simulation.quality import NO_QUALITY, QualityComparison
from pipelines.simulation.replay import Replay
from pipelines.simulation.shifts import Options, Shift
from tasteloop.intervals import Interval

DETECTION_WINDOWS = 2  # within so many windows of its begin a shift must be answered
_REASON_CHARACTERS = 160  # of a week's line


@dataclass(frozen=True)
class WeekRecord:
    """What the monitor's pass after a replayed week did.

    Attributes:
        shifted: whether the week was under the shift.
        champion: version that was live when the pass began.
        windows: names of the windows that the pass looked at for the first time.
        outcome: the decision on the newest window, or "rollback"; None without a decision.
        acted: whether the decision was to retrain or to alert a human.
        reasons: of the decision, or why there was none.
        result: of the retraining, where there was one.
    """

    week: int
    shifted: bool
    outcome: str | None
    acted: bool
    champion: str | None = None
    windows: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    result: str | None = None

    @classmethod
    def of(cls, week: int, replay: Replay, report: PassReport) -> WeekRecord:
        decision = report.decision
        return cls(
            week=week,
            shifted=replay.is_shifted(week),
            outcome="rollback" if report.rollback else report.outcome,
            acted=report.outcome in ("retrain", "alert-human"),
            champion=report.champion,
            windows=report.windows,
            reasons=(decision.reasons if decision else ()) or (report.note,),
            result=decision.result if decision else None,
        )

    def line(self) -> str:
        """The record in one line."""
        mark = "shifted" if self.shifted else "usual"
        result = f" ({self.result})" if self.result else ""
        reasons = "; ".join(self.reasons)[:_REASON_CHARACTERS]
        return f"week {self.week:>2}  {mark:<8} {self.outcome or '-'}{result}: {reasons}"

    def json(self) -> dict[str, Any]:
        return {
            "week": self.week,
            "shifted": self.shifted,
            "champion": self.champion,
            "windows": list(self.windows),
            "outcome": self.outcome,
            "acted": self.acted,
            "reasons": list(self.reasons),
            "result": self.result,
        }


@dataclass(frozen=True)
class Conclusion:
    """What was expected of the monitor beside what it did.

    Attributes:
        detected_after: the window of the shift, from 1, in which the monitor first acted.
        false_triggers: windows in which it acted though nothing was to be done.
        clean_windows: windows in which nothing was to be done.
        retrainings: what came of each retraining that was decided.
        failures: expectations that were not met, each as a sentence.
    """

    expected: str
    detected_after: int | None
    false_triggers: int
    clean_windows: int
    retrainings: tuple[str | None, ...]
    failures: tuple[str, ...]
    weeks: tuple[WeekRecord, ...]

    @property
    def met(self) -> bool:
        return not self.failures

    def json(self) -> dict[str, Any]:
        return {
            "expected": self.expected,
            "detected_after": self.detected_after,
            "false_triggers": self.false_triggers,
            "clean_windows": self.clean_windows,
            "retrainings": list(self.retrainings),
            "met": self.met,
            "failures": list(self.failures),
            "windows": [week.json() for week in self.weeks],
        }


def judge(weeks: Sequence[WeekRecord], shift: Shift, options: Options) -> Conclusion:
    """Hold what the monitor's passes did against what was expected of them."""
    # 1. false triggers
    nothing_expected = shift.expected == "nothing"
    clean = [week for week in weeks if not week.shifted or nothing_expected]
    under_shift = [week for week in weeks if week.shifted and not nothing_expected]
    false_triggers = sum(week.acted for week in clean)
    failures = []
    if false_triggers:
        failures.append(f"{false_triggers} false triggers in {len(clean)} windows without a shift")

    # 2. the first answer to the shift, and those after it
    acted_in = [number for number, week in enumerate(under_shift, 1) if week.acted]
    detected_after = acted_in[0] if acted_in else None
    retrainings = [week.result for week in weeks if week.outcome == "retrain"]
    if not nothing_expected:
        if detected_after is None or detected_after > DETECTION_WINDOWS:
            failures.append("the shift was not detected within two windows")
        elif (first_answer := under_shift[detected_after - 1].outcome) != shift.expected:
            failures.append(f"the first answer was {first_answer}, not {shift.expected}")
        needless = sum(week.outcome == "retrain" for week in under_shift)
        if shift.expected == "alert-human" and needless:
            failures.append(f"retrained {needless} times on what a retraining does not answer")
        if options.retrain and shift.expected == "retrain" and "promoted" not in retrainings:
            failures.append("no retrained model was promoted")

    return Conclusion(
        expected=shift.expected,
        detected_after=detected_after,
        false_triggers=false_triggers,
        clean_windows=len(clean),
        retrainings=tuple(retrainings),
        failures=tuple(failures),
        weeks=tuple(weeks),
    )


@dataclass(frozen=True)
class SimulationResult:
    """What came of a simulation, as simulation.json has it."""

    options: Options
    conclusion: Conclusion
    quality: QualityComparison = NO_QUALITY

    @property
    def met(self) -> bool:
        """Whether the monitor did what was expected of it."""
        return self.conclusion.met

    def json(self) -> dict[str, Any]:
        return {
            **asdict(self.options),
            "severity": self.options.size,
            **self.conclusion.json(),
            "quality": self.quality.json(),
        }

    def lines(self) -> list[str]:
        """The result in a few lines."""
        conclusion, quality = self.conclusion, self.quality
        after = conclusion.detected_after
        retrainings = ", ".join(str(result) for result in conclusion.retrainings)
        lines = [
            f"expected        {conclusion.expected}",
            f"detected        {f'in window {after} of the shift' if after else 'no'}",
            f"false triggers  {conclusion.false_triggers} in {conclusion.clean_windows} "
            "windows without a shift",
            f"retrainings     {retrainings or 'none'}",
        ]
        measured = {
            "before the shift": quality.before,
            "under it": quality.shifted,
            "after the retraining": quality.retrained,
        }
        for moment, ndcg in measured.items():
            if ndcg is not None:
                lines.append(f"nDCG@10         {_show(ndcg)} {moment}")
        if quality.regained is not None:
            lines.append(f"regained        {quality.regained:.0%} of what was lost")
        return [*lines, *(f"not met         {failure}" for failure in conclusion.failures)]


def _show(ndcg: Interval) -> str:
    return f"{ndcg.value:.3f} ({ndcg.low:.3f} to {ndcg.high:.3f})"
