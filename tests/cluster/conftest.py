"""A real Kubernetes API server (etcd, kube-apiserver, controller manager; no nodes) with KServe's
CRDs, once a session.

It is started by `k8s-api.sh` of the directory that TASTELOOP_CLUSTER_TOOLS names
(TASTELOOP_K8S_BIN: its binaries). Tests that need it skip, saying why, where it cannot be started.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.kserve import Config
from tests.support.cluster.paths import BIN, ROOT, TOOLS
from tests.support.cluster.webhook import HTTP_ROUTES, serve_webhook


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    script = TOOLS / "k8s-api.sh"
    if not script.is_file():
        pytest.skip(
            f"no {script}: TASTELOOP_CLUSTER_TOOLS names the directory that starts an API server"
        )
    if not (BIN / "kube-apiserver").is_file():
        pytest.skip(
            f"no {BIN / 'kube-apiserver'}: {TOOLS / 'build-k8s.sh'} makes it, or TASTELOOP_K8S_BIN names another place"
        )
    if os.geteuid() != 0:
        pytest.skip("the API server of k8s-api.sh is started as root")
    folder = tmp_path_factory.mktemp("kubernetes")
    try:
        up = subprocess.run(
            [script, "up", folder, BIN], capture_output=True, text=True, timeout=300, check=False
        )
        assert up.returncode == 0, up.stdout + up.stderr
        yield folder / "kubeconfig"
    finally:
        subprocess.run([script, "down", folder], check=False, capture_output=True)


@pytest.fixture(scope="module")
def kserve(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """KServe's webhooks and HTTPRoutes on that server; a test that wants a controller starts it."""
    from serving.cluster.api import call, connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        api = connect()
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    call(api, "POST", definitions, body=HTTP_ROUTES)
    config = Config(autoscaling="autoscaling/v2beta2")
    try:
        with serve_webhook(api, tmp_path_factory.mktemp("webhook"), config):
            time.sleep(3)  # the server takes definition and webhook into use when it gets to it
            yield config
    finally:  # other tests look for what a cluster lacks
        call(api, "DELETE", f"{definitions}/{HTTP_ROUTES['metadata']['name']}")


@pytest.fixture
def api(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The administrator's client."""
    from serving.cluster.api import connect

    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return connect()


@pytest.fixture
def namespace(api: Any) -> Iterator[str]:
    from kubernetes.client import CoreV1Api

    core = CoreV1Api(api)
    name = core.create_namespace({"metadata": {"generateName": "tasteloop-"}}).metadata.name
    yield name
    core.delete_namespace(name)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Docker engine: the one of DOCKER_HOST where it answers, else one of `engine.sh`'s."""
    if not {"TASTELOOP_CLUSTER_TOOLS", "TASTELOOP_IMAGE"} & set(os.environ):
        pytest.skip(
            "images and containers take half an hour: asked for by TASTELOOP_CLUSTER_TOOLS or TASTELOOP_IMAGE"
        )
    if not shutil.which("docker") and not (TOOLS / "engine.sh").is_file():
        pytest.skip(f"no docker here, and no {TOOLS / 'engine.sh'} to start an engine")
    if (
        shutil.which("docker")
        and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    ):
        yield
        return
    if not (TOOLS / "engine.sh").is_file():
        pytest.skip(f"no Docker engine answers, and there is no {TOOLS / 'engine.sh'} to start one")
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("no Docker engine answers, and engine.sh starts one as root on Debian only")
    folder = tmp_path_factory.mktemp("engine")
    up = subprocess.run(
        [TOOLS / "engine.sh", "up", folder],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert up.returncode == 0, up.stdout + up.stderr
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = f"unix://{folder / 'docker.sock'}"
    yield
    subprocess.run([TOOLS / "engine.sh", "down", folder], check=False, capture_output=True)
    os.environ.pop("DOCKER_HOST")
    if before is not None:
        os.environ["DOCKER_HOST"] = before


@pytest.fixture(scope="session")
def images(engine: None) -> dict[str, str]:
    """The steps and serving images by kind: TASTELOOP_IMAGE and SERVING, else built as `make
    images` does.
    """
    names = {
        "steps": os.environ.get("TASTELOOP_IMAGE", ""),
        "serving": os.environ.get("SERVING", ""),
    }
    if all(names.values()):
        return names
    base = os.environ.get("BASE") or _make_base()
    pip = {name: os.environ[name] for name in ("PIP_INDEX_URL", "PIP_CERT") if name in os.environ}
    with ExitStack() as serving:
        wheels = Path(os.environ.get("PIP_FIND_LINKS", ""))
        # no folder of this machine is seen by a build
        if "PIP_FIND_LINKS" in os.environ and wheels.is_dir():
            pip["PIP_FIND_LINKS"] = serving.enter_context(_serve_folder(wheels))
        arguments = [
            "--network",
            "host",
            *(part for k, v in pip.items() for part in ("--build-arg", f"{k}={v}")),
        ]
        built = subprocess.run(
            [ROOT / "infra/docker/build.sh"],
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
            env={
                **{k: v for k, v in os.environ.items() if k not in ("TOOLS", "REGISTRY", "OUT")},
                "BASE": base,
                "BUILD_ARGS": os.environ.get("BUILD_ARGS", " ".join(arguments)),
            },
        )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    matches = re.findall(r"^images: (tasteloop-\S*python:\S+)$", built.stdout, re.MULTILINE)
    return {
        "serving" if name.startswith("tasteloop-serving") else "steps": name for name in matches
    }


def _make_base() -> str:
    """The digest of a base image that `engine.sh` makes without a registry."""
    name = "tasteloop-test-base:1"
    inspection = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", name], capture_output=True, text=True
    )
    if inspection.returncode:
        if not (TOOLS / "engine.sh").is_file() or os.geteuid() != 0:
            pytest.skip(
                "BASE names no base image (name@sha256:…), and engine.sh makes one as root only"
            )
        build = subprocess.run(
            [TOOLS / "engine.sh", "base", name], capture_output=True, text=True, timeout=900
        )
        assert build.returncode == 0, build.stdout + build.stderr
        return _make_base()
    return inspection.stdout.strip()


@contextmanager
def _serve_folder(folder: Path) -> Iterator[str]:
    """The URL under which a folder of wheels can be read while the block runs."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print what was measured, whether output is captured or not."""

    def say_uncaptured(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}", end="", flush=True)

    return say_uncaptured
