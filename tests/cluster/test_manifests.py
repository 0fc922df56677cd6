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


def rendered(place: str, root: Path = ROOT / "infra/k8s") -> list[dict[str, Any]]:
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl")
    made = subprocess.run(
        ["kubectl", "kustomize", root / place], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(made.stdout))


@pytest.mark.parametrize("place", ["overlays/dev", "overlays/prod"])
def test_the_server_takes_every_object(api, namespace, place):
    from kubernetes.dynamic import DynamicClient

    client = DynamicClient(api)
    for found in rendered(place):
        if found["kind"] in UNKNOWN:
            continue
        version = NEWER.get(found["kind"], found["apiVersion"])
        found["apiVersion"] = version
        if found["kind"] != "Namespace":
            found["metadata"]["namespace"] = namespace
        client.resources.get(api_version=version, kind=found["kind"]).create(
            body=found, namespace=found["metadata"].get("namespace"), dry_run="All"
        )


def test_the_trainer_component_gives_the_steps_what_an_overlay_alone_does_not(tmp_path):
    shutil.copytree(ROOT / "infra/k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/prod/kustomization.yaml"
    assert not [d for d in rendered("overlays/prod") if "trainjobs" in d["metadata"]["name"]]
    overlay.write_text(overlay.read_text() + "components: [../../components/trainer]\n")
    found = [
        d
        for d in rendered("overlays/prod", tmp_path / "k8s")
        if "trainjobs" in d["metadata"]["name"]
    ]
    assert {d["kind"] for d in found} == {"NetworkPolicy", "Role", "RoleBinding"}
    assert {d["metadata"]["namespace"] for d in found} == {"tasteloop"}


def test_accounts_of_an_overlay_are_bound_in_its_own_namespace():
    for place, name in (("overlays/dev", "tasteloop-dev"), ("overlays/prod", "tasteloop")):
        for found in rendered(place):
            if found["kind"] == "RoleBinding":
                assert {s["namespace"] for s in found["subjects"]} == {name}
            if found["kind"] == "Namespace":
                assert found["metadata"]["name"] == name


def test_the_golden_inference_service_is_taken_whole(api, namespace):
    from serving.cluster.inference_service import Service
    from serving.cluster.manifest import PLURAL

    golden = yaml.safe_load((ROOT / "tests/golden/inferenceservice.yaml").read_text())
    golden["metadata"]["namespace"] = namespace
    place = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/{PLURAL}"
    service = Service(api, namespace=namespace)
    service._kept(golden, service._call("POST", place, "create", [("dryRun", "All")], golden))
