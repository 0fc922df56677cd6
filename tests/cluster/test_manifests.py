"""infra/k8s and the golden InferenceService, taken by a real API server."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster.paths import ROOT
from tests.support.cluster.rendering import COMPONENTS, K8S, OVERLAYS, render, render_with

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

# the operators' of Prometheus and Spark; this server has not got their CRDs
UNKNOWN = {"PodMonitor", "PrometheusRule", "SparkApplication"}
# this server is 1.20: the same fields under an older name
NEWER = {"PodDisruptionBudget": "policy/v1beta1"}


def fit(documents: list[dict[str, Any]], namespace: str) -> list[dict[str, Any]]:
    """What this server knows of them, in a namespace of the test."""
    known = [d for d in documents if d["kind"] not in {*UNKNOWN, "Namespace"}]
    for document in known:
        document["apiVersion"] = NEWER.get(document["kind"], document["apiVersion"])
        document["metadata"]["namespace"] = namespace
        for subject in document.get("subjects", []):
            subject["namespace"] = namespace
    return known


def apply(kubeconfig: Path, documents: list[dict[str, Any]]) -> list[str]:
    """What `kubectl apply` says of each object; the test fails where one is refused."""
    run = subprocess.run(
        ["kubectl", "apply", "--kubeconfig", kubeconfig, "--validate=false", "-f", "-"],
        input=yaml.safe_dump_all(documents),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_applied_twice_and_then_with_another_image(
    kubeconfig, namespace, overlay, tmp_path
):
    documents = fit(render(K8S / "overlays" / overlay), namespace)

    first, second = apply(kubeconfig, documents), apply(kubeconfig, documents)

    assert {line.split()[-1] for line in first} == {"created"}
    assert {line.split()[-1] for line in second} == {"unchanged"}

    image = {"name": "tasteloop-serving-python", "newName": "registry.example/s", "newTag": "2"}
    changed = render_with(tmp_path, [f"overlays/{overlay}"], images=[image])
    third = apply(kubeconfig, fit(changed, namespace))
    assert [line for line in third if not line.endswith("unchanged")] == [
        "deployment.apps/tasteloop-journal configured"
    ]


def test_every_component_is_applied_twice(kubeconfig, namespace, tmp_path):
    documents = fit(render_with(tmp_path, ["base"], COMPONENTS, namespace="x"), namespace)

    apply(kubeconfig, documents)

    assert {line.split()[-1] for line in apply(kubeconfig, documents)} == {"unchanged"}


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "single-user"])
def test_the_namespace_of_an_overlay_is_taken(api, overlay):
    from kubernetes.client import CoreV1Api

    [document] = [d for d in render(K8S / "overlays" / overlay) if d["kind"] == "Namespace"]

    made = CoreV1Api(api).create_namespace(document, dry_run="All")

    assert made.metadata.labels["pod-security.kubernetes.io/enforce"] == "baseline"


def test_the_golden_inference_service_is_taken_whole(api, namespace):
    from serving.cluster.inference_service import Service
    from serving.cluster.manifest import INFERENCE_SERVICES

    golden = yaml.safe_load((ROOT / "tests/golden/inferenceservice.yaml").read_text())
    golden["metadata"]["namespace"] = namespace
    path = INFERENCE_SERVICES.path(namespace)
    service = Service(api, namespace=namespace)
    stored = service._call("POST", path, "create", [("dryRun", "All")], golden)
    service._refuse_dropped_field(golden, stored)
