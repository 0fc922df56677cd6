"""Whether a living cluster has what we ask of it: a finding for each thing, good, bad or unknown,
and what to do.

Nothing is changed: everything is read, but for the reviews of rights, which the server stores
nowhere. What may not be read is unknown, not bad.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from serving.cluster.api import (
    ConnectionLost,
    KubernetesObject,
    Refusal,
    Resource,
    call,
    read_conditions,
)
from serving.cluster.inference_service import (
    DEPLOYMENTS,
    ENDPOINTS,
    HTTP_ROUTES,
    KNATIVE_SERVICES,
)
from serving.cluster.manifest import (
    CONFIG_MAPS,
    INFERENCE_SERVICES,
    SERVICES,
    config_map_name,
    front_name,
)
from serving.cluster.requirements import (
    GATEWAY_API,
    JOB_SETS,
    JOBSET,
    KSERVE,
    KSERVE_WITHOUT_REQUESTS,
    KUBERNETES,
    PIPELINES,
    PIPELINES_SECURITY,
    SHARES,
    TRAINER,
    WORKFLOW_RESULTS,
    WORKFLOWS,
    Requirement,
    has_field,
    is_older,
    parse_version,
)
from serving.cluster.trainjob import TRAIN_JOBS

State = Literal["good", "bad", "unknown"]

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_DOCUMENTATION = ("192.0.2.", "198.51.100.", "203.0.113.")  # networks of RFC 5737, nobody's
_MAY_BE_ASKED = "tasteloop/may-be-asked"
_IDENTITIES = (  # annotations of a service account by which a cloud gives its pods an identity
    "azure.workload.identity/client-id",
    "eks.amazonaws.com/role-arn",
    "iam.gke.io/gcp-service-account",
)


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing.

    Attributes:
        message: what is there.
        remedy: what to do; None where it is good.
    """

    name: str
    state: State
    message: str
    remedy: str | None = None


@dataclass(frozen=True)
class Needs:
    """What a profile and a service ask of the cluster.

    Attributes:
        namespace: of runs and service.
        service: the InferenceService.
        pipelines: the namespace of Kubeflow Pipelines' server.
        mode: of KServe, `Standard` or `Knative`.
        secrets: names of Secrets with the keys in them that are read.
        claims: PersistentVolumeClaims, mounted by pods that may be on several nodes.
        accelerator, gpus: the resource that a training pod asks a node for, and how many.
        is_together: a training is a TrainJob.
        tracking: the MLflow server.
        steps, serving: service accounts.
        pull_secrets: Secrets by which images are pulled.
    """

    namespace: str = "tasteloop"
    service: str = "tasteloop"
    pipelines: str = "kubeflow"
    mode: str = "Standard"
    secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    claims: tuple[str, ...] = ()
    accelerator: str = "nvidia.com/gpu"
    gpus: int = 0
    is_together: bool = False
    tracking: str | None = None
    steps: str | None = None
    serving: str = "tasteloop-serving"
    pull_secrets: tuple[str, ...] = ()


class _Reader:
    """Reads of the API; an object that is not there is None."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def get(self, path: str) -> KubernetesObject | None:
        try:
            return call(self._client, "GET", path)
        except Refusal as refusal:
            if refusal.status == 404:
                return None
            raise

    def items(self, path: str, selector: str = "") -> list[KubernetesObject]:
        query = [("labelSelector", selector)] if selector else []
        try:
            items: list[KubernetesObject] = call(self._client, "GET", path, query).get("items", [])
        except Refusal as refusal:
            if refusal.status == 404:
                return []
            raise
        return items

    def own(self, namespace: str, kind: str, name: str) -> KubernetesObject | None:
        """An object of the core API in a namespace."""
        return self.get(f"/api/v1/namespaces/{namespace}/{kind}/{name}")

    def definition(self, resource: Resource) -> KubernetesObject | None:
        return self.get(f"{_DEFINITIONS}/{resource.full_name}")

    def image(self, selector: str) -> str:
        """The image of the first Deployment with a label anywhere; empty where there is none, or
        where Deployments of other namespaces may not be listed.
        """
        try:
            deployments = self.items("/apis/apps/v1/deployments", selector)
        except Refusal:
            return ""
        for deployment in deployments:
            images = [c["image"] for c in deployment["spec"]["template"]["spec"]["containers"]]
            return str(images[0])
        return ""

    def review(self, kind: str, path: str, spec: Mapping[str, Any]) -> bool:
        """Whether a right is there, by a review of Kubernetes' authorisation."""
        metadata = {}
        if kind == "LocalSubjectAccessReview":
            metadata["namespace"] = spec["resourceAttributes"]["namespace"]
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": kind,
            "metadata": metadata,
            "spec": spec,
        }
        answer = call(self._client, "POST", path, body=body)
        return bool(answer["status"]["allowed"])


Check = Callable[[_Reader, Needs], Iterator[Finding]]


def check_cluster(
    client: Any, needs: Needs, progress: Callable[[Finding], None] | None = None
) -> list[Finding]:
    """Every finding, in the order of CHECKS.

    Args:
        client: a `kubernetes.client.ApiClient`; `connect()` makes one.
        progress: gets each finding when it is there.

    Raises:
        ConnectionLost: no API server answers.
    """
    reader = _Reader(client)
    findings: list[Finding] = []
    for name, check in CHECKS:
        for finding in _run(name, check, reader, needs):
            findings.append(finding)
            if progress:
                progress(finding)
    return findings


def _run(name: str, check: Check, reader: _Reader, needs: Needs) -> Iterator[Finding]:
    """The findings of a check; a last one, unknown, where something could not be read."""
    try:
        yield from check(reader, needs)
    except ConnectionLost:
        if check is _check_kubernetes:  # the first: nothing else would be answered
            raise
        yield Finding(name, "unknown", "the connection was lost", "run the check again")
    except Refusal as refusal:
        remedy = "ask whoever may read it to run this command"
        if refusal.status not in (401, 403):
            remedy = "look at the API server, then run the check again"
        yield Finding(name, "unknown", f"{refusal.status}: {refusal.message}", remedy)


def _compare(requirement: Requirement, version: str, how: str = "") -> Finding:
    """The finding of a version that was read; `how` is what to do where it is too old."""
    older = is_older(version, requirement)
    if older is None:
        remedy = f"make sure that it is {requirement.least} or newer: {requirement.why}"
        return Finding(
            requirement.name,
            "unknown",
            f"there, in a version that says nothing ({version})",
            remedy,
        )
    if older:
        remedy = how or f"install {requirement.least} or newer: {requirement.why}"
        return Finding(
            requirement.name, "bad", f"{version}, older than {requirement.least}", remedy
        )
    return Finding(requirement.name, "good", version)


# The checks. Each reads one subject.


def _check_kubernetes(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    version = reader.get("/version") or {}
    yield _compare(KUBERNETES, version.get("gitVersion", "unknown"))


def _check_namespace(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    name = f"namespace {needs.namespace}"
    namespace = reader.get(f"/api/v1/namespaces/{needs.namespace}")
    if namespace is None:
        yield Finding(name, "bad", "not there", "kubectl apply -k the overlay (docs/cluster.md)")
        return
    level = namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce")
    if level == "restricted":
        remedy = "enforce baseline: containers that KServe and Pipelines put into pods are not restricted"
        yield Finding(name, "bad", "it enforces the pod security level restricted", remedy)
        return
    yield Finding(name, "good", f"there, pod security level {level or 'not enforced'}")


def _check_pipelines(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    if reader.definition(WORKFLOWS) is None:
        remedy = f"install Kubeflow Pipelines {PIPELINES_SECURITY.least} or newer"
        yield Finding(PIPELINES.name, "bad", f"no {WORKFLOWS.full_name}", remedy)
        return
    settings = reader.own(needs.pipelines, "configmaps", "pipeline-install-config")
    version = ((settings or {}).get("data") or {}).get("appVersion") or reader.image(
        "app=ml-pipeline"
    )
    if not version:
        remedy = (
            "name its namespace with --pipelines; in another way of installing, look at its version"
        )
        yield Finding(PIPELINES.name, "unknown", f"no version in {needs.pipelines}", remedy)
        return
    finding = _compare(PIPELINES, version)
    if finding.state == "good" and is_older(version, PIPELINES_SECURITY):
        message = (
            f"{version}: {PIPELINES_SECURITY.why} (from {PIPELINES_SECURITY.least} on it does)"
        )
        finding = Finding(PIPELINES.name, "good", message)
    yield finding


def _check_kserve(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    definition = reader.definition(INFERENCE_SERVICES)
    if definition is None:
        remedy = f"install KServe {KSERVE.least} or newer"
        yield Finding(KSERVE.name, "bad", f"no {INFERENCE_SERVICES.full_name}", remedy)
        return
    image = reader.image("control-plane=kserve-controller-manager")
    if has_field(definition, INFERENCE_SERVICES.version, "spec", "canary"):
        is_without = parse_version(image) == KSERVE_WITHOUT_REQUESTS
        if is_without and needs.mode == "Standard":
            message = f"it sends a canary no requests ({image}); deploy and rollback work"
            yield Finding(KSERVE.name, "bad", message, "install a newer one to try versions")
        else:
            yield Finding(KSERVE.name, "good", f"it knows spec.canary{image and f' ({image})'}")
    elif needs.mode == "Knative":
        yield Finding(KSERVE.name, "good", "no spec.canary, which mode Knative does without")
    else:
        remedy = f"install {KSERVE.least} or newer: {KSERVE.why}; or use --set mode=Knative"
        yield Finding(KSERVE.name, "bad", f"it does not know spec.canary {image}".strip(), remedy)


def _check_gateway(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    if needs.mode == "Knative":
        yield Finding(GATEWAY_API.name, "good", "not needed in mode Knative")
        return
    definition = reader.definition(HTTP_ROUTES)
    if definition is None:
        remedy = (
            "install it, and let KServe use it (enableGatewayApi): else a canary gets no requests"
        )
        yield Finding(GATEWAY_API.name, "bad", f"no {HTTP_ROUTES.full_name}", remedy)
        return
    annotations = definition["metadata"].get("annotations", {})
    version = annotations.get("gateway.networking.k8s.io/bundle-version", "unknown")
    yield _compare(GATEWAY_API, version)

    name = "KServe's routes"
    for namespace in ("kserve", "kubeflow"):
        settings = reader.own(namespace, "configmaps", "inferenceservice-config")
        if settings is None:
            continue
        try:
            is_on = json.loads(settings["data"]["ingress"]).get("enableGatewayApi") is True
        except (KeyError, ValueError):
            break
        if is_on:
            yield Finding(name, "good", f"by Gateway API ({namespace}/inferenceservice-config)")
        else:
            remedy = "set enableGatewayApi to true in its `ingress`: else a canary gets no requests"
            yield Finding(
                name, "bad", f"not by Gateway API ({namespace}/inferenceservice-config)", remedy
            )
        return
    remedy = "make sure that enableGatewayApi is true: else a canary gets no requests"
    yield Finding(name, "unknown", "no ConfigMap inferenceservice-config to be read", remedy)


def _check_trainer(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    if not needs.is_together:
        yield Finding(TRAINER.name, "good", "not needed: this profile trains in one pod")
        return
    definition = reader.definition(TRAIN_JOBS)
    if definition is None:
        remedy = f"install {TRAINER.least} or newer, or train in one pod (cluster.finetune.gpu=1)"
        yield Finding(TRAINER.name, "bad", f"no {TRAIN_JOBS.full_name}", remedy)
    elif has_field(definition, TRAIN_JOBS.version, "spec", "runtimePatches"):
        yield Finding(TRAINER.name, "good", "it knows spec.runtimePatches")
    else:
        remedy = f"install {TRAINER.least} or newer: {TRAINER.why}"
        yield Finding(TRAINER.name, "bad", "it does not know spec.runtimePatches", remedy)

    definition = reader.definition(JOB_SETS)
    if definition is None:
        remedy = "install JobSet, which Trainer's manifests bring"
        yield Finding(JOBSET.name, "bad", f"no {JOB_SETS.full_name}", remedy)
    elif has_field(definition, JOB_SETS.version):
        yield Finding(JOBSET.name, "good", JOB_SETS.version)
    else:
        versions = ", ".join(version["name"] for version in definition["spec"]["versions"])
        remedy = f"install one with {JOBSET.least}, as Trainer's manifests do"
        yield Finding(JOBSET.name, "bad", f"versions {versions}", remedy)


def _check_storage(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    """The claims; where one is not there yet, the class that it would get."""
    classes = {
        entry["metadata"]["name"]: entry
        for entry in reader.items("/apis/storage.k8s.io/v1/storageclasses")
    }
    is_default = "storageclass.kubernetes.io/is-default-class"
    default = next(
        (
            name
            for name, entry in classes.items()
            if entry["metadata"].get("annotations", {}).get(is_default) == "true"
        ),
        None,
    )
    for claim_name in needs.claims:
        name = f"volume {claim_name}"
        claim = reader.own(needs.namespace, "persistentvolumeclaims", claim_name)
        if claim is None:
            remedy = "kubectl apply -k the overlay"
            yield Finding(name, "bad", f"no claim of that name in {needs.namespace}", remedy)
            continue
        phase = (claim.get("status") or {}).get("phase", "unknown")
        modes = claim["spec"].get("accessModes", [])
        class_name = claim["spec"].get("storageClassName") or default
        storage_class = classes.get(class_name or "", {})
        provisioner = storage_class.get("provisioner", "")
        shown = f"{phase}, {', '.join(modes)}, class {class_name or 'none'}"
        if phase == "Bound":
            yield _describe_bound(name, shown, modes)
        elif phase == "Lost" or class_name is None or not storage_class:
            remedy = "make a default storage class, or name one in a patch of the claim"
            yield Finding(name, "bad", shown, remedy)
        elif "ReadWriteMany" in modes and SHARES.get(provisioner) is False:
            remedy = (
                f"{provisioner} has no ReadWriteMany: name a class of a file system, or patch the claim "
                "to ReadWriteOnce (all pods on one node)"
            )
            yield Finding(name, "bad", shown, remedy)
        elif storage_class.get("volumeBindingMode") == "WaitForFirstConsumer":
            remedy = "it is bound when the first pod mounts it: look again then"
            yield Finding(name, "unknown", shown, remedy)
        else:
            remedy = f"kubectl describe pvc {claim_name} -n {needs.namespace}"
            yield Finding(name, "bad", shown, remedy)


def _describe_bound(name: str, shown: str, modes: list[str]) -> Finding:
    if "ReadWriteMany" in modes:
        return Finding(name, "good", shown)
    remedy = "pods that mount it run on one node: fine on a cluster of one, else they wait for each other"
    return Finding(name, "unknown", shown, remedy)


def _check_gpus(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    if not needs.gpus:
        yield Finding("GPU nodes", "good", "not needed: no step asks for one")
        return
    counts = {}
    for node in reader.items("/api/v1/nodes"):
        count = (node["status"].get("allocatable") or {}).get(needs.accelerator, "0")
        if count.isdigit() and int(count):
            counts[node["metadata"]["name"]] = int(count)
    message = f"{len(counts)} with {needs.accelerator}, {max(counts.values(), default=0)} at most"
    if max(counts.values(), default=0) >= needs.gpus:
        yield Finding("GPU nodes", "good", message)
        return
    remedy = (
        f"a training pod asks for {needs.gpus}: add a node and its device plugin (an autoscaler may do so), "
        "or --set cluster.finetune.gpu=0"
    )
    yield Finding("GPU nodes", "bad", message, remedy)


def _check_metrics(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    if needs.mode == "Knative":
        yield Finding("metrics-server", "good", "not needed in mode Knative")
        return
    service = reader.get("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io")
    remedy = "install metrics-server: without it the number of pods does not follow the load"
    if service is None:
        yield Finding("metrics-server", "bad", "no API metrics.k8s.io", remedy)
        return
    for condition in read_conditions(service):
        if condition.type == "Available" and condition.status == "True":
            yield Finding("metrics-server", "good", "available")
            return
        if condition.type == "Available":
            message = condition.message or condition.reason or "not available"
            yield Finding("metrics-server", "bad", message, remedy)
            return
    yield Finding("metrics-server", "unknown", "it does not say whether it is available", remedy)


def _check_secrets(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    for name, keys in needs.secrets.items():
        title = f"Secret {name}"
        secret = reader.own(needs.namespace, "secrets", name)
        flags = " ".join(f"--from-literal={key}=…" for key in keys)
        remedy = f"kubectl create secret generic {name} -n {needs.namespace} {flags}"
        if secret is None:
            yield Finding(title, "bad", "not there", remedy)
            continue
        missing = [key for key in keys if not (secret.get("data") or {}).get(key)]
        if missing:
            yield Finding(title, "bad", f"without {', '.join(missing)}", f"add it, as by {remedy}")
        else:
            yield Finding(title, "good", f"has {', '.join(keys)}")
    for name in needs.pull_secrets:
        title = f"pull secret {name}"
        secret = reader.own(needs.namespace, "secrets", name)
        if secret is None or secret.get("type") != "kubernetes.io/dockerconfigjson":
            shown = "not there" if secret is None else f"of type {secret.get('type')}"
            remedy = f"kubectl create secret docker-registry {name} -n {needs.namespace} …"
            yield Finding(title, "bad", shown, remedy)
        else:
            yield Finding(title, "good", "there")


def _check_accounts(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    for name in filter(None, (needs.steps, needs.serving)):
        title = f"account {name}"
        account = reader.own(needs.namespace, "serviceaccounts", name)
        if account is None:
            yield Finding(title, "bad", "not there", "kubectl apply -k the overlay")
            continue
        pulls = {entry["name"] for entry in account.get("imagePullSecrets") or []}
        missing = [secret for secret in needs.pull_secrets if secret not in pulls]
        if missing and name == needs.serving:
            remedy = f"patch it: imagePullSecrets: [{{name: {missing[0]}}}] (docs/cluster.md)"
            yield Finding(title, "bad", f"servers cannot pull by {', '.join(missing)}", remedy)
            continue
        yield Finding(title, "good", "there")
        if name == needs.serving:
            yield _describe_credentials(reader, needs, account)


def _describe_credentials(reader: _Reader, needs: Needs, account: KubernetesObject) -> Finding:
    """How KServe's storage initialiser gets at the bundles' store with this account."""
    title = "KServe's access to the store"
    identity = [a for a in _IDENTITIES if a in account["metadata"].get("annotations", {})]
    if identity:
        return Finding(title, "good", f"the cloud's identity, {identity[0]}")
    for reference in account.get("secrets") or []:
        secret = reader.own(needs.namespace, "secrets", reference["name"]) or {}
        keys = set(secret.get("data") or {})
        if {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= keys or (
            {"awsAccessKeyID", "awsSecretAccessKey"} <= keys
        ):
            return Finding(title, "good", f"S3 keys in the Secret {reference['name']}")
    remedy = "give it a Secret with S3 keys or a cloud's identity (docs/cluster.md, S3 credentials)"
    return Finding(title, "unknown", "neither S3 keys nor an identity of the cloud", remedy)


def _check_policies(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    """Addresses that are still the examples, and namespaces that our policies let nobody reach."""
    path = f"/apis/networking.k8s.io/v1/namespaces/{needs.namespace}/networkpolicies"
    policies = {policy["metadata"]["name"]: policy for policy in reader.items(path)}
    ours = {name: policy for name, policy in policies.items() if name.startswith("tasteloop-")}
    if not ours:
        yield Finding("network policies", "unknown", "none of ours", "kubectl apply -k the overlay")
        return
    examples = sorted(
        name
        for name, policy in ours.items()
        if any(cidr.startswith(_DOCUMENTATION) for cidr in _find_addresses(policy["spec"]))
    )
    if examples:
        remedy = "patch the addresses in your overlay (docs/cluster.md, the network)"
        message = f"addresses of {', '.join(examples)} are still the examples"
        yield Finding("network policies", "bad", message, remedy)
    else:
        yield Finding("network policies", "good", f"{len(ours)}, with addresses of yours")

    # the pods' own, too, where it is one of these: no policy lets them reach all their neighbours
    asked = {needs.pipelines, _namespace_of(needs.tracking, needs.namespace) or needs.pipelines}
    for name in sorted(asked):
        title = f"namespace {name} may be asked"
        namespace = reader.get(f"/api/v1/namespaces/{name}")
        remedy = f"kubectl label namespace {name} {_MAY_BE_ASKED}=yes"
        if namespace is None and name == needs.pipelines:
            remedy = "name the namespace of Kubeflow Pipelines with --pipelines"
            yield Finding(title, "bad", "there is no such namespace", remedy)
        elif namespace is None:
            remedy = f"where {needs.tracking} is outside the cluster, name its address in tasteloop-steps-outside"
            yield Finding(title, "unknown", "there is no such namespace", remedy)
        elif namespace["metadata"].get("labels", {}).get(_MAY_BE_ASKED) == "yes":
            yield Finding(title, "good", "labelled")
        else:
            yield Finding(title, "bad", "steps and servers are not let there", remedy)


def _find_addresses(spec: Mapping[str, Any]) -> Iterator[str]:
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction) or []:
            for peer in rule.get(peers) or []:
                if "ipBlock" in peer:
                    yield peer["ipBlock"]["cidr"]


def _namespace_of(url: str | None, own: str) -> str | None:
    """The namespace in a Service's address, or the caller's `own` where it names none; None where
    it is not one within the cluster.

    >>> _namespace_of("http://mlflow.mlflow:5000", "a"), _namespace_of("http://mlflow:5000", "a")
    ('mlflow', 'a')
    >>> _namespace_of("http://mlflow.team.svc.cluster.local", "a")
    'team'
    >>> _namespace_of("https://mlflow.example.com", "a") is None is _namespace_of(None, "a")
    True
    """
    parts = (urlsplit(url or "").hostname or "").split(".")
    if len(parts) == 1 and parts[0]:
        return own
    if len(parts) == 2 or (len(parts) > 2 and parts[2] == "svc"):
        return parts[1]
    return None


def _check_rights(reader: _Reader, needs: Needs) -> Iterator[Finding]:
    """What this command's user may do, and what the steps' account may."""
    # 1. the user; who may create cannot be held to a name
    reviews = "/apis/authorization.k8s.io/v1"
    missing = []
    for resource, verb, object_name in _promoter_rights(needs):
        attributes = _attributes(resource, verb, needs.namespace)
        if object_name:
            attributes["name"] = object_name
        spec: dict[str, Any] = {"resourceAttributes": attributes}
        path = f"{reviews}/selfsubjectaccessreviews"
        if not reader.review("SelfSubjectAccessReview", path, spec):
            missing.append(f"{verb} {resource.plural}")
    remedy = "bind the role tasteloop-promoter to yourself"
    yield _describe_rights("your rights", missing, "deploy, try, promote and take back", remedy)

    # 2. the account
    if not needs.steps:
        return
    rights = [(WORKFLOW_RESULTS, "create"), (WORKFLOW_RESULTS, "patch")]
    purpose, remedy = "report to Argo", "kubectl apply -k the overlay"
    if needs.is_together:
        rights += [(TRAIN_JOBS, "create"), (TRAIN_JOBS, "get")]
        purpose, remedy = f"{purpose}, begin TrainJobs", f"{remedy}, with components/trainer"
    user = f"system:serviceaccount:{needs.namespace}:{needs.steps}"
    path = f"{reviews}/namespaces/{needs.namespace}/localsubjectaccessreviews"
    missing = []
    for resource, verb in rights:
        spec = {"user": user, "resourceAttributes": _attributes(resource, verb, needs.namespace)}
        if not reader.review("LocalSubjectAccessReview", path, spec):
            missing.append(f"{verb} {resource.plural}")
    yield _describe_rights(f"rights of {needs.steps}", missing, purpose, remedy)


def _promoter_rights(needs: Needs) -> Iterator[tuple[Resource, str, str]]:
    """What `tasteloop cluster` does with which objects; an empty name is any. It is the role
    tasteloop-promoter of infra/k8s.
    """
    state, front = config_map_name(needs.service), front_name(needs.service)
    yield INFERENCE_SERVICES, "create", ""
    for verb in ("get", "patch"):
        yield INFERENCE_SERVICES, verb, needs.service
    kept = [(CONFIG_MAPS, state)]
    if needs.mode == "Knative":
        yield KNATIVE_SERVICES, "get", ""
    else:
        kept.append((SERVICES, front))
        yield ENDPOINTS, "get", front
        yield DEPLOYMENTS, "get", ""
        yield HTTP_ROUTES, "get", ""
    for resource, name in kept:
        yield resource, "create", ""
        yield resource, "get", name
        yield resource, "update", name


def _attributes(resource: Resource, verb: str, namespace: str) -> dict[str, str]:
    """Of a review: what would be done to which objects."""
    return {
        "group": resource.group,
        "resource": resource.plural,
        "verb": verb,
        "namespace": namespace,
    }


def _describe_rights(name: str, missing: list[str], purpose: str, remedy: str) -> Finding:
    if missing:
        return Finding(name, "bad", f"may not {', '.join(missing)}", remedy)
    return Finding(name, "good", f"may {purpose}")


CHECKS: tuple[tuple[str, Check], ...] = (
    (KUBERNETES.name, _check_kubernetes),
    ("namespace", _check_namespace),
    (PIPELINES.name, _check_pipelines),
    (KSERVE.name, _check_kserve),
    (GATEWAY_API.name, _check_gateway),
    (TRAINER.name, _check_trainer),
    ("volumes", _check_storage),
    ("GPU nodes", _check_gpus),
    ("metrics-server", _check_metrics),
    ("Secrets", _check_secrets),
    ("accounts", _check_accounts),
    ("network policies", _check_policies),
    ("rights", _check_rights),
)
