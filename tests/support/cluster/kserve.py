"""A stand-in for KServe's controller and webhooks, as far as our InferenceService depends on them.

What each part follows is named with its file in github.com/kserve/kserve at aaac4e29 (21 August
2026, after v0.20.0); `Config.release` makes it behave as v0.20.0 did. It makes its calls through
`serving.cluster.api.call`, so it runs against the API in memory and against a real API server.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from serving.cluster.api import Refusal, call
from tests.support.cluster.memory import Denied, Object

MODE = "serving.kserve.io/deploymentMode"
OWNED = {"component": "predictor"}  # labels of what belongs to a predictor
# pkg/constants/constants.go: ServiceAnnotationDisallowedList
_DISALLOWED = {
    "autoscaling.knative.dev/min-scale",
    "autoscaling.knative.dev/max-scale",
    "internal.serving.kserve.io/storage-initializer-sourceuri",
    "kubectl.kubernetes.io/last-applied-configuration",
}
_OF_CANARIES = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling")
_EXTENSIONS = (
    *_OF_CANARIES,
    "name",
    "minReplicas",
    "annotations",
    "labels",
    "logger",
    "deploymentStrategy",
    "canaryTrafficPercent",
    "timeout",
    "containerConcurrency",
)
_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}


@dataclass(frozen=True)
class Config:
    """How KServe is installed.

    Attributes:
        gateway: `enableGatewayApi` of its ConfigMap: routes are HTTPRoutes; else an Ingress.
        release: "0.20.0", which routes no canary, or "0.21".
        resources: what the webhook adds to containers that name no limit or request.
    """

    gateway: bool = True
    release: str = "0.21"
    resources: Mapping[str, str] = field(default_factory=lambda: {"cpu": "1", "memory": "2Gi"})
    autoscaling: str = "autoscaling/v2"


def predictor_name(service: str, predictor: str = "") -> str:
    """pkg/constants/constants.go: PredictorServiceName."""
    return f"{service}-{predictor}-predictor" if predictor else f"{service}-predictor"


def storage_uri(predictor: Mapping[str, Any]) -> str:
    """pkg/apis/serving/v1beta1/predictor_custom.go: GetStorageUri."""
    for container in predictor.get("containers", []):
        for variable in container.get("env", []):
            if variable["name"] == "STORAGE_URI":
                return str(variable["value"])
    return ""


def admit(config: Config) -> Callable[[str, Object | None, Object], None]:
    """The mutating and the validating webhook for InferenceServices."""

    def webhook(plural: str, old: Object | None, new: Object) -> None:
        if plural == "inferenceservices":
            default_service(new, config)
            validate_service(new, old)

    return webhook


def default_service(service: Object, config: Config) -> None:
    """pkg/apis/serving/v1beta1/inference_service_defaults.go: DefaultInferenceService goes over the
    predictor, not over the canaries. Reading into Go's types and writing makes quantities
    canonical, in both.
    """
    predictor = service["spec"]["predictor"]
    if "containers" in predictor:
        resources = predictor["containers"][0].setdefault("resources", {})
        for part in ("requests", "limits"):
            for name, quantity in config.resources.items():
                resources.setdefault(part, {}).setdefault(name, quantity)
    for one in (predictor, *(c["predictor"] for c in service["spec"].get("canary", []))):
        for container in one.get("containers", []):
            for quantities in container.get("resources", {}).values():
                for name, quantity in quantities.items():
                    quantities[name] = canonical_quantity(quantity)


def canonical_quantity(quantity: str | int | float) -> str:
    """As `resource.Quantity` writes it: without a fraction, with the largest suffix that leaves
    none. Memory in bytes keeps the binary suffixes.
    """
    value = parse_quantity(quantity)
    text = str(quantity)
    if text.endswith("i"):
        for suffix in ("Ti", "Gi", "Mi", "Ki"):
            if value % parse_quantity(f"1{suffix}") == 0:
                return f"{int(value / parse_quantity(f'1{suffix}'))}{suffix}"
    return str(int(value)) if value == int(value) else f"{math.ceil(value * 1000)}m"


def validate_service(service: Object, old: Object | None) -> None:
    """pkg/apis/serving/v1beta1/inference_service_validation.go: validateDeploymentMode,
    validatePredictorNameChange, validateCanarySpecs; component.go: validateReplicas.
    """
    spec, mode = service["spec"], service["metadata"].get("annotations", {}).get(MODE)
    predictor = spec["predictor"]
    if old is not None:
        before = (old.get("status") or {}).get("deploymentMode")
        if before and mode and before != mode:
            raise Denied(
                f"update rejected: deploymentMode cannot be changed from '{before}' to '{mode}'"
            )
        renamed = old["spec"]["predictor"].get("name") != predictor.get("name")
        if renamed and storage_uri(old["spec"]["predictor"]) == storage_uri(predictor):
            raise Denied("predictor.name change requires a model change (e.g. storageUri)")
    if 0 < predictor.get("maxReplicas", 0) < predictor.get("minReplicas", 1):
        raise Denied("MaxReplicas cannot be less than MinReplicas.")
    canaries = spec.get("canary", [])
    if canaries and mode != "Standard":
        raise Denied("canary is only supported in Standard deployment mode")
    for n, canary in enumerate(canaries):
        name = canary["predictor"].get("name")
        if not name:
            raise Denied(f"canary[{n}] predictor.name is required")
        if name == predictor.get("name"):
            raise Denied(f'canary predictor.name "{name}" conflicts with stable predictor name')
        if not 0 <= canary["trafficPercent"] <= 100:
            raise Denied(f'canary "{name}" trafficPercent must be between 0 and 100')
        if set(_OF_CANARIES) & canary["predictor"].keys():
            raise Denied(f'canary "{name}" must not set {", ".join(_OF_CANARIES)}')
        if canary["predictor"].get("minReplicas", 0) > predictor.get("minReplicas", 1):
            raise Denied(
                f'canary "{name}" minReplicas must not exceed stable predictor minReplicas'
            )


class Api:
    """The few calls that the stand-ins make."""

    def __init__(self, client: Any, namespace: str = "default") -> None:
        self.client, self.namespace = client, namespace

    def path(self, api_version: str, plural: str, name: str = "") -> str:
        root = "api" if "/" not in api_version else "apis"
        return (
            f"/{root}/{api_version}/namespaces/{self.namespace}/{plural}{f'/{name}' * bool(name)}"
        )

    def get(self, api_version: str, plural: str, name: str) -> Object | None:
        try:
            return call(self.client, "GET", self.path(api_version, plural, name))
        except Refusal as refusal:
            if refusal.status == 404:
                return None
            raise

    def list(self, api_version: str, plural: str, selector: str = "") -> list[Object]:
        query = [("labelSelector", selector)] if selector else []
        items = call(self.client, "GET", self.path(api_version, plural), query)["items"]
        return list(items)

    def create(self, api_version: str, plural: str, body: Object) -> Object:
        return call(self.client, "POST", self.path(api_version, plural), body=body)

    def update(
        self, api_version: str, plural: str, body: Object, sub: str = "", dry: bool = False
    ) -> Object:
        path = self.path(api_version, plural, body["metadata"]["name"])
        query = [("dryRun", "All")] if dry else []
        return call(self.client, "PUT", path + sub, query, body)

    def delete(self, api_version: str, plural: str, name: str) -> None:
        try:
            call(self.client, "DELETE", self.path(api_version, plural, name))
        except Refusal as refusal:
            if refusal.status != 404:
                raise


class KServe:
    """The controller. `reconcile` is one pass over each InferenceService of the namespace."""

    def __init__(self, client: Any, config: Config, namespace: str = "default") -> None:
        self.api, self.config = Api(client, namespace), config

    def reconcile(self) -> None:
        for service in self.api.list("serving.kserve.io/v1beta1", "inferenceservices"):
            try:
                self._reconcile(service)
            except Refusal as refusal:
                if refusal.status != 409:  # it was changed meanwhile: the next pass
                    raise

    def _reconcile(self, service: Object) -> None:
        """pkg/controller/v1beta1/inferenceservice/controller.go: Reconcile, updateStatus."""
        before = deepcopy(service.get("status") or {})
        status = service["status"] = deepcopy(before)
        mode = service["metadata"].get("annotations", {}).get(MODE, "Knative")
        status["deploymentMode"] = mode
        if mode == "Standard":
            self._reconcile_canaries(service)
            self._reconcile_stable(service)
            self._reconcile_route(service)
        else:
            self._reconcile_knative(service)
        ready = all(
            self._condition(status, k) == "True" for k in ("PredictorReady", "IngressReady")
        )
        self._set(status, "Ready", "True" if ready else "False", "", "")
        if status != before:
            self.api.update("serving.kserve.io/v1beta1", "inferenceservices", service, "/status")

    # Standard mode

    def _reconcile_canaries(self, service: Object) -> None:
        """components/predictor.go: reconcileCanaryDeployments, which at its end deletes every
        Deployment and Service that neither the predictor nor a canary names. It comes before the
        stable predictor and before the route.
        """
        name, spec, status = service["metadata"]["name"], service["spec"], service["status"]
        expected = {predictor_name(name, spec["predictor"].get("name", ""))}
        statuses = []
        for canary in spec.get("canary", []):
            own = predictor_name(name, canary["predictor"]["name"])
            expected.add(own)
            replicas = canary_replicas(spec, canary)
            self._reconcile_workload(
                service,
                build_canary(spec["predictor"], canary, replicas),
                (replicas, replicas),
                is_canary=True,
            )
            deployment = self.api.get("apps/v1", "deployments", own) or {}
            available = (deployment.get("status") or {}).get("availableReplicas", 0)
            statuses.append(
                {
                    "name": canary["predictor"]["name"],
                    "ready": available > 0,
                    "trafficPercent": canary["trafficPercent"],  # as asked, whoever routes it
                }
            )
        if statuses:
            status["canaryStatuses"] = statuses
        else:
            status.pop("canaryStatuses", None)

        selector = f"serving.kserve.io/inferenceservice={name},component=predictor"
        for api_version, plural in (("apps/v1", "deployments"), ("v1", "services")):
            for found in self.api.list(api_version, plural, selector):
                if found["metadata"]["name"] not in expected:
                    self.api.delete(api_version, plural, found["metadata"]["name"])
                    self.api.delete(
                        self.config.autoscaling,
                        "horizontalpodautoscalers",
                        found["metadata"]["name"],
                    )

    def _reconcile_stable(self, service: Object) -> None:
        """components/predictor.go: reconcileRawDeployment, adjustStableMinReplicasForCanaries;
        inference_service_status.go: PropagateRawStatus.
        """
        spec, status = service["spec"], service["status"]
        predictor = spec["predictor"]
        least = predictor.get("minReplicas", 1)
        ready = {entry["name"]: entry["ready"] for entry in status.get("canaryStatuses", [])}
        taken = 0
        for canary in spec.get("canary", []):
            # v0.20.0 does not look whether the canary is ready
            if ready.get(canary["predictor"]["name"]) or self.config.release == "0.20.0":
                taken += canary_replicas(spec, canary)
        if taken:
            least = max(least - taken, 1)
        most = max(predictor.get("maxReplicas", 0), least)
        deployment = self._reconcile_workload(service, predictor, (least, most))

        conditions = (deployment.get("status") or {}).get("conditions") or []
        found = {condition["type"]: condition for condition in conditions}
        available, progress = found.get("Available"), found.get("Progressing")
        is_ready, reason = (available or {}).get("status") == "True", ""
        if progress and progress["status"] == "True":
            is_ready = is_ready or progress.get("reason") == "NewReplicaSetAvailable"
        if progress and progress["status"] == "False":
            is_ready, reason = False, progress.get("message", "")
        if available and available["status"] == "False":
            is_ready, reason = False, available.get("message", "")
        self._set(status, "PredictorReady", "True" if is_ready else "False", "", reason)
        # of the Deployment as it was before this pass changed it: the child's counter
        generation = (deployment.get("status") or {}).get("observedGeneration")
        if generation is not None:
            status["observedGeneration"] = generation

    def _reconcile_workload(
        self,
        service: Object,
        predictor: Mapping[str, Any],
        replicas: tuple[int, int],
        is_canary: bool = False,
    ) -> Object:
        """reconcilers/raw/raw_kube_reconciler.go: Service, Deployment, HPA. Returns the Deployment
        as it was, with the status that it had.

        Of a canary the extensions hold its replicas alone, so its Deployment has the default
        strategy and its Service goes past the logger.
        """
        name = predictor_name(service["metadata"]["name"], predictor.get("name", ""))
        meta = build_meta(service, predictor, name)
        logs = "logger" in predictor and not is_canary
        strategy = _ROLLING if is_canary else predictor.get("deploymentStrategy", _ROLLING)
        pod = {key: value for key, value in predictor.items() if key not in _EXTENSIONS}
        pod = deepcopy(pod)
        for container in pod["containers"]:
            container["env"] = [
                *container.get("env", []),
                {"name": "INFERENCE_SERVICE_NAME", "value": service["metadata"]["name"]},
            ]
        selector = {"app": f"isvc.{name}"}
        meta["labels"] |= selector
        owned = {**meta, "ownerReferences": [own(service)]}

        # reconcilers/service/service_reconciler.go: createDefaultSvc
        ports = []
        for n, port in enumerate(pod["containers"][0].get("ports", [])):
            target = 9081 if n == 0 and logs else port["containerPort"]
            number = 80 if n == 0 else port["containerPort"]
            ports.append(
                {
                    "name": port.get("name", f"port{n}"),
                    "port": number,
                    "targetPort": target,
                    "protocol": "TCP",
                }
            )
        body = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": deepcopy(owned),
            "spec": {"selector": selector, "ports": ports},
        }
        present = self.api.get("v1", "services", name)
        if present is None:
            self.api.create("v1", "services", body)
        elif [p["targetPort"] for p in present["spec"]["ports"]] != [
            p["targetPort"] for p in ports
        ]:
            present["spec"]["ports"] = ports
            self.api.update("v1", "services", present)

        # reconcilers/deployment/deployment_reconciler.go
        wanted = {
            "selector": {"matchLabels": selector},
            "strategy": strategy,
            "template": {
                "metadata": {k: meta[k] for k in ("labels", "annotations")},
                "spec": pod,
            },
        }
        deployment = self.api.get("apps/v1", "deployments", name)
        if deployment is None:
            body = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": deepcopy(owned),
                "spec": wanted,
            }
            result = self.api.create("apps/v1", "deployments", body)
        else:
            result = deployment
            # a dry run fills the defaults in; replicas are the autoscaler's
            desired = deepcopy(deployment)
            desired["metadata"] |= deepcopy(owned)
            desired["spec"] = {**wanted, "replicas": deployment["spec"].get("replicas", 1)}
            for key in ("revisionHistoryLimit", "progressDeadlineSeconds"):
                if key in deployment["spec"]:
                    desired["spec"][key] = deployment["spec"][key]
            dry = self.api.update("apps/v1", "deployments", desired, dry=True)
            if dry["spec"] != deployment["spec"]:
                self.api.update("apps/v1", "deployments", desired)

        # reconcilers/hpa/hpa_reconciler.go: createHPA
        least = max(replicas[0], 1)
        bounds = {"minReplicas": least, "maxReplicas": max(replicas[1], least)}
        scaler = self.api.get(self.config.autoscaling, "horizontalpodautoscalers", name)
        if scaler is None:
            reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
            body = {
                "apiVersion": self.config.autoscaling,
                "kind": "HorizontalPodAutoscaler",
                "metadata": deepcopy(owned),
                "spec": {"scaleTargetRef": reference, **bounds},
            }
            self.api.create(self.config.autoscaling, "horizontalpodautoscalers", body)
        elif {key: scaler["spec"][key] for key in bounds} != bounds:
            scaler["spec"] |= bounds
            self.api.update(self.config.autoscaling, "horizontalpodautoscalers", scaler)
        return result

    def _reconcile_route(self, service: Object) -> None:
        """reconcilers/ingress: createRawTopLevelHTTPRoute, createRawPredictorHTTPRoute and
        applyCanaryWeights (httproute_reconciler.go), or createRawIngress
        (kube_ingress_reconciler.go), once the predictor is ready.
        """
        name, spec, status = service["metadata"]["name"], service["spec"], service["status"]
        slot = spec["predictor"].get("name", "")
        backend = predictor_name(name, slot)
        if self._condition(status, "PredictorReady") != "True":
            self._set(status, "IngressReady", "False", "", "Predictor ingress not created")
            return
        if not self.config.gateway:
            rule = {"http": {"paths": [{"backend": {"service": {"name": backend}}}]}}
            self._put_route("networking.k8s.io/v1", "ingresses", "Ingress", name, service, [rule])
        else:
            backends: list[dict[str, Any]] = [{"name": backend, "port": 80}]
            canaries = spec.get("canary", [])
            if canaries and self.config.release != "0.20.0":
                ready = {e["name"] for e in status.get("canaryStatuses", []) if e["ready"]}
                shares = {
                    predictor_name(name, c["predictor"]["name"]): c["trafficPercent"]
                    for c in canaries
                    if c["predictor"]["name"] in ready
                }
                backends[0]["weight"] = 100 - sum(shares.values())
                backends += [{"name": n, "port": 80, "weight": w} for n, w in shares.items()]
            of_predictor = predictor_name(name, slot if self.config.release == "0.20.0" else "")
            for route in (of_predictor, name):
                rules = [{"backendRefs": backends}]
                self._put_route(
                    "gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute", route, service, rules
                )
        self._set(status, "IngressReady", "True", "", "")

    def _put_route(
        self,
        api_version: str,
        plural: str,
        kind: str,
        name: str,
        service: Object,
        rules: list[Any],
    ) -> None:
        present = self.api.get(api_version, plural, name)
        if present is None:
            meta = {"name": name, "ownerReferences": [own(service)]}
            body = {
                "apiVersion": api_version,
                "kind": kind,
                "metadata": meta,
                "spec": {"rules": rules},
            }
            self.api.create(api_version, plural, body)
        elif present["spec"]["rules"] != rules:
            present["spec"]["rules"] = rules
            self.api.update(api_version, plural, present)

    # Knative mode

    def _reconcile_knative(self, service: Object) -> None:
        """reconcilers/knative/ksvc_reconciler.go: createKnativeService. Nothing deletes the Knative
        Service of a name that the predictor had before.
        """
        predictor, status = service["spec"]["predictor"], service["status"]
        name = predictor_name(service["metadata"]["name"], predictor.get("name", ""))
        meta = build_meta(service, predictor, name)
        pod = {key: value for key, value in predictor.items() if key not in _EXTENSIONS}
        component = status.setdefault("components", {}).setdefault("predictor", {})
        percent, rolled = (
            predictor.get("canaryTrafficPercent"),
            component.get("latestRolledoutRevision"),
        )
        traffic: list[dict[str, Any]] = [{"latestRevision": True, "percent": 100}]
        if percent is not None and rolled:
            traffic = [{"latestRevision": True, "percent": percent}]
            if percent < 100:
                rest = {"revisionName": rolled, "latestRevision": False, "percent": 100 - percent}
                traffic.append(rest)
        template = {"metadata": {k: meta[k] for k in ("labels", "annotations")}, "spec": pod}
        body = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {**meta, "ownerReferences": [own(service)]},
            "spec": {"template": template, "traffic": traffic},
        }
        present = self.api.get("serving.knative.dev/v1", "services", name)
        try:
            if present is None:
                present = self.api.create("serving.knative.dev/v1", "services", body)
            elif present["spec"] != body["spec"]:
                present["spec"] = body["spec"]
                present = self.api.update("serving.knative.dev/v1", "services", present)
        except Refusal as refusal:
            if refusal.status != 400:
                raise
            self._set(status, "PredictorReady", "False", "ReconcileFailed", refusal.message)
            self._set(status, "IngressReady", "False", "", "")
            return
        # inference_service_status.go: PropagateStatus
        child = present.get("status") or {}
        ready = child.get("latestReadyRevisionName")
        component["latestCreatedRevision"] = child.get("latestCreatedRevisionName")
        component["latestReadyRevision"] = ready
        component["traffic"] = child.get("traffic", [])
        for target in component["traffic"]:
            if target.get("latestRevision") and target["percent"] == 100 and ready != rolled:
                component["previousRolledoutRevision"] = rolled
                component["latestRolledoutRevision"] = ready
        if "observedGeneration" in child:
            status["observedGeneration"] = child["observedGeneration"]
        is_ready = bool(ready) and ready == component["latestCreatedRevision"]
        for kind in ("PredictorReady", "IngressReady"):
            self._set(status, kind, "True" if is_ready else "Unknown", "", "")

    @staticmethod
    def _condition(status: Object, kind: str) -> str:
        for condition in status.get("conditions", []):
            if condition["type"] == kind:
                return str(condition["status"])
        return "Unknown"

    @staticmethod
    def _set(status: Object, kind: str, value: str, reason: str, message: str) -> None:
        conditions = [c for c in status.get("conditions", []) if c["type"] != kind]
        words = {"reason": reason, "message": message}
        said = {key: word for key, word in words.items() if word}
        conditions.append({"type": kind, "status": value, **said})
        status["conditions"] = sorted(conditions, key=lambda condition: str(condition["type"]))


def own(service: Object) -> Object:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "name": service["metadata"]["name"],
        "uid": service["metadata"]["uid"],
        "controller": True,
    }


def canary_replicas(spec: Mapping[str, Any], canary: Mapping[str, Any]) -> int:
    """components/predictor.go: canaryReplicaCount."""
    if "minReplicas" in canary["predictor"]:
        return int(canary["predictor"]["minReplicas"])
    stable = spec["predictor"].get("minReplicas", 1)
    return math.ceil(stable * canary["trafficPercent"] / 100)


def build_canary(stable: Mapping[str, Any], canary: Mapping[str, Any], replicas: int) -> Object:
    """components/predictor.go: buildCanaryPredictor. mergo's WithOverride joins mappings, replaces
    lists, and leaves the stable one's value where the canary has none.
    """

    def merge(below: Object, above: Mapping[str, Any]) -> Object:
        for key, value in above.items():
            if isinstance(value, Mapping) and isinstance(below.get(key), dict):
                merge(below[key], value)
            elif value not in (None, "", 0, [], {}):
                below[key] = deepcopy(value)
        return below

    predictor = merge(deepcopy(dict(stable)), canary["predictor"])
    for key in _OF_CANARIES:
        predictor.pop(key, None)
    return {**predictor, "minReplicas": replicas}


def build_meta(service: Object, predictor: Mapping[str, Any], name: str) -> Object:
    """components/predictor.go: buildPredictorResources, buildObjectMeta. The InferenceService's
    annotations go into the pod template; the component's win over them.
    """
    metadata = service["metadata"]
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key not in _DISALLOWED
    }
    if "logger" in predictor:
        annotations |= {
            "internal.serving.kserve.io/logger": "true",
            "internal.serving.kserve.io/logger-sink-url": predictor["logger"].get("url", ""),
        }
    annotations["internal.serving.kserve.io/storage-initializer-sourceuri"] = storage_uri(predictor)
    return {
        "name": name,
        "labels": {
            **(metadata.get("labels") or {}),
            **predictor.get("labels", {}),
            "serving.kserve.io/inferenceservice": metadata["name"],
            **OWNED,
        },
        "annotations": {**annotations, **predictor.get("annotations", {})},
    }
