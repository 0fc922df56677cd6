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
    training = cluster.finetune
    requests: dict[str, Any] = {"cpu": training.cpu, "memory": training.memory}
    limits: dict[str, Any] = {"memory": training.memory_limit or training.memory}
    if training.cpu_limit:
        limits["cpu"] = training.cpu_limit
    if training.gpu:
        requests[training.accelerator] = limits[training.accelerator] = str(training.gpu)
    # Torchruns of several nodes do not agree which attempt it is: there all end, and each pod's
    # container starts again.
    restarts = _RESTARTS if training.nodes == 1 else 0
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
            "runtimeRef": {
                "apiGroup": GROUP,
                "kind": training.runtime_kind,
                "name": training.runtime,
            },
            "activeDeadlineSeconds": training.timeout,
            "trainer": {
                "image": image,
                "command": ["python", "-m", "torch.distributed.run", f"--max-restarts={restarts}"]
                + ["-m", "tasteloop.encoder.worker"],
                "env": _environment(cluster),
                "numNodes": training.nodes,
                "numProcPerNode": max(training.gpu, 1),
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
    values = {**QUIET, **cluster.places}
    variables: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in values.items()
    ]
    for variable, reference in cluster.secrets.items():
        name, key = secret(reference)
        variables.append(
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
        )
    return variables


def _patch(cluster: ClusterSettings) -> dict[str, Any]:
    training = cluster.finetune
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
    if training.node_selector:
        pod["nodeSelector"] = training.node_selector
    if training.tolerations:
        pod["tolerations"] = [t.model_dump(exclude_none=True) for t in training.tolerations]
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
