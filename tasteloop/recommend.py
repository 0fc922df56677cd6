"""Ranking: a sum of few terms, so that the reasons of a score are its parts.

`R(i, j) = Σ_m λ_m · s_m(i, j)`, each `s_m` standardised over the catalogue for the user at hand, so that λ compare:

- interest: `Σ_k w_jk · (y_ik - ȳ_k)`, `w` by ridge regression of what followed on which interests were there, and for
  items without a positive event by the mean of their labels' other items;
- collaborative: EASE (Steck 2019, https://arxiv.org/abs/1905.03375) on positive events, the history decayed by rank;
- content: cosine of the item's text vector and the history's, both by the fine-tuned encoder;
- popularity: log of positive events, decayed by age with a half-life.

λ maximise nDCG@10 on the validation window, with everything fitted on what came before it; then the terms are fitted
again on all events before the test window, λ unchanged.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tasteloop import metrics
from tasteloop.bundle import CARD, GOLDEN, ITEMS, MODELS, README, RECOMMENDER, code_version, seal
from tasteloop.events import ITEM, SECOND, TIME, USER, Event, positive
from tasteloop.files import atomic_directory, atomic_write, read_json, write_json
from tasteloop.items import Catalogue
from tasteloop.snapshots import FUTURE, TRAIN, VALIDATION, Snapshots
from tasteloop.text import TextSettings, in_order

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

Matrix = NDArray[np.float32]
_DAY = 86_400 * SECOND
TERMS = ("interest", "collaborative", "content", "popularity")


class RecommenderSettings(BaseModel, frozen=True, extra="forbid"):
    """Grids are searched on the validation window; a single value fixes it."""

    ease_regularisation: tuple[float, ...] = (300, 1000, 3000)
    ease_items: int = Field(10_000, ge=1, description="Most popular items in the EASE matrix, which is square in them.")
    history_decay: tuple[float, ...] = (0.9, 0.95, 0.98, 1.0)
    half_life_days: tuple[float, ...] = (7, 30, 90, 3650)
    interest_regularisation: float = Field(200, gt=0)
    weights: tuple[float, ...] = Field(
        (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0),
        description="Candidates of each λ but the collaborative.",
    )
    rounds: int = Field(3, ge=1, description="Passes of coordinate ascent over λ.")


@dataclass(frozen=True)
class RecommenderResult:
    """λ by term, validation nDCG@10, digest of the bundle."""

    weights: dict[str, float]
    validation_ndcg: float
    digest: str
    seconds: float


@dataclass(frozen=True)
class Recommender:
    """Arrays of the terms over J items and K labels.

    Attributes:
        vectors: [J, d] item text vectors, length 1.
        ease: [E, E] item-item weights among `ease_positions` [E].
        ties: [K, J] what a label's presence adds to an item; label_mean [K].
        popularity: [J].
        weights: λ by term; decay: of a history event by its rank from the newest.
    """

    vectors: Matrix
    ease: Matrix
    ease_positions: NDArray[np.int32]
    ties: Matrix
    label_mean: Matrix
    popularity: Matrix
    weights: dict[str, float]
    decay: float
    text: TextSettings

    def contributions(self, histories: Sequence[NDArray[np.float32]], interests: Matrix) -> dict[str, Matrix]:
        """λ_m · s_m by term, each [n, J]; a row's score is their sum.

        Args:
            histories: [n, J] decayed weights of liked items, as `fold_in` makes them.
            interests: [n, K] calibrated probabilities.
        """
        liked = np.asarray(histories, np.float32)
        return {name: np.float32(self.weights[name]) * z for name, z in self._terms(liked, interests).items()}

    def _terms(self, liked: Matrix, interests: Matrix) -> dict[str, Matrix]:
        collaborative = np.zeros_like(liked)
        collaborative[:, self.ease_positions] = liked[:, self.ease_positions] @ self.ease
        profile = liked @ self.vectors
        norm = np.linalg.norm(profile, axis=1, keepdims=True)
        profile = np.divide(profile, norm, out=np.zeros_like(profile), where=norm > 0)
        terms = {
            "interest": (interests - self.label_mean) @ self.ties,
            "collaborative": collaborative,
            "content": profile @ self.vectors.T,
            "popularity": np.broadcast_to(self.popularity, liked.shape),
        }
        return {name: standardise(values) for name, values in terms.items()}

    def save(self, directory: Path) -> None:
        """recommender.safetensors; λ, decay and text settings belong to the card."""
        from safetensors.numpy import save_file

        arrays = {
            n: getattr(self, n) for n in ("vectors", "ease", "ease_positions", "ties", "label_mean", "popularity")
        }
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, directory / RECOMMENDER)

    @classmethod
    def load(cls, directory: Path, card: dict[str, Any]) -> Recommender:
        from safetensors.numpy import load_file

        recommender = card["recommender"]
        return cls(
            **load_file(directory / RECOMMENDER),
            weights=recommender["weights"],
            decay=recommender["decay"],
            text=TextSettings.model_validate(card["text"]),
        )


def standardise(scores: NDArray[Any]) -> Matrix:
    """Mean 0 and deviation 1 over each row's items; a constant row becomes 0."""
    centred: Matrix = scores.astype(np.float32)
    centred = centred - centred.mean(1, keepdims=True)
    deviation = centred.std(1, keepdims=True)
    out: Matrix = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-7)
    return out


def fold_in(histories: Sequence[Sequence[Event]], catalogue: Catalogue, decay: float, text: TextSettings) -> Matrix:
    """[n, J]: each liked item's weight, `decay` to the power of how many events came after it."""
    out = np.zeros((len(histories), len(catalogue)), np.float32)
    for row, history in enumerate(histories):
        for rank, event in enumerate(reversed(in_order(history, text.history_limit))):
            position = catalogue.index.get(event.item or "")
            if position is not None and out[row, position] == 0 and event.positive(text.positive):
                out[row, position] = decay**rank
    return out


def seen(histories: Sequence[Sequence[Event]], catalogue: Catalogue) -> NDArray[np.bool_]:
    """[n, J]: items of the history, whatever the act; they are not recommended again."""
    out = np.zeros((len(histories), len(catalogue)), np.bool_)
    for row, history in enumerate(histories):
        for event in history:
            position = catalogue.index.get(event.item or "")
            if position is not None:
                out[row, position] = True
    return out


# --- fitting ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Past:
    """Positive events before a cut: user-item matrix [U, J] of 0 and 1, and each event's item and age in days."""

    matrix: Matrix
    item: NDArray[np.int64]
    age: NDArray[np.float64]

    @classmethod
    def before(cls, cut: int, data: Snapshots) -> Past:
        import narwhals as nw

        past = nw.from_native(data.events).filter(nw.col(TIME) < cut, positive(data.text.positive))
        events: pl.DataFrame = past.filter(nw.col(ITEM).is_in(data.catalogue.items)).to_native()
        item = np.array([data.catalogue.index[i] for i in events[ITEM].to_list()], np.int64)
        _, user = np.unique(events[USER].to_numpy(), return_inverse=True)
        matrix = np.zeros((int(user.max()) + 1 if len(user) else 1, len(data.catalogue)), np.float32)
        matrix[user, item] = 1
        return cls(matrix, item, (cut - events[TIME].to_numpy()) / _DAY)

    def popularity(self, half_life: float) -> Matrix:
        """[J]: log(1 + positive events), each halved in weight every `half_life` days."""
        weight = 0.5 ** (self.age / half_life)
        return np.log1p(np.bincount(self.item, weight, minlength=self.matrix.shape[1])).astype(np.float32)

    def count(self, days: float = np.inf) -> Matrix:
        """[J]: positive events of the last days."""
        return np.bincount(self.item[self.age <= days], minlength=self.matrix.shape[1]).astype(np.float32)


def ease(matrix: Matrix, regularisation: float) -> Matrix:
    """Item-item weights [J, J] with zero diagonal, in closed form (Steck 2019, eq. 8)."""
    gram = matrix.T.astype(np.float64) @ matrix
    gram[np.diag_indices(len(gram))] += regularisation
    precision = np.linalg.inv(gram)
    weights = precision / -np.diag(precision)
    weights[np.diag_indices(len(weights))] = 0
    return weights.astype(np.float32)


def item_knn(matrix: Matrix, neighbours: int, shrink: float) -> Matrix:
    """Item-item weights [J, J]: shrunk cosine, each item's `neighbours` strongest kept (Deshpande & Karypis 2004)."""
    together = matrix.T @ matrix
    norm = np.sqrt(np.diag(together))
    similarity = together / (np.outer(norm, norm) + shrink + 1e-9)
    similarity[np.diag_indices(len(similarity))] = 0
    if neighbours < len(similarity):
        cut = np.partition(similarity, -neighbours, axis=0)[-neighbours]
        similarity[similarity < cut] = 0
    return similarity.astype(np.float32)


def fit_ties(truth: Matrix, future: Matrix, past: Past, membership: Matrix, regularisation: float) -> Matrix:
    """[K, J]: by ridge regression how much more an item follows where a label's interest is there."""
    a, b = truth - truth.mean(0), future - future.mean(0)
    ties = np.linalg.solve(a.T @ a + regularisation * np.eye(a.shape[1]), a.T @ b)
    cold = past.count() == 0
    if cold.any():
        by_label = membership.T @ membership + np.eye(membership.shape[1])
        prototype = np.linalg.solve(by_label, membership.T @ np.where(cold, 0, ties).T)  # label -> ties of its items
        ties[:, cold] = (membership[cold] @ prototype).T
    return np.asarray(ties, np.float32)


def fit_recommender(model: Path, snapshots: Path, settings: RecommenderSettings, out: Path) -> RecommenderResult:
    """Fit the terms and λ, and put everything that answers into a bundle.

    Args:
        model: what `finetune` wrote.
        snapshots: what `prepare` wrote.
        settings: grids.
        out: the bundle directory.
    """
    from safetensors.numpy import load_file

    from tasteloop.runtime import Session
    from tasteloop.training import PREDICTIONS, TRAINING

    began = time.monotonic()
    data, training = Snapshots.read(snapshots), read_json(model / TRAINING)
    validation = data.split(VALIDATION)
    with atomic_directory(out) as directory:
        shutil.copytree(model / MODELS, directory / MODELS)
        shutil.copyfile(snapshots / ITEMS, directory / ITEMS)
        card = _card(data, training)
        session = Session.open(directory, card)
        vectors = session.item_vectors()
        histories = data.histories(validation)
        interests = load_file(model / PREDICTIONS).get("interests")
        if interests is None:
            interests = np.tile(data.truth(data.split(TRAIN)).mean(0), (len(validation), 1)).astype(np.float32)
        relevant, hidden = validation[FUTURE].to_list(), seen(histories, data.catalogue)

        def quality(scores: Matrix) -> float:
            return metrics.ndcg(metrics.top_k(np.where(hidden, -np.inf, scores), 10), relevant).value

        past = Past.before(data.meta["validation_from"], data)
        chosen = _search(past, histories, data, settings, quality)
        fitted = _fit(past, data, vectors, settings, chosen)
        weights, best = _search_weights(
            fitted._terms(fold_in(histories, data.catalogue, fitted.decay, data.text), interests),
            settings,
            quality,
        )
        log.info("λ %s, validation nDCG@10 %.4f", {k: round(v, 3) for k, v in weights.items()}, best)
        final = _fit(Past.before(data.meta["test_from"], data), data, vectors, settings, chosen | {"weights": weights})
        final.save(directory)
        card["recommender"] = {
            "weights": weights, "decay": final.decay, "chosen": {k: v for k, v in chosen.items() if k != "weights"},
            "settings": settings.model_dump(mode="json"),
        }  # fmt: skip
        card["validation"] |= {"recommend.ndcg@10": best}
        write_json(directory / CARD, card)
        session = Session.open(directory, card)
        write_json(directory / GOLDEN, {"questions": _golden(session, data, histories)})
        atomic_write(directory / README, _readme(card))
        digest = seal(directory)
    return RecommenderResult(weights, best, digest, time.monotonic() - began)


def _card(data: Snapshots, training: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "tasteloop", "labels": training["labels"], "tasks": training["tasks"], "models": training["models"],
        "text": training["text"], "review_max_tokens": training["settings"]["review_max_tokens"],
        "encoder": training["encoder"], "data": data.meta["data"], "source": data.meta["source"],
        "code": code_version(),
        "settings": {"prepare": data.meta["settings"], "training": training["settings"]},
        "snapshots": data.meta["snapshots"], "reviews": data.meta["reviews"],
        "validation": {f"{name}.average_precision": task["quality"] for name, task in training["tasks"].items()},
    }  # fmt: skip


def _search(
    past: Past, histories: list[list[Event]], data: Snapshots, settings: RecommenderSettings,
    quality: Callable[[Matrix], float],
) -> dict[str, Any]:  # fmt: skip
    """EASE's regularisation with the decay of the history, and the half-life of popularity, each by its own nDCG."""
    columns = _ease_positions(past, settings)
    best: dict[str, Any] = {}
    top = -1.0
    folded = {decay: fold_in(histories, data.catalogue, decay, data.text) for decay in settings.history_decay}
    for regularisation in settings.ease_regularisation:
        weights = ease(past.matrix[:, columns], regularisation)
        for decay, liked in folded.items():
            scores = np.zeros_like(liked)
            scores[:, columns] = liked[:, columns] @ weights
            if (value := quality(scores)) > top:
                top, best = value, {"regularisation": regularisation, "decay": decay}
    shape = (len(histories), len(data.catalogue))
    best["half_life"] = max(
        settings.half_life_days, key=lambda days: quality(np.broadcast_to(past.popularity(days), shape))
    )
    return best


def _ease_positions(past: Past, settings: RecommenderSettings) -> NDArray[np.int32]:
    count = past.count()
    return np.sort(np.argsort(-count, kind="stable")[: min(settings.ease_items, int((count > 0).sum()))]).astype(
        np.int32
    )


def _fit(
    past: Past, data: Snapshots, vectors: Matrix, settings: RecommenderSettings, chosen: dict[str, Any]
) -> Recommender:
    columns = _ease_positions(past, settings)
    train = data.split(TRAIN)
    truth = data.truth(train)
    future = np.zeros((len(train), len(data.catalogue)), np.float32)
    for row, items in enumerate(train[FUTURE].to_list()):
        future[row, items] = 1
    membership = data.catalogue.membership(data.labels)
    return Recommender(
        vectors=vectors,
        ease=ease(past.matrix[:, columns], chosen["regularisation"]),
        ease_positions=columns,
        ties=fit_ties(truth, future, past, membership, settings.interest_regularisation),
        label_mean=truth.mean(0),
        popularity=past.popularity(chosen["half_life"]),
        weights=chosen.get("weights", dict.fromkeys(TERMS, 1.0)),
        decay=chosen["decay"],
        text=data.text,
    )


def _search_weights(
    terms: dict[str, Matrix], settings: RecommenderSettings, quality: Callable[[Matrix], float]
) -> tuple[dict[str, float], float]:
    """Coordinate ascent of λ on validation nDCG@10, the collaborative weight fixed at 1."""
    weights = {name: 1.0 if name == "collaborative" else 0.0 for name in TERMS}

    def score(weights: dict[str, float]) -> float:
        return quality(sum((np.float32(w) * terms[n] for n, w in weights.items()), np.zeros_like(terms[TERMS[0]])))

    best = score(weights)
    for _, name in product(range(settings.rounds), [n for n in TERMS if n != "collaborative"]):
        for candidate in settings.weights:
            trial = weights | {name: candidate}
            if candidate != weights[name] and (value := score(trial)) > best:
                best, weights = value, trial
    return weights, best


# --- what goes with it --------------------------------------------------------------------------------------------

_SENTENCES = (
    "A delight from the first scene to the last.",
    "Two hours that feel like five, and nobody to care about.",
    "It has its moments, but not many.",
)


def _golden(session: Any, data: Snapshots, histories: list[list[Event]]) -> list[dict[str, Any]]:
    """Questions with this trainer's own answers: a server that answers otherwise is not serving this model."""
    lengths = sorted({len(h): h for h in histories}.items())
    picked = [[], *(h for _, h in lengths[:: max(1, len(lengths) // 6)][:6])]
    unknown = [
        {"kind": "click", "item": "an item that no catalogue has"},
        {"kind": "search", "text": "space opera"},
    ]
    instances: list[dict[str, Any]] = [
        *({"events": [event.json() for event in history], "k": 5} for history in picked),
        {"events": unknown, "k": 3},
    ]
    asked = {"interests": [{"events": i["events"]} for i in instances], "recommend": instances}
    if session.has_sentiment:
        asked["sentiment"] = [{"text": sentence} for sentence in _SENTENCES]
    return [
        {"model": model, "instance": instance, "answer": answer}
        for model, questions in asked.items()
        for instance, answer in zip(questions, session.answer(model, questions), strict=True)
    ]


def _readme(card: dict[str, Any]) -> str:
    measured = "\n".join(f"| {name} | {value:.4f} |" for name, value in card["validation"].items())
    return f"""# Tasteloop model card

Reads a user's behaviour as text and answers with interests ({len(card["labels"])} labels), recommendations with their
reasons, and, where it was trained on reviews, the sentiment of a text.

- Encoder: {card["encoder"]}, fine-tuned; code {card["code"]}
- Data: {card["source"]}, SHA-256 {card["data"]}
- Snapshots: {card["snapshots"]}; reviews: {card["reviews"]}
- Recommender: λ {card["recommender"]["weights"]}

Measured on the validation window, on which calibration, thresholds and λ were chosen too (the test window's numbers are
in the run's evaluation):

| measure | value |
|---|---|
{measured}

Intended use: ranking and describing content by what its own users did. Not for decisions about persons. It knows only
the catalogue and the behaviour that it was trained on, and their biases: popular items are favoured.
"""
