"""The page of an evaluation: how good a candidate is, and why the gate says what it says.

It takes what it finds. A task that was not evaluated, a number that could not be computed and a
missing champion are shown as what they are: the report of a failed run is the one that is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasteloop.evaluation.record import (
    CHAMPION,
    UNDERSTANDING,
    Evaluation,
    Example,
    ExampleInterest,
    ExampleRecommendation,
    LabelRow,
    Metrics,
)
from tasteloop.files import atomic_write
from tasteloop.intervals import MISSING, Interval, finite
from tasteloop.verdicts import Outcome, Verdict
from validation.markup.elements import Child, Safe, join, tag
from validation.markup.environment import render
from validation.markup.formats import number
from validation.markup.plots import Scale, area_under, reliability_plot, roc_plot
from validation.pages.understanding import understanding_of

# by the task that is a metric's first word: its title and what it asks
_TASKS = {
    "interests": ("Interests", "Which labels a user's next positive items bear."),
    "recommend": (
        "Recommendations",
        "Where the items that a user went on to like stand in the full ranking.",
    ),
    "sentiment": ("Sentiment", "Whether a review is favourable."),
}
HEADLINES = ("interests.micro_f1", "recommend.ndcg@10", "sentiment.accuracy", UNDERSTANDING)
_INTERESTS_FROM = {
    "discovered": " The labels were discovered in behaviour and words; they are not the catalogue's.",
    "completed": " The labels of some items were inferred; the catalogue has the others.",
}
_NAMES = {
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "ece": "calibration error",
    "f1": "F1",
    "ndcg@10": "nDCG@10",
    "precision@10": "precision@10",
    "recall@10": "recall@10",
    "f1@10": "F1@10",
    "majority": "majority",
    "own_frequencies": "own frequencies",
    "recent_popularity": "recent popularity",
    "popularity": "popularity",
    "ease": "EASE",
    "itemknn": "ItemKNN",
    "bag_of_words": "bag of words",
}
_EXAMPLES = 12  # more of them do not tell more
_ROWS = 200  # of a table by label or slice
_TEXT = 600  # characters of an example


def write_report(evaluation: Evaluation, verdict: Verdict | None, out: Path) -> Path:
    """Write the page of an evaluation to the HTML file `out`, and return it.

    Args:
        verdict: None when no gate has judged yet.
    """
    tasks = [_task(task, evaluation) for task in _TASKS if _of_task(evaluation.metrics, task)]
    text = render(
        "evaluation.html",
        verdict=verdict_words(verdict),
        bundle=(evaluation.lineage.bundle or "")[:12],
        checks=None if verdict is None else checks_of(verdict),
        cards=_cards(evaluation),
        tasks=tasks,
        understanding=understanding_of(evaluation),
        slices=_slices(evaluation),
        examples=[_example(example) for example in evaluation.examples[:_EXAMPLES]],
        lineage=_lineage(evaluation),
    )
    atomic_write(out, text)
    return out


# The verdict


@dataclass(frozen=True)
class VerdictWords:
    """A verdict as a heading, a tone, a sentence, and what stands in the way."""

    headline: str
    tone: str
    lede: str
    reasons: tuple[str, ...] = ()


def verdict_words(verdict: Verdict | None) -> VerdictWords:
    if verdict is None:
        return VerdictWords(
            "Evaluated, not yet judged", "quiet", "No gate has looked at these numbers."
        )
    tally = f"{tally_checks(verdict)} checks hold"
    unmet, skipped = verdict.count("warn"), verdict.count("skip")
    if unmet:
        tally += f", {unmet} reported as not met"
    if skipped:
        tally += f", {skipped} did not apply"
    if not verdict.passed:
        reasons = verdict.failures or verdict.reasons
        return VerdictWords("The gate says no", "bad", f"{tally}. What stands in the way:", reasons)
    if verdict.unchanged:
        words = "The candidate is the champion, or answers exactly like it."
        return VerdictWords("Nothing to promote", "quiet", f"{words} {tally}.")
    return VerdictWords(
        "The candidate passes", "good", f"{tally}. It may be rehearsed and promoted."
    )


@dataclass(frozen=True)
class CheckRow:
    """A check of the gate as pages show it: with a word for its outcome, and a tone."""

    outcome: Outcome
    reason: str
    word: str
    tone: str


# A word for each outcome of a check, and its tone, in the order in which tables list them.
_OUTCOMES: dict[Outcome, tuple[str, str]] = {
    "fail": ("fails", "bad"),
    "warn": ("not met", "warn"),
    "pass": ("holds", "good"),
    "skip": ("skipped", "quiet"),
}


def checks_of(verdict: Verdict) -> list[CheckRow]:
    """Every check of a gate's verdict, failures first."""
    rows = [
        CheckRow(check.outcome, check.reason, *_OUTCOMES[check.outcome]) for check in verdict.checks
    ]
    order = list(_OUTCOMES)
    return sorted(rows, key=lambda row: order.index(row.outcome))


def tally_checks(verdict: Verdict) -> str:
    """How many of a gate's checks hold, of those that applied."""
    held, failed = verdict.count("pass"), verdict.count("fail")
    return f"{held} of {held + failed}"


# Metrics


@dataclass(frozen=True)
class _Card:
    """A task's first measure in large digits, beside the strongest baseline.

    Attributes:
        counted: what the measure's rows are.
        note: what else there is to say.
    """

    title: str
    measure: Interval
    against: str | None
    difference: Interval
    tone: str
    counted: str = "rows"
    note: str = ""


def _cards(evaluation: Evaluation) -> list[_Card]:
    cards = []
    for metric in HEADLINES:
        if metric not in evaluation.metrics:
            continue
        if metric == UNDERSTANDING:
            cards += _understanding_card(evaluation)
            continue
        task, _, measure = metric.partition(".")
        best, difference = strongest(evaluation, metric)
        cards.append(
            _Card(
                title=f"{_TASKS[task][0]}, {measure_name(measure)}",
                measure=evaluation.metric(metric),
                against=None if best is None else measure_name(best),
                difference=difference,
                tone=difference_tone(metric, difference),
            )
        )
    return cards


def _understanding_card(evaluation: Evaluation) -> list[_Card]:
    """How much of language is understood, beside the champion: none where nobody asked."""
    summary = evaluation.understanding_summary()
    if summary is None or not summary.kinds:
        return []
    difference = evaluation.difference(CHAMPION, UNDERSTANDING)
    weakest = ", ".join(
        f"{kind.replace('_', ' ')} {number(share)}" for kind, share in summary.weakest.items()
    )
    return [
        _Card(
            title="Understanding, questions passed",
            measure=evaluation.metric(UNDERSTANDING),
            against=None if difference.value is None else measure_name(CHAMPION),
            difference=difference,
            tone=difference_tone(UNDERSTANDING, difference),
            counted="questions",
            note=f"{summary.passed} of {summary.kinds} kinds of questions pass"
            + (f"; weakest: {weakest}" if weakest else ""),
        )
    ]


def strongest(evaluation: Evaluation, metric: str) -> tuple[str | None, Interval]:
    """The baseline (not the champion) that comes closest to the candidate, with the difference to
    it.
    """
    closest: tuple[float, str] | None = None
    for name in evaluation.differences:
        value = evaluation.difference(name, metric).value
        if name == CHAMPION or value is None:
            continue
        if closest is None or (value, name) < closest:
            closest = (value, name)
    if closest is None:
        return None, MISSING
    return closest[1], evaluation.difference(closest[1], metric)


@dataclass(frozen=True)
class _Other:
    """A model beside the candidate in one metric."""

    name: str
    measure: Interval
    difference: Interval
    mark: str
    tone: str


@dataclass(frozen=True)
class _Compared:
    """The candidate beside others in one metric; values are drawn on one scale, differences on
    another.
    """

    caption: str
    note: str
    candidate: Interval
    others: list[_Other]
    scale: Scale
    gap: Scale


@dataclass(frozen=True)
class _Measured:
    """Measures with their intervals, one a row, on one scale."""

    caption: str
    what: str
    rows: Sequence[tuple[str, Interval]]
    scale: Scale


@dataclass(frozen=True)
class _Task:
    """What the page shows of one task."""

    key: str
    title: str
    about: str
    compared: list[_Compared]
    alone: _Measured | None
    ece: float | None
    reliability: Safe | None
    roc: Safe | None
    area: float | None
    chosen: tuple[float, float] | None
    confusion: list[list[int]] | None
    labels: list[LabelRow]
    label_count: int


def _of_task(metrics: Metrics, task: str) -> dict[str, Interval]:
    return {name: value for name, value in metrics.items() if name.partition(".")[0] == task}


def _task(task: str, evaluation: Evaluation) -> _Task:
    # 1. metrics that others were measured in too, and those of the candidate alone
    compared: list[_Compared] = []
    alone: list[tuple[str, Interval]] = []
    for metric, measure in _of_task(evaluation.metrics, task).items():
        others = _others(evaluation, metric)
        if others:
            compared.append(_compared(metric, measure, others))
        else:
            alone.append((measure_name(metric), measure))
    caption = "All other measures" if compared else "Measures"

    # 2. plots
    calibration, curve = evaluation.calibration.get(task), evaluation.roc.get(task)
    confusion = _two_by_two(evaluation.confusion.get(task, ()))
    chosen = None
    if confusion and sum(confusion[0]) and sum(confusion[1]):
        chosen = (confusion[0][1] / sum(confusion[0]), confusion[1][1] / sum(confusion[1]))
    fpr, tpr = (curve.fpr, curve.tpr) if curve else ((), ())
    reliability = None
    if calibration and calibration.bins:
        reliability = reliability_plot(f"Reliability of {task} probabilities", calibration.bins)

    # 3. labels, and where they are from
    labels: list[LabelRow] = []
    about = _TASKS[task][1]
    if task == "interests":
        about += _INTERESTS_FROM.get(evaluation.lineage.interests or "", "")
        labels = sorted(evaluation.per_label, key=lambda row: -(row.support or 0))
    return _Task(
        key=task,
        title=_TASKS[task][0],
        about=about,
        compared=compared,
        alone=_measured(caption, "Metric", alone) if alone else None,
        ece=calibration.ece if calibration else None,
        reliability=reliability,
        roc=roc_plot(f"ROC curve of {task}", fpr, tpr, chosen),
        area=area_under(fpr, tpr),
        chosen=chosen,
        confusion=confusion,
        labels=labels[:_ROWS],
        label_count=len(labels),
    )


def _others(evaluation: Evaluation, metric: str) -> list[_Other]:
    """The champion and the baselines that were measured in a metric."""
    others = []
    for name in (CHAMPION, *evaluation.baselines):
        measure = evaluation.other(name).get(metric)
        if measure is None:
            continue
        difference = evaluation.difference(name, metric)
        mark = "champion" if name == CHAMPION else "quiet"
        tone = difference_tone(metric, difference)
        others.append(_Other(measure_name(name), measure, difference, mark, tone))
    return others


def _compared(metric: str, candidate: Interval, others: list[_Other]) -> _Compared:
    less = ", less is better" if _less_is_better(metric) else ""
    return _Compared(
        caption=measure_name(metric),
        note=f"on {number(candidate.n)} rows, like every model beside it{less}",
        candidate=candidate,
        others=others,
        scale=Scale.around(_ends([candidate, *(each.measure for each in others)]), width=200),
        gap=Scale.around(_ends(each.difference for each in others), include=0.0, width=160),
    )


def _measured(caption: str, what: str, rows: Sequence[tuple[str, Interval]]) -> _Measured:
    return _Measured(caption, what, rows, Scale.around(_ends(measure for _, measure in rows)))


def _ends(intervals: Iterable[Interval]) -> list[float | None]:
    return [end for each in intervals for end in (each.value, each.low, each.high)]


def difference_tone(metric: str, difference: Interval) -> str:
    """Whether the candidate is beyond doubt better (good) or worse (bad)."""
    low, high = difference.low, difference.high
    if low is None or high is None or low <= 0 <= high:
        return "quiet"
    return "good" if (low > 0) != _less_is_better(metric) else "bad"


def _less_is_better(metric: str) -> bool:
    return metric.endswith(".ece")


def _two_by_two(rows: Sequence[Sequence[int]]) -> list[list[int]] | None:
    return [list(row) for row in rows] if [len(row) for row in rows] == [2, 2] else None


def _slices(evaluation: Evaluation) -> list[_Measured]:
    by_metric: dict[str, list[tuple[str, Interval]]] = {}
    for part in evaluation.slices:
        if part.metric == UNDERSTANDING:  # in its own section
            continue
        by_metric.setdefault(part.metric, []).append((part.name, part.interval))
    return [
        _measured(_full_name(metric), "Slice", rows[:_ROWS]) for metric, rows in by_metric.items()
    ]


# Examples and lineage


@dataclass(frozen=True)
class _ExampleView:
    """An example with its text shortened; `limit`: the greatest contribution, which fills a bar."""

    text: str
    interests: tuple[ExampleInterest, ...]
    recommendations: tuple[ExampleRecommendation, ...]
    limit: float


def _example(example: Example) -> _ExampleView:
    greatest = 0.0
    for recommendation in example.recommendations:
        for reason in recommendation.reasons:
            greatest = max(greatest, abs(reason.contribution or 0.0))
    is_long = len(example.text) > _TEXT
    return _ExampleView(
        text=f"{example.text[:_TEXT]}…" if is_long else example.text,
        interests=example.interests,
        recommendations=example.recommendations,
        limit=greatest or 1.0,
    )


def _lineage(evaluation: Evaluation) -> list[tuple[str, Child]]:
    facts: list[tuple[str, Child]] = [
        (name, _fact(value)) for name, value in evaluation.lineage.facts()
    ]
    champion = evaluation.champion
    if champion is not None and champion != type(champion)():
        version = "" if champion.version is None else f"version {champion.version}, "
        facts.append((CHAMPION, join([version, tag("code", champion.digest or "–")])))
    elif evaluation.says_champion:
        facts.append((CHAMPION, "none, this is the first model"))
    return facts


def _fact(value: object) -> Child:
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value) if "T" in value else None
        except ValueError:
            time = None
        if time is not None:
            time = time if time.tzinfo else time.replace(tzinfo=UTC)
            return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return tag("code", value)
    return number(value) if finite(value) is not None else str(value)


# Names


def measure_name(key: str) -> str:
    """A metric or a baseline as people call it."""
    short = key.rpartition(".")[2] if key.partition(".")[0] in _TASKS else key
    return _NAMES.get(short, short)


def _full_name(metric: str) -> str:
    task = metric.partition(".")[0]
    return f"{_TASKS[task][0]}, {measure_name(metric)}" if task in _TASKS else metric
