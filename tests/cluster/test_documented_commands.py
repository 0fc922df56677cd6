"""The commands of docs/cluster.md that are marked for it, run as they stand there, in their order,
against a real API server.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.paths import ROOT
from tests.support.documents import read_blocks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

LAPTOP = "A cluster on a laptop"  # a cluster of its own, so it comes after the others
OTHERS = ("kubeflow", "mlflow", "istio-system", "team-a")  # namespaces that others make
# the server is 1.20: no budget of policy/v1, and other checks than kubectl's
KUBECTL = """#!/bin/bash
if [[ $1 == apply && $2 == -k ]]; then
    {kubectl} kustomize "$3" | sed 's,^apiVersion: policy/v1$,apiVersion: policy/v1beta1,' |
        {kubectl} apply --validate=false -f -
    exit
fi
exec {kubectl} "$@"
"""


def definition(plural: str, kind: str) -> dict[str, Any]:
    """A CRD of the Prometheus operator that takes any field."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    return {
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "names": {"plural": plural, "kind": kind},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


@pytest.fixture
def directory(api: Any, kubeconfig: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of infra, beside it a kubectl for this server, whose namespaces are there."""
    from kubernetes.client import ApiextensionsV1Api, CoreV1Api

    core, extensions = CoreV1Api(api), ApiextensionsV1Api(api)
    shutil.copytree(ROOT / "infra", tmp_path / "infra")
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL.format(kubectl=shutil.which("kubectl")))
    program.chmod(0o755)
    for name in OTHERS:
        core.create_namespace({"metadata": {"name": name}})
    kinds = {"podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"}
    for plural, kind in kinds.items():
        extensions.create_custom_resource_definition(definition(plural, kind))
    time.sleep(3)  # until the server has the new kinds in its list
    yield tmp_path
    for name in (*OTHERS, "tasteloop"):
        core.delete_namespace(name)
    for plural in kinds:
        extensions.delete_custom_resource_definition(f"{plural}.monitoring.coreos.com")


def delete_namespace(core: Any, name: str) -> None:
    """Delete a namespace and wait until it is gone."""
    from kubernetes.client import ApiException

    core.delete_namespace(name)
    end = time.monotonic() + 180
    while time.monotonic() < end:
        try:
            namespace = core.read_namespace(name)
        except ApiException as error:
            assert error.status == 404, error
            return
        time.sleep(1)
    raise AssertionError(f"namespace {name} is not gone: {namespace.status}")


def run(directory: Path, kubeconfig: Path, script: str) -> str:
    path = f"{directory / 'bin'}:{os.environ['PATH']}"
    process = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=directory,
        env={**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_the_commands_of_the_document(directory: Path, kubeconfig: Path, api: Any) -> None:
    from kubernetes.client import AppsV1Api, CoreV1Api

    core = CoreV1Api(api)
    blocks = [block for block in read_blocks(ROOT / "docs" / "cluster.md") if block.is_run]
    before = [block.text for block in blocks if block.heading != LAPTOP]
    laptop = [block.text for block in blocks if block.heading == LAPTOP]
    assert len(before) >= 5 and len(laptop) == 1

    # 1. the overlay with an image of one's own, Secrets, labels; another in a Profile
    run(directory, kubeconfig, "\n".join(before))

    deployment = AppsV1Api(api).read_namespaced_deployment("tasteloop-journal", "tasteloop")
    pod = deployment.spec.template.spec
    digest = "sha256:" + "0" * 64
    image = f"registry.example/me/tasteloop-serving-python@{digest}"
    assert {c.image for c in (*pod.containers, *pod.init_containers)} == {image}
    secret = core.read_namespaced_secret("tasteloop", "tasteloop")
    assert len(base64.b64decode(secret.data["api-token"])) == 64
    account = core.read_namespaced_service_account("tasteloop-serving", "tasteloop")
    assert [reference.name for reference in account.secrets if "token" not in reference.name] == [
        "tasteloop-store"
    ]
    assert core.read_namespace("mlflow").metadata.labels["tasteloop/may-be-asked"] == "yes"
    assert AppsV1Api(api).read_namespaced_deployment("tasteloop-journal", "team-a")
    token = (directory / "pipelines.token").read_text()
    claims = base64.urlsafe_b64decode(token.split(".")[1] + "==")
    assert b"pipelines.kubeflow.org" in claims

    # 2. once more: it changes nothing, and what was patched stays
    second = run(directory, kubeconfig, "kubectl apply -k infra/k8s/overlays/mine")
    assert {line.split()[-1] for line in second.splitlines()} == {"unchanged"}
    account = core.read_namespaced_service_account("tasteloop-serving", "tasteloop")
    assert "tasteloop-store" in [reference.name for reference in account.secrets]

    # 3. on a laptop, in a cluster that has nothing of ours
    delete_namespace(core, "tasteloop")
    run(directory, kubeconfig, laptop[0])
    claim = core.read_namespaced_persistent_volume_claim("tasteloop-home", "tasteloop")
    assert claim.spec.access_modes == ["ReadWriteOnce"]
