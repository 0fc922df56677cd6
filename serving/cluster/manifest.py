"""The InferenceService as an object: its settings, its releases, and the manifest that they make.

A canary is what the mode understands: in Standard mode an entry of `spec.canary`, a Deployment of
its own that a promotion makes the stable one, its pods untouched; in Knative mode the next revision
under `canaryTrafficPercent`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import urlparse

from pydantic import BaseModel, Field, ValidationError

from serving.release import registry
from tasteloop.errors import TasteloopError
from tasteloop.yaml12 import parse_yaml

GROUP, VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
MANAGER = "tasteloop"
RELEASES, SETTINGS = "tasteloop/releases", "tasteloop/settings"  # annotations
MODE = "serving.kserve.io/deploymentMode"
_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_SCHEMES = ("s3://", "gs://", "pvc://", "https://", "hdfs://", "oci://")
_MODELS = "/mnt/models"  # where KServe's storage initialiser puts what STORAGE_URI names


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
    user: int = Field(default=10001, ge=1)


@dataclass(frozen=True)
class Release:
    """A registered version, where KServe finds its bundle (s3://, gs://, pvc://, https://), and the
    serving image.
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
    """What the service is made of; `percent` of the requests go to the one that is tried."""

    stable: Release
    tried: Release | None = None
    percent: int = 0
    before: Release | None = None

    @classmethod
    def read(cls, text: str) -> Releases:
        told = json.loads(text)
        release = {
            key: Release(**told[key]) if told.get(key) else None
            for key in ("stable", "tried", "before")
        }
        return cls(**{**told, **release})

    def write(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)


def manifest(settings: ServiceSettings, releases: Releases) -> dict[str, Any]:
    """The whole InferenceService for these releases; what is left out of it, an apply takes
    away.
    """
    stable, tried = releases.stable, releases.tried
    knative = settings.mode == "Knative"
    shown = tried if knative and tried else stable
    predictor = {
        **_pod(settings, shown),
        "minReplicas": settings.replicas,
        "maxReplicas": max(settings.most, settings.replicas),
        "scaleMetric": "concurrency" if knative else "cpu",
        "scaleTarget": settings.busy,
    }
    spec: dict[str, Any] = {"predictor": predictor}
    if tried and knative:
        predictor["canaryTrafficPercent"] = releases.percent
    elif tried:
        spec["canary"] = [{"trafficPercent": releases.percent, "predictor": _pod(settings, tried)}]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
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


def _pod(settings: ServiceSettings, release: Release) -> dict[str, Any]:
    linger, grace = 5, 25  # seconds: endpoints forget a pod, then requests under way end
    arguments = [
        "--bundle",
        _MODELS,
        "--version",
        release.version,
        "--host",
        "0.0.0.0",
        "--log-format",
        "json",
    ]
    arguments += ["--linger", str(linger), "--grace", str(grace)]
    env: list[dict[str, Any]] = [
        {"name": "STORAGE_URI", "value": release.uri},
        {"name": "TASTELOOP_HOME", "value": "/tmp/home"},
    ]
    if settings.token:
        reference = {"name": settings.token, "key": "api-token"}
        env.append({"name": "TASTELOOP_API_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    else:
        arguments.append("--without-token")
    ports = [{"name": "http1", "containerPort": 8080, "protocol": "TCP"}]
    if settings.mode == "Standard":  # Knative takes one port
        ports.append({"name": "grpc", "containerPort": 8081, "protocol": "TCP"})
    resources = {"cpu": settings.cpu, "memory": settings.memory}

    def probe(path: str, **more: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": 8080}, "timeoutSeconds": 2, **more}

    pod: dict[str, Any] = {
        "name": release.name,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": linger + grace + 5,
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
    if settings.account:
        pod["serviceAccountName"] = settings.account
    if settings.journal:
        pod["logger"] = {
            "mode": "all",
            "url": settings.journal,
            "metadataHeaders": ["X-Request-Id"],
        }
    return pod


def release(
    version: str,
    image: str,
    uri: str | None = None,
    digest: str | None = None,
    store: str | None = None,
) -> Release:
    """A release of a registered version; the registry is asked where no `uri` and `digest` are
    given.

    Args:
        store: what MLflow's server keeps proxied artifacts in (its --artifacts-destination),
            s3://bucket/path.

    Raises:
        TasteloopError: it has not passed gate and rehearsal, or lies where KServe cannot fetch it.
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


def given(options: Sequence[str]) -> dict[str, Any]:
    """Settings from `key=value`, a value read as YAML."""
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


def settings(name: str, namespace: str, **given: Any) -> ServiceSettings:
    """Raises TasteloopError for a setting that is not known or does not fit."""
    try:
        return ServiceSettings(**{**given, "name": name, "namespace": namespace})
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(ServiceSettings.model_fields)
            raise TasteloopError(
                f"unknown setting {key!r} of the service; known: {known}"
            ) from None
        raise TasteloopError(f"{key} = {problem['input']!r}: {problem['msg']}") from None
