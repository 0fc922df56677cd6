"""What the controllers have still to do for a service, in words.

KServe's own status is not enough: its `observedGeneration` is the child's counter (kserve#6081),
its conditions may be of the version before, and its `canaryStatuses` repeat the share that was
asked. So what the pods are made of and the route's weights are read where they stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.cluster.api import (
    Condition,
    KubernetesObject,
    first_dropped_field,
    read_conditions,
)
from serving.cluster.manifest import (
    ServiceSettings,
    build_front,
    build_inference_service,
    workload_name,
)
from serving.cluster.state import Slot, State
from tasteloop.errors import TasteloopError

_OURS = "tasteloop/"  # annotations of the InferenceService with this prefix are ours


@dataclass(frozen=True)
class View:
    """What the cluster holds of a service.

    Attributes:
        service: the InferenceService.
        state: what it is meant to be; None where there is no service.
        config_map: in which the state is; None where an earlier release kept it elsewhere.
        workloads: what runs each slot, by the slot's name: Deployments, or Knative's Service.
        routes: the HTTPRoutes through which KServe leads requests to it.
        front: our own Service, and the addresses behind it.
    """

    service: KubernetesObject | None = None
    state: State | None = None
    config_map: KubernetesObject | None = None
    workloads: Mapping[str, KubernetesObject] = field(default_factory=dict)
    routes: tuple[KubernetesObject, ...] = ()
    front: KubernetesObject | None = None
    endpoints: KubernetesObject | None = None

    def count_pods(self, slot: Slot) -> int:
        """How many pods are asked for the slot at present."""
        workload = self.workloads.get(slot.name) or {}
        return int((workload.get("spec") or {}).get("replicas") or 0)


def describe_pending(settings: ServiceSettings, view: View) -> str | None:
    """What is still to be done for the service, in words; None where it is as it is meant to be.

    Raises:
        TasteloopError: it cannot be done.
    """
    service, state = view.service, view.state
    assert service is not None and state is not None
    requested = build_inference_service(settings, state)
    if not is_as_requested(requested, service):
        return "the InferenceService is not as the recorded state says: the same command again"
    status = service.get("status") or {}
    mode = status.get("deploymentMode")
    if mode and mode != settings.mode:
        raise TasteloopError(
            f"KServe runs it in mode {mode}, not {settings.mode}: it is not offered there"
        )

    # 1. pods
    if settings.mode == "Knative":
        pending = _describe_revision(requested, view)
    else:
        least = state.strength if state.tried else settings.replicas
        pending = _describe_deployment(
            settings.name, state.stable, least, view, needs_all=state.tried is None
        )
        if state.tried and not pending:
            pending = _describe_deployment(settings.name, state.tried, state.pods, view)
    if pending:
        return pending + _describe_failure(status)

    # 2. what KServe says of it
    for condition in (c for c in read_conditions(service) if c.type == "Ready"):
        if condition.status != "True":
            return f"Ready is {condition.status}: {condition.message or condition.reason or 'no reason given'}"
    if not any(condition.type == "Ready" for condition in read_conditions(service)):
        return "KServe has said nothing of it yet"

    # 3. who gets the requests
    if settings.mode == "Knative":
        return None
    if state.tried and not view.routes:
        return "no HTTPRoute leads to the canary"
    return describe_routes(settings, view) or _describe_front(settings, view)


def is_as_requested(requested: Mapping[str, Any], service: Mapping[str, Any]) -> bool:
    """Whether an InferenceService has what is requested, and nothing that an earlier state had."""
    if first_dropped_field(requested["spec"], service["spec"], "spec"):
        return False
    if ("canary" in requested["spec"]) != ("canary" in service["spec"]):
        return False
    for wanted, found in zip(_predictors(requested), _predictors(service), strict=False):
        if _first_difference(wanted["containers"], found["containers"]):
            return False
        for key in ("canaryTrafficPercent", "serviceAccountName"):
            if (key in wanted) != (key in found):
                return False
    ours = [
        {k: v for k, v in one["metadata"].get("annotations", {}).items() if k.startswith(_OURS)}
        for one in (requested, service)
    ]
    return ours[0] == ours[1]


def _predictors(service: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    spec = service["spec"]
    return [spec["predictor"], *(canary["predictor"] for canary in spec.get("canary", []))]


def _first_difference(
    requested: Sequence[Mapping[str, Any]], containers: Sequence[Mapping[str, Any]]
) -> str | None:
    """The first field in which containers are not as requested; None where there is none. Others
    may add fields to them, but no arguments: one that is left over is of a setting that was taken
    away.
    """
    different = first_dropped_field(list(requested), list(containers), "containers")
    if different:
        return different
    for n, container in enumerate(requested):
        if container.get("args", []) != containers[n].get("args", []):
            return f"containers[{n}].args"
    return None


def _describe_deployment(
    service: str, slot: Slot, least: int, view: View, needs_all: bool = True
) -> str | None:
    """What the Deployment of a slot has still to do; None where all its pods are of the release,
    and available: at least `least`, and all that were asked for where `needs_all`. While a canary
    starts, KServe asks for more stable pods than are needed, for which there may be no room.
    """
    name = workload_name(service, slot.name)
    deployment = view.workloads.get(slot.name)
    if deployment is None:
        return f"there is no Deployment {name} yet"
    spec, status = deployment["spec"], deployment.get("status") or {}
    containers = spec["template"]["spec"]["containers"]
    different = _first_difference(slot.pod["containers"], containers)
    if different:
        return f"Deployment {name} is not {slot.release.name} yet ({different})"
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return f"Deployment {name} has a change that was not seen yet"
    replicas = spec.get("replicas", 1)
    if replicas < least:
        return f"Deployment {name} has {replicas} pods, not {least}"
    total, updated, available = (
        status.get(count, 0) for count in ("replicas", "updatedReplicas", "availableReplicas")
    )
    needed = replicas if needs_all else least
    if updated < needed or total != updated or available < needed:
        text = f"{updated} of {replicas} pods of Deployment {name} are {slot.release.name}, {available} are available"
        for condition in read_conditions(deployment):
            if condition.type == "Progressing" and condition.status == "False":
                text += f"; {condition.message}"
        return text
    return None


def _describe_revision(requested: Mapping[str, Any], view: View) -> str | None:
    """What Knative has still to do; None where the newest revision is ready and gets its share."""
    predictor = requested["spec"]["predictor"]
    name = workload_name(requested["metadata"]["name"], predictor["name"])
    service = view.workloads.get(predictor["name"])
    if service is None:
        return f"there is no Knative Service {name} yet"
    status = service.get("status") or {}
    containers = service["spec"]["template"]["spec"]["containers"]
    different = _first_difference(predictor["containers"], containers)
    if different:
        return f"Knative Service {name} is not of this release yet ({different})"
    if status.get("observedGeneration", 0) < service["metadata"]["generation"]:
        return f"Knative Service {name} has a change that was not seen yet"
    created = status.get("latestCreatedRevisionName")
    if created is None or created != status.get("latestReadyRevisionName"):
        reasons = [c.message for c in read_conditions(service) if c.status == "False" and c.message]
        return f"revision {created} is not ready" + "".join(f": {reason}" for reason in reasons[:1])
    percent = predictor.get("canaryTrafficPercent", 100)
    latest = 0
    for target in status.get("traffic", []):
        if target.get("latestRevision"):
            latest += target.get("percent", 0)
    if latest != percent:
        return f"the newest revision gets {latest} percent, not {percent}"
    return None


def _describe_failure(status: Mapping[str, Any]) -> str:
    """What KServe says of a model that it cannot load. It may be of the version before, so it ends
    no wait.
    """
    model = status.get("modelStatus") or {}
    failure = model.get("lastFailureInfo") or {}
    text = ""
    if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
        text = f"; the model cannot be loaded: {failure.get('reason', '')} {failure.get('message', '')}"
    for condition in status.get("conditions") or []:
        read = Condition.model_validate(condition)
        if read.reason == "ReconcileFailed":
            text += f"; KServe: {read.message}"
    return text.rstrip()


def describe_routes(settings: ServiceSettings, view: View) -> str | None:
    """Which route does not share the requests as asked; None where each does, or there is none."""
    state = view.state
    assert state is not None
    wanted = {workload_name(settings.name, state.stable.name): 100 - state.percent}
    if state.tried:
        wanted[workload_name(settings.name, state.tried.name)] = state.percent
    wanted = {name: percent for name, percent in wanted.items() if percent}
    for route in view.routes:
        for rule in route["spec"].get("rules", []):
            shares = _read_shares(rule)
            if shares != wanted:
                return (
                    f"HTTPRoute {route['metadata']['name']} sends {_format(shares)}, "
                    f"not {_format(wanted)}"
                )
    return None


def _read_shares(rule: Mapping[str, Any]) -> dict[str, int]:
    """The percent of each backend that gets requests."""
    backends = rule.get("backendRefs", [])
    total = sum(backend.get("weight", 1) for backend in backends) or 1
    shares = {b["name"]: round(100 * b.get("weight", 1) / total) for b in backends}
    return {name: share for name, share in shares.items() if share}


def _format(shares: Mapping[str, int]) -> str:
    return ", ".join(f"{share} percent to {name}" for name, share in shares.items()) or "nothing"


def _describe_front(settings: ServiceSettings, view: View) -> str | None:
    """What our own Service has still to do; None where pods of its slot alone are behind it."""
    service, state = view.service, view.state
    assert service is not None and state is not None
    requested = build_front(settings, state, service)
    name = requested["metadata"]["name"]
    if view.front is None or not is_front_as_requested(requested, view.front):
        return f"Service {name} is not as the recorded state says: the same command again"
    workload = workload_name(settings.name, state.front_slot.name)
    pods = []
    for subset in (view.endpoints or {}).get("subsets") or []:
        pods += [(a.get("targetRef") or {}).get("name", "") for a in subset.get("addresses") or []]
    if not pods or any(not pod.startswith(f"{workload}-") for pod in pods):
        return f"Service {name} does not lead to the pods of {workload} yet"
    return None


def is_front_as_requested(requested: Mapping[str, Any], front: Mapping[str, Any]) -> bool:
    """Whether our own Service selects and asks what is requested, and is of this service."""
    owner = "ownerReferences"
    if first_dropped_field(requested["metadata"][owner], front["metadata"].get(owner, []), owner):
        return False
    spec = front["spec"]
    if spec.get("selector") != requested["spec"]["selector"]:
        return False
    return first_dropped_field(requested["spec"]["ports"], spec["ports"], "ports") is None
