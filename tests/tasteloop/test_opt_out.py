"""No library tells its maker that it was used, in any process that runs our code."""

from __future__ import annotations

import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Writes down whom Python's own sockets are to reach beyond this machine. Native code (ONNX Runtime)
# and clients that use a proxy are seen by the proxy instead.
WATCH = """
import os, sys
seen = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, arguments):
    where = {"socket.connect": lambda: arguments[1], "socket.getaddrinfo": lambda: arguments[0]}.get(event)
    if where and not any(near in str(where()) for near in ("127.0.0.1", "localhost", "::1", "/", "None")):
        os.write(seen, f"{event} {where()}\\n".encode())
sys.addaudithook(watch)
"""
USES = {
    "openvino": """
        from tasteloop.runtime import engines
        engines.load("openvino-fp32", MODEL, 1)(ids, ids)""",
    "onnxruntime": """
        from tasteloop.runtime import engines
        engines.load("onnxruntime-fp32", MODEL, 1)(ids, ids)""",
    "transformers": """
        from tasteloop.runtime import engines
        engines.load("torch-fp32", MODEL, 1)(ids, ids)
        from huggingface_hub.utils import send_telemetry
        send_telemetry("tasteloop/test")""",
    "mlflow": """
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{os.environ['TASTELOOP_HOME']}/mlflow.db"
        from serving.release import registry
        registry.versions()""",
    "great_expectations": """
        from validation.data.expectations import ValidationSettings, validate
        validate(DATASET, ValidationSettings(), pathlib.Path(os.environ["TASTELOOP_HOME"]) / "out")""",
    "evidently": """
        import tasteloop, pandas
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift
        rows = pandas.DataFrame({"x": [float(n) for n in range(20)]})
        data = Dataset.from_pandas(rows, data_definition=DataDefinition(numerical_columns=["x"]))
        Report([ValueDrift(column="x")]).run(data, data).get_html_str(as_iframe=False)""",
}


class Proxy(socketserver.ThreadingTCPServer):
    """Notes what clients ask it for, and connects them with nobody."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests: list[str] = []
        super().__init__(("127.0.0.1", 0), Refuse)


class Refuse(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        self.server.requests.append(self.rfile.readline().decode("latin-1").strip())
        self.wfile.write(
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def model(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with its ONNX files."""
    from tasteloop.encoder.model import TasteModel, load_encoder, save
    from tasteloop.runtime.export import to_onnx

    directory = tmp_path_factory.mktemp("model")
    save(TasteModel(load_encoder(tiny_encoder), {"sentiment": 1}), directory)
    to_onnx(directory)
    return directory


def traces(program: str, proxy: Proxy, folder: Path) -> list[str]:
    """Whom a program wants to reach, and the files that it leaves in a user's home; none of our
    variables is set.
    """
    home = folder / "user"
    home.mkdir()
    (folder / "home").mkdir()
    address = "http://{}:{}".format(*proxy.server_address[:2])
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), address)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TASTELOOP_HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT),
        "SEEN": str(folder / "seen"),
        **proxies,
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCH + program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    left = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    return [*proxy.requests, *(folder / "seen").read_text().splitlines(), *left]


@pytest.mark.slow
@pytest.mark.parametrize("library", USES)
def test_a_library_that_is_used_as_we_use_it_reaches_nobody_and_leaves_no_id(
    library: str, proxy: Proxy, model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    use = "\n".join(line.strip() for line in USES[library].splitlines())
    given = f"import os, pathlib\nMODEL, DATASET = pathlib.Path({str(model)!r}), pathlib.Path({str(tiny_dataset)!r})\n"

    seen = traces(
        f"{given}import numpy as np\nids = np.ones((1, 4), np.int64)\n{use}", proxy, tmp_path
    )

    assert seen == []


@pytest.mark.parametrize(
    ("sender", "trace"),
    [
        ("import openvino", "google-analytics.com"),
        ("import onnxruntime", "onnxruntime/deviceid"),
        (
            "import socket\ntry: socket.create_connection(('collector.invalid', 443), 1)\nexcept OSError: pass",
            "collector",
        ),
    ],
)
def test_the_watch_sees_a_sender_that_was_not_switched_off(
    sender: str, trace: str, proxy: Proxy, tmp_path: Path
) -> None:
    assert any(trace in seen for seen in traces(sender, proxy, tmp_path))


ENTRIES = (
    "tasteloop.encoder.worker",
    "serving.__main__",
    "serving.collector",
    "components.step",
    "pipelines.cli.__main__",
)


@pytest.mark.parametrize("module", ENTRIES)
def test_every_process_of_ours_has_opted_out_once_its_first_module_is_imported(module: str) -> None:
    program = (
        f"import importlib, os, sys; importlib.import_module({module!r})\n"
        "from tasteloop.opt_out import MODULES, VARIABLES\n"
        "assert {name: os.environ.get(name) for name in VARIABLES} == VARIABLES\n"
        "assert all(sys.modules[module] is None for module in MODULES)"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("image", ["steps", "serving"])
def test_no_image_holds_openvinos_telemetry(image: str) -> None:
    lines = (ROOT / "infra" / "docker" / f"{image}.Dockerfile").read_text().splitlines()
    assert any("pip uninstall" in line and "openvino-telemetry" in line for line in lines)
