"""`tasteloop cluster check` asks a real API server, as its administrator and as a promoter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.cluster.check import Finding, Needs, check_cluster
from serving.cluster.reach import check_reach
from tests.support.cluster.accounts import make_account
from tests.support.cluster.paths import ROOT
from tests.support.cluster.rendering import render_with

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def needs(namespace: str) -> Needs:
    return Needs(
        namespace=namespace,
        secrets={"tasteloop": ("pseudonym-key", "api-token")},
        claims=("tasteloop-home", "tasteloop-journal"),
        is_together=True,
        tracking="http://mlflow.mlflow:5000",
        steps="tasteloop-steps",
    )


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


@pytest.fixture
def applied(kubeconfig: Path, namespace: str, tmp_path: Path) -> str:
    """The base with the trainer's component, as `kubectl apply` makes it."""
    documents = render_with(tmp_path, ["base"], ["trainer"], namespace=namespace)
    known = [d for d in documents if d["kind"] != "PodDisruptionBudget"]  # 1.20 has no policy/v1
    subprocess.run(
        ["kubectl", "apply", "--kubeconfig", kubeconfig, "--validate=false", "-f", "-"],
        input=yaml.safe_dump_all(known),
        text=True,
        check=True,
        capture_output=True,
    )
    return namespace


def test_an_empty_namespace_lacks_what_the_manifests_bring(api: Any, namespace: str) -> None:
    found = by_name(check_cluster(api, needs(namespace)))

    assert found["Kubernetes"].state == "bad" and "v1.20" in found["Kubernetes"].message
    assert found["KServe"].state == found["Kubeflow Trainer"].state == "good"
    assert found["Gateway API"].state == found["JobSet"].state == "bad"
    for name in ("volume tasteloop-home", "Secret tasteloop", "account tasteloop-steps"):
        assert found[name].state == "bad", found[name]
    assert found["rights of tasteloop-steps"].state == "bad"
    assert found["your rights"].state == "good"


def test_what_was_applied_is_found(api: Any, applied: str) -> None:
    from kubernetes.client import CoreV1Api

    body = {
        "metadata": {"name": "tasteloop"},
        "stringData": {"api-token": "a", "pseudonym-key": "b"},
    }
    CoreV1Api(api).create_namespaced_secret(applied, body)

    found = by_name(check_cluster(api, needs(applied)))

    for name in (
        "Secret tasteloop",
        "account tasteloop-steps",
        "account tasteloop-serving",
        "rights of tasteloop-steps",
    ):
        assert found[name].state == "good", found[name]
    assert "class none" in found["volume tasteloop-home"].message
    assert "tasteloop-steps-outside" in found["network policies"].message


def test_a_promoter_sees_what_he_may_and_the_rest_is_unknown(api: Any, namespace: str) -> None:
    promoter = make_account(api, namespace, "tasteloop-promoter")

    found = by_name(check_cluster(promoter, needs(namespace)))

    assert found["your rights"].state == "good"
    assert found["Kubernetes"].state == "bad"  # everybody may ask for the version
    for name in ("KServe", "volumes", "Secrets", "accounts", "network policies"):
        assert found[name].state == "unknown" and "forbidden" in found[name].message, found[name]


def test_a_monitor_may_not_deploy_and_is_told_so(api: Any, namespace: str) -> None:
    monitor = make_account(api, namespace, "tasteloop-monitor")

    right = by_name(check_cluster(monitor, needs(namespace)))["your rights"]

    assert right.state == "bad"
    assert "create inferenceservices" in right.message and "patch" in right.message


def test_the_pod_that_asks_is_made_and_removed(api: Any, applied: str) -> None:
    """No node runs it here, so that nothing is known of what it would reach."""
    from kubernetes.client import CoreV1Api

    findings = check_reach(api, needs(applied), "python:3", "http://store:9000", 2)

    assert {f.state for f in findings} == {"unknown"}
    assert all("did not end within 2 s" in f.message for f in findings)
    pods = CoreV1Api(api).list_namespaced_pod(applied).items
    assert not [pod for pod in pods if pod.metadata.name.startswith("tasteloop-check-")]


def test_the_command_prints_json_and_ends_with_1_where_something_is_bad(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "cluster", "check", "-n", namespace]
    environment = {"KUBECONFIG": str(kubeconfig), "TASTELOOP_HOME": str(tmp_path), "PATH": "/bin"}

    as_json = subprocess.run(
        [*command, "--json"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    as_text = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert as_json.returncode == as_text.returncode == 1, as_json.stderr
    report = json.loads(as_json.stdout)
    assert report["bad"] >= 5 and report["good"] >= 3
    assert sum(report[state] for state in ("good", "bad", "unknown")) == len(report["findings"])
    for finding in report["findings"]:
        assert f"{finding['state']:<8} {finding['name']}: {finding['message']}" in as_text.stdout
        assert finding["state"] == "good" or finding["remedy"]
