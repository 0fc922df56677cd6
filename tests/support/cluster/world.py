"""A cluster around the stand-ins: in memory with Deployments, pods and autoscalers that move when
somebody waits, or on a real API server, whose own controllers make the pods and ours says that
they are ready.

After every write in memory, a watcher looks from where a client stands: has each backend that gets
requests pods that are ready, and as many as its share of them needs?
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from serving.cluster.api import ConnectionLost, Refusal, call
from tests.support.cluster import knative
from tests.support.cluster.kserve import Api, Config, KServe, admit
from tests.support.cluster.memory import MemoryApi, Object

NODE = "stand-in"
BROKEN = "never-starts"  # an image with this in its name has pods that never start


class Clock:
    """In the place of the module `time`: who sleeps lets the cluster move."""

    def __init__(self, move: Callable[[], None]) -> None:
        self.now, self.move = 0.0, move

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.1)
        self.move()


@dataclass
class Watcher:
    """What clients of a service saw.

    Attributes:
        needed: pods that all requests need, by which a backend's share is judged; 0: not yet.
        lost: moments at which a request would have been lost or refused, in words.
        looks: how often it looked.
        thin: moments at which a backend had fewer ready pods than its share needs.
    """

    api: Api
    name: str = "tasteloop"
    front: str = "tasteloop-serving"
    needed: int = 0
    looks: int = 0
    lost: list[str] = field(default_factory=list)
    thin: list[str] = field(default_factory=list)

    def look(self) -> None:
        if not self.needed:
            return
        self.looks += 1
        for backend, share in self.backends().items():
            ready = self.ready_pods(backend)
            if ready == 0:
                self.lost.append(f"{backend} gets {share} percent and has no ready pod")
            elif ready < math.ceil(self.needed * share / 100):
                self.thin.append(f"{backend} gets {share} percent and has {ready} ready pods")

    def backends(self) -> dict[str, int]:
        """The Services that get requests and their percent: by the route, and by our Service."""
        shares: dict[str, int] = {}
        route = self.api.get("gateway.networking.k8s.io/v1", "httproutes", self.name)
        ingress = self.api.get("networking.k8s.io/v1", "ingresses", self.name)
        if route is not None:
            backends = route["spec"]["rules"][0]["backendRefs"]
            total = sum(backend.get("weight", 1) for backend in backends)
            shares = {b["name"]: round(100 * b.get("weight", 1) / total) for b in backends}
        elif ingress is not None:
            (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
            shares = {path["backend"]["service"]["name"]: 100}
        if self.api.get("v1", "services", self.front) is not None:
            shares[self.front] = 100
        return {name: share for name, share in shares.items() if share}

    def ready_pods(self, service: str) -> int:
        found = self.api.get("v1", "services", service)
        if found is None:
            return 0
        selector = ",".join(f"{k}={v}" for k, v in found["spec"]["selector"].items())
        return sum(is_ready(pod) for pod in self.api.list("v1", "pods", selector))


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod gets requests: it is ready and does not end."""
    if "deletionTimestamp" in pod["metadata"]:
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


class World:
    """Everything in memory."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        missing = () if self.config.gateway else ("httproutes",)
        self.client = MemoryApi(missing)
        self.client.admission += [admit(self.config), knative.admit, _default_deployment]
        self.api = Api(self.client)
        self.kserve, self.knative = KServe(self.client, self.config), knative.Knative(self.client)
        self.watcher = Watcher(self.api)
        self.client.after_write.append(self._watch)
        self.clock = Clock(self.move)
        self.templates: dict[str, list[str]] = {}  # each Deployment's, by name, in order
        self.load: dict[str, int] = {}  # pods that the requests to a Deployment ask for
        self._watching = False
        self._pods = 0

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            try:
                self.watcher.look()
            finally:
                self._watching = False

    def move(self) -> None:
        """One turn of every controller."""
        self.kserve.reconcile()
        self.knative.reconcile()
        for scaler in self.api.list(self.config.autoscaling, "horizontalpodautoscalers"):
            self._scale(scaler)
        deployments = self.api.list("apps/v1", "deployments")
        self._collect({d["metadata"]["name"] for d in deployments})
        for deployment in deployments:
            self._roll(deployment)
        for pod in self.api.list("v1", "pods"):
            if not is_ready(pod) and BROKEN not in pod["spec"]["containers"][0]["image"]:
                pod["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
                self.api.update("v1", "pods", pod, "/status")
        for deployment in self.api.list("apps/v1", "deployments"):
            self._report(deployment)
        for service in self.api.list("v1", "services"):
            self._point(service)

    def _point(self, service: Object) -> None:
        """The endpoints' controller: which ready pods a Service leads to."""
        selector = ",".join(f"{k}={v}" for k, v in service["spec"]["selector"].items())
        pods = [pod for pod in self.api.list("v1", "pods", selector) if is_ready(pod)]
        addresses = [{"targetRef": {"name": pod["metadata"]["name"]}} for pod in pods]
        name = service["metadata"]["name"]
        subsets = [{"addresses": addresses}] if addresses else []
        present = self.api.get("v1", "endpoints", name)
        if present is None:
            body = {"metadata": {"name": name}, "subsets": subsets}
            self.api.create("v1", "endpoints", body)
        elif present["subsets"] != subsets:
            present["subsets"] = subsets
            self.api.update("v1", "endpoints", present)

    def _scale(self, scaler: Object) -> None:
        """An autoscaler that does not hesitate: as many pods as the load asks for (none, where
        nothing is said of it), within the bounds.
        """
        name, bounds = scaler["spec"]["scaleTargetRef"]["name"], scaler["spec"]
        asked = max(self.load.get(name, 0), bounds["minReplicas"])
        asked = min(asked, bounds["maxReplicas"])
        deployment = self.api.get("apps/v1", "deployments", name)
        if deployment and deployment["spec"]["replicas"] != asked:
            deployment["spec"]["replicas"] = asked
            self.api.update("apps/v1", "deployments", deployment)

    def _collect(self, names: set[str]) -> None:
        """The garbage collector: pods of Deployments that are gone."""
        for pod in self.api.list("v1", "pods"):
            if pod["metadata"]["labels"]["app"].removeprefix("isvc.") not in names:
                self.api.delete("v1", "pods", pod["metadata"]["name"])

    def _of(self, deployment: Object) -> tuple[str, list[Object], list[Object]]:
        """The template's hash, and the pods with it and without it."""
        template = deployment["spec"]["template"]
        key = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        selector = f"app={template['metadata']['labels']['app']}"
        pods = self.api.list("v1", "pods", selector)
        new = [p for p in pods if p["metadata"]["labels"]["pod-template-hash"] == key]
        return key, new, [p for p in pods if p not in new]

    def _roll(self, deployment: Object) -> None:
        """kubernetes: pkg/controller/deployment/rolling.go, one step."""
        spec, name = deployment["spec"], deployment["metadata"]["name"]
        key, new, old = self._of(deployment)
        history = self.templates.setdefault(name, [])
        if key not in history[-1:]:
            history.append(key)
        rolling = spec["strategy"]["rollingUpdate"]
        surge = _portion(rolling["maxSurge"], spec["replicas"], math.ceil)
        missing = _portion(rolling["maxUnavailable"], spec["replicas"], math.floor)
        room = spec["replicas"] + surge - len(new) - len(old)
        for _ in range(min(room, spec["replicas"] - len(new))):
            self._pods += 1
            labels = {**spec["template"]["metadata"]["labels"], "pod-template-hash": key}
            meta = {"name": f"{name}-{self._pods}", "labels": labels}
            body = {"metadata": meta, "spec": spec["template"]["spec"]}
            self.api.create("v1", "pods", body)
        available = sum(is_ready(pod) for pod in (*new, *old))
        for pod in (
            sorted(old, key=is_ready) + sorted(new, key=is_ready)[: len(new) - spec["replicas"]]
        ):
            if is_ready(pod):
                if available <= spec["replicas"] - missing:
                    continue
                available -= 1
            self.api.delete("v1", "pods", pod["metadata"]["name"])

    def _report(self, deployment: Object) -> None:
        _, new, old = self._of(deployment)
        replicas = deployment["spec"]["replicas"]
        available = sum(is_ready(pod) for pod in (*new, *old))
        complete = len(new) == replicas == available and not old
        reason = "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated"
        enough = "True" if available >= replicas else "False"
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(new) + len(old),
            "updatedReplicas": len(new),
            "readyReplicas": available,
            "availableReplicas": available,
            "conditions": [
                {"type": "Available", "status": enough, "message": "minimum availability"},
                {"type": "Progressing", "status": "True", "reason": reason},
            ],
        }
        if status != deployment.get("status"):
            deployment["status"] = status
            self.api.update("apps/v1", "deployments", deployment, "/status")


def _portion(value: Any, replicas: int, rounded: Callable[[float], int]) -> int:
    if isinstance(value, str):
        return rounded(replicas * int(value.rstrip("%")) / 100)
    return int(value)


def _default_deployment(plural: str, old: Object | None, new: Object) -> None:
    if plural == "deployments":
        new["spec"].setdefault("replicas", 1)


class Running:
    """The stand-ins beside a real API server, in a thread of their own: KServe's controller, and a
    kubelet of one node that says of each pod that it is ready (an image that never starts
    excepted), and lets go of those that are deleted.
    """

    def __init__(self, client: Any, namespace: str, config: Config) -> None:
        self.api = Api(client, namespace)
        self.kserve = KServe(client, config, namespace)
        self.watcher = Watcher(self.api)
        self.errors: list[str] = []
        self._addresses, self._beaten = 0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Running:
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        with suppress(Refusal):  # another test made it
            call(self.api.client, "POST", "/api/v1/nodes", body=body)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.is_set():
            for turn in (
                self._beat,
                self.kserve.reconcile,
                self._scale,
                self._run_pods,
                self.watcher.look,
            ):
                try:
                    turn()
                except (ConnectionLost, Refusal) as error:
                    # what another controller wrote meanwhile is read again at the next turn
                    if getattr(error, "status", 0) not in (404, 409):
                        self.errors.append(f"{turn.__name__}: {error}")
            time.sleep(0.1)

    def _beat(self) -> None:
        """Without a heartbeat the node's pods would be called unready."""
        if time.monotonic() < self._beaten + 5:
            return
        self._beaten = time.monotonic()
        path, now = f"/api/v1/nodes/{NODE}", _now()
        node = call(self.api.client, "GET", path)
        ready = {"type": "Ready", "status": "True", "reason": "StandIn"}
        times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
        node["status"] = {**node.get("status", {}), "conditions": [{**ready, **times}]}
        call(self.api.client, "PUT", f"{path}/status", body=node)

    def _scale(self) -> None:
        """What the server's own autoscaler does every fifteen seconds."""
        for scaler in self.api.list(self.kserve.config.autoscaling, "horizontalpodautoscalers"):
            name, least = scaler["spec"]["scaleTargetRef"]["name"], scaler["spec"]["minReplicas"]
            deployment = self.api.get("apps/v1", "deployments", name)
            if deployment and deployment["spec"]["replicas"] != least:
                deployment["spec"]["replicas"] = least
                self.api.update("apps/v1", "deployments", deployment)

    def _run_pods(self) -> None:
        for pod in self.api.list("v1", "pods"):
            name = pod["metadata"]["name"]
            path = self.api.path("v1", "pods", name)
            if "deletionTimestamp" in pod["metadata"]:
                call(self.api.client, "DELETE", path, [("gracePeriodSeconds", "0")])
            elif "nodeName" not in pod["spec"]:
                target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
                binding = {"metadata": {"name": name}, "target": target}
                kinds = {"apiVersion": "v1", "kind": "Binding"}
                call(self.api.client, "POST", f"{path}/binding", body={**kinds, **binding})
            elif not is_ready(pod) and BROKEN not in pod["spec"]["containers"][0]["image"]:
                self._start(pod)

    def _start(self, pod: Object) -> None:
        self._addresses += 1
        address = f"10.1.{self._addresses // 250}.{self._addresses % 250 + 1}"
        kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        conditions = [{"type": k, "status": "True", "lastTransitionTime": _now()} for k in kinds]
        pod["status"] = {
            **pod["status"],
            "phase": "Running",
            "conditions": conditions,
            "podIP": address,
            "podIPs": [{"ip": address}],
        }
        self.api.update("v1", "pods", pod, "/status")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
