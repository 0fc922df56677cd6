"""What our manifests let pods do and whom they may reach; tests/cluster holds them against an API
server.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
DOCUMENTS = [
    d
    for p in sorted((ROOT / "infra" / "k8s").rglob("*.yaml"))
    for d in yaml.safe_load_all(p.read_text())
    if d
]
POLICIES = [
    d["spec"] | {"name": d["metadata"]["name"]} for d in DOCUMENTS if d["kind"] == "NetworkPolicy"
]


def golden(name: str) -> Any:
    return yaml.safe_load((GOLDEN / name).read_text())


def pods() -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Name, labels and spec of every pod; labels that its controller gives it are named here."""
    for document in DOCUMENTS:
        name = f"{document['kind']}/{document.get('metadata', {}).get('name')}"
        if document["kind"] in ("Deployment", "Job"):
            template = document["spec"]["template"]
            yield name, template["metadata"]["labels"], template["spec"]
        if document["kind"] == "SparkApplication":
            for role in ("driver", "executor"):
                pod = document["spec"][role]
                spec = {"securityContext": pod["podSecurityContext"], "containers": [pod]}
                yield f"{name} {role}", pod["labels"], spec
    predictor = golden("inferenceservice.yaml")["spec"]
    for spec in (predictor["predictor"], *(c["predictor"] for c in predictor["canary"])):
        yield "InferenceService", {"serving.kserve.io/inferenceservice": "tasteloop"}, spec
    job = golden("trainjob.yaml")["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"][
        "spec"
    ]
    for replicated in job["replicatedJobs"]:
        template = replicated["template"]["spec"]["template"]
        yield "TrainJob", {"jobset.sigs.k8s.io/jobset-name": "tasteloop-run-0"}, template["spec"]
    yield (
        "step",
        {"workflows.argoproj.io/workflow": "training-x"},
        {},
    )  # Pipelines makes the pod; see below for its rights


PODS = list(pods())


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted, exist = selector.get("matchLabels", {}), selector.get("matchExpressions", [])
    assert all(e["operator"] == "Exists" for e in exist) and (wanted or exist), (
        "a selector of ours names its pods"
    )
    return all(labels.get(k) == v for k, v in wanted.items()) and all(
        e["key"] in labels for e in exist
    )


@pytest.mark.parametrize(("name", "labels"), [(name, labels) for name, labels, _ in PODS])
def test_a_policy_says_whom_every_pod_may_reach_and_who_may_reach_it(
    name: str, labels: dict[str, str]
) -> None:
    kinds = {
        kind
        for policy in POLICIES
        if selects(policy["podSelector"], labels)
        for kind in policy["policyTypes"]
    }
    assert kinds == {"Ingress", "Egress"}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy["name"])
def test_no_policy_lets_pods_reach_just_anybody(policy: dict[str, Any]) -> None:
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for rule in policy.get(direction, []):
            assert rule[peers], "an empty list of peers is everybody"
            for peer in rule[peers]:
                [(kind, value)] = peer.items()
                if kind == "ipBlock":
                    assert rule["ports"] and ipaddress.ip_network(value["cidr"]).prefixlen >= 24
                else:
                    assert value.get("matchLabels") or value.get("matchExpressions"), (
                        "an empty selector is everybody"
                    )


def test_spark_connect_answers_pods_of_runs_alone_and_sees_the_shared_folder_alone() -> None:
    [application] = [d["spec"] for d in DOCUMENTS if d["kind"] == "SparkApplication"]
    driver = application["driver"]["labels"]
    rules = [
        rule for p in POLICIES if selects(p["podSelector"], driver) for rule in p.get("ingress", [])
    ]
    reached = {
        name
        for name, labels, _ in PODS
        for r in rules
        for s in r["from"]
        if selects(s["podSelector"], labels)
    }

    assert reached == {
        "step",
        "SparkApplication/tasteloop-spark driver",
        "SparkApplication/tasteloop-spark executor",
    }
    for role in ("driver", "executor"):
        assert [m["subPath"] for m in application[role]["volumeMounts"]] == ["work"]


@pytest.mark.parametrize(("name", "spec"), [(name, spec) for name, _, spec in PODS if spec])
def test_every_pod_is_restricted_as_pod_security_standards_say(
    name: str, spec: dict[str, Any]
) -> None:
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True and pod["runAsUser"] > 0
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context.get("privileged") and context.get("runAsNonRoot", True)
    allowed = {"name", "configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}
    assert {key for volume in spec.get("volumes", []) for key in volume} <= allowed
    assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))


@pytest.mark.parametrize("graph", ["training", "monitoring", "scoring"])
def test_every_step_is_not_root(graph: str) -> None:
    """Pipelines itself drops capabilities and forbids privilege escalation."""
    document, platform = yaml.safe_load_all((GOLDEN / f"{graph}.yaml").read_text())
    steps = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    # which is no pod of ours
    assert {*steps} == {*document["deploymentSpec"]["executors"]} - {"exec-importer"}
    assert all(
        s["securityContext"] == {"runAsGroup": "10001", "runAsNonRoot": True, "runAsUser": "10001"}
        for s in steps.values()
    )
