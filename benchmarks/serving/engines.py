"""Texts a second by engine, batch and length, on this machine, with a bundle's own encoder.

    python benchmarks/serving/engines.py                       # the champion's encoder
    python benchmarks/serving/engines.py --bundle DIR --seconds 2
    OMP_NUM_THREADS=1 python benchmarks/serving/engines.py     # on one core

The best of the runs that fit into the seconds given to each cell, since what else a machine does
only ever adds. A batch is shared out among the threads as in a server; int8 reads each text alone.
Quality is the bundle's own record, in its model card.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SHAPES = [(batch, tokens) for batch in (1, 16) for tokens in (27, 64, 128, 256)]


def main() -> None:
    from tasteloop.bundle.card import BundleCard
    from tasteloop.bundle.names import MODELS_DIRECTORY
    from tasteloop.runtime import choice, engines, machine

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="a bundle directory; the champion's by default")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each cell (default: 1)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    bundle = arguments.bundle or champion()
    card = BundleCard.read(bundle)
    directory = bundle / MODELS_DIRECTORY / card.reading_model
    rows: dict[str, dict[str, float]] = {}
    for name in engines.ON_CPU:
        if not engines.available(name, directory):
            continue
        rows[name] = choice.speed(engines.Runner(name, directory), SHAPES, arguments.seconds)
    recorded = {} if card.runtime is None else card.runtime.candidates
    if arguments.json:
        print(
            json.dumps(
                {
                    "processor": machine.processor(),
                    "threads": machine.threads(),
                    "texts_per_second": rows,
                }
            )
        )
        return
    print(f"{machine.processor()}, {machine.threads()} threads; texts/s, batch x tokens")
    columns = [f"{batch}x{tokens}" for batch, tokens in SHAPES]
    print("| engine | " + " | ".join(columns) + " | difference | good |")
    print("|---|" + "---|" * (len(columns) + 2))
    for name, speeds in rows.items():
        measured = recorded.get(name)
        cells = [f"{speeds[c]:.0f}" if c in speeds else "" for c in columns]
        cells += [
            f"{measured.difference:.1g}" if measured else "",
            "" if measured is None else "yes" if measured.good else "no",
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")
    missing = [name for name in engines.ON_CPU if name not in rows]
    print(
        f"chosen at export: {recorded.get('chosen', 'nothing')}; not on this machine: {', '.join(missing) or 'none'}"
    )


def champion() -> Path:
    from serving.release.registry import champion as live

    bundle = live()
    if bundle is None:
        raise SystemExit("there is no champion; name a --bundle DIR")
    return bundle.path


if __name__ == "__main__":
    main()
