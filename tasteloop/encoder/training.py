"""The fine-tuning loop: plain PyTorch, one or many tasks on one encoder, resumable to the step.

What makes it fast where it is fast: no padding beyond a batch (length buckets), frozen lower layers
computed once per text and kept in half precision, bf16 where the processor has it natively, a fused
optimiser, and no gradients for the 11.7 M numbers of the vocabulary.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from tasteloop.answers import INTERESTS, SERVED_MODELS
from tasteloop.behaviour.events import TEXT
from tasteloop.behaviour.items import SENTIMENT
from tasteloop.behaviour.snapshots import SPLIT, TRAIN, VALIDATION, Snapshots
from tasteloop.bundle.names import MODELS_DIRECTORY
from tasteloop.encoder import bag_of_words
from tasteloop.encoder.batches import Inputs, TaskData, length_buckets, load_tokenizer, tokenize
from tasteloop.encoder.calibration import apply_calibration, average_precision, calibrate
from tasteloop.encoder.checkpoint import Checkpoint
from tasteloop.encoder.habits import Habits
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_directory, write_json
from tasteloop.version import code_version

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from tasteloop.encoder.model import TasteModel

log = logging.getLogger(__name__)

BASE = "encoder"  # the model of a bundle without heads
TRAINING, PREDICTIONS = "training.json", "validation.safetensors"
_PROGRESS_SECONDS = 5.0


class ConfidentPrecision(BaseModel, frozen=True, extra="forbid"):
    """Share of statements called confident that shall be right, by task."""

    interests: float = Field(0.8, gt=0, le=1)
    sentiment: float = Field(0.9, gt=0, le=1)


class TrainingSettings(BaseModel, frozen=True, extra="forbid"):
    """How the encoder is fine-tuned."""

    encoder: str = Field(
        "minilm", description="Catalogue name, local directory or hub id of a BERT-family encoder."
    )
    encoder_layers: int | None = Field(
        None, ge=1, description="Use only so many of its lowest layers; null: all."
    )
    tasks: tuple[Literal["interests", "sentiment"], ...] = ("interests", "sentiment")
    together: bool = Field(True, description="One encoder for all tasks; false: one encoder each.")
    epochs: int = Field(3, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-4, gt=0, description="Peak rate of the encoder.")
    head_learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_share: float = Field(
        0.1, ge=0, lt=1, description="Share of steps in which the rate rises."
    )
    clip_norm: float = Field(1.0, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1, description="On the pooled vector.")
    encoder_dropout: float = Field(0.0, ge=0, lt=1, description="Within the encoder's layers.")
    frozen_layers: int = Field(
        3, ge=-1, description="Lowest layers not trained; 0: embeddings only; -1: none."
    )
    cache_megabytes: int = Field(
        1024, ge=0, description="Room for the frozen layers' outputs; 0: recompute them."
    )
    averaging: float = Field(
        0.99, ge=0, lt=1, description="Decay of the running mean of weights; 0: the last ones."
    )
    class_weights: bool = Field(
        False, description="Weigh each label's positives by its odds, at most 10."
    )
    patience: int = Field(
        1, ge=1, description="Epochs without a better validation window before stopping."
    )
    bag_of_words: bool = Field(
        True,
        description="Mix a bag of words into sentiment, as much as the validation reviews say.",
    )
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    review_max_tokens: int = Field(128, ge=8, le=512)
    snapshots_an_epoch: int | None = Field(
        None, ge=1, description="So many of them, others each epoch; null: all."
    )
    checkpoint_seconds: float = Field(60, ge=0)
    habits: bool = Field(
        True, description="Add what counts say of interests to what the encoder reads."
    )
    confident_precision: ConfidentPrecision = ConfidentPrecision()
    tensorboard: bool = True
    seed: int = 0


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

    The heads are those of `settings.tasks` that the data can teach. Data with neither labels nor
    reviews teaches none: then the encoder stays as it is, to read the items' texts.

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
    """
    import torch

    from tasteloop.datasets.fetch import resolve_encoder
    from tasteloop.encoder.model import TasteModel, load_encoder, save

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
    groups = [tasks] if settings.together or not tasks else [[task] for task in tasks]
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
    written: AbstractContextManager[Path | None] = (
        atomic_directory(out) if world.rank == 0 else nullcontext()
    )
    with written as directory:
        for group in groups:
            name = "+".join(task.name for task in group) or BASE
            torch.manual_seed(settings.seed)
            model = TasteModel(
                load_encoder(source, settings.encoder_layers, settings.encoder_dropout),
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
                logits, share, own = result.logits[task.name], 0.0, None
                if task.name == SENTIMENT and settings.bag_of_words:
                    logits, share = _mixed(logits, data, folder)
                if task.name == INTERESTS and settings.habits:
                    habits = Habits.fit(data)
                    habits.save(directory)
                    validation = data.histories(data.split(VALIDATION))
                    own = habits.logits(validation, data.catalogue, data.labels, data.text)
                calibration = calibrate(
                    logits,
                    task.targets[task.validation],
                    own,
                    getattr(settings.confident_precision, task.name),
                )
                report["tasks"][task.name] = {
                    "model": name,
                    **calibration.model_dump(exclude_unset=True),
                    "quality": result.quality[task.name],
                    **({"bag_of_words": share} if share else {}),
                }
                arrays[task.name] = apply_calibration(logits, calibration, own)
        seconds = time.monotonic() - began
        speed = sum(r.texts for r in trained) / max(sum(r.seconds for r in trained), 1e-9)
        if directory is not None:
            _save_arrays(directory / PREDICTIONS, arrays)
            report |= {"seconds": seconds, "texts_per_second": speed}
            write_json(directory / TRAINING, report)
    for name in report["models"]:
        Checkpoint.discard(work / name)
    if not trained:
        log.info(
            "%s is kept as it is: the data has neither labels nor reviews to fine-tune it on",
            settings.encoder,
        )
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


def _mixed(
    logits: NDArray[np.float32], data: Snapshots, folder: Path
) -> tuple[NDArray[np.float32], float]:
    """The validation reviews' log-odds [n, 1] with a bag of words' in them, which is saved beside
    the encoder.

    Also its share, 0 where it does not help and is not saved. See
    `tasteloop.encoder.bag_of_words.share`.
    """
    reviews = data.reviews()
    assert reviews is not None
    bag = bag_of_words.of_reviews(reviews)
    if bag is None:
        return logits, 0.0
    validation = reviews.filter(reviews[SPLIT] == VALIDATION)
    theirs = bag.logits(validation[TEXT].to_list())
    share = bag_of_words.share(logits[:, 0], theirs, validation[SENTIMENT].to_numpy())
    if share:
        bag.save(folder)
    log.info("sentiment: encoder + %.2f x bag of words", share)
    return logits + share * theirs[:, None], share


def _tasks(data: Snapshots, tokenizer: Any, settings: TrainingSettings) -> Iterator[TaskData]:
    import numpy as np

    if INTERESTS in data.tasks:
        rows = data.table.filter(data.table[SPLIT].is_in([TRAIN, VALIDATION]))
        split = rows[SPLIT].to_numpy()
        yield TaskData(
            INTERESTS,
            tokenize(tokenizer, rows[TEXT].to_list(), data.text.max_tokens),
            data.truth(rows),
            np.flatnonzero(split == TRAIN),
            np.flatnonzero(split == VALIDATION),
        )
    reviews = data.reviews()
    if reviews is not None:
        reviews = reviews.filter(reviews[SPLIT].is_in([TRAIN, VALIDATION]))
        split = reviews[SPLIT].to_numpy()
        yield TaskData(
            SENTIMENT,
            tokenize(tokenizer, reviews[TEXT].to_list(), settings.review_max_tokens),
            reviews[SENTIMENT].to_numpy().astype(np.float32)[:, None],
            np.flatnonzero(split == TRAIN),
            np.flatnonzero(split == VALIDATION),
        )


# --- the loop


@dataclass(frozen=True)
class Workers:
    """The processes that train together (torchrun); one where there are no others."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @classmethod
    def join(cls) -> Workers:
        """Join torchrun's process group where its variables are set; CUDA where there is a GPU."""
        import torch
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        size, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
        if device != "cpu":
            torch.cuda.set_device(local)  # what NCCL gathers goes through it
        if size > 1 and not distributed.is_initialized():
            store, rank, _ = next(rendezvous("env://"))
            # torchrun's store outlives a restart, with the addresses of those that are gone in it:
            # pytorch#135712
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = distributed.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
            distributed.init_process_group(
                "nccl" if device != "cpu" else "gloo", store=store, rank=rank, world_size=size
            )
        return cls(int(os.environ.get("RANK", 0)), size, device)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place; the values themselves where there is one."""
        import torch

        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def agree(self, place: tuple[str, int, int]) -> None:
        """Raises TasteloopError where not all carry on from the same place: each would wait for the
        others for ever.
        """
        import torch

        if self.size == 1:
            return
        places: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(places, place)
        if len(set(places)) > 1:
            found = ", ".join(
                f"{rank}: epoch {p[1] + 1}, step {p[2]}" for rank, p in enumerate(places)
            )
            raise TasteloopError(
                f"the workers found different checkpoints or data ({found}); their checkpoints must be where all of "
                "them look: a volume that every node mounts (ReadWriteMany), or an object store (cluster.checkpoints)"
            )


@dataclass(frozen=True)
class Trained:
    """A model's best epoch: validation logits and quality by task, and what each epoch measured."""

    logits: dict[str, NDArray[np.float32]]
    quality: dict[str, float]
    history: list[dict[str, float]]
    texts: int
    seconds: float
    precision: str


def train(
    model: TasteModel,
    tasks: list[TaskData],
    settings: TrainingSettings,
    work: Path,
    workers: Workers | None = None,
    store: str | None = None,
) -> Trained:
    """Train a model in place and leave it with the weights of its best validation epoch.

    Each epoch is one seeded shuffle of all tasks' length-bucketed batches. Quality is
    micro-averaged average precision, the mean over tasks decides the best epoch. Workers share out
    the rows of each batch, which stays as large as `batch_size` says, and of the validation window;
    so a run may be carried on by more or fewer of them. What they learn is what one would learn,
    but for rounding and for dropout, whose masks each draws for itself.
    """
    import torch

    workers = workers or Workers()
    began = time.monotonic()
    device = torch.device(workers.device)
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and native_bf16(device))
    model.to(device)
    _start_at_base_rates(model, tasks)
    inputs = Inputs(model, tasks, settings.cache_megabytes, device, bf16)
    optimizer, trained = _optimizer(model, settings)
    forward = _distributed(model, workers)
    weights = {task.name: _class_weights(task, settings).to(device) for task in tasks}
    steps_an_epoch = len(_plan(tasks, settings, 0))
    schedule = _schedule(settings.epochs * steps_an_epoch, settings.warmup_share)
    state = Checkpoint.resume(work, model, optimizer, fingerprint(settings, tasks), store)
    workers.agree((state.fingerprint, state.epoch, state.step))
    writer = _tensorboard(work) if settings.tensorboard and workers.rank == 0 else None
    progress = _Progress("+".join(task.name for task in tasks), settings.epochs, steps_an_epoch)
    texts = 0
    while state.epoch < settings.epochs and state.stale < settings.patience:
        model.train()
        for step, (t, rows) in enumerate(_plan(tasks, settings, state.epoch)):
            if step < state.step:
                continue
            task = tasks[t]
            position = state.epoch * steps_an_epoch + step
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule(position)
            mine = rows[workers.rank :: workers.size]
            # fewer rows than workers: take part, with nothing to say
            weight = workers.size if len(mine) else 0
            mine = mine if len(mine) else rows[:1]
            torch.manual_seed(settings.seed * 1_000_003 + position * workers.size + workers.rank)
            optimizer.zero_grad(set_to_none=True)
            hidden, mask = inputs.batch(t, mine)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = forward(task.name, hidden, mask)
            target = torch.from_numpy(task.targets[mine]).to(device)
            total = torch.nn.functional.binary_cross_entropy_with_logits(
                logits.float(), target, pos_weight=weights[task.name], reduction="sum"
            )
            loss = total * (weight / (len(rows) * target.shape[1]))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
            optimizer.step()
            state.average(model, settings.averaging)
            texts += len(rows)
            state.step = step + 1
            value = (workers.sum(loss.detach()) / workers.size).item()
            if writer:
                writer.add_scalar(f"loss/{task.name}", value, position)
            if workers.rank == 0:
                progress.show(state.epoch, step + 1, value, texts)
                state.save_sometimes(model, optimizer, settings.checkpoint_seconds)
        _finish_epoch(model, inputs, state, writer, workers)
        if workers.rank == 0:
            state.save(model, optimizer)
    seconds = time.monotonic() - began
    if writer:
        writer.close()
    state.swap(model, state.best_weights)
    logits, quality = _validate(model, inputs, workers)
    return Trained(logits, quality, state.history, texts, seconds, "bf16" if bf16 else "fp32")


def _start_at_base_rates(model: TasteModel, tasks: list[TaskData]) -> None:
    """Each head's bias: the log-odds of its labels in training, so that no step is spent on
    learning them.
    """
    import torch

    with torch.no_grad():
        for task in tasks:
            share = torch.from_numpy(task.targets[task.train].mean(0)).clamp(1e-3, 1 - 1e-3)
            model.heads[task.name].bias.copy_(torch.logit(share))  # type: ignore[operator]


def _validate(
    model: TasteModel, inputs: Inputs, workers: Workers
) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
    """Logits and average precision of each task's validation window; leaves the model in evaluation
    mode.

    Every worker reads its share and gets all logits, so that all decide alike which epoch is the
    best.
    """
    import torch

    model.eval()
    logits = {}
    for t, task in enumerate(inputs.tasks):
        all_rows = torch.zeros(len(task.validation), task.targets.shape[1], device=workers.device)
        mine = inputs.predict(t, task.validation[workers.rank :: workers.size])
        all_rows[workers.rank :: workers.size] = torch.from_numpy(mine).to(workers.device)
        logits[task.name] = workers.sum(all_rows).cpu().numpy()
    return logits, {
        task.name: average_precision(logits[task.name], task.targets[task.validation])
        for task in inputs.tasks
    }


def _finish_epoch(
    model: TasteModel, inputs: Inputs, state: Checkpoint, writer: Any, workers: Workers
) -> None:
    """Measure the validation window with the averaged weights, keep them if they are the best so
    far.
    """
    last = state.swap(model, state.averaged)
    _, measured = _validate(model, inputs, workers)
    mean = sum(measured.values()) / len(measured)
    state.end_epoch(model, {**measured, "mean": mean})
    state.swap(model, last)
    log.info(
        "epoch %d: validation average precision %s",
        state.epoch,
        ", ".join(f"{k} {v:.4f}" for k, v in measured.items()),
    )
    if writer:
        for name, value in measured.items():
            writer.add_scalar(f"validation/{name}", value, state.epoch)


def native_bf16(device: torch.device) -> bool:
    """Whether bf16 runs at full speed: elsewhere it is emulated, up to 100 times slower."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _plan(
    tasks: list[TaskData], settings: TrainingSettings, epoch: int
) -> list[tuple[int, NDArray[np.int64]]]:
    """The epoch's batches as (task, rows), the same on every worker and after every restart."""
    import numpy as np

    rng = np.random.default_rng((settings.seed, epoch))
    plan = [
        (t, rows)
        for t, task in enumerate(tasks)
        for rows in length_buckets(
            task.lengths, _turn(task, settings, epoch), settings.batch_size, rng
        )
    ]
    return [plan[i] for i in rng.permutation(len(plan))]


def _turn(task: TaskData, settings: TrainingSettings, epoch: int) -> NDArray[np.int64]:
    """The rows of an epoch: all, or the next so many of one seeded shuffle of the snapshots, round
    and round.
    """
    import numpy as np

    size = settings.snapshots_an_epoch
    if task.name != INTERESTS or size is None or size >= len(task.train):
        return task.train
    shuffled = np.random.default_rng(settings.seed).permutation(task.train)
    return shuffled[(np.arange(size) + epoch * size) % len(shuffled)]


def _schedule(steps: int, warmup_share: float) -> Any:
    """Linear warm-up and linear decay to 0: step -> factor."""
    warmup = max(1, round(steps * warmup_share))
    return lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))


def _optimizer(
    model: TasteModel, settings: TrainingSettings
) -> tuple[torch.optim.Optimizer, list[Any]]:
    """AdamW; no decay on biases and norms."""
    import torch

    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = (
                settings.head_learning_rate if name.startswith("heads.") else settings.learning_rate
            )
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": p, "lr": rate, "peak": rate, "weight_decay": decay}
            for (rate, decay), p in groups.items()
        ],
        fused=True,
    )
    return optimizer, [p for group in groups.values() for p in group]


def _class_weights(task: TaskData, settings: TrainingSettings) -> torch.Tensor:
    import torch

    share = task.targets[task.train].mean(0).clip(1e-6, 1)
    odds = ((1 - share) / share).clip(1, 10) if settings.class_weights else share * 0 + 1
    return torch.from_numpy(odds)


def _distributed(model: TasteModel, workers: Workers) -> Any:
    """The training forward pass (task, hidden, mask) -> logits, its gradients averaged over
    workers.
    """
    import torch

    class Forward(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, task: str, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.model.logits(task, self.model.upper(hidden, mask))

    module = Forward()
    if workers.size == 1:
        return module
    return torch.nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)


class _Progress:
    """A line every few seconds: a pipe shows lines, not bars that redraw."""

    def __init__(self, name: str, epochs: int, steps: int) -> None:
        self.name, self.epochs, self.steps = name, epochs, steps
        self.began = self.last = time.monotonic()
        self.skipped: int | None = None

    def show(self, epoch: int, step: int, loss: float, texts: int) -> None:
        now, done = time.monotonic(), epoch * self.steps + step
        if self.skipped is None:
            self.skipped = done - 1
        if now - self.last < _PROGRESS_SECONDS:
            return
        self.last = now
        share = done / (self.epochs * self.steps)
        left = (now - self.began) / max(done - self.skipped, 1) * (self.epochs * self.steps - done)
        bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
        log.info(
            "%s %s %3.0f%%  epoch %d/%d  loss %.3f  %.0f texts/s  %d:%02d left",
            self.name,
            bar,
            100 * share,
            epoch + 1,
            self.epochs,
            loss,
            texts / (now - self.began),
            *divmod(int(left), 60),
        )


def fingerprint(settings: TrainingSettings, tasks: list[TaskData]) -> str:
    """What a checkpoint belongs to: settings and data; another's checkpoint is never resumed."""
    import hashlib

    total = hashlib.sha256(
        settings.model_dump_json(exclude={"checkpoint_seconds", "tensorboard"}).encode()
    )
    for task in tasks:
        total.update(task.name.encode() + task.targets.tobytes() + task.train.tobytes())
        for ids in task.ids:
            total.update(repr(ids).encode())
    return total.hexdigest()


def _tensorboard(work: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(work / "tensorboard"))


def _save_arrays(path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    from safetensors.numpy import save_file

    save_file({name: values.copy() for name, values in arrays.items()}, path)
