"""What causal attention costs where an encoder reads behaviour, all else equal and from random
weights.

    python -m benchmarks.quality.decoder --snapshots SNAPSHOTS        # minutes on one core
    python -m benchmarks.quality.decoder --snapshots SNAPSHOTS --seeds 0 --epochs 1    # a look

SNAPSHOTS is what the step `prepare` wrote: `pipeline/artifacts/…/prepare/snapshots` under
TASTELOOP_HOME after a run, or the output of `tasteloop step prepare`.

Methods, each trained on the interests alone by the loop that fine-tunes encoders
(`tasteloop.encoder.loop`):
- bidirectional: BertModel, mean of the tokens, as `tasteloop.encoder.model` pools;
- masked: the same BertModel, but a token attends to none after it: what the mask alone costs;
- causal: GPT2Model, mean of the tokens;
- causal, last: GPT2Model, the state of the last token, the one that has read the whole text;
- shares: no text at all, each label's share of the training snapshots.

Layers, width, heads, tokenizer, batches, steps, seeds and learning rate are the same. Average
precision is micro-averaged over the labels, on the validation window, after the last epoch: no
epoch is chosen. Its spread is that of the seeds (weights and batches); the snapshots are the same.
Speeds are texts a second of processor time, on one thread and with the validation counted.

The weights are random, so this says what the attention is worth to a small model that learns from
behaviour alone. It says nothing of large decoders that were trained on text before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tasteloop.answers import INTERESTS
from tasteloop.behaviour.snapshots import SPLIT, TEXT, TRAIN, VALIDATION, Snapshots
from tasteloop.datasets.fetch import resolve_encoder
from tasteloop.encoder.batches import Inputs, TaskData, TokenIds, load_tokenizer, tokenize_blocks
from tasteloop.encoder.calibration import average_precision
from tasteloop.encoder.loop import native_bf16, train
from tasteloop.encoder.model import TasteModel
from tasteloop.encoder.settings import TrainingSettings

MEAN, LAST = "mean", "last"
READINGS = 3  # of the validation window; the fastest counts


@dataclass(frozen=True)
class Method:
    """A kind of model: which class of transformers, what a token attends to, how it is pooled."""

    family: str
    is_causal: bool
    pooling: str


METHODS = {
    "bidirectional": Method("bert", False, MEAN),
    "masked": Method("bert", True, MEAN),
    "causal": Method("gpt2", True, MEAN),
    "causal, last": Method("gpt2", True, LAST),
}
BASELINE = "bidirectional"


@dataclass(frozen=True)
class Size:
    """The shape of every model.

    Attributes:
        vocabulary: tokens that the tokenizer knows; longest: tokens of a text.
    """

    layers: int
    width: int
    heads: int
    vocabulary: int
    longest: int


class Reader(nn.Module):
    """An encoder with random weights and a linear head for the interests, with what the training
    loop asks of a `TasteModel`: none of its layers is frozen, and `lower` is the tokens' vectors.
    """

    frozen_layers = -1

    def __init__(self, method: Method, size: Size, outputs: int) -> None:
        super().__init__()
        self.pooling = method.pooling
        self.width = size.width
        self.encoder = _bert(method, size) if method.family == "bert" else _gpt2(size)
        head = nn.Linear(size.width, outputs)
        nn.init.normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        self.heads = nn.ModuleDict({INTERESTS: head})

    def lower(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids [n, t] -> their vectors [n, t, width], positions not yet among them."""
        vectors: Tensor = self.encoder.get_input_embeddings()(ids)
        return vectors

    def states(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Tokens' vectors and mask [n, t] -> the last layer's states [n, t, width]."""
        read = self.encoder(inputs_embeds=vectors, attention_mask=mask, use_cache=False)
        states: Tensor = read.last_hidden_state
        return states

    def upper(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Tokens' vectors and mask [n, t] -> pooled vectors [n, width]."""
        states = self.states(vectors, mask)
        if self.pooling == LAST:
            return states[torch.arange(len(mask)), mask.sum(1) - 1]
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp_min(1)

    def logits(self, task: str, pooled: Tensor) -> Tensor:
        """Pooled vectors [n, width] -> logits [n, labels]."""
        out: Tensor = self.heads[task](pooled)
        return out


def _bert(method: Method, size: Size) -> Any:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=size.vocabulary,
        max_position_embeddings=size.longest,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        is_decoder=method.is_causal,
        attn_implementation="sdpa",
    )
    return BertModel(config, add_pooling_layer=False)


def _gpt2(size: Size) -> Any:
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        vocab_size=size.vocabulary,
        n_positions=size.longest,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        n_inner=4 * size.width,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    return GPT2Model(config)


@dataclass(frozen=True)
class Measured:
    """One training: average precision after its last epoch, texts a second of processor time."""

    method: str
    seed: int
    parameters: int
    quality: float
    training_speed: float
    reading_speed: float


def interests(directory: Path, encoder: str) -> tuple[TaskData, int, int]:
    """The interests task of snapshots, read by the tokenizer of an encoder.

    Returns:
        The task, how many tokens the tokenizer knows, and the most tokens of a text.
    """
    data = Snapshots.read(directory)
    tokenizer = load_tokenizer(Path(resolve_encoder(encoder)))
    rows = data.table.filter(data.table[SPLIT].is_in([TRAIN, VALIDATION]))
    split = rows[SPLIT].to_numpy()
    ids = TokenIds(tokenize_blocks(tokenizer, rows[TEXT], data.text.max_tokens))
    task = TaskData(
        INTERESTS,
        ids,
        data.truth(rows),
        np.flatnonzero(split == TRAIN),
        np.flatnonzero(split == VALIDATION),
    )
    return task, tokenizer.get_vocab_size(), data.text.max_tokens


def measure(name: str, task: TaskData, size: Size, settings: TrainingSettings) -> Measured:
    """Train one model from random weights, and let it read the validation window."""
    torch.manual_seed(settings.seed)
    model = Reader(METHODS[name], size, task.targets.shape[1])
    loop_model = cast("TasteModel", model)

    began = time.process_time()
    with tempfile.TemporaryDirectory() as work:
        result = train(loop_model, [task], settings, Path(work))
    training_seconds = time.process_time() - began

    model.eval()
    device = torch.device("cpu")
    inputs = Inputs(loop_model, [task], 0, device, native_bf16(device))
    reading_seconds = []
    for _ in range(READINGS):
        began = time.process_time()
        inputs.predict(0, task.validation)
        reading_seconds.append(time.process_time() - began)
    return Measured(
        name,
        settings.seed,
        sum(parameter.numel() for parameter in model.parameters()),
        result.history[-1][INTERESTS],
        result.texts / training_seconds,
        len(task.validation) / min(reading_seconds),
    )


def shares_quality(task: TaskData) -> float:
    """Average precision of each label's share of the training snapshots, the same for every row."""
    truth = task.targets[task.validation]
    shares = task.targets[task.train].mean(0)
    return average_precision(np.broadcast_to(shares, truth.shape), truth)


def summarise(runs: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row a method: mean and range over the seeds, and of the differences to the bidirectional
    model with the same seed.
    """
    of_seed = {run.seed: run.quality for run in runs if run.method == BASELINE}
    rows = []
    for name in METHODS:
        own = [run for run in runs if run.method == name]
        if not own:
            continue
        differences = [run.quality - of_seed[run.seed] for run in own if run.seed in of_seed]
        rows.append(
            {
                "method": name,
                "parameters": own[0].parameters,
                "quality": _spread([run.quality for run in own]),
                "difference": _spread(differences) if differences else None,
                "training_speed": _spread([run.training_speed for run in own]),
                "reading_speed": _spread([run.reading_speed for run in own]),
            }
        )
    return rows


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "low": min(values), "high": max(values)}


def _cell(spread: dict[str, float] | None, form: str) -> str:
    if spread is None:
        return "-"
    return f"{spread['mean']:{form}} ({spread['low']:{form}} to {spread['high']:{form}})"


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--snapshots", type=Path, required=True, help="what `prepare` wrote")
    parser.add_argument(
        "--encoder",
        default="minilm",
        help="whose tokenizer is used, by name or directory; its weights are not (default: %(default)s)",
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=[*METHODS], help="default: all"
    )
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--snapshots-an-epoch", type=int, default=3000, help="others each epoch")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="peak (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args(given)

    torch.set_num_threads(1)  # seconds of processor time are then seconds of work
    task, vocabulary, longest = interests(options.snapshots, options.encoder)
    size = Size(options.layers, options.width, options.heads, vocabulary, longest)
    runs = []
    for seed in options.seeds:
        settings = TrainingSettings(
            tasks=(INTERESTS,),
            epochs=options.epochs,
            patience=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            snapshots_an_epoch=options.snapshots_an_epoch,
            frozen_layers=-1,
            tensorboard=False,
            checkpoint_seconds=1e9,
            seed=seed,
        )
        for name in options.methods:
            run = measure(name, task, size, settings)
            print(f"seed {seed}, {name}: {run.quality:.4f}", file=sys.stderr, flush=True)
            runs.append(run)

    rows, shares = summarise(runs), shares_quality(task)
    if options.json:
        print(json.dumps({"methods": rows, "shares": shares, "runs": [vars(run) for run in runs]}))
        return
    print(
        f"{options.layers} layers, {options.width} wide, {options.epochs} epochs of at most "
        f"{options.snapshots_an_epoch} of {len(task.train)} snapshots, {len(options.seeds)} seeds, "
        f"peak rate {options.learning_rate:g}; {len(task.validation)} validation snapshots"
    )
    print(
        "| method | million weights | average precision | less the bidirectional's "
        "| fine-tuning texts/s | reading texts/s |\n|---|---|---|---|---|---|"
    )
    for row in rows:
        print(
            f"| {row['method']} | {row['parameters'] / 1e6:.1f} | {_cell(row['quality'], '.4f')} "
            f"| {_cell(row['difference'], '+.4f')} | {_cell(row['training_speed'], '.0f')} "
            f"| {_cell(row['reading_speed'], '.0f')} |"
        )
    print(f"| shares | | {shares:.4f} | | | |")


if __name__ == "__main__":
    main()
