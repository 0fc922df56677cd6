"""The objects that a state makes: the InferenceService, the ConfigMap of the state, and the Service
by which clients in the cluster find the pods.

A canary depends on KServe's mode. In Standard mode it is an entry of `spec.canary`, with a
Deployment of its own; a promotion makes that the stable one and leaves its pods as they are. In
Knative mode it is the next revision, with its share in `canaryTrafficPercent`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlparse

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from serving.cluster.api import KubernetesObject, Resource, parse_quantity
from serving.cluster.state import SLOTS, Release, Slot, State
from serving.histories.opening import require_shared
from serving.release import registry
from serving.settings import HISTORIES_PASSWORD
from tasteloop.errors import TasteloopError
from tasteloop.privacy.pseudonyms import KEY_VARIABLE
from tasteloop.yaml12 import parse_yaml

INFERENCE_SERVICES = Resource("serving.kserve.io", "v1beta1", "inferenceservices")
CONFIG_MAPS = Resource("", "v1", "configmaps")
SERVICES = Resource("", "v1", "services")
MANAGER = "tasteloop"  # of the fields that we apply
MANAGED_BY = "app.kubernetes.io/managed-by"  # a label
MODE = "serving.kserve.io/deploymentMode"  # an annotation of the InferenceService

_SIDECAR = "sidecar.istio.io/inject"  # annotation of the pods
_SERVICE = "serving.kserve.io/inferenceservice"  # label of the pods, by KServe: the object's name
_SPREAD = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")  # of nodes; what pods lie in
_LABELS = {"app.kubernetes.io/name": "tasteloop", MANAGED_BY: MANAGER}
_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_SCHEMES = ("s3://", "gs://", "pvc://", "https://", "hdfs://", "oci://")
_PORT, _AGENT_PORT = 8080, 9081  # the server's; KServe's agent's, which logs requests and passes on
_MODELS = "/mnt/models"  # where KServe's storage initialiser puts what STORAGE_URI names

# seconds of a pod's end: in which endpoints forget it, then in which requests under way end
_LINGER, _GRACE = 5, 25
_HISTORIES = "tasteloop-histories"  # a Secret


def _read_quantity(value: Any) -> Any:
    quantity = parse_quantity(value)
    if quantity is None or quantity <= 0:
        raise ValueError("not a quantity such as 2, 500m or 4Gi")
    return str(value)


Quantity = Annotated[str, BeforeValidator(_read_quantity)]


class ServiceSettings(BaseModel, frozen=True, extra="forbid"):
    """What the InferenceService asks of the cluster."""

    name: str = Field(default="tasteloop", pattern=_NAME, max_length=30)
    namespace: str = Field(default="tasteloop", pattern=_NAME, max_length=63)
    mode: Literal["Standard", "Knative"] = "Standard"
    cpu: Quantity = "1"
    cpu_limit: Quantity | None = Field(default=None, description="none: as much as `cpu`")
    memory: Quantity = Field(default="2Gi", description="asked for, and the limit")
    replicas: int = Field(default=2, ge=1, description="pods at least; two, so that a node may go")
    most: int = Field(default=6, ge=1, description="pods at most")
    busy: int = Field(
        default=70,
        ge=1,
        description="a pod more above: percent of its CPU (Standard), requests at once (Knative)",
    )
    token: str | None = Field(
        default="tasteloop", description="the Secret with the key api-token; none: a mesh asks"
    )
    account: str | None = Field(
        default="tasteloop-serving", description="may read the bundles' store"
    )
    journal: str | None = Field(
        default=None, pattern="^https?://", description="the collector of requests and answers"
    )
    traces: str | None = Field(
        default=None, pattern="^https?://", description="gets spans by OTLP over HTTP, its full URL"
    )
    sidecar: bool = Field(
        default=False,
        description="Istio's proxy beside the server, where a mesh asks for credentials",
    )
    histories: str | None = Field(
        default=None,
        description="where users' histories are kept: valkey://HOST:6379, since there are several pods; the Secret "
        "tasteloop-histories has pseudonym-key and, where Valkey asks for one, password",
    )
    user: int = Field(default=10001, ge=1)

    @model_validator(mode="after")
    def _check_addresses(self) -> Self:
        for name in ("histories", "journal", "traces"):
            if urlparse(getattr(self, name) or "").username is not None:
                raise TasteloopError(
                    f"{name}: the address names a user or a password, and it stands where everybody who may look at "
                    "the service reads it; of Valkey the password belongs into the Secret tasteloop-histories"
                )
        if self.histories is not None:
            require_shared(self.histories)
        return self


def build_state(settings: ServiceSettings, release: Release) -> State:
    """The state of a service that begins with this release."""
    slot = Slot(SLOTS[0], release, build_pod(settings, release))
    return State(dump_settings(settings), slot)


def dump_settings(settings: ServiceSettings) -> dict[str, Any]:
    """As `State.settings` keeps them."""
    return settings.model_dump(exclude={"name", "namespace"})


def workload_name(service: str, slot: str) -> str:
    """Of the Deployment and the Service that KServe makes for a predictor (`PredictorServiceName`
    of its pkg/constants).

    >>> workload_name("tasteloop", "a")
    'tasteloop-a-predictor'
    """
    return f"{service}-{slot}-predictor"


def config_map_name(service: str) -> str:
    return f"{service}-releases"


def front_name(service: str) -> str:
    """Of our own Service, which outlives promotions."""
    return f"{service}-serving"


def build_inference_service(settings: ServiceSettings, state: State) -> KubernetesObject:
    """The InferenceService for this state, with every field that we manage: an apply takes away
    what an object leaves out.
    """
    stable, tried = state.stable, state.tried
    is_knative = settings.mode == "Knative"
    # Knative knows one predictor: the next revision, to which it sends a share of the requests
    newest = tried if is_knative and tried else stable
    least = settings.replicas
    predictor = {
        **newest.pod,
        "name": stable.name,
        "minReplicas": least,
        "maxReplicas": max(settings.most, least),
        "scaleMetric": "concurrency" if is_knative else "cpu",
        "scaleTarget": settings.busy,
    }
    spec: dict[str, Any] = {"predictor": predictor}
    if not is_knative:
        # KServe's own strategy lets a quarter of the pods go before their successors are ready
        rolling = {"maxUnavailable": 0, "maxSurge": 1}
        predictor["deploymentStrategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
    if tried and is_knative:
        predictor["canaryTrafficPercent"] = state.percent
    elif tried:
        # KServe takes the pods of a canary that is ready from the stable one's least
        predictor["minReplicas"] = state.strength + state.pods
        predictor["maxReplicas"] = max(settings.most, predictor["minReplicas"])
        canary = {**tried.pod, "name": tried.name, "minReplicas": state.pods}
        spec["canary"] = [{"trafficPercent": state.percent, "predictor": canary}]
    return {
        "apiVersion": INFERENCE_SERVICES.api_version,
        "kind": "InferenceService",
        "metadata": {
            "name": settings.name,
            "namespace": settings.namespace,
            "labels": _LABELS,
            "annotations": {MODE: settings.mode, **state.annotations},
        },
        "spec": spec,
    }


def build_config_map(
    settings: ServiceSettings, state: State, owner: Mapping[str, Any] | None
) -> KubernetesObject:
    """The ConfigMap that holds the state. With the InferenceService, its owner, it is deleted."""
    metadata = _build_metadata(config_map_name(settings.name), settings.namespace, owner)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": state.write()}


def build_front(
    settings: ServiceSettings, state: State, owner: Mapping[str, Any]
) -> KubernetesObject:
    """Our own Service, which leads to the pods of one slot. KServe's Services bear the slot's name,
    and go with it.
    """
    slot = state.front_slot
    port = _AGENT_PORT if "logger" in slot.pod else _PORT
    # a label that KServe gives to the pods of each predictor, whichever release made it
    selector = {"app": f"isvc.{workload_name(settings.name, slot.name)}"}
    ports = [{"name": "http", "port": 80, "targetPort": port, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _build_metadata(front_name(settings.name), settings.namespace, owner),
        "spec": {"selector": selector, "ports": ports},
    }


def _build_metadata(name: str, namespace: str, owner: Mapping[str, Any] | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": _LABELS}
    if owner:
        reference = {
            "apiVersion": INFERENCE_SERVICES.api_version,
            "kind": "InferenceService",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
        }
        metadata["ownerReferences"] = [reference]
    return metadata


def build_pod(settings: ServiceSettings, release: Release) -> dict[str, Any]:
    """The specification of a release's pods: KServe's predictor without name and scaling."""
    # 1. the server's arguments and environment
    arguments = ["--bundle", _MODELS, "--version", release.version]
    arguments += ["--host", "0.0.0.0", "--log-format", "json"]
    arguments += ["--linger", str(_LINGER), "--grace", str(_GRACE)]
    env: list[dict[str, Any]] = [
        {"name": "STORAGE_URI", "value": release.uri},
        {"name": "TASTELOOP_HOME", "value": "/tmp/home"},
    ]
    if settings.token:
        reference = {"name": settings.token, "key": "api-token"}
        env.append({"name": "TASTELOOP_API_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    else:
        arguments.append("--without-token")
    if settings.traces:
        arguments += ["--traces", settings.traces]

    if settings.histories:
        # The home is the pod's alone, so no monitor would read what is written for it there.
        arguments += ["--histories", settings.histories, "--history-incoming", "off"]
        for variable, key in ((KEY_VARIABLE, "pseudonym-key"), (HISTORIES_PASSWORD, "password")):
            secret = {"name": _HISTORIES, "key": key, "optional": variable != KEY_VARIABLE}
            env.append({"name": variable, "valueFrom": {"secretKeyRef": secret}})

    # 2. ports, resources and probes
    ports = [{"name": "http1", "containerPort": _PORT, "protocol": "TCP"}]
    is_knative = settings.mode == "Knative"
    if not is_knative:  # Knative takes one port
        ports.append({"name": "grpc", "containerPort": 8081, "protocol": "TCP"})
    # both, always: KServe fills in what a predictor leaves out, and not what a canary does
    requests = {"cpu": settings.cpu, "memory": settings.memory}
    limits = {"cpu": settings.cpu_limit or settings.cpu, "memory": settings.memory}

    def probe(path: str, **timing: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": _PORT}, "timeoutSeconds": 2, **timing}

    # 3. the pod; Knative refuses a grace period and a security context of the pod, and takes the
    # latter of the container
    user = {
        "runAsNonRoot": True,
        "runAsUser": settings.user,
        "runAsGroup": settings.user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod: dict[str, Any] = {
        "annotations": {_SIDECAR: str(settings.sidecar).lower()},
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "kserve-container",
                "image": release.image,
                "args": arguments,
                "env": env,
                "ports": ports,
                "resources": {"requests": requests, "limits": limits},
                "startupProbe": probe("/v2/health/live", periodSeconds=1, failureThreshold=120),
                "readinessProbe": probe("/v2/health/ready", periodSeconds=2, failureThreshold=2),
                "livenessProbe": probe("/v2/health/live", periodSeconds=10, failureThreshold=3),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                    **(user if is_knative else {}),
                },
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}],
    }
    if not is_knative:
        pod["terminationGracePeriodSeconds"] = _LINGER + _GRACE + 5
        pod["securityContext"] = {**user, "fsGroup": settings.user}
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {_SERVICE: settings.name}},
            }
            for key in _SPREAD
        ]
    if settings.account:
        pod["serviceAccountName"] = settings.account
    if settings.journal:
        pod["logger"] = {
            "mode": "all",
            "url": settings.journal,
            "metadataHeaders": ["X-Request-Id"],
        }
    return pod


def resolve_release(
    version: str,
    image: str,
    uri: str | None = None,
    digest: str | None = None,
    store: str | None = None,
) -> Release:
    """The release of a registered version.

    Args:
        uri, digest: where the bundle is and which it is; without them the registry says so.
        store: where MLflow's server keeps the artifacts that it proxies (its
            --artifacts-destination), s3://bucket/path.

    Raises:
        TasteloopError: the version has not passed gate and rehearsal, or its bundle lies where
            KServe cannot fetch it.
    """
    if (uri is None) != (digest is None):
        raise TasteloopError(
            "--uri and --digest belong together: where the bundle is, and which it is"
        )
    if uri is None or digest is None:
        uri, digest = registry.source(version)
        if store and uri.startswith("mlflow-artifacts:"):
            uri = f"{store.rstrip('/')}/{urlparse(uri).path.lstrip('/')}"
    if not uri.startswith(_SCHEMES):
        raise TasteloopError(
            f"KServe cannot fetch version {version} from {uri}; it knows {', '.join(_SCHEMES)}: where MLflow's "
            "server keeps them in an object store, name it with --store; else copy the bundle there: --uri and --digest"
        )
    return Release(version, uri, digest, image)


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Settings of the service from options `key=value`; a value is read as YAML.

    >>> parse_options(["replicas=3", "token=null"])
    {'replicas': 3, 'token': None}
    """
    values = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise TasteloopError(f"--set {key!r} is not of the form key=value")
        try:
            values[key.strip()] = parse_yaml(text)
        except ValueError as error:
            raise TasteloopError(
                f"--set {key}: {text[:100]!r} is not a YAML value: {error}"
            ) from None
    return values


def check_settings(name: str, namespace: str, **values: Any) -> ServiceSettings:
    """The settings of the service of that name.

    Raises:
        TasteloopError: a setting that is not known, or a value that is not allowed.
    """
    try:
        return ServiceSettings(**{**values, "name": name, "namespace": namespace})
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(ServiceSettings.model_fields)
            raise TasteloopError(
                f"unknown setting {key!r} of the service; known: {known}"
            ) from None
        raise TasteloopError(f"{key} = {problem['input']!r}: {problem['msg']}") from None
