"""Events per second and memory of ingest and snapshots as the data grows: Polars, plain pandas,
Spark.

    python -m benchmarks.data.run --events 1e6,1e7 --engines polars,pandas,spark

Each engine reads the same generated file, replaces the users by pseudonyms, cleans, and takes
snapshots with their text, in a process of its own. Memory is the largest sum of the resident memory
of that process and its children, looked at every 0.1 s; of Spark that is a driver in Python and
Java and `local[2]`. The growth exponent is the slope of log time over log events, from the second
size on where there are three, so that starting costs do not flatter it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasteloop.words import first_paragraph

ROOT = Path(__file__).parents[2]
ENGINES = ("polars", "pandas", "spark")
POLARS_TIMES, POLARS_SHARE, EXPONENT, GIGABYTES = 3.0, 1 / 3, 1.1, 4.0  # what is asked for


def work(engine: str, mapping: Path, out: Path, rows_a_part: int) -> dict[str, Any]:
    """One engine on one source, in this process: seconds of each half."""
    from tasteloop.behaviour.cleaning import CleaningSettings
    from tasteloop.behaviour.partitions import DataSettings
    from tasteloop.behaviour.prepare import prepare
    from tasteloop.behaviour.snapshots import PrepareSettings
    from tasteloop.datasets.ingest import IngestSettings, ingest

    began = time.perf_counter()
    if engine == "pandas":
        from benchmarks.data import plain
        from tasteloop.behaviour.items import Catalogue
        from tasteloop.datasets import mapped
        from tasteloop.files import write_parquet
        from tasteloop.privacy.pseudonyms import pseudonym_key

        out.mkdir(parents=True)
        items = mapped.read(mapping).items
        assert items is not None
        write_parquet(out / "items.parquet", items)
        events = plain.clean(mapping.parent, out, CleaningSettings(), pseudonym_key())
        cleaned = time.perf_counter()
        snapshots = plain.prepare(
            events, Catalogue.read(out / "items.parquet"), PrepareSettings(), out
        )
    else:
        data = DataSettings.model_validate(
            {
                "engine": engine,
                "rows_a_part": rows_a_part,
                "master": "local[2]" if engine == "spark" else None,
            }
        )
        ingest(IngestSettings(behaviour=str(mapping), reviews=None), out / "dataset", data)
        cleaned = time.perf_counter()
        snapshots = sum(
            prepare(out / "dataset", PrepareSettings(), out / "snapshots", data).snapshots.values()
        )
    ended = time.perf_counter()
    return {
        "ingest_s": round(cleaned - began, 2),
        "snapshots_s": round(ended - cleaned, 2),
        "snapshots": snapshots,
    }


def measure(engine: str, events: int, base: Path, rows_a_part: int, limit: float) -> dict[str, Any]:
    """`work` in a process of its own, watched."""
    from benchmarks.data.generated import generate

    mapping = generate(events, base / f"generated-{events}")
    out = base / f"{engine}-{events}"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "benchmarks.data.run",
        "--work",
        engine,
        str(mapping),
        str(out),
    ]
    command += ["--rows-a-part", str(rows_a_part)]
    environment = {**os.environ, "TASTELOOP_HOME": str(base / "home"), "PYTHONPATH": str(ROOT)}
    began, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, env=environment, cwd=ROOT)
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(0.1)
            if time.perf_counter() - began > limit:
                process.kill()
        seconds = time.perf_counter() - began
        output.seek(0)
        text = output.read()
    shutil.rmtree(out, ignore_errors=True)
    row = {
        "engine": engine,
        "events": events,
        "seconds": round(seconds, 1),
        "peak_gb": round(peak / 1e9, 2),
    }
    if process.returncode:
        return {**row, "failed": f"exit code {process.returncode} after {seconds:.0f} s"}
    return {**row, "events_per_s": round(events / seconds), **json.loads(text.splitlines()[-1])}


def _resident(pid: int) -> int:
    """Bytes of a process and all below it."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = [
            c
            for t in Path(f"/proc/{pid}/task").iterdir()
            for c in (t / "children").read_text().split()
        ]
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident(int(child)) for child in children)


def exponent(rows: Sequence[Mapping[str, Any]], of: str = "seconds") -> float | None:
    """The least-squares slope of log seconds, or of another measure, over log events; from the
    second size on where there are three.
    """
    points = sorted((math.log(r["events"]), math.log(r[of])) for r in rows if "failed" not in r)
    points = points[1:] if len(points) > 2 else points
    if len(points) < 2:
        return None
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return round(
        sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points), 3
    )


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Growth of each engine, and Polars beside pandas at each size that both reached."""
    by = {(r["engine"], r["events"]): r for r in rows if "failed" not in r}
    sizes = sorted({events for _, events in by})
    beside = {
        str(n): {
            "times_faster": round(by["pandas", n]["seconds"] / by["polars", n]["seconds"], 2),
            "share_of_memory": round(by["polars", n]["peak_gb"] / by["pandas", n]["peak_gb"], 3),
        }
        for n in sizes
        if ("polars", n) in by and ("pandas", n) in by
    }
    growth = {engine: exponent([r for r in rows if r["engine"] == engine]) for engine in ENGINES}
    bounds = {
        "times_faster": POLARS_TIMES,
        "share_of_memory": POLARS_SHARE,
        "exponent": EXPONENT,
        "peak_gb": GIGABYTES,
    }
    return {"growth_exponent": growth, "polars_beside_pandas": beside, "asked": bounds}


def markdown(rows: Sequence[Mapping[str, Any]], summed: Mapping[str, Any]) -> str:
    lines = [
        "| events | engine | seconds | ingest | snapshots | events/s | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if "failed" in r:
            lines.append(
                f"| {r['events']:,} | {r['engine']} | {r['failed']} | | | | {r['peak_gb']} GB |"
            )
        else:
            lines.append(
                f"| {r['events']:,} | {r['engine']} | {r['seconds']} | {r['ingest_s']} | {r['snapshots_s']} "
                f"| {r['events_per_s']:,} | {r['peak_gb']} GB |"
            )
    growth = ", ".join(
        f"{engine} {value}"
        for engine, value in summed["growth_exponent"].items()
        if value is not None
    )
    lines += ["", f"Growth exponent of time: {growth or 'one size only'}."]
    for events, comparison in summed["polars_beside_pandas"].items():
        lines.append(
            f"At {int(events):,} events Polars is {comparison['times_faster']} times as fast as pandas "
            f"(asked: {POLARS_TIMES:g}) with {comparison['share_of_memory']:.0%} of its memory "
            f"(asked: {POLARS_SHARE:.0%})."
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("benchmarks.data.run", description=first_paragraph(__doc__))
    parser.add_argument("--events", default="1e6,1e7", help="sizes, 1e6,1e7,5e7 (1e6,1e7)")
    parser.add_argument(
        "--engines", default=",".join(ENGINES), help="of polars, pandas, spark (all)"
    )
    parser.add_argument(
        "--rows-a-part", type=int, default=1_000_000, help="data.rows_a_part (1000000)"
    )
    parser.add_argument(
        "--limit", type=float, default=3600, help="seconds after which a run is given up (3600)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data-benchmark"),
        help="sources and results (data-benchmark)",
    )
    parser.add_argument(
        "--work", nargs=3, metavar=("ENGINE", "MAPPING", "OUT"), help=argparse.SUPPRESS
    )
    options = parser.parse_args(arguments)
    if options.work:
        engine, mapping, out = options.work
        print(json.dumps(work(engine, Path(mapping), Path(out), options.rows_a_part)))
        return
    if unknown := set(engines := options.engines.split(",")) - set(ENGINES):
        parser.error(f"unknown engine {unknown.pop()!r}; known: {', '.join(ENGINES)}")
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for events in (int(float(n)) for n in options.events.split(",")):
        for engine in engines:
            rows.append(measure(engine, events, out, options.rows_a_part, options.limit))
            print(json.dumps(rows[-1]), file=sys.stderr)
    summed = summary(rows)
    (out / "result.json").write_text(
        json.dumps({"rows": rows, **summed}, indent=2) + "\n", encoding="utf-8"
    )
    (out / "result.md").write_text(table := markdown(rows, summed), encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
