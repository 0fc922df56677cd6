"""A bundle from a trained model and its snapshots: the recommender is fitted, and all that answers
is put together.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasteloop import answers
from tasteloop.behaviour.events import ITEM, KIND, TEXT, USER, VALUE
from tasteloop.behaviour.items import SENTIMENT
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.snapshots import (
    FUTURE,
    SPLIT,
    TRAIN,
    VALIDATION,
    Snapshots,
    StoredHistories,
    draw_rows,
)
from tasteloop.bundle.card import BundleCard, RecommenderCard
from tasteloop.bundle.manifest import seal
from tasteloop.bundle.names import (
    BASE_MODEL,
    CARD_FILE,
    GOLDEN_FILE,
    HABITS_FILE,
    ITEMS_FILE,
    MODELS_DIRECTORY,
    README_FILE,
)
from tasteloop.files import atomic_directory, atomic_write, read_json, write_json
from tasteloop.language.fitting import fit_reader
from tasteloop.recommender.collaborative import Past
from tasteloop.recommender.fitting import FittingData, RecommenderSettings, fit_terms, mark_futures
from tasteloop.recommender.folding import HistoryTable, Matrix
from tasteloop.recommender.tuning import tune
from tasteloop.recommender.weights import ValidationRows
from tasteloop.runtime.choice import precisions
from tasteloop.version import code_version

if TYPE_CHECKING:
    from tasteloop.runtime.export import Judged
    from tasteloop.runtime.session import Session

# Most rows of each window before the validation window: all of ml-100k's (2,000), and of ml-1m no
# more than its validation window gives.
_EARLIER_ROWS = 5_000


@dataclass(frozen=True)
class RecommenderResult:
    """λ by term at a middling history, validation nDCG@10 by cross-fitting, digest of the
    bundle.
    """

    weights: dict[str, float]
    validation_ndcg: float
    digest: str
    seconds: float


def fit_recommender(
    model: Path, snapshots: Path, settings: RecommenderSettings, out: Path
) -> RecommenderResult:
    """Fit the terms and λ, and put everything that answers into a bundle.

    Args:
        model: what `finetune` wrote.
        snapshots: what `prepare` wrote.
        settings: grids.
        out: the bundle directory.

    Raises:
        TasteloopError: no such model, or no snapshots.

    With the directories of a fine-tuned model and of its snapshots in `model` and `snapshots`:

    >>> from tasteloop.bundle.manifest import verify
    >>> result = fit_recommender(model, snapshots, RecommenderSettings(), Path("bundle"))
    >>> result.digest == verify(Path("bundle"))
    True
    >>> fit_recommender(Path("none"), Path("none"), RecommenderSettings(), Path("bundle"))
    Traceback (most recent call last):
        ...
    tasteloop.errors.TasteloopError: no file none/training.json; run the step that writes it
    """
    from safetensors.numpy import load_file

    from tasteloop.encoder.training import PREDICTIONS, TRAINING
    from tasteloop.runtime.export import compile_bundle
    from tasteloop.runtime.session import Session

    began = time.monotonic()
    training = read_json(model / TRAINING)
    data = Snapshots.read(snapshots)
    # no labels where no head for interests was trained; the histories' texts are not read here
    data = replace(data, labels=training["labels"], table=data.table.drop(TEXT))
    validation = data.split(VALIDATION)
    with atomic_directory(out) as directory:
        # 1. what answers without a recommender: encoders, items, habits
        shutil.copytree(model / MODELS_DIRECTORY, directory / MODELS_DIRECTORY)
        shutil.copyfile(snapshots / ITEMS_FILE, directory / ITEMS_FILE)
        if (model / HABITS_FILE).exists():
            shutil.copyfile(model / HABITS_FILE, directory / HABITS_FILE)

        # 2. the runtime, measured on the validation window
        card = _card(data, training)
        predictions = load_file(model / PREDICTIONS)
        runtime = compile_bundle(directory, card, _judged(data, predictions))
        card = card.model_copy(update={"runtime": runtime})

        # 3. the terms and λ: tuned on the validation window, fitted again on all before the test
        session = Session.open(directory, card)
        vectors = session.item_vectors()
        meaning = _listen(directory, session, data.labels, training["settings"])
        interests = predictions.get(answers.INTERESTS, np.zeros((len(validation), 0), np.float32))
        drawn = draw_rows(len(validation), settings.weight_rows)
        validation, interests = validation[drawn], interests[drawn]
        data = _with_stance(data, session)
        histories = data.histories(validation)
        train = data.split(TRAIN).select(FUTURE)
        truth = data.truth(train)
        rows = ValidationRows(
            HistoryTable.of(histories, data.catalogue, data.text),
            interests,
            validation[FUTURE].to_list(),
            validation[USER].to_numpy(),
            session.wishes(histories),
        )
        fitting_data = FittingData(
            vectors,
            data.catalogue,
            data.labels,
            truth,
            mark_futures(train[FUTURE], len(data.catalogue)),
            data.text,
            meaning,
        )
        tuned = tune(
            Past.before(data.meta["validation_from"], data),
            fitting_data,
            rows,
            settings,
            _earlier_windows(data, session, truth),
        )
        final = fit_terms(Past.before(data.meta["test_from"], data), fitting_data, settings, tuned)
        final.save(directory)

        # 4. what the bundle says of itself
        recommender = RecommenderCard(
            weights=final.weights,
            new_weights=tuned.new_weights,
            decay=tuned.decay,
            als=final.als,
            regularisation=tuned.regularisation,
            half_life=tuned.half_life,
            shrinkage=tuned.shrinkage,
            settings=settings.model_dump(mode="json"),
        )
        validation_metrics = {**card.validation, "recommend.ndcg@10": tuned.ndcg}
        card = card.model_copy(
            update={"validation": validation_metrics, "recommender": recommender}
        )
        write_json(directory / CARD_FILE, card.json_value())
        write_json(directory / GOLDEN_FILE, _golden(directory, card, data, histories))
        atomic_write(directory / README_FILE, _readme(card))
        digest = seal(directory)
    middling = {name: a for name, (a, _) in tuned.weights.items()}
    return RecommenderResult(middling, tuned.ndcg, digest, time.monotonic() - began)


def _earlier_windows(
    data: Snapshots, session: Session, truth: Matrix
) -> Iterator[tuple[Past, ValidationRows]]:
    """The windows of `Snapshots.earlier_windows` for λ, of each so many rows at most.

    The encoder was trained on these rows, so what it says of their interests proves nothing: they
    have everybody's interests, by which that term is 0.

    Args:
        truth: [n, K] interests of the training rows.
    """
    for begins, window in data.earlier_windows():
        rows = window[draw_rows(len(window), _EARLIER_ROWS)]
        histories = data.histories(rows)
        asked = ValidationRows(
            HistoryTable.of(histories, data.catalogue, data.text),
            np.tile(truth.mean(0), (len(rows), 1)),
            rows[FUTURE].to_list(),
            rows[USER].to_numpy(),
            session.wishes(histories),
        )
        yield Past.before(begins, data), asked


def _listen(
    directory: Path, session: Session, labels: Sequence[str], settings: Mapping[str, Any]
) -> Matrix:
    """Fit and save what reads wishes, where the model learned to tell them from refusals.

    Args:
        settings: of the training.

    Returns:
        [J, m] what the items' texts mean; no column where nothing was learned.
    """
    if answers.INTENT not in session.card.tasks:
        return np.zeros((len(session.catalogue), 0), np.float32)
    meaning = session.meaning(session.item_texts())
    words = session.encoders[BASE_MODEL].words
    reader = fit_reader(
        session.catalogue,
        labels,
        meaning,
        session.meaning,
        session.intents,
        words,
        settings["intent_texts"],
        settings["seed"],
    )
    reader.save(directory)
    session.listen(directory)
    return meaning


def _with_stance(data: Snapshots, session: Session) -> Snapshots:
    """Snapshots whose events about an item, where words stand in place of a value, have the value
    of their words (`Session.understood`).
    """
    import polars as pl

    kinds = [kind.word for kind in KINDS.values() if kind.value_matters]
    events = data.events
    unvalued = (
        events[VALUE].is_null()
        & events[TEXT].is_not_null()
        & events[ITEM].is_not_null()
        & events[KIND].is_in(kinds)
    )
    texts = events.filter(unvalued)[TEXT].unique().sort().to_list()
    if not texts or not session.has_sentiment:
        return data
    values = pl.col(TEXT).replace_strict(
        session.stance(texts), default=None, return_dtype=pl.Float32
    )
    return data.with_events(
        events.with_columns(pl.when(unvalued).then(values).otherwise(pl.col(VALUE)).alias(VALUE))
    )


def _judged(data: Snapshots, predictions: dict[str, Matrix]) -> dict[str, Judged]:
    """The validation window of each task, on which a runtime is judged."""
    from tasteloop.runtime.export import Judged

    validation = data.split(VALIDATION)
    judged = {}
    if answers.INTERESTS in predictions:
        judged[answers.INTERESTS] = Judged(
            data.histories(validation), data.truth(validation), predictions["interests"]
        )
    if answers.SENTIMENT in predictions:
        reviews = data.reviews()
        assert reviews is not None, "sentiment was learned from them"
        reviews = reviews.filter(reviews[SPLIT] == VALIDATION)
        truth = reviews[SENTIMENT].to_numpy().astype(np.float32)[:, None]
        judged[answers.SENTIMENT] = Judged(reviews[TEXT].to_list(), truth, predictions["sentiment"])
    return judged


def _interests(card: BundleCard) -> str:
    """How many interests there are, and whose names they have."""
    if card.interests == "discovered":
        return f"{len(card.labels)}, discovered: {', '.join(card.labels)}"
    inferred = ", of some items inferred" if card.interests == "completed" else ""
    return f"{len(card.labels)} labels{inferred}"


def _card(data: Snapshots, training: dict[str, Any]) -> BundleCard:
    card = {
        "name": "tasteloop",
        "labels": training["labels"],
        "interests": data.origin_of_interests,
        "tasks": training["tasks"],
        "models": training["models"],
        "answers": answers.tasks_of_model(training["tasks"]),
        "text": training["text"],
        "review_max_tokens": training["settings"]["review_max_tokens"],
        "encoder": training["encoder"],
        "data": data.meta["data"],
        "source": data.meta["source"],
        "code": code_version(),
        "settings": {"prepare": data.meta["settings"], "training": training["settings"]},
        "snapshots": data.meta["snapshots"],
        "reviews": data.meta["reviews"],
        "validation": {
            f"{name}.average_precision": task["quality"] for name, task in training["tasks"].items()
        },
    }
    return BundleCard.parse(card)


# --- what goes with it

_SENTENCES = (
    "A delight from the first scene to the last.",
    "Two hours that feel like five, and nobody to care about.",
    "It has its moments, but not many.",
)


def _golden(
    directory: Path, card: BundleCard, data: Snapshots, histories: StoredHistories
) -> dict[str, Any]:
    """Questions with this trainer's own answers: a server that answers otherwise is not serving
    this model.

    A server on another processor may choose another runtime, and another precision answers
    otherwise; so `others` has the answers to the same questions by each other precision that is
    good enough.
    """
    from tasteloop.runtime.session import Session

    assert card.runtime is not None, "measured before"
    (precision, runtime), *others = precisions(card.runtime).items()
    session = Session.open(directory, card, runtime)

    # 1. a user without history, some with histories of different lengths, and unknown items
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

    # 2. what each model is asked of them
    questions_of = {model: _golden_instances(model, instances) for model in session.models}

    def record_answers(session: Session) -> list[answers.Answer]:
        """The answers to all questions, in their order."""
        recorded = []
        for model, questions in questions_of.items():
            recorded += session.answer(model, questions)
        return recorded

    # 3. each question with its answer, and the answers by the other precisions
    recorded = iter(record_answers(session))
    golden = [
        {"model": model, "instance": instance, "answer": next(recorded)}
        for model, questions in questions_of.items()
        for instance in questions
    ]
    by_others = {}
    for other, name in others:
        by_others[other] = record_answers(Session.open(directory, card, name))
    return {"questions": golden, "precision": precision, "others": by_others}


def _golden_instances(model: str, histories: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """What a model's golden questions ask: the histories, each with its `k` where the model has a
    default for it; or sentences.
    """
    served = answers.SERVED_MODELS[model]
    if served.input.is_text:
        return [{"text": sentence} for sentence in _SENTENCES]
    if served.default_k is None:
        return [{"events": instance["events"]} for instance in histories]
    return histories


def _readme(card: BundleCard) -> str:
    runtime, recommender = card.runtime, card.require_recommender()
    assert runtime is not None, "measured before"
    measured = "\n".join(f"| {name} | {value:.4f} |" for name, value in card.validation.items())
    runtimes = "\n".join(
        f"| {name} | {', '.join(f'{s} {v:.0f}' for s, v in c.texts_per_second.items())} | {c.difference:.1g} "
        f"| {'yes' if c.good else 'no'} |"
        for name, c in runtime.candidates.items()
    )
    missing = [
        answers.why_absent(task) for task in answers.SERVED_MODELS if task not in card.answers
    ]
    absent = "".join(f" {reason.capitalize()}." for reason in missing)
    tasks = [task for task in card.tasks if task in answers.SERVED_MODELS]
    tuned = f"fine-tuned for {' and '.join(tasks)}" if tasks else "as it came"
    return f"""# Tasteloop model card

Answers `{"`, `".join(card.answers)}`.{absent}

- Encoder: {card.encoder}, {tuned}; code {card.code}
- Interests: {_interests(card)}
- Data: {card.source}, SHA-256 {card.data}
- Snapshots: {card.snapshots}; reviews: {card.reviews}
- Recommender: λ = a + b · (log(1 + events) - 3.5), (a, b): {recommender.weights}

Measured on the validation window, on which calibration, thresholds and λ were chosen too (the test window's numbers are
in the run's evaluation):

| measure | value |
|---|---|
{measured}

Runtime: {runtime.chosen} on {runtime.processor}, {runtime.threads} threads; texts/s by
batch x tokens, and the largest difference of a probability from the trainer's, of all that were measured:

| runtime | texts/s | difference | good enough |
|---|---|---|---|
{runtimes}

Intended use: ranking and describing content by what its own users did. Not for decisions about persons. It knows only
the catalogue and the behaviour that it was trained on, and their biases: popular items are favoured.
"""
