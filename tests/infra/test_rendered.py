"""infra/k8s as kustomize renders it, without a cluster; tests/cluster applies it to a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster.rendering import COMPONENTS, K8S, OVERLAYS, render, render_with

IMAGE = "tasteloop-serving-python"
DIGEST = "sha256:" + "1" * 64
CLUSTER_SCOPED = {"Namespace"}


def named(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


def find_images(value: Any) -> set[str]:
    """Every image that an object names."""
    if isinstance(value, dict):
        own = {value["image"]} if isinstance(value.get("image"), str) else set()
        return own.union(*(find_images(v) for v in value.values()))
    if isinstance(value, list):
        return set().union(*(find_images(v) for v in value))
    return set()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_image_named_in_an_overlay_above_ours_is_the_one_that_runs(
    overlay: str, tmp_path: Path
) -> None:
    """The name is not renamed below, so that `images:`, or `kustomize edit set image`, finds it."""
    images = [{"name": IMAGE, "newName": "registry.example/me/serving", "digest": DIGEST}]

    documents = render_with(tmp_path, [f"overlays/{overlay}"], images=images)

    assert find_images(documents) == {f"registry.example/me/serving@{DIGEST}"}


def test_no_object_is_one_that_cannot_be_applied_again(tmp_path: Path) -> None:
    """A Job's template cannot be changed: a new image would be refused."""
    documents = render_with(tmp_path, ["base"], COMPONENTS, namespace="tasteloop")

    assert not named(documents, "Job") and not named(documents, "Pod")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_lies_in_one_namespace_with_its_accounts(overlay: str) -> None:
    documents = render(K8S / "overlays" / overlay)
    namespace = yaml.safe_load((K8S / "overlays" / overlay / "kustomization.yaml").read_text())[
        "namespace"
    ]

    spaced = {d["metadata"].get("namespace") for d in documents if d["kind"] not in CLUSTER_SCOPED}
    assert spaced == {namespace}
    for binding in named(documents, "RoleBinding").values():
        assert [s["namespace"] for s in binding["subjects"]] == [namespace]
        assert {s["name"] for s in binding["subjects"]} <= named(documents, "ServiceAccount").keys()
    # nobody's namespace is changed: `kubeflow` is Kubeflow's
    assert set(named(documents, "Namespace")) == ({namespace} - {"kubeflow"})


def test_components_lie_in_the_namespace_of_the_overlay_that_takes_them(tmp_path: Path) -> None:
    documents = render_with(tmp_path, ["base"], COMPONENTS, namespace="team-a")

    for document in documents:
        if document["kind"] in CLUSTER_SCOPED:
            assert document["metadata"]["name"] == "team-a"
        else:
            assert document["metadata"]["namespace"] == "team-a"
    for binding in named(documents, "RoleBinding").values():
        assert [s["namespace"] for s in binding["subjects"]] == ["team-a"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_adds_objects_and_changes_none(component: str, tmp_path: Path) -> None:
    before = render_with(tmp_path, ["base"], namespace="a")

    after = render_with(tmp_path, ["base"], [component], namespace="a")

    assert len(after) > len(before)
    assert all(document in after for document in before)


def test_the_monitor_of_a_single_user_finds_journal_and_home_in_its_own_namespace() -> None:
    """Pods mount volumes of their own namespace only, and runs are in `kubeflow` there."""
    claims = named(render(K8S / "overlays/single-user"), "PersistentVolumeClaim")

    assert {c["metadata"]["namespace"] for c in claims.values()} == {"kubeflow"}
    assert set(claims) == {"tasteloop-home", "tasteloop-journal"}


def test_policies_of_a_single_user_leave_other_pods_of_kubeflow_alone() -> None:
    policies = named(render(K8S / "overlays/single-user"), "NetworkPolicy")
    others = [
        {"workflows.argoproj.io/workflow": "x"},
        {"jobset.sigs.k8s.io/jobset-name": "x"},
        {"serving.kserve.io/inferenceservice": "x"},
        {"app": "ml-pipeline"},
    ]

    assert len(policies) >= 6
    for policy in policies.values():
        selector = policy["spec"]["podSelector"]
        labels = selector.get("matchLabels", {})
        assert labels.get("app.kubernetes.io/name", "").startswith("tasteloop"), policy
        for pod in others:
            assert not labels.items() <= pod.items()


def test_kind_asks_one_node_for_nothing_that_it_has_not_got() -> None:
    documents = render(K8S / "overlays/kind")

    for claim in named(documents, "PersistentVolumeClaim").values():
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert not named(documents, "PodDisruptionBudget")
    assert find_images(documents) == {f"{IMAGE}:local"}  # loaded, and `latest` would be pulled
    known = {"monitoring.coreos.com/v1", "sparkoperator.k8s.io/v1beta2"}
    assert not {d["apiVersion"] for d in documents} & known


def test_the_static_check_ends_with_1_where_a_pod_is_not_restricted(tmp_path: Path) -> None:
    deployment = named(render(K8S / "overlays/kind"), "Deployment")["tasteloop-journal"]
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(deployment))
    del deployment["spec"]["template"]["spec"]["initContainers"][0]["securityContext"]
    bad.write_text(yaml.safe_dump(deployment))
    nothing = tmp_path / "nothing.yaml"
    nothing.write_text("")

    def check(*files: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, K8S / "check_pods.py", *files]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert check(good).returncode == 0
    refused = check(good, bad)
    assert refused.returncode == 1
    assert "home-owner: allowPrivilegeEscalation" in refused.stderr
    assert check(nothing).returncode == 1, "a check that saw no pod has checked nothing"
