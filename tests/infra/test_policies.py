"""What our manifests let pods do and whom they may reach; tests/cluster holds them against an API
server.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml

from serving.cluster.manifest import build_inference_service, build_state, check_settings
from serving.cluster.state import Release
from tests.support.cluster.paths import ROOT
from tests.support.cluster.policies import CHECK, DOCUMENTS, POLICIES, selects

GOLDEN = ROOT / "tests" / "golden"


def golden(name: str) -> Any:
    return yaml.safe_load((GOLDEN / name).read_text())


SERVICE = golden("inferenceservice.yaml")
# KServe's controller gives pods the labels of the InferenceService, and names it
SERVING = {**SERVICE["metadata"]["labels"], "serving.kserve.io/inferenceservice": "any-name"}
STEP = {"workflows.argoproj.io/workflow": "training-x", "app.kubernetes.io/name": "tasteloop-step"}


def pods() -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Name, labels and spec of every pod; labels that its controller gives it are named here."""
    for document in DOCUMENTS:
        name = f"{document['kind']}/{document['metadata']['name']}"
        for path, pod in CHECK.find_pods(document):
            if document["kind"] == "SparkApplication":
                role = path.removeprefix("spec.")
                yield f"{name} {role}", document["spec"][role]["labels"], pod
            else:
                yield name, document["spec"]["template"]["metadata"]["labels"], pod
    for path, pod in CHECK.find_pods(SERVICE):
        yield f"InferenceService {path}", SERVING, pod
    for _, pod in CHECK.find_pods(golden("trainjob.yaml")):
        yield "TrainJob", {"jobset.sigs.k8s.io/jobset-name": "tasteloop-run-0"}, pod
    # Pipelines makes the pods of a run; see below for the rights of our steps
    yield "step", STEP, {}
    yield "driver", {"workflows.argoproj.io/workflow": "training-x"}, {}


PODS = list(pods())


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
                assert peer, "an empty peer is everybody"
                for kind, value in peer.items():
                    if kind == "ipBlock":
                        assert rule["ports"] and ipaddress.ip_network(value["cidr"]).prefixlen >= 24
                    else:
                        assert value.get("matchLabels") or value.get("matchExpressions"), (
                            "an empty selector is everybody"
                        )


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy["name"])
def test_every_policy_selects_pods_of_ours(policy: dict[str, Any]) -> None:
    assert [name for name, labels, _ in PODS if selects(policy["podSelector"], labels)]


def test_budget_and_policies_hold_for_a_service_of_any_name() -> None:
    text = "\n".join(p.read_text() for p in (ROOT / "infra" / "k8s").rglob("*.yaml"))
    [budget] = [d["spec"] for d in DOCUMENTS if d["kind"] == "PodDisruptionBudget"]

    assert "inferenceservice: tasteloop" not in text
    assert selects(budget["selector"], SERVING)
    assert not selects(budget["selector"], {"app.kubernetes.io/name": "tasteloop-journal"})


def test_spark_connect_answers_our_steps_alone_and_sees_the_shared_folder_alone() -> None:
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


def test_no_account_of_ours_may_do_anything_or_change_volumes_secrets_or_rights() -> None:
    rules = [rule for d in DOCUMENTS if d["kind"] == "Role" for rule in d["rules"]]
    assert len(rules) > 15
    for rule in rules:
        changes = {*rule["verbs"]} - {"get", "list", "watch"}
        assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        for resource in ("secrets", "persistentvolumeclaims", "roles", "rolebindings"):
            assert resource not in rule["resources"] or not changes, rule
        assert "secrets" not in rule["resources"] or rule.get("resourceNames"), rule
    assert not [d for d in DOCUMENTS if d["kind"].startswith("ClusterRole")]


@pytest.mark.parametrize(("name", "spec"), [(name, spec) for name, _, spec in PODS if spec])
def test_every_pod_is_restricted_as_pod_security_standards_say(
    name: str, spec: dict[str, Any]
) -> None:
    assert list(CHECK.find_violations(spec)) == []


def test_servers_in_mode_knative_are_restricted_too() -> None:
    settings = check_settings("tasteloop", "tasteloop", mode="Knative")
    release = Release("1", "s3://models/1", "1" * 64, "registry.example/serving")

    service = build_inference_service(settings, build_state(settings, release))

    [(_, pod)] = CHECK.find_pods(service)
    assert list(CHECK.find_violations(pod)) == []


COLLECTOR = next(spec for name, _, spec in PODS if name == "Deployment/tasteloop-journal")


@pytest.mark.parametrize(
    ("where", "field", "value", "reason"),
    [
        ("pod", "hostNetwork", True, "hostNetwork"),
        ("pod", "volumes", [{"name": "x", "hostPath": {"path": "/"}}], "hostPath"),
        ("pod context", "seccompProfile", None, "seccompProfile"),
        ("pod context", "runAsNonRoot", None, "runAsNonRoot"),
        ("pod context", "runAsUser", 0, "user 0"),
        ("pod context", "seccompProfile", {"type": "Unconfined"}, "seccompProfile"),
        ("pod context", "sysctls", [{"name": "kernel.msgmax"}], "sysctl"),
        ("container", "ports", [{"hostPort": 80}], "hostPort"),
        ("container", "livenessProbe", {"httpGet": {"host": "10.0.0.1"}}, "names a host"),
        ("context", "privileged", True, "privileged"),
        ("context", "allowPrivilegeEscalation", None, "allowPrivilegeEscalation"),
        ("context", "capabilities", {}, "capabilities"),
        ("context", "capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}, "SYS_ADMIN"),
        ("context", "runAsUser", 0, "user 0"),
        ("context", "procMount", "Unmasked", "procMount"),
        ("context", "seLinuxOptions", {"type": "spc_t"}, "seLinuxOptions"),
        ("context", "appArmorProfile", {"type": "Unconfined"}, "appArmorProfile"),
    ],
)
@pytest.mark.parametrize("containers", ["containers", "initContainers"])
def test_a_pod_that_is_not_restricted_is_seen(
    containers: str, where: str, field: str, value: Any, reason: str
) -> None:
    pod = deepcopy(COLLECTOR)
    [container] = pod[containers]
    target = {
        "pod": pod,
        "pod context": pod["securityContext"],
        "container": container,
        "context": container["securityContext"],
    }[where]
    target[field] = value

    violations = list(CHECK.find_violations(pod))

    assert violations and all(reason in violation for violation in violations)


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
