"""Which engine runs a bundle's encoders on this machine, by what was measured where it was made."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tasteloop.bundle.card import BundleCard, RuntimeCard
from tasteloop.bundle.names import MODELS_DIRECTORY
from tasteloop.errors import TasteloopError
from tasteloop.runtime import engines, machine

log = logging.getLogger(__name__)

# of the chosen one's speed where the bundle was made: below, an engine is not measured again
# elsewhere
_WORTH = 0.5
_ELSEWHERE = 0.05  # see `tolerance`
_AGAIN_SECONDS = 0.15  # for each shape, when another machine measures again


def speed(
    runner: engines.Runner, shapes: Sequence[tuple[int, int]], seconds: float
) -> dict[str, float]:
    """Texts a second by shape `batch x tokens`, the best of the runs that fit into `seconds` for
    each shape.
    """
    rng = np.random.default_rng(0)
    measured = {}
    for batch, tokens in shapes:
        ids = rng.integers(1, 90, (batch, tokens))
        most = runner.most(batch)
        parts = [ids[n : n + most] for n in range(0, batch, most)]
        calls = [(part, np.ones_like(part)) for part in parts]
        best, began, runs = np.inf, time.perf_counter(), 0
        while runs < 2 or time.perf_counter() - began < seconds:
            start = time.perf_counter()
            runner(calls)
            best, runs = min(best, time.perf_counter() - start), runs + 1
        measured[f"{batch}x{tokens}"] = round(batch / best, 1)
    return measured


def overall(speeds: Mapping[str, float]) -> float:
    """One number for speeds of several shapes: their geometric mean, in which every shape weighs
    the same.
    """
    return float(np.exp(np.mean(np.log(list(speeds.values())))))


def precisions(recorded: RuntimeCard) -> dict[str, str]:
    """Each precision that is good enough -> a runtime that has it: first the chosen one's."""
    chosen = recorded.chosen
    runtime_of = {engines.precision_of(chosen): chosen}
    others = {}
    for name, candidate in recorded.candidates.items():
        if candidate.good and engines.precision_of(name) not in runtime_of:
            others[engines.precision_of(name)] = name
    return runtime_of | others


def tolerance(precision: str, recorded: RuntimeCard | None, exact: float) -> float:
    """How far probabilities and scores of this machine may be from those recorded where the bundle
    was made: `exact` for fp32 and on the same processor. `recorded` is None of a bundle that was
    made before runtimes were measured.

    Programs that compute in fp32 agree to 1e-6. int8 is exactly reproducible on one processor; on
    another, fp32 arithmetic between the integer products rounds an activation to its neighbour now
    and then, which moved a probability by 0.011 at most when it was provoked by other graph
    optimisations. bf16 has 8 bits itself.
    """
    same = recorded is not None and recorded.processor == machine.processor()
    return exact if precision == "fp32" or same else max(exact, _ELSEWHERE)


def choose(card: BundleCard, directory: Path) -> str:
    """The runtime for a bundle on this machine.

    `TASTELOOP_RUNTIME` decides where it is set. Otherwise the one that was fastest where the bundle
    was made; on another processor those that were about as fast there are measured again, in
    seconds. Only runtimes whose quality was measured are taken.

    Raises:
        TasteloopError: TASTELOOP_RUNTIME names none.
    """
    # 1. what decides without a measurement
    forced = os.environ.get(engines.VARIABLE)
    if forced:
        if forced not in engines.RUNTIMES:
            raise TasteloopError(
                f"{engines.VARIABLE}={forced}: no such runtime; known: {', '.join(engines.RUNTIMES)}"
            )
        return forced
    if machine.has_gpu():
        return engines.TORCH_CUDA
    recorded = card.runtime
    if recorded is None:
        return engines.TORCH_FP32

    # 2. the one that was chosen where the bundle was made, on the same processor
    chosen = recorded.chosen
    first = directory / MODELS_DIRECTORY / card.reading_model
    if not engines.available(chosen, first):
        level = logging.WARNING
        why = f"{chosen}, the fastest where the bundle was made, cannot run here"
    elif recorded.processor != machine.processor():
        level, why = logging.INFO, "another processor than the bundle's"
    else:
        return chosen

    # 3. those that can run here and were about as fast there, measured again
    good = {name: each.texts_per_second for name, each in recorded.candidates.items() if each.good}
    enough = _WORTH * overall(good[chosen])
    here = [name for name in good if engines.available(name, first)]
    worth = [name for name in here if overall(good[name]) >= enough] or here
    speeds = dict.fromkeys(worth or [engines.TORCH_FP32], 0.0)
    if len(worth) > 1:
        shapes = [_parse_shape(shape) for shape in good[chosen]]
        for name in worth:
            speeds[name] = overall(speed(engines.Runner(name, first), shapes, _AGAIN_SECONDS))
        why += f"; texts/s: {', '.join(f'{name} {value:.0f}' for name, value in speeds.items())}"
    best: str = max(speeds, key=lambda name: speeds[name])
    log.log(level, "%s; %s answers", why, best)
    return best


def _parse_shape(text: str) -> tuple[int, int]:
    """Batch and tokens of `batch x tokens`, as a card has them."""
    batch, tokens = text.split("x")
    return int(batch), int(tokens)
