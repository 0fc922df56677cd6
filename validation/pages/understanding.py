"""What a candidate understands, for its page: kind by kind, label by label, with what it failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasteloop.evaluation.record import CHAMPION, UNDERSTANDING, Evaluation
from tasteloop.intervals import MISSING, Interval
from validation.markup.plots import Scale

_WORST_LABELS = 8
_SENTENCES = 3
_SENTENCE = 400  # characters


@dataclass(frozen=True)
class KindRow:
    """One kind of question.

    Attributes:
        measure: the share of its cases that was passed.
        difference: to the champion, on the same cases; one that is missing where there is none.
        failures: sentences about some cases that were not passed.
    """

    name: str
    question: str
    measure: Interval
    difference: Interval
    tone: str
    failures: Sequence[str]


@dataclass(frozen=True)
class UnderstandingView:
    """The section of the page.

    Attributes:
        overall: the mean of the kinds.
        has_champion: whether there are differences to show.
        worst: the labels of which least is understood, with their shares.
    """

    overall: Interval
    difference: Interval
    kinds: Sequence[KindRow]
    has_champion: bool
    worst: Sequence[tuple[str, Interval]]
    languages: Sequence[tuple[str, Interval]]
    scale: Scale
    gap: Scale


def understanding_of(evaluation: Evaluation) -> UnderstandingView | None:
    """None where the candidate was not asked."""
    kinds = [
        _kind_row(evaluation, each.kind, each.question, each.failures)
        for each in evaluation.understanding
        if each.asked
    ]
    if not kinds:
        return None
    slices = [part for part in evaluation.slices if part.metric == UNDERSTANDING]
    labels = [(part.name, part.interval) for part in slices if part.name.startswith("label=")]
    ends = [
        end
        for row in kinds
        for end in (row.difference.value, row.difference.low, row.difference.high)
    ]
    return UnderstandingView(
        overall=evaluation.metric(UNDERSTANDING),
        difference=evaluation.difference(CHAMPION, UNDERSTANDING),
        kinds=kinds,
        has_champion=any(row.difference.value is not None for row in kinds),
        worst=[
            (name.partition("=")[2], share)
            for name, share in sorted(labels, key=lambda each: each[1].value or 0.0)[:_WORST_LABELS]
        ],
        languages=[
            (part.name.partition("=")[2], part.interval)
            for part in slices
            if part.name.startswith("language=")
        ],
        scale=Scale(-0.03, 1.03, 200),
        gap=Scale.around(ends, include=0.0, width=160),
    )


def _kind_row(evaluation: Evaluation, kind: str, question: str, failures: Sequence[str]) -> KindRow:
    metric = f"{UNDERSTANDING}.{kind}"
    difference = evaluation.difference(CHAMPION, metric)
    return KindRow(
        name=kind.replace("_", " "),
        question=question,
        measure=evaluation.metrics.get(metric, MISSING),
        difference=difference,
        tone=_tone(difference),
        failures=[
            failure[:_SENTENCE] + ("…" if len(failure) > _SENTENCE else "")
            for failure in failures[:_SENTENCES]
        ],
    )


def _tone(difference: Interval) -> str:
    """Good or bad where the candidate is so beyond doubt."""
    if difference.low is None or difference.high is None:
        return "quiet"
    if difference.low > 0:
        return "good"
    return "bad" if difference.high < 0 else "quiet"
