"""Runs tests/e2e/serving/conformance against ours and against a plain kserve.Model, and prints what
each fails.

python benchmarks/serving/conformance.py --bundle DIR --encoder DIR
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from servers import HOUSE, Running, ours, plain

from tasteloop.words import first_paragraph

ROOMS = {
    "test_v1": "V1",
    "test_v2": "V2 REST, binary tensor data",
    "test_grpc": "V2 gRPC",
    "test_clients": "the official clients",
    "test_fuzz": "fuzzed bodies",
    "test_openapi": "the OpenAPI document",
    "test_without_rights": "what a stranger must not do",
}
Outcomes = dict[str, dict[str, str]]


def run(start: Callable[[], AbstractContextManager[Running]]) -> tuple[str, Outcomes]:
    """The server's name; outcome (passed, failed, skipped) by room and case.

    Each room has a server of its own: what one case does to a server must not be held against the
    next rooms.
    """
    outcomes: Outcomes = {}
    for room in ROOMS:
        with start() as server, tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.xml")
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                f"tests/e2e/serving/conformance/{room}.py",
                "--tb",
                "no",
            ]
            command += [
                "--server",
                server.http,
                "--grpc",
                server.grpc,
                "--junitxml",
                str(report),
                "--timeout",
                "120",
            ]
            subprocess.run(
                [*command, "-p", "no:cacheprovider"], cwd=HOUSE, stdout=sys.stderr, check=False
            )
            cases: dict[str, str] = {}
            for case in xml.parse(report).iter("testcase"):
                kinds = {child.tag for child in case}
                outcome = (
                    "failed"
                    if kinds & {"failure", "error"}
                    else "skipped"
                    if "skipped" in kinds
                    else "passed"
                )
                name = case.attrib["name"]
                cases[name] = max(outcome, cases.get(name, ""), key=_worse)
            outcomes[room] = cases
            name = server.name
    return name, outcomes


def _worse(outcome: str) -> int:
    return ["", "skipped", "passed", "failed"].index(outcome)


def table(results: dict[str, Outcomes]) -> str:
    lines = ["| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for room, title in ROOMS.items():
        cells = []
        for outcomes in results.values():
            passed = sum(outcome == "passed" for outcome in outcomes[room].values())
            counted = sum(outcome != "skipped" for outcome in outcomes[room].values())
            cells.append(f"{passed} of {counted}")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    for name, outcomes in results.items():
        lines += ["", f"What {name} fails:", ""]
        failed = [
            (ROOMS[room], c)
            for room, cases in outcomes.items()
            for c, o in cases.items()
            if o == "failed"
        ]
        lines += [f"- {room}: `{case}`" for room, case in failed] or ["nothing."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=first_paragraph(__doc__))
    parser.add_argument("--bundle", type=Path, required=True, help="what ours serves")
    parser.add_argument("--encoder", type=Path, required=True, help="what the peer serves")
    arguments = parser.parse_args()
    results = dict(
        run(start) for start in (lambda: ours(arguments.bundle), lambda: plain(arguments.encoder))
    )
    sys.stdout.write(table(results) + "\n")


if __name__ == "__main__":
    main()
