"""The serving image on a cluster: an InferenceService that is applied, tried, promoted and taken
back.

The object is the only state: its annotation `tasteloop/releases` says which release is stable,
which is tried and which was stable before; another holds the settings. Every change reads the
object, makes the next one and applies it on the server's side under the version that was read, so
of two promoters one is told that it lost. What the server would keep is compared with what was
asked, in a dry run first: a field that an older KServe does not know would vanish without a word
otherwise.

A canary is what the mode understands: in Standard mode an entry of `spec.canary`, a Deployment of
its own that a promotion makes the stable one, its pods untouched; in Knative mode the next revision
under `canaryTrafficPercent`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import urlparse

from pydantic import BaseModel, Field, ValidationError

from tasteloop.errors import TasteloopError
from tasteloop.yaml12 import parse_yaml

logger = logging.getLogger(__name__)

GROUP, VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
MANAGER = "tasteloop"
RELEASES, SETTINGS = "tasteloop/releases", "tasteloop/settings"
MODE = "serving.kserve.io/deploymentMode"
_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_SCHEMES = ("s3://", "gs://", "pvc://", "https://", "hdfs://", "oci://")
_MODELS = "/mnt/models"  # where KServe's storage initialiser puts what STORAGE_URI names
_RETRY = 2.0  # seconds between two looks


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
        from serving.release import registry

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


class Service:
    """One InferenceService on the cluster that `api` reaches.

    Every method raises TasteloopError for what the cluster refuses or does not answer, with what to
    do.

    Args:
        api: a `kubernetes.client.ApiClient`; `connect()` makes one.
        settings: what is to be other than the object says, or than the default where there is none.
    """

    def __init__(
        self, api: Any, name: str = "tasteloop", namespace: str = "tasteloop", **settings: Any
    ) -> None:
        self._api, self._name, self._namespace, self._given = api, name, namespace, settings
        self._place = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"
        self._mode = self._settings().mode  # and a wrong setting is told before anything is asked

    def read(self) -> dict[str, Any] | None:
        """The object as it is; None where there is none."""
        try:
            return self._call("GET", f"{self._place}/{self._name}", "read")
        except _Absent:
            return None

    def releases(self) -> Releases:
        """What it is made of."""
        found = self.read()
        if found is None:
            raise TasteloopError(
                f"there is no {self._called}; make it with `tasteloop cluster deploy`"
            )
        return self._of(found)

    def pending(self) -> str | None:
        """What KServe has still to do, in words; None where it has done what the object says."""
        found = self.read()
        return unready(found) if found else f"there is no {self._called}"

    def deploy(self, release: Release) -> Releases:
        """Make a release the stable one at once: the first, or one that needs no trial."""

        def change(now: Releases | None) -> Releases:
            if now is None:
                return Releases(release)
            self._not_trying(now)
            return now if now.stable == release else Releases(release, before=now.stable)

        return self._change(change)

    def canary(self, release: Release, percent: int) -> Releases:
        """Send a share of the requests to a release; the same release again changes its share."""
        if not 0 <= percent <= 100:
            raise TasteloopError(f"a share of {percent} percent: give one from 0 to 100")

        def change(now: Releases | None) -> Releases:
            if now is None:
                raise TasteloopError(
                    f"there is no stable release to try {release.name} beside: deploy one"
                )
            if now.tried != release:
                self._not_trying(now)
            if now.stable.version == release.version:  # its Deployment would bear the same name
                raise TasteloopError(
                    f"{release.name} is the stable release already; with another image, deploy it"
                )
            return Releases(now.stable, release, percent, now.before)

        return self._change(change)

    def promote(self, version: str) -> Releases:
        """Make the release that is tried the stable one; `version` says which the caller means."""

        def change(now: Releases | None) -> Releases:
            if now and now.tried is None and now.stable.version == version:
                return now  # a promotion that was cut off, tried again
            if now is None or now.tried is None:
                raise TasteloopError(
                    f"v{version} is not tried here; `tasteloop cluster status` tells what is"
                )
            if now.tried.version != version:
                raise TasteloopError(
                    f"{now.tried.name} is tried here, not v{version}: someone began another canary"
                )
            return Releases(now.tried, before=now.stable)

        return self._change(change)

    def rollback(self) -> Releases:
        """End a canary; without one, make the release before the stable one again."""

        def change(now: Releases | None) -> Releases:
            if now is None or not (now.tried or now.before):
                raise TasteloopError(
                    "there is nothing to go back to: no canary, and no release before this one"
                )
            if now.tried and self._mode == "Knative" and now.percent:
                # pins the revision before, whose pods are there
                return Releases(now.stable, now.tried, 0, now.before)
            if now.tried:
                return Releases(now.stable, before=now.before)
            return Releases(now.before)  # type: ignore[arg-type]  # there is one: asked above

        return self._change(change)

    def wait(self, seconds: float, say: Callable[[str], None] = logger.info) -> None:
        """Until the controller has done what the object says: pods ready, the share of the requests
        as asked.
        """
        deadline = time.monotonic() + seconds
        waiting = "nothing was seen of it yet"
        while True:
            try:
                found = self.read()
                if found is None:
                    raise TasteloopError(f"{self._called} is gone")
                now = unready(found)
            except _Lost as error:
                now = str(error)
            if now is None:
                return
            if now != waiting:
                waiting = now
                say(f"{self._called}: {waiting}")
            if time.monotonic() > deadline:
                raise TasteloopError(
                    f"{self._called} was not ready within {seconds:.0f} s: {waiting}; look at it with `kubectl "
                    f"describe inferenceservice -n {self._namespace} {self._name}`"
                )
            time.sleep(min(_RETRY, seconds / 10))

    @property
    def _called(self) -> str:
        return f"InferenceService {self._namespace}/{self._name}"

    def _of(self, found: Mapping[str, Any]) -> Releases:
        annotations = found["metadata"].get("annotations", {})
        if RELEASES not in annotations:
            raise TasteloopError(
                f"{self._called} was not made by tasteloop (no annotation {RELEASES}); choose another name"
            )
        self._mode = annotations.get(MODE)
        if self._mode != self._given.get("mode", self._mode):
            raise TasteloopError(
                f"{self._called} is in mode {self._mode}, not {self._given['mode']}; KServe does not change "
                "the mode of a service: give the same, or delete it first"
            )
        return Releases.read(annotations[RELEASES])

    def _settings(self, found: Mapping[str, Any] | None = None) -> ServiceSettings:
        annotations = found["metadata"]["annotations"] if found else {}
        kept = {**json.loads(annotations[SETTINGS]), "mode": annotations[MODE]} if found else {}
        return settings(self._name, self._namespace, **{**kept, **self._given})

    def _not_trying(self, now: Releases) -> None:
        # Knative's at 0 was rolled back
        if now.tried and (now.percent or self._mode == "Standard"):
            raise TasteloopError(
                f"{now.tried.name} is tried with {now.percent} percent: promote it or roll it back first"
            )

    def _change(self, change: Callable[[Releases | None], Releases]) -> Releases:
        found = self.read()
        releases = change(self._of(found) if found else None)
        wanted = manifest(self._settings(found), releases)
        if found:
            wanted["metadata"]["resourceVersion"] = self._owned(found)["metadata"][
                "resourceVersion"
            ]
        self._kept(wanted, self._apply(wanted, dry=True))
        try:
            self._apply(wanted)
        except _Lost as error:  # it may have arrived: the object tells
            after = self._after(error)
            if (
                after is None
                or after["metadata"].get("annotations", {}).get(RELEASES) != releases.write()
            ):
                raise TasteloopError(
                    f"{error}; nothing was changed: the same command again does it"
                ) from None
        return releases

    def _owned(self, found: dict[str, Any]) -> dict[str, Any]:
        """What a create left us with as an update becomes an apply's: else no later apply could
        take a field away.
        """
        metadata = found["metadata"]
        fields = metadata.get("managedFields", [])
        ours = [
            f
            for f in fields
            if (f["manager"], f["operation"]) == (MANAGER, "Update") and "subresource" not in f
        ]
        if not ours:
            return found
        fields = [{**f, "operation": "Apply"} if f in ours else f for f in fields]
        change = [
            {"op": "replace", "path": "/metadata/managedFields", "value": fields},
            {
                "op": "replace",
                "path": "/metadata/resourceVersion",
                "value": metadata["resourceVersion"],
            },
        ]
        return self._call("PATCH", f"{self._place}/{self._name}", "patch", body=change)

    def _after(self, lost: Exception) -> dict[str, Any] | None:
        for left in reversed(range(5)):
            try:
                return self.read()
            except _Lost:
                if not left:
                    raise TasteloopError(
                        f"{lost}; whether the change arrived is not known: see `tasteloop cluster status` later"
                    ) from None
                time.sleep(_RETRY / 4)
        raise AssertionError

    def _apply(self, wanted: Mapping[str, Any], dry: bool = False) -> dict[str, Any]:
        query = [("fieldManager", MANAGER), *([("dryRun", "All")] if dry else [])]
        place = f"{self._place}/{self._name}"
        try:
            # an apply would change one that appeared meanwhile
            if "resourceVersion" not in wanted["metadata"]:
                return self._call("POST", self._place, "create", query, wanted)
            return self._call("PATCH", place, "patch", query, wanted)
        except _Absent:
            raise TasteloopError(f"{self._called} was deleted meanwhile") from None

    def _kept(self, wanted: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        if lost := missing(wanted["spec"], kept["spec"], "spec"):
            raise TasteloopError(
                f"this cluster's KServe would drop {lost} without a word; spec.canary is known from KServe 0.20 on: "
                "upgrade KServe and its CRDs, or use --mode Knative"
            )

    def _call(
        self,
        method: str,
        path: str,
        verb: str,
        query: list[tuple[str, str]] | None = None,
        body: Any = None,
    ) -> dict[str, Any]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        kind = "application/json"
        if method == "PATCH":
            kind = (
                "application/json-patch+json"
                if isinstance(body, list)
                else "application/apply-patch+yaml"
            )
        try:
            answer: dict[str, Any] = self._api.call_api(
                path,
                method,
                query_params=query or [],
                body=body,
                response_type="object",
                header_params={"Accept": "application/json", "Content-Type": kind},
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=(5, 30),
            )
        except ApiException as error:
            raise self._refusal(error, verb) from None
        except (HTTPError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise _Lost(
                f"the connection to {self._api.configuration.host} was lost or refused ({reason})"
            ) from None
        return answer

    def _refusal(self, error: Any, verb: str) -> TasteloopError:
        told = said(error)
        message = str(told.get("message") or error.reason)
        details = told.get("details") or {}
        causes = details.get("causes") or []
        if error.status == 404 and details.get("name") == self._name:
            return _Absent(message)
        if error.status == 404 and details.get("kind") == "namespaces":
            return TasteloopError(
                f"there is no namespace {self._namespace}; docs/cluster.md says how it is made"
            )
        if error.status == 404:
            return TasteloopError(
                f"this cluster has no {PLURAL}.{GROUP}: install KServe with its CRDs ({message})"
            )
        if error.status == 401:
            return TasteloopError(
                "the cluster does not know who asks; log in again (kubectl auth whoami tells)"
            )
        if error.status == 403:
            return TasteloopError(
                f"whoever asks may not {verb} {PLURAL} in {self._namespace}: {message}; "
                "infra/k8s/base/rbac.yaml has the role tasteloop-promoter"
            )
        if error.status == 409 and any(c.get("reason") == "FieldManagerConflict" for c in causes):
            fields = ", ".join(str(c.get("field")) for c in causes)
            return TasteloopError(
                f"someone else manages a part of {self._called} ({fields}): {message}"
            )
        if error.status == 409:
            return Moved(
                f"{self._called} was changed by someone else meanwhile: see `tasteloop cluster status`"
            )
        if error.status in (400, 422):
            return TasteloopError(f"the cluster refuses the manifest: {message}")
        return TasteloopError(f"the cluster answered {error.status}: {message}")


class Moved(TasteloopError):
    """Someone else changed the object between reading and writing it."""


class _Lost(TasteloopError):
    """No answer: what was asked may have been done."""


class _Absent(TasteloopError):
    """There is no such object."""


def connect(context: str | None = None) -> Any:
    """A client as kubectl's configuration (its `context`) or the pod's service account says."""
    from kubernetes import client, config

    try:
        if (
            context is None
            and "KUBERNETES_SERVICE_HOST" in os.environ
            and "KUBECONFIG" not in os.environ
        ):
            config.load_incluster_config()
        else:
            # the library read the variable when it was imported; ours may have been set since
            config.load_kube_config(os.environ.get("KUBECONFIG") or None, context)
    except (config.ConfigException, OSError) as error:
        raise TasteloopError(
            f"no cluster to talk to: {error}; set KUBECONFIG, or give --context"
        ) from None
    configuration = client.Configuration.get_default_copy()
    configuration.retries = False  # a write that is repeated in the dark is not ours to repeat
    return client.ApiClient(configuration)


def unready(found: Mapping[str, Any]) -> str | None:
    """What the controller has still to do for an object, in words; None where it is done.

    Raises:
        TasteloopError: it cannot be done.
    """
    status = found.get("status") or {}
    model = status.get("modelStatus") or {}
    if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
        why = model.get("lastFailureInfo") or {}
        raise TasteloopError(
            f"the model cannot be loaded: {why.get('reason', '')} {why.get('message', '')}".strip()
        )
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 1):
        return "KServe has not seen the change yet"
    annotations = found["metadata"].get("annotations", {})
    mode = status.get("deploymentMode")
    if mode and mode != annotations.get(MODE):
        raise TasteloopError(
            f"KServe runs it in mode {mode}, not {annotations.get(MODE)}: it is not offered there"
        )
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    for kind in ("Ready", *(["CanaryReady"] if "CanaryReady" in conditions else [])):
        condition = conditions.get(kind, {"status": "Unknown"})
        if condition["status"] != "True":
            why = condition.get("message") or condition.get("reason") or "no reason given"
            return f"{kind} is {condition['status']}: {why}"
    return _split(found, status)


def _split(found: Mapping[str, Any], status: Mapping[str, Any]) -> str | None:
    """Whether the requests are shared out as the object says."""
    for canary in found["spec"].get("canary", []):
        name, percent = canary["predictor"]["name"], canary["trafficPercent"]
        seen = next((c for c in status.get("canaryStatuses", []) if c["name"] == name), None)
        if seen is None or not seen["ready"]:
            return f"canary {name} is not ready"
        if seen["trafficPercent"] != percent:
            return f"canary {name} gets {seen['trafficPercent']} percent, not {percent}"
    percent = found["spec"]["predictor"].get("canaryTrafficPercent")
    if percent is not None:
        traffic = (status.get("components") or {}).get("predictor", {}).get("traffic", [])
        latest = sum(t.get("percent", 0) for t in traffic if t.get("latestRevision"))
        if latest != percent:
            return f"the newest revision gets {latest} percent, not {percent}"
    return None


def said(error: Any) -> dict[str, Any]:
    """The API server's Status in an ApiException; nothing where its body holds none."""
    try:
        told = json.loads(error.body or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def missing(asked: Any, kept: Any, where: str) -> str | None:
    """The first place in what was asked that the server did not keep."""
    if isinstance(asked, Mapping):
        if not isinstance(kept, Mapping):
            return where
        return next(
            (m for k, v in asked.items() if (m := missing(v, kept.get(k), f"{where}.{k}"))), None
        )
    if isinstance(asked, list):
        if not isinstance(kept, list) or len(asked) > len(kept):
            return where
        return next(
            (m for n, v in enumerate(asked) if (m := missing(v, kept[n], f"{where}[{n}]"))), None
        )
    return None if kept == asked else where
