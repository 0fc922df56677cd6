"""Fine-tuning, encoding and serving on a GPU; `benchmarks/gpu.sh` starts it.

Fine-tuning is measured in steps of the model alone (forward, backward, AdamW) on batches of one
shape: in fp32, in bf16, compiled, and under DistributedDataParallel, which torchrun starts with one
process. The last two rows are `tasteloop.encoder.loop.train` as the pipeline calls it: its steps
alone, and one whole call with its start, its validation and its checkpoint. Encoding is a bundle's
engine, with its largest difference from PyTorch in fp32 on the processor; serving is `python -m
serving` with callers on loopback.

TFLOP/s count what the mathematics needs, whatever a program computes beyond it. With L layers,
width h, inner width f and s tokens, a forward pass costs per token

    L · (8h² + 4hf + 4sh)      [projections of attention, feed-forward, scores and their sums]

and a training step three times that (Kaplan et al. 2020, appendix B, where the backward pass costs
two forward passes). Embeddings are looked up, not multiplied.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasteloop.encoder.loop import Trained

HOUSE = Path(__file__).parents[1]
ROW_SECONDS = 75.0  # of one way to train: with all six of them the script keeps its eight minutes

# Dense peaks in bf16, TFLOP/s, of the makers' data sheets. The first of these names that occurs in
# a card's name counts.
PEAKS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
}


@dataclass(frozen=True)
class Sizes:
    """What is measured, and for how long."""

    layers: int
    width: int
    heads: int
    tokens: int
    batch: int
    texts: int  # of the pipeline's own training
    seconds: float  # of each measurement
    users: int  # of the synthetic data of the served bundle
    callers: int


FULL = Sizes(12, 768, 12, 128, 128, 20_000, 12.0, 300, 32)  # the shape of BERT-base
TINY = Sizes(1, 32, 2, 16, 4, 64, 0.2, 160, 2)


def encoder(sizes: Sizes) -> Any:
    """A BERT of that size with random weights."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=1000,
        hidden_size=sizes.width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=4 * sizes.width,
    )
    return BertModel(config, add_pooling_layer=False)


def write_encoder(sizes: Sizes, directory: Path) -> None:
    """An encoder directory: weights, and a tokenizer whose words are letters."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = [chr(code) for code in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *("##" + c for c in letters)]
    vocabulary = {token: n for n, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    directory.mkdir(parents=True)
    model = encoder(sizes)
    model.config.save_pretrained(directory)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors")
    tokenizer.save(str(directory / "tokenizer.json"))


def forward_flops(sizes: Sizes) -> float:
    """Of one text of `sizes.tokens` tokens; the formula is at the top of this file.

    >>> forward_flops(Sizes(1, 2, 1, 3, 1, 1, 1.0, 1, 1))
    360.0
    """
    width, inner = sizes.width, 4 * sizes.width
    a_token = 8 * width**2 + 4 * width * inner + 4 * sizes.tokens * width
    return float(sizes.layers * sizes.tokens * a_token)


def device_name() -> tuple[str, str]:
    """The device to compute on, and what it is called."""
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name()
    from tasteloop.runtime.machine import processor

    return "cpu", processor()


def peak_of(name: str) -> float | None:
    return next((peak for card, peak in PEAKS.items() if card in name), None)


# Fine-tuning


def training_rate(sizes: Sizes, bf16: bool, compiled: bool, distributed: bool) -> float:
    """Texts a second of training steps."""
    import torch

    from tasteloop.encoder.model import TasteModel

    device, _ = device_name()
    model = TasteModel(encoder(sizes), {"sentiment": 1}).to(device)

    class Forward(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.model.logits("sentiment", self.model(ids, mask))

    module: Any = Forward()
    if distributed:
        torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        module = torch.nn.parallel.DistributedDataParallel(module)
    if compiled:
        module = torch.compile(module)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ids = torch.randint(5, 1000, (sizes.batch, sizes.tokens), device=device)
    mask = torch.ones_like(ids)
    target = torch.ones(sizes.batch, 1, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            logits = module(ids, mask)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), target)
        loss.backward()
        optimizer.step()

    rate = sizes.batch * calls_a_second(step, sizes.seconds)
    if distributed:
        torch.distributed.destroy_process_group()
    return rate


def calls_a_second(call: Callable[[], None], seconds: float) -> float:
    """After three calls that warm up. The clock is read when a GPU has finished its work."""
    import torch

    def finish() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    for _ in range(3):
        call()
    finish()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        call()
        calls += 1
        if calls % 10 == 0:
            finish()  # else a GPU's queue grows faster than the clock runs
    finish()
    return calls / (time.perf_counter() - began)


def pipeline_rate(sizes: Sizes, work: Path, steps_alone: bool) -> tuple[float, str]:
    """Texts a second of the pipeline's own training loop, and its precision.

    Steps alone are what a longer call does more than a shorter one, after a first that warms up.
    """
    if not steps_alone:
        training = train_once(sizes, sizes.texts, work)
        return training.texts / training.seconds, training.precision
    train_once(sizes, sizes.texts // 20, work / "warm-up")
    less = train_once(sizes, sizes.texts // 4, work / "less")
    most = train_once(sizes, sizes.texts, work / "more")
    seconds = most.seconds - less.seconds
    if seconds < 0.2 * most.seconds:
        raise SystemExit("too few texts to tell the steps from the start")
    return (most.texts - less.texts) / seconds, most.precision


def train_once(sizes: Sizes, texts: int, work: Path) -> Trained:
    """One epoch of the pipeline's training loop on random texts of one length."""
    import numpy as np

    from tasteloop.encoder.batches import TaskData, TokenIds
    from tasteloop.encoder.loop import train
    from tasteloop.encoder.model import TasteModel
    from tasteloop.encoder.settings import TrainingSettings
    from tasteloop.encoder.workers import Workers

    rng = np.random.default_rng(0)
    ids = rng.integers(5, 1000, (texts, sizes.tokens)).tolist()
    targets = rng.integers(0, 2, (texts, 1)).astype(np.float32)
    rows = np.arange(texts)
    held = sizes.texts // 40
    task = TaskData("sentiment", TokenIds(ids), targets, rows[held:], rows[:held])
    settings = TrainingSettings(
        tasks=("sentiment",),
        epochs=1,
        frozen_layers=-1,
        batch_size=sizes.batch,
        tensorboard=False,
        checkpoint_seconds=1e9,
    )
    model = TasteModel(encoder(sizes), {"sentiment": 1})
    return train(model, [task], settings, work, Workers.join())


def run_bounded(command: list[str], seconds: float) -> tuple[str, str]:
    """The last line that a process with its children prints, and an error, one of them empty."""
    process = subprocess.Popen(
        command,
        cwd=HOUSE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "", f"not done within {seconds:.0f} s"
    if process.returncode:
        return "", (errors.strip().splitlines() or ["no reason given"])[-1][-300:]
    return output.strip().splitlines()[-1], ""


def finetuning(sizes: Sizes, options: list[str]) -> Iterator[dict[str, Any]]:
    """A row for each way to train. Each runs in a process of its own, so that none inherits
    another's memory or compiled kernels.
    """
    variants = {
        "steps, fp32": ["--measure", "fp32"],
        "steps, bf16": ["--measure", "bf16"],
        "steps, bf16, torch.compile": ["--measure", "compile"],
        "steps, bf16, DDP by torchrun": ["--measure", "ddp"],
        "the pipeline's steps": ["--measure", "pipeline-steps"],
        "the pipeline's training": ["--measure", "pipeline"],
    }
    peak = peak_of(device_name()[1])
    for name, arguments in variants.items():
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
        start = [sys.executable, *(launcher if "ddp" in arguments else [])]
        command = [*start, "-m", "benchmarks.gpu", *arguments, *options]
        output, error = run_bounded(command, ROW_SECONDS)
        if error:
            yield {"what": name, "error": error}
            continue
        measured = json.loads(output)
        tflops = 3 * forward_flops(sizes) * measured["rate"] / 1e12
        yield {
            "what": name,
            "texts_per_second": measured["rate"],
            "tflops": tflops,
            "share_of_bf16_peak": tflops / peak if peak else None,
            "precision": measured["precision"],
        }


def measure(name: str, sizes: Sizes) -> dict[str, Any]:
    """One row's rate, in a process of its own."""
    if name.startswith("pipeline"):
        with tempfile.TemporaryDirectory() as folder:
            rate, precision = pipeline_rate(sizes, Path(folder), name == "pipeline-steps")
        return {"rate": rate, "precision": precision}
    bf16 = name != "fp32"
    rate = training_rate(sizes, bf16, name == "compile", name == "ddp")
    return {"rate": rate, "precision": "bf16" if bf16 else "fp32"}


# Encoding and serving


def make_bundle(sizes: Sizes, work: Path) -> Path:
    """A bundle of synthetic behaviour, by the pipeline's own steps, with little training."""
    from tasteloop.behaviour.prepare import prepare
    from tasteloop.behaviour.snapshots import PrepareSettings
    from tasteloop.datasets.ingest import IngestSettings, ingest
    from tasteloop.datasets.synthetic import SyntheticSettings
    from tasteloop.encoder.settings import TrainingSettings
    from tasteloop.encoder.training import finetune
    from tasteloop.recommender.fitting import RecommenderSettings
    from tasteloop.runtime.assemble import fit_recommender

    write_encoder(sizes, work / "encoder")
    reviews = [f"{'a good' if n % 2 else 'a bad'} thing, number {n},{n % 2}" for n in range(200)]
    (work / "reviews.csv").write_text(
        "text,sentiment\n" + "\n".join(f'"{r[: r.rindex(",")]}",{r[-1]}' for r in reviews) + "\n"
    )
    data = SyntheticSettings(users=sizes.users, items=200)
    ingest(
        IngestSettings(behaviour="synthetic", synthetic=data, reviews=str(work / "reviews.csv")),
        work / "data",
    )
    prepare(work / "data", PrepareSettings(), work / "snapshots")
    settings = TrainingSettings(
        encoder=str(work / "encoder"),
        epochs=1,
        snapshots_an_epoch=64,
        frozen_layers=0,
        tensorboard=False,
    )
    finetune(work / "snapshots", settings, work / "model", work / "checkpoints")
    grids = RecommenderSettings(
        ease_regularisation=(1000,), history_decay=(0.95,), half_life_days=(90,), als_iterations=2
    )
    fit_recommender(work / "model", work / "snapshots", grids, work / "bundle")
    return work / "bundle"


def encoding(sizes: Sizes, bundle: Path) -> dict[str, Any]:
    """Texts a second of the engine that answers on this device, by shape, and how far its vectors
    are from PyTorch's in fp32 on the processor.
    """
    import numpy as np

    from tasteloop.bundle.card import BundleCard
    from tasteloop.bundle.names import MODELS_DIRECTORY
    from tasteloop.runtime import choice, engines

    card = BundleCard.read(bundle)
    directory = bundle / MODELS_DIRECTORY / card.reading_model
    name = choice.choose(card, bundle)
    shapes = [(batch, sizes.tokens) for batch in (1, sizes.batch, 4 * sizes.batch)]
    rates = choice.speed(engines.Runner(name, directory), shapes, sizes.seconds / 3)
    ids = np.random.default_rng(1).integers(5, 90, (8, sizes.tokens))
    mask = np.ones_like(ids)
    exact = engines.load(engines.TORCH_FP32, directory, os.cpu_count() or 1)(ids, mask)
    vectors = engines.load(name, directory, os.cpu_count() or 1)(ids, mask)
    distance = np.linalg.norm(vectors - exact, axis=1) / np.linalg.norm(exact, axis=1)
    return {"engine": name, "texts_per_second": rates, "distance_from_fp32": float(distance.max())}


@contextmanager
def server(bundle: Path, work: Path) -> Iterator[str]:
    """The address of `python -m serving` on the bundle."""
    ready = work / "ready.json"
    command = [sys.executable, "-m", "serving", "--bundle", str(bundle)]
    command += ["--port", "0", "--grpc-port", "0", "--ready-file", str(ready)]
    with (work / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=HOUSE, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server did not start:\n" + (work / "server.log").read_text())
            time.sleep(0.1)
        yield json.loads(ready.read_text())["http"]
    finally:
        process.terminate()
        process.wait(60)


def serving(sizes: Sizes, bundle: Path, work: Path) -> dict[str, Any]:
    """Answers a second and latencies of sentiment, asked by callers that each wait for an answer.
    No text is asked twice, so no cache helps.
    """
    import httpx

    latencies: list[list[float]] = [[] for _ in range(sizes.callers)]
    failures: list[str] = []

    def ask(url: str, caller: int, until: float) -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while True:  # at least once, however busy the machine is
                text = f"caller {caller} asks number {len(latencies[caller])}"
                began = time.perf_counter()
                answer = client.post(
                    "/v1/models/sentiment:predict", json={"instances": [{"text": text}]}
                )
                if answer.is_success:
                    latencies[caller].append(time.perf_counter() - began)
                else:
                    failures.append(answer.text[:200])
                if time.perf_counter() >= until:
                    break

    with server(bundle, work) as url:
        ask(url, 0, time.perf_counter() + sizes.seconds / 5)  # warms up
        latencies[0].clear()
        began = time.perf_counter()
        until = began + sizes.seconds
        callers = [
            threading.Thread(target=ask, args=(url, caller, until))
            for caller in range(sizes.callers)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        seconds = time.perf_counter() - began
    ordered = sorted(latency for one in latencies for latency in one)
    if not ordered:
        raise SystemExit(f"no answer of the server: {failures[:1]}")
    return {
        "callers": sizes.callers,
        "answers_per_second": len(ordered) / seconds,
        "p50_ms": 1000 * ordered[len(ordered) // 2],
        "p99_ms": 1000 * ordered[math.ceil(0.99 * len(ordered)) - 1],
        "failures": len(failures),
    }


# The report


def print_training(row: dict[str, Any]) -> None:
    if "error" in row:
        print(f"| {row['what']} | | | | {row['error']} |", flush=True)
        return
    share = row["share_of_bf16_peak"]
    print(
        f"| {row['what']} | {row['precision']} | {row['texts_per_second']:.0f} | {row['tflops']:.3g} "
        f"| {'' if share is None else f'{share:.1%}'} |",
        flush=True,
    )


def print_encoding(encoded: dict[str, Any]) -> None:
    print(f"\n| encoding, {encoded['engine']} | texts/s |\n|---|---|")
    for shape, rate in encoded["texts_per_second"].items():
        print(f"| {shape.replace('x', ' texts of ')} tokens | {rate:.0f} |")
    distance = encoded["distance_from_fp32"]
    print(f"\nvectors differ from fp32's by {distance:.1e} of their length at most", flush=True)


def print_serving(row: dict[str, Any]) -> None:
    print(f"\n| serving, {row['callers']} callers | answers/s | p50 ms | p99 ms | failures |")
    print("|---|---|---|---|---|")
    print(
        f"| sentiment | {row['answers_per_second']:.0f} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} "
        f"| {row['failures']} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="sizes that a processor can run")
    parser.add_argument("--out", type=Path, default=Path("dist/gpu.json"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # one row, in a process of its own
    arguments = parser.parse_args()
    sizes = TINY if arguments.tiny else FULL
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, sizes)), flush=True)
        # What was measured is said. Tearing down process groups and compilers may take long.
        os._exit(0)

    import torch

    device, name = device_name()
    if device == "cpu" and not arguments.tiny:
        raise SystemExit("gpu: no GPU here; --tiny runs everything on a processor")
    os.environ.setdefault("TASTELOOP_HOME", tempfile.mkdtemp())
    report: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "bf16_peak_tflops": peak_of(name),
        "sizes": asdict(sizes),
        "finetuning": [],
    }

    # What was measured is printed and written at once: a run that is cut off has shown it.
    def write() -> None:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    peak = report["bf16_peak_tflops"]
    print(f"{name}; torch {report['torch']}; bf16 peak {peak or 'not known'} TFLOP/s\n")
    print("| fine-tuning | precision | texts/s | TFLOP/s | of the bf16 peak |")
    print("|---|---|---|---|---|", flush=True)
    for row in finetuning(sizes, ["--tiny"] if arguments.tiny else []):
        report["finetuning"].append(row)
        write()
        print_training(row)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bundle = make_bundle(sizes, work)
        report["encoding"] = encoding(sizes, bundle)
        write()
        print_encoding(report["encoding"])
        report["serving"] = serving(sizes, bundle, work)
        write()
        print_serving(report["serving"])
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
