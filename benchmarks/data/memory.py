"""Peak memory and time of each step of whole runs, and how memory grows with the events.

    python -m benchmarks.data.memory ml-1m Games.test.inter.gz 10000000

Each argument is what `ingest.behaviour` takes, or a number: so many ratings are generated, of
60,000 users and 20,000 items without labels. Each data set goes through `tasteloop run` in a home
of its own with the settings of `--set`, and what the run records of its steps is printed as a
table: peak memory, seconds and, in brackets, seconds of the processors. They are of the step's
process; the server that `rehearse` starts is not in them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.data.generated import RATINGS, generate
from benchmarks.data.run import ROOT, exponent
from tasteloop.files import read_json, write_json
from tasteloop.words import first_paragraph

EXPONENT = 0.5  # the most that is asked for
GIB = 2**30


def measure(data: str, out: Path, settings: Sequence[str]) -> dict[str, Any]:
    """A whole run on a data set; a failed or refused one has the steps that it came to.

    Returns:
        data, events, the run's outcome, seconds and largest peak, and its steps' seconds and peaks.
    """
    source = data
    if data.isdigit():
        source = str(generate(int(data), out / f"generated-{data}", shape=RATINGS))
    home = out / f"home-{Path(data).name}"
    command = [sys.executable, "-m", "pipelines.cli", "run"]
    for setting in (f"ingest.behaviour={source}", *settings):
        command += ["--set", setting]
    environment = {**os.environ, "TASTELOOP_HOME": str(home)}
    subprocess.run(command, env=environment, cwd=ROOT, stdout=sys.stderr, check=False)

    facts = read_json(max(home.glob("runs/*/run.json")))
    dataset = Path(facts["artifacts"]["dataset"])
    steps = {
        step["step"]: {name: step[name] for name in ("seconds", "processor_seconds", "peak_bytes")}
        for step in facts["steps"]
        if not step["reused"] and step["event"] == "finished"
    }
    return {
        "data": data,
        "events": read_json(dataset / "ingest.json")["rows_out"],
        "outcome": facts["outcome"],
        "seconds": facts["seconds"],
        "peak_bytes": max(step["peak_bytes"] for step in steps.values()),
        "steps": steps,
    }


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a step, a column a data set, and the exponent between the largest peaks."""
    names = [f"{Path(row['data']).name}, {row['events']:,} events" for row in rows]
    lines = ["| step | " + " | ".join(names) + " |", "|---" * (1 + len(rows)) + "|"]
    for step in dict.fromkeys(step for row in rows for step in row["steps"]):
        cells = []
        for row in rows:
            measured = row["steps"].get(step)
            cells.append(
                f"{measured['peak_bytes'] / GIB:.2f} GiB, {measured['seconds']:.0f} s "
                f"({measured['processor_seconds']:.0f})"
                if measured
                else ""
            )
        lines.append(f"| {step} | " + " | ".join(cells) + " |")
    whole = [f"{row['peak_bytes'] / GIB:.2f} GiB, {row['seconds']:.0f} s" for row in rows]
    lines.append("| **run** | " + " | ".join(whole) + " |")
    outcomes = ", ".join(f"{Path(row['data']).name} {row['outcome']}" for row in rows)
    growth = exponent(rows, "peak_bytes")
    lines += [
        "",
        f"Outcomes: {outcomes}.",
        f"Growth exponent of memory: {growth} (asked: {EXPONENT}).",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("benchmarks.data.memory", description=first_paragraph(__doc__))
    parser.add_argument("data", nargs="+", help="a source, or how many ratings are generated")
    parser.add_argument("--set", action="append", default=[], help="a setting of all runs")
    parser.add_argument(
        "--out", type=Path, default=Path("memory-benchmark"), help="(memory-benchmark)"
    )
    options = parser.parse_args(arguments)
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    rows = [measure(data, out, options.set) for data in options.data]
    write_json(out / "result.json", {"rows": rows})
    print(markdown(rows))


if __name__ == "__main__":
    main()
