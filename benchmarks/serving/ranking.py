"""Interests and recommend for one user with 40 events, in this process: no HTTP, no queue, nothing
cached.

    python benchmarks/serving/ranking.py --bundle DIR                    # the bundle's own
    catalogue python benchmarks/serving/ranking.py --bundle DIR --items 100000     # and a synthetic
    one of that size OMP_NUM_THREADS=1 python benchmarks/serving/ranking.py --bundle DIR --items
    10000

The synthetic catalogue has the bundle's encoder and made-up items, its arrays drawn at random in
the bundle's shapes. "rank" is what comes after the encoder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tasteloop.bundle.card import BundleCard

EVENTS = 40


def main() -> None:
    from tasteloop.bundle.card import BundleCard
    from tasteloop.runtime import choice, machine
    from tasteloop.runtime.session import Session

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--items", type=int, help="of a synthetic catalogue")
    parser.add_argument("--runs", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory, card = arguments.bundle, BundleCard.read(arguments.bundle)
        if arguments.items:
            directory = Path(folder) / "bundle"
            card = synthetic(arguments.bundle, card, arguments.items, directory)
        session = Session.open(directory, card, choice.choose(card, directory))
        count = len(session.catalogue)
        print(
            f"{machine.processor()}, {machine.threads()} threads, {session.runtime}, {count} items, {EVENTS} events"
        )
        print("| what | p50 ms | p99 ms |\n|---|---|---|")
        for stage, seconds in measure(session, arguments.runs).items():
            print(
                f"| {stage} | {1000 * np.quantile(seconds, 0.5):.2f} | {1000 * np.quantile(seconds, 0.99):.2f} |"
            )


def measure(session: Any, runs: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    catalogue = session.catalogue.items

    def question() -> dict[str, Any]:
        items = rng.choice(len(catalogue), EVENTS, replace=False)
        events = [
            {"kind": "rate", "item": catalogue[i], "value": float(rng.choice([0.25, 0.75, 1.0]))}
            for i in items
        ]
        return {"events": events}

    from tasteloop.runtime.questions import parse

    instances = [question() for _ in range(runs)]
    histories = [q["events"] for q in parse("recommend", instances)]
    interests = session.interests(histories)
    work: dict[str, Callable[[int], object]] = {
        "interests": lambda n: session.answer("interests", [instances[n]]),
        "recommend": lambda n: session.answer("recommend", [instances[n]]),
        "rank": lambda n: session.rank([histories[n]], interests[n : n + 1], 10),
    }
    times = {}
    for stage, call in work.items():
        call(0)
        times[stage] = []
        for n in range(runs):
            start = time.perf_counter()
            call(n)
            times[stage].append(time.perf_counter() - start)
    return times


def synthetic(bundle: Path, card: BundleCard, count: int, out: Path) -> BundleCard:
    """The bundle with a catalogue of `count` items, its arrays drawn at random in the sizes that
    they would have.
    """
    import polars as pl
    from safetensors.numpy import save_file

    from tasteloop.behaviour.items import ITEMS_SCHEMA
    from tasteloop.bundle.arrays import mapped_arrays
    from tasteloop.bundle.names import ITEMS_FILE, MODELS_DIRECTORY, RECOMMENDER_FILE

    rng = np.random.default_rng(0)
    out.mkdir()
    (out / MODELS_DIRECTORY).symlink_to((bundle / MODELS_DIRECTORY).absolute())
    labels, recommender = card.labels, card.require_recommender()
    rows = [
        (
            f"s{n}",
            f"Item number {n} (1999)",
            list(rng.choice(labels, 2, replace=False)),
            None,
            "film",
            None,
        )
        for n in range(count)
    ]
    pl.DataFrame(rows, schema=dict(ITEMS_SCHEMA.to_polars()), orient="row").write_parquet(
        out / ITEMS_FILE
    )
    own = mapped_arrays(bundle / RECOMMENDER_FILE)
    inside = min(count, recommender.settings["ease_items"])
    sizes = {len(own["vectors"]): count, len(own["compared"]): inside}
    arrays = {}
    for name, array in own.items():
        shape = [sizes.get(size, size) for size in array.shape]
        arrays[name] = np.abs(rng.standard_normal(shape, np.float32))
    arrays["vectors"] = rng.standard_normal(arrays["vectors"].shape, np.float32)
    arrays["vectors"] /= np.linalg.norm(arrays["vectors"], axis=1, keepdims=True)
    arrays["compared"] = np.arange(inside, dtype=np.int32)
    arrays["new"] = np.arange(
        count - round(count * len(own["new"]) / len(own["vectors"])), count, dtype=np.int32
    )
    for name in ("membership", "label_share"):
        arrays[name] /= arrays[name].sum(-1, keepdims=True)
    save_file(arrays, out / RECOMMENDER_FILE)
    weights = {name: (a or 0.1, b) for name, (a, b) in recommender.weights.items()}
    changed = recommender.model_copy(update={"weights": weights})
    return card.model_copy(update={"recommender": changed})


if __name__ == "__main__":
    main()
