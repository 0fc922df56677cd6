"""Promotions and rollbacks under load: no error, no mixed answer, every answer says which version
gave it.

Two versions of one bundle that differ in every answer are registered in a home of its own. A server
follows it while processes ask, by default without a pause, over V1 and V2; the champion is moved to
and fro, each time waiting until it is served. Every answer is compared with what the version that
it names computes offline.

    python benchmarks/serving/swaps.py --bundle runs/x/bundle --swaps 1000
    python benchmarks/serving/swaps.py --bundle runs/x/bundle --swaps 20 --kill        kill -9
    during swaps
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parents[2]
sys.path.insert(0, str(HOUSE))

from serving.answering.tensors import from_v2  # noqa: E402
from serving.release import promotion, registry  # noqa: E402
from serving.release.answer_comparison import compare  # noqa: E402
from tasteloop import files  # noqa: E402
from tasteloop.verdicts import Verdict  # noqa: E402

TOLERANCE = 1e-4
ASKED = 3  # golden questions of each model


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="a bundle directory")
    parser.add_argument(
        "--swaps", type=int, default=1000, help="promotions and rollbacks (default: %(default)s)"
    )
    parser.add_argument(
        "--clients", type=int, default=4, help="processes that ask (default: %(default)s)"
    )
    parser.add_argument(
        "--pause", type=float, default=0.0, help="seconds between a client's questions (default: 0)"
    )
    parser.add_argument(
        "--kill", action="store_true", help="kill -9 the server at a random moment of each swap"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="swaps-") as folder:
        os.environ["TASTELOOP_HOME"] = str(Path(folder, "home"))
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        outcome = measure(Path(folder), arguments)
    if arguments.json:
        print(json.dumps(outcome, indent=2))
    else:
        for name, value in outcome.items():
            print(f"{name:<28} {value}")
    return 0 if not (outcome["errors"] or outcome["mixed"] or outcome["unfollowed"]) else 1


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    other = variant(arguments.bundle, folder / "other")
    versions = [register(bundle, folder, n) for n, bundle in enumerate((arguments.bundle, other))]
    expected = dict(zip(versions, (golden(arguments.bundle), golden(other)), strict=True))
    for a, b in zip(*expected.values(), strict=True):
        if not compare(a["model"], a["answer"], b["answer"], TOLERANCE):
            raise SystemExit(
                f"both versions answer {a['model']} alike: a mixed answer could not be told"
            )
    promote(versions[0])
    process, url = start(folder)
    stop = multiprocessing.Event()
    results: multiprocessing.Queue[dict[str, Any]] = multiprocessing.Queue()
    address = multiprocessing.Array("c", 200)
    address.value = url.encode()
    clients = [
        multiprocessing.Process(
            target=ask, args=(n, address, expected, stop, results, arguments), daemon=True
        )
        for n in range(arguments.clients)
    ]
    for client in clients:
        client.start()
    waits, unfollowed, restarts = [], 0, 0
    before, started = resident(process.pid), time.monotonic()
    settled = before
    chance = random.Random(0)
    for n in range(1, arguments.swaps + 1):
        target = versions[n % 2]
        promote(target) if n % 2 else promotion.rollback()
        moved = time.monotonic()
        if arguments.kill:
            time.sleep(chance.uniform(0, 1.5))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process, url = start(folder)
            address.value = url.encode()
            restarts += 1
        if follows(url, target):
            waits.append(time.monotonic() - moved)
        else:
            unfollowed += 1
        if n == min(50, arguments.swaps):
            settled = resident(process.pid)
        if n % 50 == 0:
            sys.stderr.write(f"{n} swaps, {time.monotonic() - started:.0f} s\n")
    seconds, after = time.monotonic() - started, resident(process.pid)
    stop.set()
    counts = [results.get(timeout=120) for _ in clients]
    process.terminate()
    process.wait(60)
    waits.sort()
    return {
        "swaps": arguments.swaps,
        "killed": restarts,
        "seconds": round(seconds, 1),
        "answers": sum(one["answers"] for one in counts),
        "by_version": {v: sum(one["by_version"].get(v, 0) for one in counts) for v in versions},
        "errors": sum(one["errors"] for one in counts),
        "mixed": sum(one["mixed"] for one in counts),
        "examples": [example for one in counts for example in one["examples"]][:5],
        "cut_off_by_kills": sum(one["cut"] for one in counts),
        "unfollowed": unfollowed,
        "follow_seconds_p50": round(waits[len(waits) // 2], 3) if waits else None,
        "follow_seconds_max": round(waits[-1], 3) if waits else None,
        "resident_mb": {"start": before, "after_50": settled, "end": after},
        "exit_code": process.returncode,
    }


def variant(bundle: Path, out: Path) -> Path:
    """A whole bundle whose every answer is another: probabilities moved, titles marked, golden
    answers recomputed.
    """
    import polars as pl

    from tasteloop.bundle.card import BundleCard
    from tasteloop.bundle.manifest import seal
    from tasteloop.runtime.session import Session

    shutil.copytree(bundle, out)
    items = pl.read_parquet(out / "items.parquet").with_columns(pl.col("title") + " (the other)")
    files.write_parquet(out / "items.parquet", items)
    card = files.read_json(out / "card.json")
    for task in card["tasks"].values():
        # to the opposite: an intercept would not move what is as good as sure
        for slope in ("slope", "habit_slope"):
            task |= {slope: -task[slope]} if slope in task else {}
        task["intercept"] += 0.3
    files.write_json(out / "card.json", card)
    session = Session.open(out, BundleCard.read(out))
    recorded = files.read_json(out / "golden.json")
    for question in recorded["questions"]:
        question["answer"] = session.answer(question["model"], [question["instance"]])[0]
    files.write_json(out / "golden.json", recorded)
    seal(out)
    return out


def golden(bundle: Path) -> list[dict[str, Any]]:
    """The first questions of each model with their answers."""
    questions_of_model: dict[str, list[dict[str, Any]]] = {}
    for question in files.read_json(bundle / "golden.json")["questions"]:
        questions_of_model.setdefault(question["model"], []).append(question)
    return [question for questions in questions_of_model.values() for question in questions[:ASKED]]


def register(bundle: Path, folder: Path, n: int) -> str:
    files.write_json(folder / f"evaluation{n}.json", {"metrics": {}, "lineage": {}})
    recorded = registry.record(
        bundle, folder / f"evaluation{n}.json", Verdict(passed=True), {"n": n}
    )
    digest = files.sha256_file(bundle / "manifest.json")
    files.write_json(
        folder / f"r{n}.json", {"passed": True, "reason": "for this benchmark", "digest": digest}
    )
    registry.attach_rehearsal(recorded.version, folder / f"r{n}.json")
    return recorded.version


def promote(version: str) -> None:
    live = registry.pointer()
    promotion.promote(version, live[1] if live else None)


def start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    log = (folder / "server.log").open("ab")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "serving",
            "--port",
            "0",
            "--grpc-port",
            "0",
            "--ready-file",
            str(ready),
        ]
        + ["--exit-with-parent"],
        cwd=HOUSE,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
    )
    deadline = time.monotonic() + 180
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(
                f"the server did not start:\n{(folder / 'server.log').read_text()[-3000:]}"
            )
        time.sleep(0.02)
    return process, files.read_json(ready)["http"]


def follows(url: str, version: str, patience: float = 120.0) -> bool:
    """Wait until a version is served."""
    import httpx

    deadline = time.monotonic() + patience
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        while time.monotonic() < deadline:
            if http.get("/v1/status").json()["version"] == version:
                return True
            time.sleep(0.02)
    return False


def ask(
    n: int, address: Any, expected: Any, stop: Any, results: Any, arguments: argparse.Namespace
) -> None:
    """Ask and compare; in a process of its own."""
    import httpx

    outcome: dict[str, Any] = {
        "answers": 0,
        "errors": 0,
        "mixed": 0,
        "cut": 0,
        "by_version": {},
        "examples": [],
    }
    questions = next(iter(expected.values()))
    turn, parent = n, os.getppid()
    while not stop.is_set() and os.getppid() == parent:
        url = address.value.decode()
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
            while not stop.is_set() and address.value.decode() == url and os.getppid() == parent:
                index, over_v2 = turn % len(questions), bool((turn // len(questions)) % 2)
                turn += 1
                time.sleep(arguments.pause)
                try:
                    problem, version = one(
                        http, questions[index], {v: q[index] for v, q in expected.items()}, over_v2
                    )
                except httpx.TransportError as error:
                    if arguments.kill:
                        outcome["cut"] += 1
                        time.sleep(0.05)
                        break
                    problem, version = f"error: {type(error).__name__}", ""
                if problem:
                    outcome["errors" if problem.startswith("error") else "mixed"] += 1
                    outcome["examples"].append(problem)
                else:
                    outcome["answers"] += 1
                    outcome["by_version"][version] = outcome["by_version"].get(version, 0) + 1
    results.put(outcome)


def one(
    http: Any, question: dict[str, Any], by_version: dict[str, dict[str, Any]], over_v2: bool
) -> tuple[str, str]:
    """Ask one question; what is wrong with the answer, and its version."""
    model, instance = question["model"], question["instance"]
    if over_v2:
        name, element = (
            ("text", instance["text"]) if model == "sentiment" else ("events", json.dumps(instance))
        )
        tensor = {"name": name, "datatype": "BYTES", "shape": [1], "data": [element]}
        response = http.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})
    else:
        response = http.post(f"/v1/models/{model}:predict", json={"instances": [instance]})
    if response.status_code != 200:
        return f"error {response.status_code}: {response.text[:200]}", ""
    body = response.json()
    version = body["model_version"]
    answer = from_v2(model, body["outputs"], 1)[0] if over_v2 else body["predictions"][0]
    want = by_version[version]["answer"]
    if over_v2 and "recommendations" in want:
        want = {
            "recommendations": [
                {k: v for k, v in e.items() if k != "title"} for e in want["recommendations"]
            ]
        }
    differences = compare(model, want, answer, TOLERANCE)
    return (
        f"version {version} answered {model} otherwise: {differences[0]}" if differences else ""
    ), version


def resident(pid: int) -> float:
    """MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


if __name__ == "__main__":
    sys.exit(main())
