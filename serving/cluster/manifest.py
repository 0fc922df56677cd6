"""The InferenceService as an object: its settings, its releases, and the manifest that they make.

A canary depends on KServe's mode. In Standard mode it is an entry of `spec.canary`, with a
Deployment of its own; a promotion makes that the stable one and leaves its pods as they are. In
Knative mode it is the next revision, with its share in `canaryTrafficPercent`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self
from urllib.parse import urlparse

from pydantic import BaseModel, Field, ValidationError, model_validator

from serving.cluster.api import KubernetesObject, Resource
from serving.histories.opening import require_shared
from serving.release import registry
from serving.settings import HISTORIES_PASSWORD
from tasteloop.errors import TasteloopError
from tasteloop.privacy.pseudonyms import KEY_VARIABLE
from tasteloop.yaml12 import parse_yaml

INFERENCE_SERVICES = Resource("serving.kserve.io", "v1beta1", "inferenceservices")
MANAGER = "tasteloop"  # of the fields that we apply

# annotations of the object
RELEASES = "tasteloop/releases"
SETTINGS = "tasteloop/settings"
MODE = "serving.kserve.io/deploymentMode"

_SIDECAR = "sidecar.istio.io/inject"  # annotation of the pods
_SERVICE = "serving.kserve.io/inferenceservice"  # label of the pods, by KServe: the object's name
_SPREAD = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")  # of nodes; what pods lie in

_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_SCHEMES = ("s3://", "gs://", "pvc://", "https://", "hdfs://", "oci://")
_MODELS = "/mnt/models"  # where KServe's storage initialiser puts what STORAGE_URI names

# seconds of a pod's end: in which endpoints forget it, then in which requests under way end
_LINGER, _GRACE = 5, 25
_HISTORIES = "tasteloop-histories"  # a Secret


class ServiceSettings(BaseModel, frozen=True, extra="forbid"):
    """What the InferenceService asks of the cluster."""

    name: str = Field(default="tasteloop", pattern=_NAME, max_length=30)
    namespace: str = Field(default="tasteloop", pattern=_NAME, max_length=63)
    mode: Literal["Standard", "Knative"] = "Standard"
    cpu: str = "1"
    memory: str = Field(default="2Gi", description="asked for, and the limit")
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
    def _check_histories(self) -> Self:
        if self.histories is not None:
            require_shared(self.histories)
        return self


@dataclass(frozen=True)
class Release:
    """A registered version and the serving image.

    Attributes:
        uri: where KServe finds the bundle (s3://, gs://, pvc://, https://).
        digest: of the bundle.
    """

    version: str
    uri: str
    digest: str
    image: str

    @property
    def name(self) -> str:
        return f"v{self.version}"


@dataclass(frozen=True)
class Releases:
    """The releases of the service.

    Attributes:
        stable: it gets the requests that `tried` does not get.
        tried: the canary, which gets `percent` of the requests; None where none is tried.
        before: the stable release before this one, to which a rollback returns.
    """

    stable: Release
    tried: Release | None = None
    percent: int = 0
    before: Release | None = None

    @classmethod
    def read(cls, text: str) -> Releases:
        """From the annotation `RELEASES`, as `write` made it."""
        fields = json.loads(text)
        for name in ("stable", "tried", "before"):
            fields[name] = Release(**fields[name]) if fields.get(name) else None
        return cls(**fields)

    def write(self) -> str:
        """As JSON for the annotation `RELEASES`."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)


def build_inference_service(settings: ServiceSettings, releases: Releases) -> KubernetesObject:
    """The InferenceService for these releases, with every field that we manage: an apply takes away
    what an object leaves out.
    """
    stable, tried = releases.stable, releases.tried
    is_knative = settings.mode == "Knative"
    # Knative knows one predictor: the next revision, to which it sends a share of the requests
    newest = tried if is_knative and tried else stable
    predictor = {
        **_build_pod(settings, newest),
        "minReplicas": settings.replicas,
        "maxReplicas": max(settings.most, settings.replicas),
        "scaleMetric": "concurrency" if is_knative else "cpu",
        "scaleTarget": settings.busy,
    }
    spec: dict[str, Any] = {"predictor": predictor}
    if tried and is_knative:
        predictor["canaryTrafficPercent"] = releases.percent
    elif tried:
        canary = _build_pod(settings, tried)
        spec["canary"] = [{"trafficPercent": releases.percent, "predictor": canary}]
    return {
        "apiVersion": INFERENCE_SERVICES.api_version,
        "kind": "InferenceService",
        "metadata": {
            "name": settings.name,
            "namespace": settings.namespace,
            "labels": {
                "app.kubernetes.io/name": "tasteloop",
                "app.kubernetes.io/managed-by": MANAGER,
            },
            "annotations": {
                MODE: settings.mode,
                RELEASES: releases.write(),
                SETTINGS: settings.model_dump_json(exclude={"name", "namespace", "mode"}),
            },
        },
        "spec": spec,
    }


def _build_pod(settings: ServiceSettings, release: Release) -> dict[str, Any]:
    """The specification of a release's pods."""
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
    ports = [{"name": "http1", "containerPort": 8080, "protocol": "TCP"}]
    if settings.mode == "Standard":  # Knative takes one port
        ports.append({"name": "grpc", "containerPort": 8081, "protocol": "TCP"})
    resources = {"cpu": settings.cpu, "memory": settings.memory}

    def probe(path: str, **timing: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": 8080}, "timeoutSeconds": 2, **timing}

    # 3. the pod
    pod: dict[str, Any] = {
        "name": release.name,
        "annotations": {_SIDECAR: str(settings.sidecar).lower()},
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _LINGER + _GRACE + 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.user,
            "fsGroup": settings.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "kserve-container",
                "image": release.image,
                "args": arguments,
                "env": env,
                "ports": ports,
                "resources": {"requests": resources, "limits": {"memory": settings.memory}},
                "startupProbe": probe("/v2/health/live", periodSeconds=1, failureThreshold=120),
                "readinessProbe": probe("/v2/health/ready", periodSeconds=2, failureThreshold=2),
                "livenessProbe": probe("/v2/health/live", periodSeconds=10, failureThreshold=3),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}],
    }
    if settings.mode == "Standard":  # Knative refuses the field unless a feature of it is on
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
