"""infra/k8s and the golden InferenceService, taken by a real API server in a dry run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
# the Prometheus operator's; this server has not got its CRDs
UNKNOWN = {"PodMonitor", "PrometheusRule"}
# this server is 1.20: the same fields under an older name
NEWER = {"PodDisruptionBudget": "policy/v1beta1"}


def render(directory: str, root: Path = ROOT / "infra/k8s") -> list[dict[str, Any]]:
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl")
    command = ["kubectl", "kustomize", root / directory]
    rendering = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(rendering.stdout))


@pytest.mark.parametrize("directory", ["overlays/dev", "overlays/prod"])
def test_the_server_takes_every_object(api, namespace, directory):
    from kubernetes.dynamic import DynamicClient

    client = DynamicClient(api)
    for document in render(directory):
        if document["kind"] in UNKNOWN:
            continue
        version = NEWER.get(document["kind"], document["apiVersion"])
        document["apiVersion"] = version
        if document["kind"] != "Namespace":
            document["metadata"]["namespace"] = namespace
        client.resources.get(api_version=version, kind=document["kind"]).create(
            body=document, namespace=document["metadata"].get("namespace"), dry_run="All"
        )


def test_the_trainer_component_gives_the_steps_what_an_overlay_alone_does_not(tmp_path):
    shutil.copytree(ROOT / "infra/k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/prod/kustomization.yaml"
    assert not [d for d in render("overlays/prod") if "trainjobs" in d["metadata"]["name"]]
    overlay.write_text(overlay.read_text() + "components: [../../components/trainer]\n")
    added = [
        document
        for document in render("overlays/prod", tmp_path / "k8s")
        if "trainjobs" in document["metadata"]["name"]
    ]
    assert {document["kind"] for document in added} == {"NetworkPolicy", "Role", "RoleBinding"}
    assert {document["metadata"]["namespace"] for document in added} == {"tasteloop"}


def test_accounts_of_an_overlay_are_bound_in_its_own_namespace():
    for directory, name in (("overlays/dev", "tasteloop-dev"), ("overlays/prod", "tasteloop")):
        for document in render(directory):
            if document["kind"] == "RoleBinding":
                assert {s["namespace"] for s in document["subjects"]} == {name}
            if document["kind"] == "Namespace":
                assert document["metadata"]["name"] == name


def test_the_golden_inference_service_is_taken_whole(api, namespace):
    from serving.cluster.inference_service import Service
    from serving.cluster.manifest import INFERENCE_SERVICES

    golden = yaml.safe_load((ROOT / "tests/golden/inferenceservice.yaml").read_text())
    golden["metadata"]["namespace"] = namespace
    path = INFERENCE_SERVICES.path(namespace)
    service = Service(api, namespace=namespace)
    stored = service._call("POST", path, "create", [("dryRun", "All")], golden)
    service._refuse_dropped_field(golden, stored)
