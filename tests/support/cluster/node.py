"""A Kubernetes node on this machine where pods run, in a network namespace of its own, and our
objects on it.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from serving.cluster.manifest import ServiceSettings, build_pod
from serving.cluster.state import Release
from tests.support.cluster.graph import (
    LAUNCHER,
    MOUNT,
    launcher_variables,
    read_object,
    thread_variables,
)
from tests.support.cluster.stores import Stores

NETWORK = Path("/run/netns/k8s")  # k8s-node.sh's
HOST = "10.99.0.1"  # the node's address in it
SPACE = "tasteloop"
TOKEN = "a-token-of-these-tests"
DEPLOYMENT = "tasteloop"
REPLICAS = 2


@contextmanager
def inside() -> Iterator[None]:
    """This thread, and what it starts, in the node's network."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path: Path) -> None:
        with path.open("rb") as network:
            if libc.setns(network.fileno(), 0x40000000):  # CLONE_NEWNET
                raise OSError(ctypes.get_errno(), f"setns {path}")

    own = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net")
    with own.open("rb") as before:
        enter(NETWORK)
        try:
            yield
        finally:
            if libc.setns(before.fileno(), 0x40000000):
                raise OSError(ctypes.get_errno(), "setns back")


def kubectl(*arguments: str, objects: Any = None, check: bool = True) -> str:
    process = subprocess.run(
        ["kubectl", *arguments],
        input=None if objects is None else yaml.safe_dump_all(objects),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert not check or process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def get(*what: str) -> Any:
    return json.loads(kubectl("get", "-n", SPACE, "-o", "json", *what))


def apply(*objects: Mapping[str, Any]) -> None:
    # the server still validates
    kubectl("apply", "--validate=false", "-f", "-", objects=list(objects))


def prepare(root: Path) -> None:
    """The namespace with our accounts and roles, its Secret, and the launcher."""
    kinds = ("Namespace", "ServiceAccount", "Role", "RoleBinding")
    rendered = yaml.safe_load_all(kubectl("kustomize", str(root / "infra/k8s/overlays/kind")))
    meta = {"name": "tasteloop", "namespace": SPACE}
    secret = {"api-token": TOKEN, "pseudonym-key": "0" * 64}
    apply(
        *(document for document in rendered if document["kind"] in kinds),
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": secret},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {**meta, "name": "launcher"},
            "data": {"launcher.py": LAUNCHER.read_text()},
        },
    )


LAUNCHED = {"name": "launcher", "configMap": {"name": "launcher"}}


class Jobs:
    """In the place of kfp.local's Docker handler: each step is a Job, with what the compiled graph
    asks of its pod.

    What Pipelines adds by itself is added here: no capabilities, no privileges gained. Beyond it
    the root is read-only.
    """

    def __init__(self, package: Path, stores: Stores, sources: Path) -> None:
        self.stores, self.sources = stores, sources
        _, platform = yaml.safe_load_all(package.read_text())
        self.executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self.seconds: dict[str, float] = {}

    def handler(
        self, image: str, full_command: list[str], pipeline_root: str, runner: Any, env_vars: Any
    ) -> Any:
        self.one = (image, list(full_command), Path(pipeline_root), dict(env_vars or {}))
        return self

    def run(self) -> Any:
        from kfp.local.status import Status

        image, command, root, env = self.one
        step = command[command.index("--function_to_execute") + 1].replace("_", "-")
        # kfp.local retries as the graph says
        kubectl("delete", "job", step, "-n", SPACE, "--ignore-not-found")
        began = time.monotonic()
        apply(self.job(step, image, command, root, env))
        try:
            while not (status := get("job", step)["status"]).get("succeeded"):
                if status.get("failed"):
                    return Status.FAILURE
                time.sleep(0.5)
        finally:
            print(kubectl("logs", "-n", SPACE, f"job/{step}", check=False))
        self.seconds[step] = time.monotonic() - began
        executor_input = json.loads(command[command.index("--executor_input") + 1])
        output = Path(executor_input["outputs"]["outputFile"])
        output.parent.mkdir(parents=True, exist_ok=True)
        key = "runs" + str(output).removeprefix(str(root))
        output.write_bytes(read_object(self.stores, key))
        return Status.SUCCESS

    def job(
        self, step: str, image: str, command: list[str], root: Path, env: dict[str, str]
    ) -> dict[str, Any]:
        requested = self.executors[f"exec-{step}"]
        user = {
            k: v if isinstance(v, bool) else int(v) for k, v in requested["securityContext"].items()
        }
        assert user == {"runAsUser": 10001, "runAsGroup": 10001, "runAsNonRoot": True}
        secrets = [
            {
                "name": k["envVar"],
                "valueFrom": {"secretKeyRef": {"name": s["secretName"], "key": k["secretKey"]}},
            }
            for s in requested["secretAsEnv"]
            for k in s["keyToEnv"]
        ]
        mounts = {"tmp": "/tmp", "s3": "/s3", "root": str(root), "cache": f"{MOUNT}/cache"}
        mounts |= {m["volumeName"]: m["mountPath"] for m in requested["emptyDirMounts"]}
        plain = {**env, **launcher_variables(self.stores, root), **thread_variables()}
        container = {
            "name": "main",
            "image": image,
            "imagePullPolicy": "Never",
            "command": ["python", "/launcher/launcher.py", *command],
            "env": [*({"name": k, "value": v} for k, v in plain.items()), *secrets],
            "resources": {
                "requests": {"cpu": "250m", "memory": "512Mi"},
                "limits": {"memory": "4Gi"},
            },
            "securityContext": {
                **user,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                *({"name": name, "mountPath": path} for name, path in mounts.items()),
                {"name": "launcher", "mountPath": "/launcher"},
                {"name": "sources", "mountPath": f"{MOUNT}/cache/sources", "readOnly": True},
            ],
        }
        pod = {
            "restartPolicy": "Never",
            "serviceAccountName": "tasteloop-steps",
            "containers": [container],
            "securityContext": {
                "fsGroup": user["runAsGroup"],
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [
                *({"name": name, "emptyDir": {}} for name in mounts),
                LAUNCHED,
                {"name": "sources", "hostPath": {"path": str(self.sources), "type": "Directory"}},
            ],
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": step, "namespace": SPACE},
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": int(requested["activeDeadlineSeconds"]),
                "template": {"spec": pod},
            },
        }


def deployment(release: Release, stores: Stores) -> dict[str, Any]:
    """What KServe's controller makes of our InferenceService: its pod as it is, the bundle brought
    by another.
    """
    settings = ServiceSettings(namespace=SPACE, cpu="250m", memory="1Gi", replicas=REPLICAS)
    pod = build_pod(settings, release)
    pod.pop("annotations")
    (container,) = pod["containers"]
    container["env"] = [
        variable for variable in container["env"] if variable["name"] != "STORAGE_URI"
    ]
    models = {"name": "models", "mountPath": "/mnt/models"}
    bring = {
        "name": "storage-initializer",
        "image": release.image,
        "imagePullPolicy": "Never",
        "command": ["python", "/launcher/launcher.py", "fetch", release.uri, "/mnt/models"],
        "env": [{"name": "STORE", "value": stores.s3}],
        "securityContext": container["securityContext"],
        "volumeMounts": [models, {"name": "launcher", "mountPath": "/launcher"}],
    }
    container |= {
        "imagePullPolicy": "Never",
        "volumeMounts": [*container["volumeMounts"], {**models, "readOnly": True}],
    }
    pod |= {
        "initContainers": [bring],
        "volumes": [*pod["volumes"], LAUNCHED, {"name": "models", "emptyDir": {}}],
    }
    labels = {"app": DEPLOYMENT}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": DEPLOYMENT, "namespace": SPACE},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": DEPLOYMENT, "namespace": SPACE},
        "spec": {
            "selector": {"app": DEPLOYMENT},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }


def pods() -> list[dict[str, Any]]:
    return list(get("pods", "-l", f"app={DEPLOYMENT}")["items"])


def is_ready(pod: Mapping[str, Any]) -> bool:
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ())
    )


def wait_until_rolled_out(seconds: float = 300) -> None:
    """Wait until the Deployment is as requested, and the pods before are gone."""
    kubectl(
        "rollout", "status", "-n", SPACE, f"deployment/{DEPLOYMENT}", f"--timeout={seconds:.0f}s"
    )
    deadline = time.monotonic() + seconds
    while len(pods()) != REPLICAS:
        assert time.monotonic() < deadline, "the pods before do not end"
        time.sleep(0.5)


@dataclass
class Load:
    """Questions to the Service from some callers at once, each with its own connection, until the
    block ends.

    A caller that is refused a connection tries again, as any does: the server has not seen its
    question. A question that was sent and got no answer is lost, and is not asked again.
    """

    url: str
    callers: int = 4
    pause: float = 0.05  # seconds between two questions of a caller
    answers: list[tuple[float, float, str]] = field(default_factory=list)  # when, seconds, version
    lost: list[tuple[float, str]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def __enter__(self) -> Load:
        self.stop = threading.Event()
        self.running = [threading.Thread(target=self.ask, args=(n,)) for n in range(self.callers)]
        for thread in self.running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.running:
            thread.join(60)

    def ask(self, caller: int) -> None:
        n = 0
        with httpx.Client(
            timeout=20, trust_env=False, headers={"authorization": f"Bearer {TOKEN}"}
        ) as client:
            while not self.stop.is_set():
                n += 1
                question = {
                    "instances": [{"text": f"Question {n} of caller {caller}: a good film."}]
                }
                began = time.monotonic()
                try:
                    answer = client.post(f"{self.url}/v1/models/sentiment:predict", json=question)
                    answer.raise_for_status()
                    version = answer.json()["model_version"]
                    self.answers.append((began, time.monotonic() - began, version))
                except httpx.ConnectError:
                    self.refused.append(began)
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    self.lost.append((began, repr(error)))
                self.stop.wait(self.pause)
