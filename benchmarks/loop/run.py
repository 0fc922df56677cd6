"""The loop under shifts, by `tasteloop simulate`: false triggers, detection, alerts, quality
regained; and the report.

    python -m benchmarks.loop.run                # 20 seeds a scenario, a window of a million rows
    python -m benchmarks.loop.run --seeds 3 --only taste-change --only stationary
    python -m benchmarks.loop.run --only window  # the drift report's time and memory alone

Each simulation's result is kept under `--out`, and one that is there with the same options is not
run again: the same command carries on. Simulations answer in process: those are the server's
answers (tests/e2e/serving), without HTTP. Evidently's page is left out of them, on which no
decision rests. But for `--retrain` seeds of the taste change the replay ends with the first
decision to act.

The window of a million rows is replayed lives, ten thousand in a week, of which most repeat others
under another pseudonym. It is examined by a process of its own, whose peak memory is reported.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.simulation.shifts import Options

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).parents[2]
WINDOW, ROWS = "window", 1_000_000
Say = Callable[[str], None]


def simulations(
    names: Sequence[str],
    seeds: int,
    retrain: int,
    weeks: int,
    out: Path,
    root: Path,
    processes: int,
    say: Say,
) -> list[dict[str, Any]]:
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    from pipelines.simulation.champion import make_champion, usual_weeks
    from pipelines.simulation.shifts import Options
    from tasteloop.files import read_json

    results, ahead = [], []
    # seed by seed, so that what is there when it is stopped is of all scenarios
    for seed in range(seeds):
        for name in names:
            options = Options(
                name, seed, weeks, serve=False, retrain=name == "taste-change" and seed < retrain
            )
            path = out / f"{name}-{seed}.json"
            required = {**asdict(options), "severity": options.size}
            saved = read_json(path) if path.is_file() else {}
            if required.items() <= saved.items():
                results.append(saved)
            else:
                ahead.append(options)
    for usual in dict.fromkeys(map(usual_weeks, ahead)):
        # champions are trained once, before the processes would each train one
        make_champion(root, usual, (), say)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for future in as_completed(
            [pool.submit(simulated, options, out, root) for options in ahead]
        ):
            results.append(result := future.result())
            after = result["detected_after"]
            came = f"acted in window {after} of the shift" if after else "did not act on the shift"
            came = (
                f"{result['false_triggers']} false triggers"
                if result["expected"] == "nothing"
                else came
            )
            say(
                f"{len(results)} of {seeds * len(names)}: {result['shift']}, seed {result['seed']}: {came}; "
                f"{'as expected' if result['met'] else '; '.join(result['failures'])} ({result['seconds']} s)"
            )
    order = {name: n for n, name in enumerate(names)}
    return sorted(results, key=lambda r: (order[r["shift"]], r["seed"]))


def simulated(options: Options, out: Path, root: Path) -> dict[str, Any]:
    """One simulation, without Evidently's page: no decision rests on it, and it takes half of a
    monitor's pass.
    """
    from unittest.mock import patch

    from pipelines.simulation.simulator import simulate
    from tasteloop.files import write_json
    from validation.monitor.drift_report import EvidentlyNumbers

    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    name = f"{options.shift}-{options.seed}"
    home = out / "homes" / name
    began = time.perf_counter()
    with patch("validation.monitor.examination.evidently", lambda *_: ("", EvidentlyNumbers())):
        result = simulate(options, home, root, say=lambda _: None)
    record = {**result.json(), "seconds": round(time.perf_counter() - began, 1)}
    write_json(out / f"{name}.json", record)
    shutil.rmtree(home)  # 200 MB each; the same command with its result removed makes it again
    return record


def summary(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By scenario: counts, shares with their intervals."""
    from tasteloop.metrics import wilson

    rows = []
    for name in dict.fromkeys(r["shift"] for r in results):
        mine = [r for r in results if r["shift"] == name]
        false, clean = sum(r["false_triggers"] for r in mine), sum(r["clean_windows"] for r in mine)
        row: dict[str, Any] = {
            "shift": name,
            "expected": mine[0]["expected"],
            "severity": mine[0]["severity"],
            "seeds": len(mine),
            "met": sum(r["met"] for r in mine),
            "false_triggers": false,
            "clean_windows": clean,
            "false_interval": wilson(false, clean),
            "seconds_a_seed": round(sum(r["seconds"] for r in mine) / len(mine), 1),
        }
        if mine[0]["expected"] != "nothing":
            hits = sum(r["detected_after"] is not None and r["detected_after"] <= 2 for r in mine)
            hit_windows = [w for r in mine for w in r["windows"] if w["shifted"]]
            row |= {
                "detected": hits,
                "detected_interval": wilson(hits, len(mine)),
                "alerts": sum(
                    any(w["outcome"] == "alert-human" for w in r["windows"]) for r in mine
                ),
                "retrained": sum(w["outcome"] == "retrain" for w in hit_windows),
            }
        regained = [
            r["quality"]["regained"] for r in mine if r["quality"].get("regained") is not None
        ]
        if regained:
            row["regained"] = regained
        rows.append(row)
    return rows


def window(base: Path, work: Path, say: Say) -> dict[str, Any]:
    """Examine a window of a million rows; seconds, and the peak memory of the process that did."""

    from pipelines.simulation.homes import use_home
    from pipelines.simulation.replay import Replay
    from pipelines.simulation.shifts import Options
    from pipelines.simulation.world import World
    from tasteloop.files import read_json, read_parquet, write_parquet
    from tasteloop.privacy.pseudonyms import pseudonym_key

    world = World.of(
        read_parquet(base / "ml-100k" / "events.parquet"),
        read_parquet(base / "ml-100k" / "items.parquet"),
    )
    replay = Replay(world, Options(visitors=12_000))
    with use_home(base):
        events = replay.arrivals(replay.visits(0), 0, pseudonym_key()).drop("arrives")
    if events.height < ROWS:
        raise SystemExit(f"only {events.height} rows were made")
    saved = events.head(ROWS)
    write_parquet(work / "window.parquet", saved)
    numbers_file = work / "window.json"
    say(f"examining {saved.height:,} rows of {saved['user'].n_unique():,} users")
    began = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "benchmarks.loop.run",
        "--examine",
        str(work),
        "--base",
        str(base),
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    return {**read_json(numbers_file), "process_seconds": round(time.perf_counter() - began, 2)}


def examined(base: Path, work: Path) -> None:
    """The measured process: read the window, load what the monitor loads, examine, write the
    report.
    """
    import polars as pl

    from pipelines.simulation.homes import use_home
    from pipelines.simulation.replay import FIRST_WEEK, REFERENCE_WEEKS
    from serving.release import registry
    from tasteloop.files import read_parquet, write_json
    from tasteloop.runtime.session import Session
    from validation.monitor.decision import DecisionSettings
    from validation.monitor.examination import examine
    from validation.monitor.reference import Reference, reference_path
    from validation.monitor.sampling import Reader
    from validation.monitor.windows import WEEK, Span

    began = time.perf_counter()
    with use_home(base):
        live = registry.champion()
        assert live is not None
        reference = Reference.read(reference_path(live.digest))
        session = Session.load(live.path)
    loaded = time.perf_counter()
    span = Span(FIRST_WEEK + REFERENCE_WEEKS * WEEK, FIRST_WEEK + (REFERENCE_WEEKS + 1) * WEEK)
    events = read_parquet(work / "window.parquet")
    rows = events.height
    before = reference.answers()
    # the reference's own answers stand for the window's
    moved = span.start - reference.spans[-1].start
    answers = before.drop("window", "relevant", "clicked").with_columns(pl.col("time") + moved)
    answers = answers.filter(pl.col("time").is_between(span.start, span.end, closed="left"))
    reader = Reader.of(session)
    found = examine(
        reference,
        reader,
        span,
        events,
        answers,
        reader.catalogue.items,
        DecisionSettings(),
        work / "report",
    )
    numbers = {
        "rows": rows,
        "answers": answers.height,
        "findings": len(found.findings),
        "load_seconds": round(loaded - began, 2),
        "examine_seconds": round(time.perf_counter() - loaded, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    write_json(work / "window.json", numbers)


def markdown(rows: Sequence[Mapping[str, Any]], million: Mapping[str, Any] | None) -> str:
    lines = [
        "| shift | expected | seeds | as expected | false triggers | detected within 2 windows | alerted | retrained | "
        "quality regained | s a seed |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        low, high = row["false_interval"]
        clean = row["clean_windows"]
        false = (
            f"{row['false_triggers']} of {clean} windows ({low:.1%} to {high:.1%})" if clean else ""
        )
        detected = alerts = retrained = ""
        if "detected" in row:
            low, high = row["detected_interval"]
            detected = f"{row['detected']} of {row['seeds']} ({low:.0%} to {high:.0%})"
            alerts, retrained = f"{row['alerts']}", f"{row['retrained']}"
        shares = row.get("regained", [])
        regained = (
            f"{sum(shares) / len(shares):.0%} (least {min(shares):.0%}, n = {len(shares)})"
            if shares
            else ""
        )
        cells = [
            f"{row['shift']} ({row['severity']:g})",
            row["expected"],
            row["seeds"],
            row["met"],
            false,
            detected,
            alerts,
            retrained,
            regained,
            row["seconds_a_seed"],
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    if million:
        lines += [
            "",
            f"Drift report on {million['rows']:,} rows: {million['examine_seconds']} s to examine, "
            f"{million['process_seconds']} s the whole process with its imports, {million['peak_mb']} MB at most "
            "(wanted: 20 s, 1 GB).",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--retrain", type=int, default=20, metavar="N", help="taste changes that are retrained on"
    )
    parser.add_argument("--weeks", type=int, default=6)
    parser.add_argument(
        "--processes", type=int, default=1, help="simulations at a time (default: %(default)s)"
    )
    parser.add_argument("--only", action="append", metavar="SHIFT|window")
    parser.add_argument(
        "--out", type=Path, help="results, and what is kept (default: TASTELOOP_HOME/bench/loop)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument("--examine", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    if arguments.examine:
        examined(arguments.base, arguments.examine)
        return

    from pipelines.simulation.champion import make_champion
    from pipelines.simulation.shifts import SHIFTS, Options
    from tasteloop.files import write_json
    from tasteloop.home import Home

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    names = arguments.only or [*SHIFTS, WINDOW]
    if unknown := [name for name in names if name not in (*SHIFTS, WINDOW)]:
        parser.error(f"no scenario {unknown[0]!r}; known: {', '.join([*SHIFTS, WINDOW])}")
    out = (arguments.out or Home.current().benchmarks / "loop").absolute()
    root = Home.current().simulations
    out.mkdir(parents=True, exist_ok=True)
    shifts = [name for name in names if name != WINDOW]
    results = simulations(
        shifts,
        arguments.seeds,
        arguments.retrain,
        arguments.weeks,
        out,
        root,
        arguments.processes,
        say,
    )
    million = None
    if WINDOW in names:
        base, _ = make_champion(root, Options(), (), say)
        (out / WINDOW).mkdir(exist_ok=True)
        million = window(base, out / WINDOW, say)
    everything = {"scenarios": summary(results), WINDOW: million}
    write_json(out / "loop.json", everything)
    (out / "loop.md").write_text(
        text := markdown(everything["scenarios"], million), encoding="utf-8"
    )
    print(json.dumps(everything, indent=2) if arguments.json else text, end="")


if __name__ == "__main__":
    main()
