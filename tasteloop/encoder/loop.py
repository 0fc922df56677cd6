"""The fine-tuning loop: plain PyTorch, one or many tasks on one encoder, resumable to the step.

What makes it fast where it is fast: no padding beyond a batch (length buckets), frozen lower layers
computed once per text and kept in half precision, bf16 where the processor has it natively, a fused
optimiser, and no gradients for the 11.7 M numbers of the vocabulary.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasteloop.answers import INTENT, INTERESTS
from tasteloop.encoder.batches import Inputs, TaskData, length_buckets
from tasteloop.encoder.calibration import average_precision
from tasteloop.encoder.checkpoint import Checkpoint
from tasteloop.encoder.settings import TrainingSettings
from tasteloop.encoder.workers import Workers

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from tasteloop.encoder.model import TasteModel

log = logging.getLogger(__name__)

_PROGRESS_SECONDS = 5.0
_LOSSES_AT_ONCE = 20  # on a GPU, see `_Losses`


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
    losses = _Losses(workers, writer, device)
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
            target = torch.from_numpy(task.targets[mine]).to(device, non_blocking=True)
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
            losses.add(task.name, position, loss.detach())
            if workers.rank == 0:
                progress.show(state.epoch, step + 1, losses.last, texts)
                state.save_sometimes(model, optimizer, settings.checkpoint_seconds)
        losses.write()
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

    Which are best is decided by the tasks that the data teach. `intent` is learned from phrases of
    our own, of which too few are held out to judge by; it decides only where it is the one task.
    """
    last = state.swap(model, state.averaged)
    _, measured = _validate(model, inputs, workers)
    deciding = [quality for task, quality in measured.items() if task != INTENT]
    deciding = deciding or list(measured.values())
    mean = sum(deciding) / len(deciding)
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
            task.ids.lengths, _turn(task, settings, epoch), settings.batch_size, rng
        )
    ]
    return [plan[i] for i in rng.permutation(len(plan))]


def _turn(task: TaskData, settings: TrainingSettings, epoch: int) -> NDArray[np.int64]:
    """The rows of an epoch: all, or the next so many of one seeded shuffle, round and round.

    So it is with snapshots where a number of them is set, and always with the clauses that `intent`
    learns from: each epoch a phrase is filled with other things, and none is learned by heart.
    """
    import numpy as np

    size = {INTERESTS: settings.snapshots_an_epoch, INTENT: len(task.train) // settings.epochs}.get(
        task.name
    )
    if size is None or not 0 < size < len(task.train):
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


class _Losses:
    """The training losses, averaged over workers and written for TensorBoard.

    To read a number from a GPU is to wait until it has finished all its work, so there the losses
    of 20 steps are read at once and it never runs out of work. A killed run may lack the points of
    its last 20 steps.

    Attributes:
        last: the newest loss that was read.
    """

    def __init__(self, workers: Workers, writer: Any, device: torch.device) -> None:
        self.workers, self.writer = workers, writer
        self.last = float("nan")
        self._size = 1 if device.type == "cpu" else _LOSSES_AT_ONCE
        self._pending: list[tuple[str, int, torch.Tensor]] = []

    def add(self, task: str, position: int, loss: torch.Tensor) -> None:
        self._pending.append((task, position, loss))
        if len(self._pending) >= self._size:
            self.write()

    def write(self) -> None:
        """Every worker must call this after the same steps: they add up their losses here."""
        import torch

        if not self._pending:
            return
        total = self.workers.sum(torch.stack([loss for _, _, loss in self._pending]))
        values = (total / self.workers.size).tolist()
        if self.writer:
            for (task, position, _), value in zip(self._pending, values, strict=True):
                self.writer.add_scalar(f"loss/{task}", value, position)
        self.last = values[-1]
        self._pending.clear()


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
            "%s %s %3.0f%%  epoch %d/%d  loss %s  %.0f texts/s  %d:%02d left",
            self.name,
            bar,
            100 * share,
            epoch + 1,
            self.epochs,
            "–" if math.isnan(loss) else f"{loss:.3f}",  # none was read yet
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
        total.update(task.ids.ends.tobytes() + task.ids.ids.tobytes())
    return total.hexdigest()


def _tensorboard(work: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(work / "tensorboard"))
