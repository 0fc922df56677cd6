"""Servers as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).parents[2]
VERSION = "3"


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[str]
    http: str
    grpc: str

    def port(self, protocol: str) -> str:
        return str(getattr(self, protocol)).rsplit(":", 1)[1]


def run_server(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`python -m serving` with its output in one pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "serving", *arguments],
        cwd=HOUSE,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def when_ready(process: subprocess.Popen[str], ready_file: Path) -> Running:
    deadline = time.monotonic() + 600  # a hang, not a slow machine
    while not ready_file.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    ready = json.loads(ready_file.read_text())
    return Running(process, ready["http"], ready["grpc"])
