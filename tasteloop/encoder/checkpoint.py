"""The state of a training on disk: weights, optimiser moments, and the epoch and step that it has
reached, as safetensors and JSON.

Every random number of a step is seeded by the step's number, so a resumed run is the run that was
killed.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasteloop import storage
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_directory, read_json, write_json

if TYPE_CHECKING:
    from tasteloop.encoder.model import TasteModel

log = logging.getLogger(__name__)

_FOLDER = "checkpoint"


@dataclass
class Checkpoint:
    """The epoch and step that a training has reached, the running mean of its weights, and the
    weights of its best epoch.
    """

    work: Path
    fingerprint: str
    store: str | None = None
    epoch: int = 0
    step: int = 0
    stale: int = 0
    steps: int = 0
    best: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    best_weights: dict[str, Any] = field(default_factory=dict)
    averaged: dict[str, Any] = field(default_factory=dict)
    saved: float = field(default_factory=time.monotonic)

    @classmethod
    def resume(
        cls,
        work: Path,
        model: TasteModel,
        optimizer: Any,
        fingerprint: str,
        store: str | None = None,
    ) -> Checkpoint:
        """The last checkpoint of this training; a fresh one where there is none.

        Its weights and moments are put into the model and the optimiser.

        Args:
            work: the directory of the checkpoint.
            fingerprint: of the data and the settings; a checkpoint with another one is not used.
            store: the object store that the checkpoint is fetched from and sent to.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        fresh = cls(work, fingerprint, store)
        folder = work / _FOLDER
        if store and not storage.fetch(store, folder):
            return fresh
        try:
            if not (folder / "state.json").is_file():
                return fresh
            state = read_json(folder / "state.json")
            if state["fingerprint"] != fingerprint:
                return fresh
            tensors = load_file(folder / "weights.safetensors")
            moments = load_file(folder / "optimizer.safetensors")
        except (TasteloopError, SafetensorError, OSError, ValueError, KeyError) as error:
            log.warning("checkpoint %s cannot be read (%s); starting afresh", folder, error)
            return fresh
        trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        for name, parameter in trainable.items():
            parameter.data.copy_(tensors["now." + name])
            if f"exp_avg.{name}" in moments:
                optimizer.state[parameter] = {
                    "step": moments[f"step.{name}"].to(parameter.device),
                    "exp_avg": moments[f"exp_avg.{name}"].to(parameter.device),
                    "exp_avg_sq": moments[f"exp_avg_sq.{name}"].to(parameter.device),
                }
        best, mean = (_with_prefix(tensors, prefix) for prefix in ("best.", "mean."))
        log.info("resumed from epoch %d, step %d", state["epoch"] + 1, state["step"])
        state["best"] = -math.inf if state["best"] is None else state["best"]
        return cls(work, store=store, **state, best_weights=best, averaged=mean)

    def end_epoch(self, model: TasteModel, measured: dict[str, float]) -> None:
        self.history.append(measured)
        self.epoch, self.step = self.epoch + 1, 0
        if measured["mean"] > self.best:
            self.best, self.stale = measured["mean"], 0
            self.best_weights = {
                n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad
            }
        else:
            self.stale += 1

    def average(self, model: TasteModel, decay: float) -> None:
        """Move the running mean of weights towards the current ones (Polyak & Juditsky 1992),
        faster at the start.
        """
        self.steps += 1
        decay = min(decay, self.steps / (self.steps + 9))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                if name in self.averaged:
                    self.averaged[name].lerp_(parameter.detach(), 1 - decay)
                else:
                    self.averaged[name] = parameter.detach().clone()

    @staticmethod
    def swap(model: TasteModel, weights: dict[str, Any]) -> dict[str, Any]:
        """Give a model these weights; returns those that it had."""
        replaced = {}
        for name, parameter in model.named_parameters():
            if name in weights:
                replaced[name] = parameter.detach().clone()
                parameter.data.copy_(weights[name])
        return replaced

    @staticmethod
    def discard(work: Path) -> None:
        """Forget a training that is finished and whose model is safe elsewhere."""
        shutil.rmtree(work / _FOLDER, ignore_errors=True)

    def save_sometimes(self, model: TasteModel, optimizer: Any, seconds: float) -> None:
        if time.monotonic() - self.saved >= seconds:
            self.save(model, optimizer)

    def save(self, model: TasteModel, optimizer: Any) -> None:
        from safetensors.torch import save_file

        weights, moments = {}, {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                weights["now." + name] = parameter.detach().clone().cpu()
                for key, value in optimizer.state.get(parameter, {}).items():
                    moments[f"{key}.{name}"] = value.detach().clone().cpu()
        weights |= {"best." + n: t.cpu() for n, t in self.best_weights.items()}
        weights |= {"mean." + n: t.cpu() for n, t in self.averaged.items()}
        with atomic_directory(self.work / _FOLDER) as folder:
            save_file(weights, folder / "weights.safetensors")
            save_file(moments, folder / "optimizer.safetensors")
            write_json(
                folder / "state.json",
                {
                    "fingerprint": self.fingerprint,
                    "epoch": self.epoch,
                    "step": self.step,
                    "stale": self.stale,
                    "steps": self.steps,
                    "best": self.best if math.isfinite(self.best) else None,
                    "history": self.history,
                },
            )
        if self.store:
            storage.send(self.work / _FOLDER, self.store)
        self.saved = time.monotonic()


def _with_prefix(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The tensors whose names begin with the prefix, under their names without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
