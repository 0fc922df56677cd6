"""How fast profiles' encoders are fine-tuned: texts a second of processor time, on one thread.

    python -m benchmarks.encoder_speed --snapshots SNAPSHOTS                  # local and mpnet
    python -m benchmarks.encoder_speed --snapshots SNAPSHOTS --profiles local mine.yaml

SNAPSHOTS is what the step `prepare` wrote. Of each profile two speeds are printed: that of the
frozen layers, which read a text once where their outputs are kept, and that of a training step of
the others. Batches are of training snapshots; the first one is not counted, and the median of the
others is.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pipelines.settings import load_settings
from tasteloop.answers import INTERESTS
from tasteloop.behaviour.snapshots import TEXT, TRAIN, Snapshots
from tasteloop.datasets.fetch import resolve_encoder
from tasteloop.encoder.batches import load_tokenizer, pad, tokenize
from tasteloop.encoder.loop import native_bf16
from tasteloop.encoder.model import TasteModel, load_encoder
from tasteloop.errors import TasteloopError

SAMPLE = 2000  # the first training snapshots, of which the batches are drawn


def speeds(profile: str, snapshots: Path, batches: int) -> tuple[float, float]:
    """Texts a second of processor time: through the frozen layers, and in a step of the others."""
    training = load_settings(profile).training
    data = Snapshots.read(snapshots)
    size = training.batch_size
    rows = data.split(TRAIN).head(SAMPLE)
    rows = rows.sample(size * batches, seed=0, with_replacement=size * batches > len(rows))
    truth = torch.from_numpy(data.truth(rows))
    source = Path(resolve_encoder(training.encoder))
    ids = tokenize(load_tokenizer(source), rows[TEXT], data.text.max_tokens)

    torch.manual_seed(0)
    heads = {INTERESTS: truth.shape[1]}
    encoder = load_encoder(source, training.encoder_layers, training.encoder_dropout)
    model = TasteModel(encoder, heads, training.frozen_layers).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=training.learning_rate, fused=True)
    bf16 = native_bf16(torch.device("cpu"))

    frozen, steps = [], []
    for start in range(0, len(rows), size):
        batch = slice(start, start + size)
        batch_ids, mask = pad(ids[batch])

        began = time.process_time()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            hidden = model.lower(batch_ids, mask).float()
        read = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model.logits(INTERESTS, model.upper(hidden, mask))
        binary_cross_entropy_with_logits(logits.float(), truth[batch]).backward()
        torch.nn.utils.clip_grad_norm_(trained, training.clip_norm)
        optimizer.step()
        frozen.append(read - began)
        steps.append(time.process_time() - read)
    return size / statistics.median(frozen[1:]), size / statistics.median(steps[1:])


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--snapshots", type=Path, required=True, help="what `prepare` wrote")
    parser.add_argument("--profiles", nargs="+", default=["local", "mpnet"], help="or YAML files")
    parser.add_argument("--batches", type=int, default=5, help="at least 2 (default: %(default)s)")
    options = parser.parse_args(given)
    if options.batches < 2:
        parser.error(f"--batches is {options.batches}: the first is not counted, so at least 2")

    torch.set_num_threads(1)  # seconds of processor time are then seconds of work
    print("| profile | frozen layers, once a text | a step of the others |\n|---|---|---|")
    for profile in options.profiles:
        try:
            frozen, step = speeds(profile, options.snapshots, options.batches)
        except TasteloopError as error:
            parser.error(str(error))
        print(f"| {Path(profile).stem} | {frozen:.1f} | {step:.1f} |", flush=True)


if __name__ == "__main__":
    main()
