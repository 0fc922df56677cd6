"""The test window: the bundle, the champion and the baselines on the same rows, with paired
intervals.

Rows of one user are resampled together. What is measured follows from the data: interests where its
items carry labels, sentiment where it has reviews, recommendations always. Measures of
recommendations are taken of each snapshot's first ten items, and averaged over snapshots.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tasteloop import metrics
from tasteloop.behaviour.events import TEXT, USER
from tasteloop.behaviour.items import SENTIMENT, SOURCE
from tasteloop.behaviour.snapshots import EVENTS_SEEN, SPLIT, TEST, Snapshots
from tasteloop.evaluation import details
from tasteloop.evaluation.answers import Answers, answer_rows, measure_answers
from tasteloop.evaluation.baselines import measure_baselines
from tasteloop.evaluation.record import (
    CHAMPION,
    EVALUATION_FILE,
    UNDERSTANDING,
    ChampionMetrics,
    Comparison,
    Evaluation,
    KindOfQuestion,
    Lineage,
    Metrics,
    Slice,
    slice_of_source,
)
from tasteloop.evaluation.rows import EvaluatedRows, Measures
from tasteloop.evaluation.settings import EvaluationSettings
from tasteloop.evaluation.understanding.cases import Material
from tasteloop.evaluation.understanding.kinds import KINDS
from tasteloop.evaluation.understanding.measure import (
    Understanding,
    make_cases,
    understand,
)
from tasteloop.evaluation.understanding.settings import UnderstandingSettings
from tasteloop.files import atomic_directory, sha256_tree, write_json
from tasteloop.metrics import Measure
from tasteloop.runtime.session import Session
from tasteloop.version import code_version

log = logging.getLogger(__name__)

_REVIEWS = 500  # whose language is looked at
_FAILURES = 3  # sentences of a kind that pages show
_SLICED = ("interests.micro_f1", "recommend.ndcg@10")
_SLICED_BY_SOURCE = "sentiment."  # the measures of reviews


@dataclass(frozen=True)
class EvaluationResult:
    """Values of the candidate's metrics, and whether there was a champion to compare with."""

    metrics: dict[str, float | None]
    champion: bool


def evaluate(
    bundle: Path,
    snapshots: Path,
    settings: EvaluationSettings,
    out: Path,
    champion: Path | None = None,
) -> EvaluationResult:
    """Measure a bundle on the test window.

    Args:
        bundle: the candidate, sealed.
        snapshots: what `prepare` wrote.
        settings: bootstrap, slices, baselines' grids.
        out: directory: evaluation.json, which `Evaluation.read` reads.
        champion: the bundle that is live, measured on the same rows; None where there is none yet.

    Raises:
        TasteloopError: a bundle that is not whole, or no snapshots.

    With the directories of a bundle and of its snapshots in `bundle` and `snapshots`:

    >>> settings = EvaluationSettings(bootstrap=100)
    >>> result = evaluate(bundle, snapshots, settings, Path("evaluation"))
    >>> measured = Evaluation.read(Path("evaluation") / EVALUATION_FILE)
    >>> ndcg = measured.metric("recommend.ndcg@10").require("nDCG@10")
    >>> ndcg.low <= ndcg.value <= ndcg.high and ndcg.value == result.metrics["recommend.ndcg@10"]
    True
    >>> evaluate(bundle, Path("none"), settings, Path("evaluation"))
    Traceback (most recent call last):
        ...
    tasteloop.errors.TasteloopError: no file none/snapshots.json; run the step that writes it
    """
    # 1. what is measured, and on which rows
    data = Snapshots.read(snapshots)
    session = Session.load(bundle)
    rows = _test_rows(data, session)

    # 2. the candidate's answers and measures, the baselines', and the champion's
    answers = answer_rows(session, rows)
    measures = measure_answers(answers, rows)
    others = measure_baselines(rows, settings)
    live = Session.load(champion) if champion else None
    rival = None if live is None or live.digest == session.digest else live
    if rival is not None:
        others[CHAMPION] = measure_answers(answer_rows(rival, rows), rows)

    # 3. what the candidate and the champion understand
    understanding = None
    if settings.understanding is not None:
        material = _material(rows, settings.understanding)
        rows = replace(rows, cases=make_cases(material, settings.understanding))
        understanding = understand(session, material, rows.cases)
        measures |= understanding.measures()
        if rival is not None:
            theirs_understood = understand(rival, material, rows.cases).measures()
            if theirs_understood.keys() != understanding.measures().keys():
                # a mean of other kinds is not comparable with ours
                theirs_understood.pop(UNDERSTANDING, None)
            others[CHAMPION] |= theirs_understood

    # 4. intervals, of the values and of the paired differences
    compared = _compare(measures, others, rows, settings)
    baselines = {name: own for name, own in compared.baselines.items() if name != CHAMPION}
    theirs = compared.baselines.get(CHAMPION, {})
    old = None
    if settings.old is not None and rival is not None:
        old = _compare_on_earlier_data(session, rival, data, settings.old, settings)

    # 5. the record
    evaluation = Evaluation(
        metrics=compared.metrics,
        baselines=baselines,
        differences=compared.differences,
        tasks=session.models,
        champion=None if live is None else ChampionMetrics(live.digest, None, live.models, theirs),
        says_champion=True,
        slices=(
            *_slices(measures, rows, settings),
            *_slices_of_reviews(measures, rows, settings),
            *_slices_of_cases(understanding, settings),
        ),
        lineage=_lineage(session, data, snapshots),
        examples=details.examples(session, rows, answers, settings.examples),
        old=old,
    )
    evaluation = _add_details(evaluation, session, rows, answers)
    if understanding is not None:
        evaluation = replace(evaluation, understanding=_kinds_of_questions(understanding))
    with atomic_directory(out) as directory:
        write_json(directory / EVALUATION_FILE, evaluation.json())
    values = {name: interval.value for name, interval in evaluation.metrics.items()}
    shown = [f"{n} none" if v is None else f"{n} {v:.4f}" for n, v in values.items()]
    log.info("test: %s", ", ".join(shown))
    return EvaluationResult(values, live is not None)


def _test_rows(data: Snapshots, session: Session) -> EvaluatedRows:
    """The snapshots of the test window, and its reviews where the bundle has sentiment."""
    test = data.split(TEST)
    reviews = data.reviews()
    if reviews is not None:
        reviews = reviews.filter(reviews[SPLIT] == TEST) if session.has_sentiment else None
    return EvaluatedRows(data, test, data.histories(test), reviews)


def _lineage(session: Session, data: Snapshots, snapshots: Path) -> Lineage:
    return Lineage(
        bundle=session.digest,
        data=data.meta["data"],
        source=data.meta["source"],
        reviews_source=data.meta.get("reviews_source"),
        interests=data.origin_of_interests,
        code=code_version(),
        encoder=session.card.encoder,
        snapshots=sha256_tree(snapshots),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _compare(
    measures: Measures,
    others: Mapping[str, Measures],
    rows: EvaluatedRows,
    settings: EvaluationSettings,
) -> Comparison:
    """The candidate's measures and each other's, with their intervals and paired differences."""
    differences = {}
    for name, theirs in others.items():
        differences[name] = {
            metric: metrics.difference(
                measures[metric],
                measure,
                rows.groups(metric),
                seed=settings.seed,
                draws=settings.bootstrap,
            )
            for metric, measure in theirs.items()
            if metric in measures
        }
    return Comparison(
        metrics=_intervals(measures, rows, settings),
        baselines={name: _intervals(theirs, rows, settings) for name, theirs in others.items()},
        differences=differences,
    )


def _intervals(measures: Measures, rows: EvaluatedRows, settings: EvaluationSettings) -> Metrics:
    return {
        metric: metrics.interval(
            measure, rows.groups(metric), seed=settings.seed, draws=settings.bootstrap
        )
        for metric, measure in measures.items()
    }


def _compare_on_earlier_data(
    session: Session, rival: Session, new: Snapshots, old: Path, settings: EvaluationSettings
) -> Comparison:
    """Candidate and champion on the test window of earlier snapshots, on the rows of users that the
    new data does not have: what was forgotten.
    """
    data = Snapshots.read(old)
    table = data.split(TEST)
    table = table.filter(~table[USER].is_in(new.events[USER].unique().implode()))
    if not table.height:
        return Comparison()
    rows = EvaluatedRows(data, table, data.histories(table), None)
    measures = measure_answers(answer_rows(session, rows), rows)
    theirs = measure_answers(answer_rows(rival, rows), rows)
    return _compare(measures, {CHAMPION: theirs}, rows, settings)


def _slices(
    measures: Measures, rows: EvaluatedRows, settings: EvaluationSettings
) -> tuple[Slice, ...]:
    """Cold, warm and active users, and the users of each label."""
    # 1. which rows [n] each slice holds
    count = rows.table[EVENTS_SEEN].to_numpy()
    cold, active = count <= settings.cold_events, count >= settings.active_events
    masks = {"users=cold": cold, "users=warm": ~cold & ~active, "users=active": active}
    for k, label in enumerate(rows.data.labels):
        masks[f"label={label}"] = rows.truth[:, k] > 0

    # 2. the measures on them
    slices = []
    for name, mask in masks.items():
        for metric in _SLICED:
            if metric in measures:
                part = Measure(measures[metric].rows[mask], measures[metric].reduce)
                interval = metrics.interval(
                    part, rows.users[mask], seed=settings.seed, draws=settings.bootstrap
                )
                slices.append(Slice(name, metric, interval))
    return tuple(slices)


def _slices_of_reviews(
    measures: Measures, rows: EvaluatedRows, settings: EvaluationSettings
) -> tuple[Slice, ...]:
    """The reviews of each source, under the last part of its name: a file of one's own is not told
    by where it lies.
    """
    if rows.reviews is None or SOURCE not in rows.reviews.columns:
        return ()
    sources = rows.reviews[SOURCE].to_numpy()
    slices = []
    for source in rows.reviews[SOURCE].drop_nulls().unique(maintain_order=True):
        mask = sources == source
        for metric, measure in measures.items():
            if metric.startswith(_SLICED_BY_SOURCE):
                part = Measure(measure.rows[mask], measure.reduce)
                interval = metrics.interval(
                    part, np.flatnonzero(mask), seed=settings.seed, draws=settings.bootstrap
                )
                slices.append(Slice(slice_of_source(source), metric, interval))
    return tuple(slices)


def _material(rows: EvaluatedRows, settings: UnderstandingSettings) -> Material:
    """What the tests of understanding are made of: the catalogue and the test window."""
    reviews = rows.data.reviews()
    return Material.of(
        rows.data.catalogue,
        rows.data.labels,
        rows.histories,
        [] if reviews is None else reviews[TEXT].head(_REVIEWS).to_list(),
        settings.seed,
    )


def _slices_of_cases(
    understanding: Understanding | None, settings: EvaluationSettings
) -> tuple[Slice, ...]:
    """What is understood about each label, and in each language."""
    if understanding is None:
        return ()
    return tuple(
        Slice(
            name,
            UNDERSTANDING,
            metrics.interval(measure, units, seed=settings.seed, draws=settings.bootstrap),
        )
        for name, (measure, units) in understanding.slices().items()
    )


def _kinds_of_questions(understanding: Understanding) -> tuple[KindOfQuestion, ...]:
    """Every kind: whether it was asked, and sentences about some cases that were not passed."""
    return tuple(
        KindOfQuestion(
            kind.name,
            kind.question,
            tuple(understanding.failures.get(kind.name, [])[:_FAILURES]),
            kind.name in understanding.asked,
        )
        for kind in KINDS
    )


def _add_details(
    evaluation: Evaluation, session: Session, rows: EvaluatedRows, answers: Answers
) -> Evaluation:
    """The evaluation with the details of the tasks that were measured."""
    if answers.interests is not None and answers.predicted is not None:
        labels, truth = rows.data.labels, rows.truth
        evaluation = replace(
            evaluation,
            per_label=details.label_rows(session, labels, answers.predicted, truth),
            calibration={"interests": details.calibration(answers.interests, truth)},
        )
    if answers.sentiment is not None and answers.positive is not None and rows.reviews is not None:
        truth = rows.reviews[SENTIMENT].to_numpy().astype(int)
        calibration = details.calibration(answers.sentiment[:, None], truth[:, None])
        evaluation = replace(
            evaluation,
            calibration={**evaluation.calibration, "sentiment": calibration},
            confusion={"sentiment": details.confusion_matrix(truth, answers.positive.astype(int))},
            roc={"sentiment": details.roc_curve(truth, answers.sentiment)},
        )
    return evaluation
