"""The shares of cases that a model passes, kind by kind, with the sentences of those it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasteloop.answers import INTERESTS, RECOMMEND, SENTIMENT
from tasteloop.evaluation.record import UNDERSTANDING
from tasteloop.evaluation.understanding.answers import Answers, Model
from tasteloop.evaluation.understanding.cases import Case, Material
from tasteloop.evaluation.understanding.kinds import KINDS
from tasteloop.evaluation.understanding.settings import UnderstandingSettings
from tasteloop.metrics import Array, Measure, ratio


@dataclass(frozen=True)
class Understanding:
    """What a model showed.

    Attributes:
        cases: n, in the order of `passed`.
        passed: [n] of 1 and 0; NaN for a case that could not be judged or was not asked.
        failures: by kind, the sentences of cases that were not passed, in random order.
        asked: the kinds that the data and the model allow.
    """

    cases: Sequence[Case]
    passed: Array
    failures: dict[str, list[str]]
    asked: frozenset[str]

    def measures(self) -> dict[str, Measure]:
        """The share of each kind that was asked, and as `understanding` their mean."""
        rows = _rows(self.passed)
        measures = {}
        columns = []
        kinds = np.array([case.kind for case in self.cases])
        for kind in KINDS:
            of_kind = kinds == kind.name
            if rows[of_kind, 1].sum() > 0:
                measures[f"{UNDERSTANDING}.{kind.name}"] = Measure(rows[of_kind], ratio())
                columns.append(rows * of_kind[:, None])
        if not measures:
            return {}
        return {UNDERSTANDING: Measure(np.concatenate(columns, 1), _mean_of_shares), **measures}

    def slices(self) -> dict[str, tuple[Measure, Array]]:
        """The share of all cases of a label, and of a language, with what is resampled together."""
        rows, slices = _rows(self.passed), {}
        units = units_of(self.cases, UNDERSTANDING)
        for name, part in (
            ("label", np.array([case.label for case in self.cases])),
            ("language", np.array([case.language for case in self.cases])),
        ):
            for value in sorted(set(part) - {""}):
                mask = (part == value) & (rows[:, 1] > 0)
                if mask.any():
                    slices[f"{name}={value}"] = (Measure(rows[mask], ratio()), units[mask])
        return slices


def _rows(passed: Array) -> Array:
    """[n, 2]: whether a case was passed, and whether it counts."""
    return np.stack([np.nan_to_num(passed), np.isfinite(passed)], 1).astype(np.float64)


def _mean_of_shares(total: Array) -> Array:
    """Totals [..., 2 · kinds] of passed and counted cases -> the mean of the kinds' shares."""
    passed, counted = total[..., ::2], total[..., 1::2]
    shares = np.divide(passed, counted, out=np.zeros_like(passed), where=counted > 0)
    return np.asarray(shares.sum(-1) / np.maximum((counted > 0).sum(-1), 1))


def make_cases(material: Material, settings: UnderstandingSettings) -> list[Case]:
    """The cases of every kind that the material allows."""
    count = -(-settings.cases // len(KINDS))
    return [case for kind in KINDS for case in kind.make(material, count)]


def units_of(cases: Sequence[Case], metric: str) -> Array:
    """What is resampled together, for each row of a measure of `Understanding.measures`."""
    kind = metric.partition(".")[2]
    return np.array([f"{c.kind} {c.unit}" for c in cases if kind in ("", c.kind)])


def understand(model: Model, material: Material, cases: Sequence[Case]) -> Understanding:
    """Ask a model all cases of the kinds that it can be asked."""
    tasks = {RECOMMEND}
    if model.has_interests and len(material.labels):
        tasks.add(INTERESTS)
    if model.has_sentiment:
        tasks.add(SENTIMENT)
    kinds = {kind.name: kind for kind in KINDS if kind.asks in tasks}
    positions = [n for n, case in enumerate(cases) if case.kind in kinds]
    answers = Answers(model, material, [cases[n] for n in positions])

    passed = np.full(len(cases), np.nan)
    failures: dict[str, list[str]] = {}
    for n, answer in zip(positions, answers, strict=True):
        case = cases[n]
        judgement = kinds[case.kind].judge(answer)
        if judgement is None:
            continue
        passed[n] = judgement.passed
        if not judgement.passed:
            failures.setdefault(case.kind, []).append(f"{case.says} {judgement.seen}")
    asked = frozenset(cases[n].kind for n in positions)
    return Understanding(cases, passed, failures, asked)
