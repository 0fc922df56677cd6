"""A stand-in for Kubeflow Trainer's webhook and controller and for JobSet's webhook, as
github.com/kubeflow/trainer at 8c0f5059 and github.com/kubernetes-sigs/jobset at 08dfbdfd have them.
"""

from __future__ import annotations

from typing import Any

from tests.support.cluster.kserve import Api, canonical_quantity
from tests.support.cluster.memory import Object

_LABEL = 63  # characters of a DNS label


def admit(plural: str, old: Object | None, new: Object) -> None:
    """pkg/webhooks/trainjob_webhook.go: Default sets the time of each patch. Reading into Go's
    types and writing makes quantities canonical.
    """
    if plural != "trainjobs":
        return
    for patch in new["spec"].get("runtimePatches", []):
        patch.setdefault("time", "2026-11-28T00:00:00Z")
    resources = new["spec"].get("trainer", {}).get("resourcesPerNode", {})
    for quantities in resources.values():
        for name, quantity in quantities.items():
            quantities[name] = canonical_quantity(quantity)


def refuse_job_set(job: Object) -> str | None:
    """jobset: pkg/webhooks/jobset_webhook.go, of a JobSet whose one replicated job is called
    `node`, as Trainer's runtime torch-distributed has it: indexed, one job, a completion a node.
    """
    name, nodes = job["metadata"]["name"], job["spec"]["trainer"]["numNodes"]
    if len(f"{name}-node-0") > _LABEL:
        return (
            "JobSet name is too long, job names generated for this JobSet will exceed 63 characters"
        )
    if len(f"{name}-node-0-{nodes - 1}-abcde") > _LABEL:
        return (
            "JobSet name is too long, pod names generated for this JobSet will exceed 63 characters"
        )
    return None


class Trainer:
    """pkg/controller/trainjob_controller.go: a JobSet that is refused is an event and no condition,
    so the TrainJob goes on waiting until its own deadline.
    """

    def __init__(self, client: Any, namespace: str = "default") -> None:
        self.api, self.events = Api(client, namespace), list[str]()

    def reconcile(self) -> None:
        for job in self.api.list("trainer.kubeflow.org/v1alpha1", "trainjobs"):
            refused = refuse_job_set(job)
            if refused:
                self.events.append(f"TrainJobResourcesCreationFailed: {refused}")
                continue
            counts = dict.fromkeys(("ready", "succeeded", "failed", "suspended"), 0)
            status = {"jobsStatus": [{"name": "node", "active": 1, **counts}]}
            if status != job.get("status"):
                job["status"] = status
                self.api.update("trainer.kubeflow.org/v1alpha1", "trainjobs", job, "/status")
