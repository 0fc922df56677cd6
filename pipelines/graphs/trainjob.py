"""The TrainJob that a fine-tuning step asks for: the profile in the words of Kubeflow Trainer, from
2.2 on.

It refers to a runtime of the cluster's, by default Trainer's own `torch-distributed`, whose job and
container are both called `node`. Trainer tells torchrun of nodes, processes and their meeting place
by `PET_*` variables.
"""

from __future__ import annotations

from typing import Any

from components.step import QUIET
from pipelines.settings import ClusterSettings, secret
from serving.cluster.trainjob import GROUP, VERSION

_NODE = "node"
_RESTARTS = 3  # of all workers, by torchrun, where they are on one node
_SHARED = "/dev/shm"


def manifest(cluster: ClusterSettings, image: str) -> dict[str, Any]:
    """The TrainJob without its name, place and training settings, which the step knows when it
    runs.
    """
    asked = cluster.finetune
    requests: dict[str, Any] = {"cpu": asked.cpu, "memory": asked.memory}
    limits: dict[str, Any] = {"memory": asked.memory_limit or asked.memory}
    if asked.cpu_limit:
        limits["cpu"] = asked.cpu_limit
    if asked.gpu:
        requests[asked.accelerator] = limits[asked.accelerator] = str(asked.gpu)
    # Torchruns of several nodes do not agree which attempt it is: there all end, and each pod's
    # container starts again.
    restarts = _RESTARTS if asked.nodes == 1 else 0
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "labels": {
                "app.kubernetes.io/name": "tasteloop",
                "app.kubernetes.io/managed-by": "tasteloop",
            }
        },
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": asked.runtime_kind, "name": asked.runtime},
            "activeDeadlineSeconds": asked.timeout,
            "trainer": {
                "image": image,
                "command": ["python", "-m", "torch.distributed.run", f"--max-restarts={restarts}"]
                + ["-m", "tasteloop.encoder.worker"],
                "env": _environment(cluster),
                "numNodes": asked.nodes,
                "numProcPerNode": max(asked.gpu, 1),
                "resourcesPerNode": {"requests": requests, "limits": limits},
            },
            "runtimePatches": [
                {
                    "manager": "tasteloop/pipelines",
                    "trainingRuntimeSpec": {"template": _patch(cluster)},
                }
            ],
        },
    }


def _environment(cluster: ClusterSettings) -> list[dict[str, Any]]:
    plain = {**QUIET, **cluster.places}
    found: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in plain.items()]
    for variable, reference in cluster.secrets.items():
        name, key = secret(reference)
        found.append({"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}})
    return found


def _patch(cluster: ClusterSettings) -> dict[str, Any]:
    asked = cluster.finetune
    home = (
        {"persistentVolumeClaim": {"claimName": cluster.volume}}
        if cluster.volume
        else {"emptyDir": {}}
    )
    pod: dict[str, Any] = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": cluster.user,
            "runAsGroup": cluster.user,
            "fsGroup": cluster.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": _NODE,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "home", "mountPath": cluster.mount},
                    {"name": "shared", "mountPath": _SHARED},
                ],
            }
        ],
        "volumes": [
            {"name": "home", **home},
            # NCCL's; a container's own has 64 MB
            {"name": "shared", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if asked.node_selector:
        pod["nodeSelector"] = asked.node_selector
    if asked.tolerations:
        pod["tolerations"] = [t.model_dump(exclude_none=True) for t in asked.tolerations]
    if cluster.service_account:
        pod["serviceAccountName"] = cluster.service_account
    if cluster.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in cluster.pull_secrets]
    # workers speak to each other by address
    metadata = {"annotations": {"sidecar.istio.io/inject": "false"}}
    return {
        "spec": {
            "replicatedJobs": [
                {
                    "name": _NODE,
                    "template": {"spec": {"template": {"metadata": metadata, "spec": pod}}},
                }
            ]
        }
    }
