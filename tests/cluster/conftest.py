"""A real Kubernetes API server (etcd, kube-apiserver, controller manager; no nodes) with KServe's CRDs, once a session.

It is started by `k8s-api.sh` of the directory that TASTELOOP_CLUSTER_TOOLS names (TASTELOOP_K8S_BIN: its binaries).
Tests that need it skip, saying why, where it cannot be started.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = Path(os.environ.get("TASTELOOP_CLUSTER_TOOLS", ROOT.parent / "shared" / "cluster"))
BIN = Path(os.environ.get("TASTELOOP_K8S_BIN", "/var/cache/k8s-1.20/bin"))


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    script = TOOLS / "k8s-api.sh"
    if not script.is_file():
        pytest.skip(f"no {script}: TASTELOOP_CLUSTER_TOOLS names the directory that starts an API server")
    if not (BIN / "kube-apiserver").is_file():
        pytest.skip(
            f"no {BIN / 'kube-apiserver'}: {TOOLS / 'build-k8s.sh'} makes it, or TASTELOOP_K8S_BIN names another place"
        )
    if os.geteuid() != 0:
        pytest.skip("the API server of k8s-api.sh is started as root")
    folder = tmp_path_factory.mktemp("kubernetes")
    try:
        up = subprocess.run([script, "up", folder, BIN], capture_output=True, text=True, timeout=300, check=False)
        assert up.returncode == 0, up.stdout + up.stderr
        yield folder / "kubeconfig"
    finally:
        subprocess.run([script, "down", folder], check=False, capture_output=True)


@pytest.fixture
def api(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The administrator's client."""
    from serving.cluster import connect

    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return connect()


@pytest.fixture
def namespace(api: Any) -> Iterator[str]:
    from kubernetes.client import CoreV1Api

    core = CoreV1Api(api)
    made = core.create_namespace({"metadata": {"generateName": "tasteloop-"}}).metadata.name
    yield made
    core.delete_namespace(made)
