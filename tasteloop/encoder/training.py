"""Fine-tuning: the tasks that the data teach, each model trained, calibrated and written.

One encoder learns all tasks, or each its own (`TrainingSettings.together`). The loop itself is
`tasteloop.encoder.loop`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasteloop.answers import INTENT, INTERESTS, SERVED_MODELS
from tasteloop.behaviour.events import TEXT
from tasteloop.behaviour.items import SENTIMENT, SOURCE
from tasteloop.behaviour.snapshots import FUTURE, SPLIT, TRAIN, VALIDATION, Snapshots
from tasteloop.behaviour.text import behaviour_text
from tasteloop.bundle.names import BASE_MODEL, MODELS_DIRECTORY
from tasteloop.datasets import statements
from tasteloop.encoder import bag_of_words
from tasteloop.encoder.batches import TaskData, TokenIds, load_tokenizer, tokenize_blocks
from tasteloop.encoder.calibration import apply_calibration, calibrate
from tasteloop.encoder.checkpoint import Checkpoint
from tasteloop.encoder.habits import Habits
from tasteloop.encoder.loop import Trained, train
from tasteloop.encoder.settings import TrainingSettings
from tasteloop.encoder.workers import Workers
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_directory, write_json
from tasteloop.language.intents import intent_texts
from tasteloop.language.made_up import Chosen, MadeUpSpeech
from tasteloop.version import code_version

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_REVIEWS = 200  # that say which language they are in
TRAINING, PREDICTIONS = "training.json", "validation.safetensors"


@dataclass(frozen=True)
class TrainingResult:
    """What came of it: validation quality by task, texts a second, seconds; zeros where nothing was
    trained.
    """

    validation: dict[str, float]
    texts_per_second: float
    seconds: float
    epochs: int
    precision: str


def finetune(
    snapshots: Path, settings: TrainingSettings, out: Path, work: Path, store: str | None = None
) -> TrainingResult:
    """Fine-tune, calibrate, choose thresholds; under torchrun all processes together, of which the
    first writes.

    The heads are those of `settings.tasks` that the data can teach, and `intent`, which phrases
    teach. Beside the fine-tuned encoder the published one is kept. Data with neither labels nor
    reviews teaches none of the tasks: then that one reads the items' texts.

    Args:
        snapshots: what `prepare` wrote.
        settings: tasks, encoder, optimiser.
        out: directory: models/<name>/, training.json, validation.safetensors (validation
            probabilities).
        work: directory for checkpoints and TensorBoard logs; a killed run carries on from it.
        store: URL of an object store, where checkpoints go too and from which alone a killed run
            carries on then; what is in it at the end is the caller's to discard.

    Raises:
        TasteloopError: no such encoder, or the data teaches other tasks than `settings.tasks`.

    With the directories of an encoder and of snapshots in `encoder` and `snapshots`:

    >>> settings = TrainingSettings(
    ...     encoder=str(encoder), epochs=1, frozen_layers=0, intent_texts=300, tensorboard=False
    ... )
    >>> result = finetune(snapshots, settings, Path("model"), Path("work"))
    >>> result.epochs, sorted(result.validation)
    (1, ['intent', 'interests', 'sentiment'])
    >>> finetune(Path("none"), settings, Path("model"), Path("work"))
    Traceback (most recent call last):
        ...
    tasteloop.errors.TasteloopError: no file none/snapshots.json; run the step that writes it
    """
    import torch

    from tasteloop.datasets.fetch import resolve_encoder
    from tasteloop.encoder.model import TasteModel, load_encoder, save

    # 1. the encoder, and the tasks that the data teach
    began = time.monotonic()
    world = Workers.join()
    data = Snapshots.read(snapshots)
    source = Path(resolve_encoder(settings.encoder))
    tokenizer = load_tokenizer(source)
    learnable = [task for task in data.tasks if SERVED_MODELS[task].has_head]
    tasks = [task for task in _tasks(data, tokenizer, settings) if task.name in settings.tasks]
    if learnable and not tasks:
        raise TasteloopError(
            f"nothing to train: training.tasks is {list(settings.tasks)} and the data set teaches {learnable}"
        )

    # 2. what training.json will say
    intent = [_intent(data, tokenizer, settings)] if settings.intent_texts else []
    groups = _groups(tasks, intent, settings.together)
    labels = data.labels if any(task.name == INTERESTS for task in tasks) else []
    report: dict[str, Any] = {
        "encoder": settings.encoder,
        "labels": labels,
        "text": data.text.model_dump(),
        "tasks": {},
        "models": {},
        "settings": settings.model_dump(mode="json"),
        "code": code_version(),
        "data": data.meta["data"],
    }
    arrays: dict[str, Any] = {}
    trained: list[Trained] = []

    # 3. each model, trained, calibrated and written
    written: AbstractContextManager[Path | None] = (
        atomic_directory(out) if world.rank == 0 else nullcontext()
    )
    with written as directory:
        for group in groups:
            name = "+".join(task.name for task in group) or BASE_MODEL
            torch.manual_seed(settings.seed)
            model = TasteModel(
                load_encoder(
                    source if group else _published(source),
                    settings.encoder_layers,
                    settings.encoder_dropout,
                ),
                {task.name: task.targets.shape[1] for task in group},
                settings.frozen_layers,
                settings.dropout,
            )
            if group:
                result = train(
                    model, group, settings, work / name, world, store and f"{store}/{name}"
                )
                trained.append(result)
            if directory is None:
                continue
            folder = directory / MODELS_DIRECTORY / name
            folder.mkdir(parents=True)
            save(model, folder)
            tokenizer.save(str(folder / "tokenizer.json"))
            report["models"][name] = {"tasks": [t.name for t in group]}
            if group:
                report["models"][name] |= {"history": result.history, "precision": result.precision}
            for task in group:
                description, probabilities = _calibrate_task(
                    task, result, data, settings, directory, name
                )
                report["tasks"][task.name] = description
                arrays[task.name] = probabilities
        seconds = time.monotonic() - began
        speed = sum(r.texts for r in trained) / max(sum(r.seconds for r in trained), 1e-9)
        if directory is not None:
            _save_arrays(directory / PREDICTIONS, arrays)
            report |= {"seconds": seconds, "texts_per_second": speed}
            write_json(directory / TRAINING, report)

    # 4. the result
    for name in report["models"]:
        Checkpoint.discard(work / name)
    if not tasks:
        log.info(
            "%s is kept as it is: the data has neither labels nor reviews to fine-tune it on",
            settings.encoder,
        )
    if not trained:
        return TrainingResult({}, 0.0, seconds, 0, "fp32")
    quality = {name: value for result in trained for name, value in result.quality.items()}
    log.info(
        "fine-tuned %s in %.0f s, %.0f texts/s (%s); validation average precision %s",
        settings.encoder,
        seconds,
        speed,
        trained[0].precision,
        ", ".join(f"{k} {v:.4f}" for k, v in quality.items()),
    )
    return TrainingResult(
        quality, speed, seconds, max(len(r.history) for r in trained), trained[0].precision
    )


def _groups(tasks: list[TaskData], intent: list[TaskData], together: bool) -> list[list[TaskData]]:
    """The tasks of each model, the one that reads behaviour and items first.

    The encoder as it was published is kept beside: it knows what words mean, whatever the tasks
    made of its copy. Without a task of the data it is also the one that reads items.
    """
    if not tasks:
        return [[], intent] if intent else [[]]
    if together:
        return [[*tasks, *intent], []] if intent else [tasks]
    return [[task] for task in (*tasks, *intent)] + ([[]] if intent else [])


def _published(source: Path) -> Path:
    """The encoder as it was published: beside a bundle's fine-tuned one, which a retraining starts
    from, lies the copy that was kept of it.
    """
    kept = source.parent / BASE_MODEL
    return kept if source.parent.name == MODELS_DIRECTORY and kept.is_dir() else source


def _intent(data: Snapshots, tokenizer: Any, settings: TrainingSettings) -> TaskData:
    """What a clause does, learned from phrases."""
    import numpy as np

    found = intent_texts(data.catalogue, data.labels, settings.intent_texts, settings.seed)
    return TaskData(
        INTENT,
        TokenIds(tokenize_blocks(tokenizer, found.texts, data.text.max_tokens)),
        found.does,
        np.flatnonzero(~found.is_validation),
        np.flatnonzero(found.is_validation),
    )


def _calibrate_task(
    task: TaskData,
    result: Trained,
    data: Snapshots,
    settings: TrainingSettings,
    directory: Path,
    model: str,
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Calibrate a task of a trained model on the validation window.

    What answers beside the encoder, a bag of words or habits, is fitted and saved.

    Returns:
        What the card says of the task (`TaskCard`), and its validation probabilities [n, outputs].
    """
    logits, own, trust, sources = result.logits[task.name], None, None, None
    extra: dict[str, Any] = {}
    if task.name == SENTIMENT:
        reviews = data.reviews()
        assert reviews is not None
        sources = _sources(reviews.filter(reviews[SPLIT] == VALIDATION))
        if settings.bag_of_words:
            folder = directory / MODELS_DIRECTORY / model
            logits, trust, extra = _add_bag_of_words(logits, reviews, settings, folder)
    if task.name == INTERESTS and settings.habits:
        habits = Habits.fit(data)
        habits.save(directory)
        validation = data.histories(data.split(VALIDATION))
        own = habits.logits(validation, data.catalogue, data.labels, data.text)
    truth = task.targets[task.validation]
    precision = getattr(settings.confident_precision, task.name, 1.0)
    calibration = calibrate(logits, truth, own, precision, trust, sources)
    description = {
        "model": model,
        **calibration.model_dump(exclude_unset=True),
        "quality": result.quality[task.name],
        **extra,
    }
    return description, apply_calibration(logits, calibration, own, trust)


def _add_bag_of_words(
    logits: NDArray[np.float32], reviews: pl.DataFrame, settings: TrainingSettings, folder: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, dict[str, Any]]:
    """The validation reviews' log-odds [n, 1] with a bag of words' in them, and what they are
    multiplied by for the words that training had [n], None where all count fully.

    Also what the card says of the bag, which is saved beside the encoder where either is used. See
    `tasteloop.encoder.bag_of_words`.
    """
    bag = bag_of_words.of_reviews(reviews)
    if bag is None:
        return logits, None, {}
    validation = reviews.filter(reviews[SPLIT] == VALIDATION)
    texts = validation[TEXT].to_list()
    theirs, trust = bag.logits(texts), None
    extra: dict[str, Any] = {}
    share = bag_of_words.share(logits[:, 0], theirs, validation[SENTIMENT].to_numpy())
    if share:
        extra["bag_of_words"] = share
    if settings.familiar is not None:
        extra["familiar"] = settings.familiar
        trust = bag_of_words.trust(bag.familiarity(texts), *settings.familiar)
    if extra:
        bag.save(folder)
    log.info("sentiment: encoder + %.2f x bag of words", share)
    return logits + share * theirs[:, None], trust, extra


def _sources(reviews: pl.DataFrame) -> NDArray[Any] | None:
    """The source of each review [n]; None where it is not known."""
    if SOURCE not in reviews.columns or reviews[SOURCE].null_count():
        return None
    return reviews[SOURCE].to_numpy()


def _tasks(data: Snapshots, tokenizer: Any, settings: TrainingSettings) -> Iterator[TaskData]:
    import numpy as np

    if INTERESTS in data.tasks:
        rows = data.table.filter(data.table[SPLIT].is_in([TRAIN, VALIDATION]))
        split, truth = rows[SPLIT].to_numpy(), data.truth(rows)
        texts = _spoken(data, rows, truth, settings) if settings.speech_share else rows[TEXT]
        yield TaskData(
            INTERESTS,
            TokenIds(tokenize_blocks(tokenizer, texts, data.text.max_tokens)),
            truth,
            np.flatnonzero(split == TRAIN),
            np.flatnonzero(split == VALIDATION),
        )
    reviews = data.reviews()
    if reviews is not None:
        # a text without an opinion is as likely to be one as the other
        language = statements.language_of(reviews[TEXT].head(_REVIEWS).to_list())
        neither = statements.no_opinions(
            settings.no_opinions, data.catalogue.titles, settings.seed, language
        )
        no_opinions = list(neither) if settings.no_opinions else []
        parts, targets = [], []
        for part in (TRAIN, VALIDATION):
            of_split = reviews.filter(reviews[SPLIT] == part)
            parts.append(of_split[TEXT].to_list())
            targets.append(of_split[SENTIMENT].to_numpy().astype(np.float32))
        train, validation = parts[0] + no_opinions, parts[1]
        targets.insert(1, np.full(len(no_opinions), 0.5, np.float32))
        most = settings.review_max_tokens
        yield TaskData(
            SENTIMENT,
            TokenIds(
                chain(
                    tokenize_blocks(
                        tokenizer, train, min(most, settings.review_training_tokens or most)
                    ),
                    tokenize_blocks(tokenizer, validation, most),
                )
            ),
            np.concatenate(targets)[:, None],
            np.arange(len(train)),
            np.arange(len(train), len(train) + len(validation)),
        )


def _spoken(
    data: Snapshots, rows: pl.DataFrame, truth: NDArray[np.float32], settings: TrainingSettings
) -> list[str]:
    """The behaviour texts of rows; in a share of those that train, the user says something that
    fits what they went on to choose.
    """
    import numpy as np

    reviews = data.reviews()
    praise, blame = [], []
    if reviews is not None:
        known = reviews.filter(reviews[SPLIT] == TRAIN)
        praise, blame = (known.filter(known[SENTIMENT] == s)[TEXT].to_list() for s in (1, 0))
    speech = MadeUpSpeech(data.catalogue, data.labels, praise, blame, settings.seed, data.text)
    texts = rows[TEXT].to_list()
    train = np.flatnonzero((rows[SPLIT] == TRAIN).to_numpy())
    count = round(settings.speech_share * len(train))
    chosen = np.sort(np.random.default_rng(settings.seed).choice(train, count, replace=False))
    future, labels = rows[FUTURE], np.array(data.labels)
    for row, history in zip(chosen.tolist(), data.histories(rows[chosen]), strict=True):
        liked = Chosen(future[row].to_list(), labels[truth[row] > 0].tolist())
        texts[row] = behaviour_text(speech.spoken(history, liked), data.catalogue, data.text)
    return texts


def _save_arrays(path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    from safetensors.numpy import save_file

    save_file({name: values.copy() for name, values in arrays.items()}, path)
