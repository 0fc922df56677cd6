"""The test window: the bundle, the champion and the baselines on the same rows, with paired
intervals.

Baselines are what a shop would have without a model: the majority label, the user's own label
frequencies, a logistic model on the words of the behaviour text, popularity, recent popularity,
EASE and ItemKNN alone, and for sentiment a bag of words. Each is tuned on the validation window
like the candidate, and those that rank are fitted on all before the test window. Rows of one user
are resampled together.

What is measured follows from the data: interests where its items carry labels, sentiment where it
has reviews, recommendations always. Measures of recommendations are taken of each snapshot's first
ten items, and averaged over snapshots.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tasteloop import metrics
from tasteloop.behaviour.events import TEXT, USER, Event
from tasteloop.behaviour.items import SENTIMENT
from tasteloop.behaviour.snapshots import (
    EVENTS_SEEN,
    FUTURE,
    SPLIT,
    TEST,
    TRAIN,
    VALIDATION,
    Snapshots,
)
from tasteloop.bundle import code_version
from tasteloop.encoder import bag_of_words
from tasteloop.encoder.calibration import one_vs_rest
from tasteloop.files import atomic_directory, sha256_tree, write_json
from tasteloop.metrics import Array, Measure
from tasteloop.recommender.collaborative import Past, ease, item_knn
from tasteloop.recommender.recommend import Folded, seen
from tasteloop.runtime.session import Session

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

EVALUATION = "evaluation.json"
K = 10


class EvaluationSettings(BaseModel, frozen=True, extra="forbid"):
    """What is measured, and how finely."""

    bootstrap: int = Field(1000, ge=100, description="Resamples behind each interval.")
    seed: int = 0
    cold_events: int = Field(5, ge=1, description="A user with at most so many events is cold.")
    active_events: int = Field(50, ge=1, description="From so many events on a user is active.")
    recent_days: tuple[float, ...] = Field(
        (7, 30), description="Windows of recent popularity; validation chooses."
    )
    ease_regularisation: tuple[float, ...] = (300, 1000, 3000)
    knn_neighbours: tuple[int, ...] = (50, 200)
    knn_shrink: tuple[float, ...] = (10, 100)
    bag_of_words_strengths: tuple[float, ...] = Field(
        bag_of_words.STRENGTHS,
        min_length=1,
        description="Inverse regularisation of the bag of words.",
    )
    examples: int = Field(4, ge=0)
    old: Path | None = Field(
        None,
        description="Snapshots of earlier data: what was forgotten is measured on their test users not in the new.",
    )


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
        out: directory: evaluation.json.
        champion: the bundle that is live, measured on the same rows; None where there is none yet.
    """
    data = Snapshots.read(snapshots)
    session = Session.load(bundle)
    test = data.split(TEST)
    histories = data.histories(test)
    reviews = data.reviews()
    reviews = (
        reviews.filter(reviews[SPLIT] == TEST)
        if reviews is not None and session.has_sentiment
        else None
    )
    rows = _Rows(data, test, histories, reviews)

    ours, shown = _candidate(session, rows)
    others = _baselines(data, rows, settings)
    live = Session.load(champion) if champion else None
    same = live is not None and live.digest == session.digest
    if live is not None and not same:
        others["champion"], _ = _candidate(live, rows)

    report = _report(ours, others, rows, settings)
    theirs = report["baselines"].pop("champion", {})
    report |= {
        "schema": 1,
        "tasks": list(session.models),
        "champion": live and {"digest": live.digest, "tasks": list(live.models), "metrics": theirs},
        "slices": _slices(ours, rows, settings),
        "lineage": {
            "bundle": session.digest,
            "data": data.meta["data"],
            "source": data.meta["source"],
            "reviews_source": data.meta.get("reviews_source"),
            "code": code_version(),
            "encoder": session.card["encoder"],
            "snapshots": sha256_tree(snapshots),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        **_details(session, rows, shown, settings),
    }
    if settings.old is not None and live is not None and not same:
        report["old"] = _forgotten(session, live, Snapshots.read(settings.old), data, settings)
    with atomic_directory(out) as directory:
        write_json(directory / EVALUATION, report)
    values = {name: estimate["value"] for name, estimate in report["metrics"].items()}
    log.info(
        "test: %s",
        ", ".join(f"{n} {v:.4f}" if v is not None else f"{n} none" for n, v in values.items()),
    )
    return EvaluationResult(values, live is not None)


@dataclass(frozen=True)
class _Rows:
    """The test rows: snapshots with their histories, and reviews."""

    data: Snapshots
    table: pl.DataFrame
    histories: list[list[Event]]
    reviews: pl.DataFrame | None

    @cached_property
    def users(self) -> Array:
        return self.table[USER].to_numpy()

    @cached_property
    def truth(self) -> Array:
        return self.data.truth(self.table)

    @cached_property
    def relevant(self) -> list[list[int]]:
        futures: list[list[int]] = self.table[FUTURE].to_list()
        return futures

    def groups(self, metric: str) -> Array:
        """Which rows are drawn together: a user's snapshots; each review alone."""
        if metric.startswith("sentiment."):
            assert self.reviews is not None
            return np.arange(len(self.reviews))
        return self.users


@dataclass(frozen=True)
class _Shown:
    """The candidate's own answers, for pages; None for a task that was not measured."""

    interests: Array | None
    predicted: Array | None
    sentiment: Array | None


def _candidate(session: Session, rows: _Rows) -> tuple[dict[str, Measure], _Shown]:
    """A bundle's measures; its labels are matched by name, a label it does not know is never
    predicted.
    """
    labels, own = rows.data.labels, session.ranking_interests(rows.histories)
    measures: dict[str, Measure] = {}
    interests = predicted = sentiment = None
    if labels and session.has_interests:
        interests = _aligned(session, own, labels)
        thresholds = _aligned(session, session.thresholds[None, :], labels, absent=2.0)
        predicted = (interests >= thresholds).astype(np.float32)
        measures = _interest_measures(predicted, rows.truth) | {
            "interests.ece": metrics.ece(interests, rows.truth)
        }
    measures |= _rank_measures(_ranked(session, rows, own), rows.relevant)
    if rows.reviews is not None and session.has_sentiment:
        sentiment = session.sentiment(rows.reviews[TEXT].to_list())
        measures |= _sentiment_measures(
            sentiment >= session.sentiment_threshold, sentiment, rows.reviews
        )
    return measures, _Shown(interests, predicted, sentiment)


def _aligned(session: Session, values: Array, labels: list[str], absent: float = 0.0) -> Array:
    out = np.full((len(values), len(labels)), absent, np.float32)
    for k, label in enumerate(labels):
        if label in session.labels:
            out[:, k] = values[:, session.labels.index(label)]
    return out


def _ranked(session: Session, rows: _Rows, interests: Array) -> Array:
    """[n, 10] positions in the data's catalogue; an item that the data does not have becomes -1, a
    miss.
    """
    index = rows.data.catalogue.index
    ranked = np.full((len(rows.histories), K), -1)
    for row, recommendations in enumerate(session.rank(rows.histories, interests, K)):
        ranked[row, : len(recommendations)] = [index.get(r.item, -1) for r in recommendations]
    return ranked


def _interest_measures(predicted: Array, truth: Array) -> dict[str, Measure]:
    return {
        "interests.micro_f1": metrics.micro_f1(predicted, truth),
        "interests.macro_f1": metrics.macro_f1(predicted, truth),
        "interests.precision": metrics.precision(predicted, truth),
        "interests.recall": metrics.recall(predicted, truth),
        "interests.accuracy": metrics.accuracy(predicted, truth),
    }


def _rank_measures(ranked: Array, relevant: Sequence[Sequence[int]]) -> dict[str, Measure]:
    return {
        "recommend.ndcg@10": metrics.ndcg(ranked, relevant),
        "recommend.precision@10": metrics.precision_at(ranked, relevant),
        "recommend.recall@10": metrics.recall_at(ranked, relevant),
        "recommend.f1@10": metrics.f1_at(ranked, relevant),
    }


def _sentiment_measures(
    positive: Array, probability: Array | None, reviews: pl.DataFrame
) -> dict[str, Measure]:
    truth = reviews[SENTIMENT].to_numpy().astype(np.float32)[:, None]
    predicted = positive.astype(np.float32)[:, None]
    measures = {
        "sentiment.accuracy": metrics.accuracy(predicted, truth),
        "sentiment.precision": metrics.precision(predicted, truth),
        "sentiment.recall": metrics.recall(predicted, truth),
        "sentiment.f1": metrics.micro_f1(predicted, truth),
    }
    return (
        measures
        if probability is None
        else measures | {"sentiment.ece": metrics.ece(probability[:, None], truth)}
    )


def _forgotten(
    session: Session, live: Session, old: Snapshots, new: Snapshots, settings: EvaluationSettings
) -> dict[str, Any]:
    """Both bundles on the old test window, on the rows of users that the new data does not have."""
    table = old.split(TEST)
    table = table.filter(~table[USER].is_in(new.events[USER].unique().implode()))
    if not table.height:
        return {"metrics": {}, "baselines": {}, "differences": {}}
    rows = _Rows(old, table, old.histories(table), None)
    ours, theirs = (_candidate(one, rows)[0] for one in (session, live))
    return _report(ours, {"champion": theirs}, rows, settings)


# --- baselines


def _baselines(
    data: Snapshots, rows: _Rows, settings: EvaluationSettings
) -> dict[str, dict[str, Measure]]:
    validation = data.split(VALIDATION)
    histories = data.histories(validation)
    out = _interest_baselines(data, rows, validation, histories) if data.labels else {}
    out |= _rank_baselines(data, rows, validation, histories, settings)
    if rows.reviews is not None:
        for name, measured in _sentiment_baselines(data, rows.reviews, settings).items():
            out[name] = out.get(name, {}) | measured
    return out


def _interest_baselines(
    data: Snapshots, rows: _Rows, validation: pl.DataFrame, histories: list[list[Event]]
) -> dict[str, dict[str, Measure]]:
    truth, majority = data.truth(validation), data.truth(data.split(TRAIN)).mean(0)[None, :]
    return {
        "majority": _interest_baseline(
            rows, truth, majority.repeat(len(validation), 0), majority.repeat(len(rows.table), 0)
        ),
        "own_frequencies": _interest_baseline(
            rows, truth, own_frequencies(histories, data), own_frequencies(rows.histories, data)
        ),
        "bag_of_words": _interest_baseline(
            rows, truth, *behaviour_words(data, validation, rows.table)
        ),
    }


def _sentiment_baselines(
    data: Snapshots, test: pl.DataFrame, settings: EvaluationSettings
) -> dict[str, dict[str, Measure]]:
    reviews = data.reviews()
    assert reviews is not None
    positive = reviews.filter(reviews[SPLIT] == TRAIN)[SENTIMENT].to_numpy().mean() >= 0.5
    out = {"majority": _sentiment_measures(np.full(len(test), positive), None, test)}
    if (model := bag_of_words.of_reviews(reviews, settings.bag_of_words_strengths)) is not None:
        probability = model.probabilities(test[TEXT].to_list())
        out["bag_of_words"] = _sentiment_measures(probability >= 0.5, probability, test)
    return out


def _interest_baseline(
    rows: _Rows, truth: Array, validation: Array, test: Array
) -> dict[str, Measure]:
    """Scores with the threshold that gives the best micro-F1 on the validation window, like the
    candidate's.
    """
    threshold = max(
        np.linspace(0.02, 0.98, 97),
        key=lambda t: metrics.micro_f1((validation >= t).astype(float), truth).value,
    )
    return _interest_measures((test >= threshold).astype(np.float32), rows.truth)


def behaviour_words(
    data: Snapshots, validation: pl.DataFrame, test: pl.DataFrame
) -> tuple[Array, Array]:
    """Probabilities [n, K] of validation and test rows by a logistic model on the words of the
    behaviour text.
    """
    from scipy.special import expit
    from sklearn.feature_extraction.text import TfidfVectorizer

    train = data.split(TRAIN)
    words = TfidfVectorizer(sublinear_tf=True, min_df=3, token_pattern=r"[^\s,;]+")
    x = words.fit_transform(train[TEXT].to_list())
    later, last = (words.transform(rows[TEXT].to_list()) for rows in (validation, test))
    weights, bias = one_vs_rest(
        x, data.truth(train), later, data.truth(validation), (0.3, 1.0, 3.0)
    )
    before, after = (expit(rows @ weights + bias) for rows in (later, last))
    return before, after


def own_frequencies(histories: list[list[Event]], data: Snapshots) -> Array:
    """Share of each label among the items of the user's own history; zeros for a history without
    items.
    """
    membership = data.catalogue.membership(data.labels)
    out = np.zeros((len(histories), len(data.labels)), np.float32)
    for row, history in enumerate(histories):
        items = [data.catalogue.index[e.item] for e in history if e.item in data.catalogue.index]
        if items:
            out[row] = membership[items].mean(0)
    return out


def _rank_baselines(
    data: Snapshots,
    rows: _Rows,
    validation: pl.DataFrame,
    histories: list[list[Event]],
    settings: EvaluationSettings,
) -> dict[str, dict[str, Measure]]:
    """Each family's best setting on validation, fitted before it; then fitted before the test
    window.
    """
    tuned, fitted = (Past.before(data.meta[cut], data) for cut in ("validation_from", "test_from"))
    families: dict[str, list[Any]] = {
        "popularity": [lambda past: past.count()],
        "recent_popularity": [lambda past, d=d: past.count(d) for d in settings.recent_days],
        "ease": [lambda past, r=r: ease(past.matrix, r) for r in settings.ease_regularisation],
        "itemknn": [
            lambda past, n=n, s=s: item_knn(past.matrix, n, s)
            for n in settings.knn_neighbours
            for s in settings.knn_shrink
        ],
    }
    on_validation = _Folded.of(histories, data), validation[FUTURE].to_list()
    on_test = _Folded.of(rows.histories, data), rows.relevant
    out = {}
    for name, family in families.items():
        best = max(
            family,
            key=lambda fit: (
                metrics.ndcg(on_validation[0].ranked(fit(tuned)), on_validation[1]).value
            ),
        )
        out[name] = _rank_measures(on_test[0].ranked(best(fitted)), on_test[1])
    return out


@dataclass(frozen=True)
class _Folded:
    liked: NDArray[np.float32]
    hidden: NDArray[np.bool_]

    @classmethod
    def of(cls, histories: list[list[Event]], data: Snapshots) -> _Folded:
        return cls(
            Folded.of(histories, data.catalogue, 1.0, data.text).liked,
            seen(histories, data.catalogue),
        )

    def ranked(self, weights: Array) -> Array:
        """Top 10 by item-item weights [J, J] or by one score an item [J], the history left out."""
        scores = (
            self.liked @ weights
            if weights.ndim == 2
            else np.broadcast_to(weights, self.liked.shape)
        )
        return metrics.top_k(np.where(self.hidden, -np.inf, scores), K)


# --- the report


def _report(
    ours: Mapping[str, Measure],
    others: Mapping[str, Mapping[str, Measure]],
    rows: _Rows,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    options = {"seed": settings.seed, "draws": settings.bootstrap}

    def measured(measures: Mapping[str, Measure]) -> dict[str, Any]:
        return {
            n: metrics.interval(m, rows.groups(n), **options).json() for n, m in measures.items()
        }

    return {
        "metrics": measured(ours),
        "baselines": {name: measured(measures) for name, measures in others.items()},
        "differences": {
            name: {
                n: metrics.difference(ours[n], m, rows.groups(n), **options).json()
                for n, m in measures.items()
                if n in ours
            }
            for name, measures in others.items()
        },
    }


def _slices(
    ours: Mapping[str, Measure], rows: _Rows, settings: EvaluationSettings
) -> list[dict[str, Any]]:
    """Cold, warm and active users, and the users of each label."""
    count = rows.table[EVENTS_SEEN].to_numpy()
    cold, active = count <= settings.cold_events, count >= settings.active_events
    inside = {"users=cold": cold, "users=warm": ~cold & ~active, "users=active": active}
    inside |= {f"label={label}": rows.truth[:, k] > 0 for k, label in enumerate(rows.data.labels)}
    return [
        {"slice": name, "metric": metric, **_part(ours[metric], rows.users, mask, settings)}
        for name, mask in inside.items()
        for metric in ("interests.micro_f1", "recommend.ndcg@10")
        if metric in ours
    ]


def _part(
    measure: Measure, groups: Array, mask: Array, settings: EvaluationSettings
) -> dict[str, Any]:
    part = Measure(measure.rows[mask], measure.reduce)
    return metrics.interval(part, groups[mask], settings.seed, settings.bootstrap).json()


def _details(
    session: Session, rows: _Rows, shown: _Shown, settings: EvaluationSettings
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "per_label": [],
        "calibration": {},
        "confusion": {},
        "roc": {},
        "examples": _examples(session, rows, shown, settings),
    }
    if shown.interests is not None and shown.predicted is not None:
        out["per_label"] = _per_label(session, rows.data.labels, shown.predicted, rows.truth)
        out["calibration"]["interests"] = _calibration(shown.interests, rows.truth)
    if shown.sentiment is not None and rows.reviews is not None:
        real = rows.reviews[SENTIMENT].to_numpy().astype(int)
        said = (shown.sentiment >= session.sentiment_threshold).astype(int)
        out["confusion"]["sentiment"] = [
            [int(((real == r) & (said == s)).sum()) for s in (0, 1)] for r in (0, 1)
        ]
        out["calibration"]["sentiment"] = _calibration(shown.sentiment[:, None], real[:, None])
        out["roc"]["sentiment"] = _roc(real, shown.sentiment)
    return out


def _per_label(
    session: Session, labels: list[str], predicted: Array, truth: Array
) -> list[dict[str, Any]]:
    rows = []
    for k, label in enumerate(labels):
        said, real = predicted[:, [k]], truth[:, [k]]
        values = {
            name: measure(said, real).value
            for name, measure in (
                ("precision", metrics.precision),
                ("recall", metrics.recall),
                ("f1", metrics.micro_f1),
            )
        }
        threshold = (
            float(session.thresholds[session.labels.index(label)])
            if label in session.labels
            else None
        )
        rows.append(
            {
                "label": label,
                "support": int(real.sum()),
                "frequency": float(real.mean()),
                "threshold": threshold,
            }
            | {name: float(v) if np.isfinite(v) else None for name, v in values.items()}
        )
    return rows


def _calibration(probabilities: Array, truth: Array) -> dict[str, Any]:
    return {
        "ece": metrics.ece(probabilities, truth).value,
        "bins": metrics.reliability(probabilities, truth),
    }


def _roc(truth: Array, probability: Array) -> dict[str, list[float]]:
    """At most 100 points of the ROC curve."""
    from sklearn.metrics import roc_curve

    fpr, tpr, threshold = roc_curve(truth, probability)
    keep = np.unique(np.linspace(0, len(fpr) - 1, min(100, len(fpr))).round().astype(int))
    return {
        "fpr": fpr[keep].tolist(),
        "tpr": tpr[keep].tolist(),
        "threshold": np.minimum(threshold[keep], 1.0).tolist(),
    }


def _examples(
    session: Session, rows: _Rows, shown: _Shown, settings: EvaluationSettings
) -> list[dict[str, Any]]:
    """Evenly spaced test snapshots: what was read, said and recommended, and what really
    followed.
    """
    picked = np.unique(np.linspace(0, len(rows.table) - 1, settings.examples).round().astype(int))
    labels, interests = rows.data.labels, shown.interests
    out = []
    for row in picked:
        followed = {rows.data.catalogue.items[j] for j in rows.relevant[row]}
        [recommendations] = session.recommend([rows.histories[row]], 5)
        out.append(
            {
                "text": rows.table[TEXT][int(row)],
                "interests": [
                    {
                        "label": labels[k],
                        "probability": float(interests[row, k]),
                        "truth": bool(rows.truth[row, k]),
                    }
                    for k in np.argsort(-interests[row])[:5]
                ]
                if interests is not None
                else [],
                "recommendations": [
                    {
                        "item": r.item,
                        "title": r.title,
                        "score": r.score,
                        "relevant": r.item in followed,
                        "reasons": [{"term": t, "contribution": c} for t, c in r.terms.items()],
                    }
                    for r in recommendations
                ],
            }
        )
    return out
