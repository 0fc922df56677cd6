"""`tasteloop cluster check` against a small HTTP server that answers as a cluster does in which
nothing is missing, but for one thing a test. tests/cluster asks a real API server.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from kubernetes.client import ApiClient, Configuration

from serving.cluster import probe, requirements
from serving.cluster.api import ConnectionLost
from serving.cluster.check import Finding, Needs, check_cluster
from serving.cluster.reach import check_reach
from tests.support.cluster.policies import CHECK, DOCUMENTS, selects
from tests.support.cluster.policies import POLICIES as OURS

NEEDS = Needs(
    secrets={"tasteloop": ("pseudonym-key", "api-token")},
    claims=("tasteloop-home",),
    gpus=2,
    is_together=True,
    tracking="http://mlflow.mlflow:5000",
    steps="tasteloop-steps",
    pull_secrets=("registry",),
)
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CORE = "/api/v1/namespaces/tasteloop"
NODES, CLASSES = "/api/v1/nodes", "/apis/storage.k8s.io/v1/storageclasses"
METRICS = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/tasteloop/networkpolicies"
RIGHTS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
STEPS_RIGHTS = "/apis/authorization.k8s.io/v1/namespaces/tasteloop/localsubjectaccessreviews"
INSTALLED = "/api/v1/namespaces/kubeflow/configmaps/pipeline-install-config"
KSERVE = "/api/v1/namespaces/kserve/configmaps/inferenceservice-config"
ISVC = f"{CRDS}/inferenceservices.serving.kserve.io"
ROUTES = f"{CRDS}/httproutes.gateway.networking.k8s.io"
TRAIN_JOBS = f"{CRDS}/trainjobs.trainer.kubeflow.org"
JOB_SETS = f"{CRDS}/jobsets.jobset.x-k8s.io"
HOME = f"{CORE}/persistentvolumeclaims/tasteloop-home"
SECRET = f"{CORE}/secrets/tasteloop"
PODS = f"{CORE}/pods"
CONTROLLERS = "/apis/apps/v1/deployments"


def definition(version: str, field: str, **metadata: Any) -> dict[str, Any]:
    """A CRD whose spec has one field."""
    spec = {"properties": {field: {"type": "object"}}}
    schema = {"openAPIV3Schema": {"properties": {"spec": spec}}}
    served = [{"name": version, "served": True, "schema": schema}]
    return {"metadata": metadata, "spec": {"versions": served}}


def labelled(**labels: str) -> dict[str, Any]:
    return {"metadata": {"labels": {name.replace("__", "/"): v for name, v in labels.items()}}}


def claim(phase: str, mode: str, class_name: str | None = "shared") -> dict[str, Any]:
    spec: dict[str, Any] = {"accessModes": [mode]}
    if class_name:
        spec["storageClassName"] = class_name
    return {"spec": spec, "status": {"phase": phase}}


def storage_class(provisioner: str, binding: str = "Immediate") -> dict[str, Any]:
    entry = {
        "metadata": {"name": "shared"},
        "provisioner": provisioner,
        "volumeBindingMode": binding,
    }
    return {"items": [entry]}


def node(accelerators: str) -> dict[str, Any]:
    allocatable = {"nvidia.com/gpu": accelerators}
    return {"items": [{"metadata": {"name": "n"}, "status": {"allocatable": allocatable}}]}


def policy(cidr: str) -> dict[str, Any]:
    egress = [{"to": [{"ipBlock": {"cidr": cidr}}]}]
    return {
        "items": [{"metadata": {"name": "tasteloop-steps-outside"}, "spec": {"egress": egress}}]
    }


def allowed(is_allowed: bool) -> dict[str, Any]:
    return {"status": {"allowed": is_allowed}}


def controller(image: str) -> dict[str, Any]:
    template = {"spec": {"containers": [{"image": image}]}}
    return {"items": [{"spec": {"template": template}}]}


MAY_BE_ASKED = {"metadata": {"labels": {"tasteloop/may-be-asked": "yes"}}}
WHOLE: dict[str, Any] = {
    "/version": {"gitVersion": "v1.33.2"},
    CORE: {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}},
    f"{CRDS}/workflows.argoproj.io": definition("v1alpha1", "x"),
    INSTALLED: {"data": {"appVersion": "2.16.0"}},
    ISVC: definition("v1beta1", "canary"),
    ROUTES: definition(
        "v1", "x", annotations={"gateway.networking.k8s.io/bundle-version": "v1.5.1"}
    ),
    KSERVE: {"data": {"ingress": json.dumps({"enableGatewayApi": True})}},
    TRAIN_JOBS: definition("v1alpha1", "runtimePatches"),
    JOB_SETS: definition("v1alpha2", "x"),
    CLASSES: storage_class("efs.csi.aws.com"),
    HOME: claim("Bound", "ReadWriteMany"),
    NODES: node("8"),
    METRICS: {"status": {"conditions": [{"type": "Available", "status": "True"}]}},
    SECRET: {"data": {"pseudonym-key": "eA==", "api-token": "eA=="}},
    f"{CORE}/secrets/registry": {"type": "kubernetes.io/dockerconfigjson"},
    f"{CORE}/serviceaccounts/tasteloop-steps": {"metadata": {}},
    f"{CORE}/serviceaccounts/tasteloop-serving": {
        "metadata": {},
        "secrets": [{"name": "store"}],
        "imagePullSecrets": [{"name": "registry"}],
    },
    f"{CORE}/secrets/store": {
        "data": {"AWS_ACCESS_KEY_ID": "eA==", "AWS_SECRET_ACCESS_KEY": "eA=="}
    },
    POLICIES: policy("10.1.2.3/32"),
    "/api/v1/namespaces/kubeflow": MAY_BE_ASKED,
    "/api/v1/namespaces/mlflow": MAY_BE_ASKED,
    RIGHTS: allowed(True),
    STEPS_RIGHTS: allowed(True),
}


class Cluster(ThreadingHTTPServer):
    """Answers each path with its object, or with a status and a message; 404 to any other."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Any] = deepcopy(WHOLE)
        self.requests: list[tuple[str, str, Any]] = []

    def client(self) -> ApiClient:
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{self.server_port}"
        configuration.retries = False
        return ApiClient(configuration)


class Handler(BaseHTTPRequestHandler):
    server: Cluster

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.server.requests.append((self.command, path, json.loads(body) if body else None))
        found = self.server.answers.get(path, 404)
        if callable(found):
            found = found(self.command)
        status = found if isinstance(found, int) else 200
        text = json.dumps({"message": "says the server"} if isinstance(found, int) else found)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as server:
        threading.Thread(target=server.serve_forever, daemon=True, args=(0.01,)).start()
        yield server
        server.shutdown()


def test_nothing_is_bad_where_nothing_is_missing(cluster: Cluster) -> None:
    shown: list[Finding] = []

    findings = check_cluster(cluster.client(), NEEDS, shown.append)

    assert [f for f in findings if f.state != "good"] == []
    assert shown == findings and len(findings) >= 18
    assert all(finding.remedy is None for finding in findings)
    assert {method for method, path, _ in cluster.requests if "reviews" not in path} == {"GET"}


@pytest.mark.parametrize(
    ("path", "answer", "name", "state", "message"),
    [
        ("/version", {"gitVersion": "v1.28.9"}, "Kubernetes", "bad", "older than 1.29"),
        ("/version", {"gitVersion": "unknown"}, "Kubernetes", "unknown", "says nothing"),
        (CORE, 404, "namespace tasteloop", "bad", "not there"),
        (
            CORE,
            {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
            "namespace tasteloop",
            "bad",
            "restricted",
        ),
        (f"{CRDS}/workflows.argoproj.io", 404, "Kubeflow Pipelines", "bad", "workflows"),
        (INSTALLED, {"data": {"appVersion": "2.4.1"}}, "Kubeflow Pipelines", "bad", "2.5"),
        (
            INSTALLED,
            {"data": {"appVersion": "2.5.0"}},
            "Kubeflow Pipelines",
            "good",
            "as its image",
        ),
        (INSTALLED, 404, "Kubeflow Pipelines", "unknown", "no version"),
        (ISVC, 404, "KServe", "bad", "inferenceservices"),
        (ISVC, definition("v1beta1", "x"), "KServe", "bad", "does not know spec.canary"),
        (CONTROLLERS, controller("kserve:v0.20.0"), "KServe", "bad", "a canary no requests"),
        (CONTROLLERS, controller("kserve:v0.21.0"), "KServe", "good", "v0.21.0"),
        (ROUTES, 404, "Gateway API", "bad", "httproutes"),
        (KSERVE, {"data": {"ingress": "{}"}}, "KServe's routes", "bad", "not by Gateway API"),
        (KSERVE, 404, "KServe's routes", "unknown", "inferenceservice-config"),
        (TRAIN_JOBS, 404, "Kubeflow Trainer", "bad", "trainjobs"),
        (TRAIN_JOBS, definition("v1alpha1", "x"), "Kubeflow Trainer", "bad", "runtimePatches"),
        (JOB_SETS, 404, "JobSet", "bad", "jobsets"),
        (JOB_SETS, definition("v1alpha1", "x"), "JobSet", "bad", "versions v1alpha1"),
        (HOME, 404, "volume tasteloop-home", "bad", "no claim"),
        (HOME, claim("Lost", "ReadWriteMany"), "volume tasteloop-home", "bad", "Lost"),
        (HOME, claim("Pending", "ReadWriteMany"), "volume tasteloop-home", "bad", "Pending"),
        (HOME, claim("Pending", "ReadWriteMany", None), "volume tasteloop-home", "bad", "none"),
        (HOME, claim("Bound", "ReadWriteOnce"), "volume tasteloop-home", "unknown", "Once"),
        (NODES, node("0"), "GPU nodes", "bad", "0 with nvidia.com/gpu"),
        (NODES, node("1"), "GPU nodes", "bad", "1 at most"),
        (METRICS, 404, "metrics-server", "bad", "no API"),
        (
            METRICS,
            {
                "status": {
                    "conditions": [{"type": "Available", "status": "False", "message": "no pods"}]
                }
            },
            "metrics-server",
            "bad",
            "no pods",
        ),
        (METRICS, {"status": {}}, "metrics-server", "unknown", "does not say"),
        (SECRET, 404, "Secret tasteloop", "bad", "not there"),
        (SECRET, {"data": {"api-token": "eA=="}}, "Secret tasteloop", "bad", "pseudonym-key"),
        (f"{CORE}/secrets/registry", 404, "pull secret registry", "bad", "not there"),
        (f"{CORE}/secrets/registry", {"type": "Opaque"}, "pull secret registry", "bad", "Opaque"),
        (f"{CORE}/serviceaccounts/tasteloop-steps", 404, "account tasteloop-steps", "bad", "not"),
        (
            f"{CORE}/serviceaccounts/tasteloop-serving",
            {"metadata": {}},
            "account tasteloop-serving",
            "bad",
            "cannot pull by registry",
        ),
        (f"{CORE}/secrets/store", {"data": {}}, "KServe's access to the store", "unknown", "S3"),
        (POLICIES, policy("203.0.113.0/24"), "network policies", "bad", "still the examples"),
        (POLICIES, {"items": []}, "network policies", "unknown", "none of ours"),
        ("/api/v1/namespaces/kubeflow", labelled(), "namespace kubeflow", "bad", "not let there"),
        ("/api/v1/namespaces/mlflow", 404, "namespace mlflow", "unknown", "no such namespace"),
        (RIGHTS, allowed(False), "your rights", "bad", "create inferenceservices"),
        (STEPS_RIGHTS, allowed(False), "rights of tasteloop-steps", "bad", "create trainjobs"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(
    cluster: Cluster, path: str, answer: Any, name: str, state: str, message: str
) -> None:
    cluster.answers[path] = answer

    findings = check_cluster(cluster.client(), NEEDS)

    [finding] = [f for f in findings if f.name.startswith(name) and message in f.message]
    assert finding.state == state
    assert (finding.remedy is None) == (state == "good")
    others = [f for f in findings if f.state == "bad" and f is not finding]
    assert others == [], "one fault is told once"


def test_a_class_without_shared_volumes_is_told_before_a_pod_waits_for_it(cluster: Cluster) -> None:
    cluster.answers[HOME] = claim("Pending", "ReadWriteMany")
    for provisioner, binding, state in (
        ("ebs.csi.aws.com", "WaitForFirstConsumer", "bad"),
        ("efs.csi.aws.com", "WaitForFirstConsumer", "unknown"),
        ("unheard.of", "WaitForFirstConsumer", "unknown"),
    ):
        cluster.answers[CLASSES] = storage_class(provisioner, binding)

        findings = check_cluster(cluster.client(), NEEDS)

        assert [f.state for f in findings if f.name == "volume tasteloop-home"] == [state]


@pytest.mark.parametrize("path", [p for p in WHOLE if p not in ("/version", RIGHTS, STEPS_RIGHTS)])
@pytest.mark.parametrize("status", [403, 500])
def test_what_may_not_be_read_is_unknown_and_the_rest_is_still_asked(
    cluster: Cluster, path: str, status: int
) -> None:
    cluster.answers[path] = status

    findings = check_cluster(cluster.client(), NEEDS)

    unknown = [f for f in findings if f.state == "unknown"]
    assert unknown and all("says the server" in f.message and f.remedy for f in unknown)
    assert not [f for f in findings if f.state == "bad"]
    assert [f.state for f in findings if f.name == "your rights"] == ["good"]


def test_the_rights_that_are_asked_for_are_those_of_the_role_of_a_promoter(
    cluster: Cluster,
) -> None:
    [role] = [
        d
        for d in DOCUMENTS
        if d["kind"] == "Role" and d["metadata"]["name"] == "tasteloop-promoter"
    ]
    granted = {
        (group, resource, verb, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }

    for mode in ("Standard", "Knative"):
        check_cluster(cluster.client(), Needs(mode=mode))

    asked = {
        (a["group"], a["resource"], a["verb"], a.get("name", ""))
        for _, path, body in cluster.requests
        if path == RIGHTS
        for a in [body["spec"]["resourceAttributes"]]
    }
    assert asked == granted


@pytest.mark.parametrize("address", ["http://mlflow:5000", "http://mlflow.tasteloop:5000"])
def test_pods_reach_their_neighbours_by_the_label_alone(cluster: Cluster, address: str) -> None:
    def find() -> str:
        needs = replace(NEEDS, tracking=address)
        states = {f.name: f.state for f in check_cluster(cluster.client(), needs)}
        return states["namespace tasteloop may be asked"]

    assert find() == "bad"
    cluster.answers[CORE] = MAY_BE_ASKED
    assert find() == "good"


def test_a_profile_that_needs_less_is_asked_for_less(cluster: Cluster) -> None:
    for path in (ISVC, ROUTES, KSERVE, TRAIN_JOBS, JOB_SETS, NODES, METRICS):
        cluster.answers[path] = definition("v1beta1", "x") if path == ISVC else 404
    needs = Needs(mode="Knative")

    findings = check_cluster(cluster.client(), needs)

    assert [f for f in findings if f.state == "bad"] == []


def test_no_cluster_is_an_error_and_not_a_list_of_unknowns() -> None:
    configuration = Configuration()
    configuration.host, configuration.retries = "http://127.0.0.1:9", False

    with pytest.raises(ConnectionLost):
        check_cluster(ApiClient(configuration), NEEDS)


def test_no_value_of_a_secret_is_told(cluster: Cluster) -> None:
    cluster.answers[SECRET] = {"data": {"pseudonym-key": "U0VDUkVU", "api-token": "U0VDUkVU"}}

    text = repr(check_cluster(cluster.client(), NEEDS))

    assert "U0VDUkVU" not in text and "SECRET" not in text


# From inside a pod.

STORE = "http://seaweedfs.kubeflow:9000"


def ended(message: str, phase: str = "Succeeded") -> dict[str, Any]:
    terminated = {"exitCode": 0, "message": message}
    return {
        "status": {"phase": phase, "containerStatuses": [{"state": {"terminated": terminated}}]}
    }


def reach(cluster: Cluster, pod: dict[str, Any], **options: Any) -> dict[str, Finding]:
    cluster.answers[PODS] = {"metadata": {"name": "check-1"}}
    cluster.answers[f"{PODS}/check-1"] = pod
    arguments = {"image": "python:3", "store": STORE, "seconds": 0.1, **options}
    return {f.name: f for f in check_reach(cluster.client(), NEEDS, **arguments)}


@pytest.mark.parametrize(
    ("answers", "states"),
    [
        ([[200, "OK"], [403, "Forbidden"]], ("good", "good")),
        ([[401, "Unauthorized"], [503, "Unavailable"]], ("bad", "bad")),
        ([[403, "Forbidden"], [403, "Forbidden"]], ("bad", "good")),
        ([[None, "Name or service not known"], [None, "timed out"]], ("bad", "bad")),
    ],
)
def test_a_pod_tells_what_it_reaches_and_is_removed(
    cluster: Cluster, answers: Any, states: tuple[str, str]
) -> None:
    findings = reach(cluster, ended(json.dumps(answers)))

    assert tuple(f.state for f in findings.values()) == states
    assert list(findings) == ["MLflow from a pod", "object store from a pod"]
    assert cluster.requests[-1][:2] == ("DELETE", f"{PODS}/check-1")


def test_the_pod_is_what_policies_take_for_a_step_and_restricted(cluster: Cluster) -> None:
    reach(cluster, ended("[]"))

    [pod] = [body for method, path, body in cluster.requests if (method, path) == ("POST", PODS)]
    assert list(CHECK.find_violations(pod["spec"])) == []
    names = {p["name"] for p in OURS if selects(p["podSelector"], pod["metadata"]["labels"])}
    assert {"tasteloop-steps", "tasteloop-steps-outside"} <= names
    assert pod["spec"]["serviceAccountName"] == "tasteloop-steps"
    assert pod["spec"]["containers"][0]["command"][-2:] == [
        f"{NEEDS.tracking}/api/2.0/mlflow/experiments/get?experiment_id=0",
        STORE,
    ]


def test_a_pod_that_does_not_end_is_unknown_with_what_it_waits_for_and_removed(
    cluster: Cluster,
) -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    pod = {"status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}}

    findings = reach(cluster, pod)

    assert {f.state for f in findings.values()} == {"unknown"}
    assert all("ImagePullBackOff no such image" in f.message for f in findings.values())
    assert cluster.requests[-1][0] == "DELETE"


def test_a_pod_that_ends_without_answers_gives_its_last_words(cluster: Cluster) -> None:
    findings = reach(cluster, ended("Traceback: no module named json", "Failed"))

    assert {f.state for f in findings.values()} == {"unknown"}
    assert all("no module named json" in f.message for f in findings.values())
    assert all("python" in (f.remedy or "") for f in findings.values())


def test_a_pod_that_is_waited_for_is_not_ended_before(cluster: Cluster) -> None:
    reach(cluster, ended('[[200, "OK"], [200, "OK"]]'), seconds=300)

    [pod] = [body for method, path, body in cluster.requests if (method, path) == ("POST", PODS)]
    assert pod["spec"]["activeDeadlineSeconds"] > 300


def test_without_an_image_or_the_right_nothing_is_known(cluster: Cluster) -> None:
    assert {f.state for f in reach(cluster, {}, image=None).values()} == {"unknown"}
    assert not [path for _, path, _ in cluster.requests if path == PODS]
    cluster.answers[PODS] = 403
    findings = check_reach(cluster.client(), NEEDS, "python:3", STORE, 1)
    assert {f.state for f in findings} == {"unknown"}
    assert all("rights" in (f.remedy or "") for f in findings)


def test_the_program_of_the_pod_asks_and_writes_what_came(cluster: Cluster, tmp_path: Any) -> None:
    server = f"http://127.0.0.1:{cluster.server_port}"
    urls = [f"{server}/version", f"{server}/nothing", "http://127.0.0.1:9/", "no address"]

    probe.main(str(tmp_path / "log"), urls)

    answers = json.loads((tmp_path / "log").read_text())
    assert [status for status, _ in answers] == [200, 404, None, None]
    assert "refused" in answers[2][1]


def test_the_program_of_the_pod_takes_what_is_not_http_for_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0\r\n\r\n")

        threading.Thread(target=speak, daemon=True).start()
        status, reason = probe.ask(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    assert status is None and "SSH-2.0" in reason


def test_every_requirement_says_what_an_older_version_does_not_do() -> None:
    assert len(requirements.REQUIREMENTS) == 7
    assert all(r.least and r.why for r in requirements.REQUIREMENTS)
