"""The command line of benchmarks that ask a finished bundle about its snapshots."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tasteloop.behaviour.snapshots import Snapshots
from tasteloop.errors import TasteloopError
from tasteloop.runtime.session import Session

Row = dict[str, Any]


def run(
    about: str | None,
    seed_of: str,
    measure: Callable[[Snapshots, Session, int, int], list[Row]],
    markdown: Callable[[Sequence[Row]], str],
    arguments: Sequence[str] | None,
) -> int:
    """Measure a bundle and print its rows, as a table or as JSON.

    Args:
        about: what `--help` says; seed_of: what `--seed` draws.
        measure: of snapshots, session, seed and bootstrap resamples.
        arguments: of the command line; None for those of the process.

    Returns:
        The exit code: 2 where something is not as it has to be, which is told.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="a sealed bundle")
    parser.add_argument(
        "--snapshots", type=Path, required=True, help="what `tasteloop step prepare` wrote for it"
    )
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap resamples (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help=f"of the {seed_of} (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args(arguments)
    try:
        data = Snapshots.read(options.snapshots)
        rows = measure(data, Session.load(options.bundle), options.seed, options.draws)
    except TasteloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(rows, indent=2) if options.json else markdown(rows))
    return 0
