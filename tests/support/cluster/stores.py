"""An object store (moto's S3) and an MLflow server that keeps its artifacts in it, as processes of
their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

BUCKET = "tasteloop"


@dataclass(frozen=True)
class Stores:
    """Addresses: `s3` the endpoint, `tracking` what MLFLOW_TRACKING_URI is set to."""

    s3: str
    tracking: str


@contextmanager
def run_stores(folder: Path, host: str, ports: tuple[int, int]) -> Iterator[Stores]:
    """Both, on these ports of `host`, until the block ends."""
    s3, tracking = (f"http://{host}:{port}" for port in ports)
    folder.mkdir(parents=True, exist_ok=True)
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test")
    environment = {
        **os.environ,
        **keys,
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": s3,
    }
    # seconds of a processor for what nobody asks
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    environment.pop("MLFLOW_TRACKING_URI", None)
    mlflow = ["mlflow", "server", "--host", host, "--port", str(ports[1]), "--workers", "1"]
    mlflow += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--serve-artifacts"]
    mlflow += ["--artifacts-destination", f"s3://{BUCKET}/mlflow"]
    commands = {
        "moto": ["moto.server", "--host", host, "--port", str(ports[0])],
        "mlflow": mlflow,
    }
    with ExitStack() as started:
        for (name, command), address in zip(commands.items(), (s3, tracking), strict=True):
            log = started.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
            started.callback(_stop, process)
            _wait(address, process, folder / f"{name}.log")
            if name == "moto":
                urlopen(Request(f"{s3}/{BUCKET}", method="PUT"), timeout=30).close()
        yield Stores(s3, tracking)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            urlopen(address, timeout=5).close()
            return
        except (URLError, OSError):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(
                errors="replace"
            )[-2000:]
            time.sleep(0.3)


def _stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, 15)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
