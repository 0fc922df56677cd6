"""Starts ours and the peer as processes of their own, on loopback, for what measures them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

HOUSE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Running:
    name: str
    http: str
    grpc: str
    pid: int


@contextmanager
def ours(bundle: Path, *options: str) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder, "ready.json")
        command = [
            sys.executable,
            "-m",
            "serving",
            "--bundle",
            str(bundle),
            "--ready-file",
            str(ready),
        ]
        with _process([*command, "--port", "0", "--grpc-port", "0", *options]) as process:
            _wait(process, ready.exists)
            addresses = json.loads(ready.read_text())
            yield Running("tasteloop", addresses["http"], addresses["grpc"], process.pid)


@contextmanager
def plain(encoder: Path) -> Iterator[Running]:
    http, grpc = _free(), _free()
    script = Path(__file__).parent / "peers" / "plain.py"
    command = [sys.executable, str(script), "--encoder", str(encoder)]
    with _process([*command, "--http_port", str(http), "--grpc_port", str(grpc)]) as process:
        url = f"http://127.0.0.1:{http}"

        def is_ready() -> bool:
            try:
                return httpx.get(f"{url}/v2/models/sentiment/ready", trust_env=False).is_success
            except httpx.HTTPError:
                return False

        _wait(process, is_ready)
        yield Running("plain kserve.Model", url, f"127.0.0.1:{grpc}", process.pid)


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    log = tempfile.TemporaryFile()  # noqa: SIM115 (the process writes to it for as long as it lives)
    path = os.pathsep.join(filter(None, (str(HOUSE), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield process
    except BaseException:
        log.seek(0)
        sys.stderr.write(log.read()[-4000:].decode(errors="replace"))
        raise
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("a server did not start; its log is above")
        time.sleep(0.1)


def _free() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
