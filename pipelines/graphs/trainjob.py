"""The TrainJob that a fine-tuning step submits, built from the profile for Kubeflow Trainer 2.2 or
newer.

It refers to a runtime of the cluster, by default Trainer's own `torch-distributed`, whose job and
container are both called `node`. Trainer sets `PET_*` variables, by which torchrun knows the nodes,
the processes and the address where they meet.
"""

from __future__ import annotations

from typing import Any

from components.step import QUIET
from pipelines.settings import ClusterSettings, secret
from serving.cluster.api import KubernetesObject
from serving.cluster.trainjob import TRAIN_JOBS

_NODE = "node"
_RESTARTS = 3  # torchrun restarts all workers so often, where they are on one node
_SHARED = "/dev/shm"


def build_trainjob(cluster: ClusterSettings, image: str) -> KubernetesObject:
    """The TrainJob without its name, directory and training settings, which the step knows when it
    runs.
    """
    # 1. what each pod requests
    training = cluster.finetune
    requests: dict[str, Any] = {"cpu": training.cpu, "memory": training.memory}
    limits: dict[str, Any] = {"memory": training.memory_limit or training.memory}
    if training.cpu_limit:
        limits["cpu"] = training.cpu_limit
    if training.gpu:
        requests[training.accelerator] = limits[training.accelerator] = str(training.gpu)

    # 2. restarts: on several nodes, torchrun's processes do not agree which attempt it is; there
    # all end, and each pod's container starts again
    restarts = _RESTARTS if training.nodes == 1 else 0
    command = ["python", "-m", "torch.distributed.run", f"--max-restarts={restarts}"]
    command += ["-m", "tasteloop.encoder.worker"]

    # 3. the object
    return {
        "apiVersion": TRAIN_JOBS.api_version,
        "kind": "TrainJob",
        "metadata": {
            "labels": {
                "app.kubernetes.io/name": "tasteloop",
                "app.kubernetes.io/managed-by": "tasteloop",
            }
        },
        "spec": {
            "runtimeRef": {
                "apiGroup": TRAIN_JOBS.group,
                "kind": training.runtime_kind,
                "name": training.runtime,
            },
            "activeDeadlineSeconds": training.timeout,
            "trainer": {
                "image": image,
                "command": command,
                "env": _environment(cluster),
                "numNodes": training.nodes,
                "numProcPerNode": max(training.gpu, 1),
                "resourcesPerNode": {"requests": requests, "limits": limits},
            },
            "runtimePatches": [
                {
                    "manager": "tasteloop/pipelines",
                    "trainingRuntimeSpec": {"template": _build_patch(cluster)},
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


def _build_patch(cluster: ClusterSettings) -> dict[str, Any]:
    """What is added to the runtime's job: user, volumes, nodes and secrets of its pods."""
    training = cluster.finetune
    home: dict[str, Any] = {"emptyDir": {}}
    if cluster.volume:
        home = {"persistentVolumeClaim": {"claimName": cluster.volume}}

    # 1. the pod
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
            # NCCL's; a container's own /dev/shm has 64 MB
            {"name": "shared", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if training.node_selector:
        pod["nodeSelector"] = training.node_selector
    if training.tolerations:
        pod["tolerations"] = [
            toleration.model_dump(exclude_none=True) for toleration in training.tolerations
        ]
    if cluster.service_account:
        pod["serviceAccountName"] = cluster.service_account
    if cluster.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in cluster.pull_secrets]

    # 2. the patch; workers connect to each other by address, which a mesh would not pass on
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
