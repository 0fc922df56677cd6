"""Whether MLflow and the object store answer from where steps are: a pod that has a step's labels,
account and security context, asks, and is removed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from serving.cluster.api import ConnectionLost, KubernetesObject, Refusal, call
from serving.cluster.check import Finding, Needs

# Of MLflow's API. Its /health would not do: MLflow answers that under every name, and refuses the
# API under a name that --allowed-hosts does not have (mlflow/server/security_utils.py, 3.17).
_EXPERIMENT = "api/2.0/mlflow/experiments/get?experiment_id=0"

_MESSAGE = "/dev/termination-log"
_USER = 10001
# by these labels the network policies take it for a step of ours
_LABELS = {
    "app.kubernetes.io/name": "tasteloop-step",
    "workflows.argoproj.io/workflow": "tasteloop-check",
}


def check_reach(
    client: Any, needs: Needs, image: str | None, store: str | None, seconds: float = 120
) -> list[Finding]:
    """A finding for MLflow and one for the object store.

    Args:
        image: any image with Python, best that of the steps; without it nothing is known.
        store: the HTTP address of the object store. What it answers does not matter, so no
            credentials are shown, and none are found wanting.
        seconds: to wait for the pod.
    """
    urls = {}
    if needs.tracking:
        urls["MLflow from a pod"] = f"{needs.tracking.rstrip('/')}/{_EXPERIMENT}"
    if store:
        urls["object store from a pod"] = store
    findings = list(_describe_missing(needs, image, store))
    if not image or not urls:
        return findings
    try:
        message = _run_pod(
            client, needs, _build_pod(needs, image, list(urls.values()), seconds), seconds
        )
    except (ConnectionLost, Refusal) as error:
        remedy = "it takes the rights to create, get and delete pods"
        return findings + [Finding(name, "unknown", str(error), remedy) for name in urls]
    except TimeoutError as error:
        remedy = "look at the pod's image, nodes and volumes; --wait gives it longer"
        return findings + [Finding(name, "unknown", str(error), remedy) for name in urls]
    answers = _parse(message, len(urls))
    if answers is None:
        remedy = "nothing was asked: give --image one that has `python` and starts on your nodes"
        return findings + [Finding(name, "unknown", message[:300], remedy) for name in urls]
    for (name, url), answer in zip(urls.items(), answers, strict=True):
        findings.append(_describe(name, url, answer))
    return findings


def _describe_missing(needs: Needs, image: str | None, store: str | None) -> Iterator[Finding]:
    """What cannot be asked, for want of an option."""
    if not needs.tracking:
        remedy = "name the server: --set cluster.tracking=http://…"
        yield Finding("MLflow from a pod", "bad", "the profile names no MLflow server", remedy)
    elif not image:
        remedy = "give --image, any image with Python: a pod of it asks"
        yield Finding("MLflow from a pod", "unknown", "not asked", remedy)
    if not store or not image:
        remedy = (
            "give --store, its HTTP address such as http://seaweedfs.kubeflow:9000, and --image"
        )
        yield Finding("object store from a pod", "unknown", "not asked", remedy)


def _build_pod(needs: Needs, image: str, urls: list[str], seconds: float) -> KubernetesObject:
    source = files("serving.cluster").joinpath("probe.py").read_text(encoding="utf-8")
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        # it ends by itself where nobody is left to remove it, and not while it is waited for
        "activeDeadlineSeconds": math.ceil(seconds) + 60,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "imagePullSecrets": [{"name": name} for name in needs.pull_secrets],
        "containers": [
            {
                "name": "check",
                "image": image,
                "command": ["python", "-c", source, _MESSAGE, *urls],
                "terminationMessagePath": _MESSAGE,
                "resources": {
                    "requests": {"cpu": "50m", "memory": "64Mi"},
                    "limits": {"memory": "64Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
    if needs.steps:
        spec["serviceAccountName"] = needs.steps
    metadata = {
        "generateName": "tasteloop-check-",
        "labels": _LABELS,
        "annotations": {"sidecar.istio.io/inject": "false"},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _run_pod(client: Any, needs: Needs, pod: KubernetesObject, seconds: float) -> str:
    """What the container wrote at its end.

    Raises:
        TimeoutError: it did not end in time; with what it waits for.
        Refusal, ConnectionLost: of a call.
    """
    path = f"/api/v1/namespaces/{needs.namespace}/pods"
    own_path = f"{path}/{call(client, 'POST', path, body=pod)['metadata']['name']}"
    end = time.monotonic() + seconds
    try:
        while True:
            status = call(client, "GET", own_path).get("status") or {}
            if status.get("phase") in ("Succeeded", "Failed"):
                return _read_message(status)
            if time.monotonic() >= end:
                raise TimeoutError(f"the pod did not end within {seconds:.0f} s{_reason(status)}")
            time.sleep(1)
    finally:
        call(client, "DELETE", own_path, [("gracePeriodSeconds", "0")])


def _read_message(status: Mapping[str, Any]) -> str:
    for container in status.get("containerStatuses") or []:
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("message"):
            return str(ended["message"])
        if ended:
            return f"it ended with {ended.get('exitCode')}, {ended.get('reason', 'no reason')}"
    return str(status.get("message") or status.get("reason") or "it ended without a word")


def _reason(status: Mapping[str, Any]) -> str:
    """What a pod waits for."""
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return f": {waiting['reason']} {waiting.get('message', '')}".rstrip()
    for condition in status.get("conditions") or []:
        if condition.get("status") == "False" and condition.get("message"):
            return f": {condition['message']}"
    return f": {status.get('phase', 'no phase')}"


Answer = tuple[int | None, str]
"""The HTTP status, or None where none came, and its reason."""


def _parse(message: str, expected: int) -> list[Answer] | None:
    """The program's answers; None where it wrote none."""
    try:
        answers = json.loads(message)
        if len(answers) == expected:
            return [(status, str(reason)) for status, reason in answers]
    except (TypeError, ValueError):
        pass
    return None


def _describe(name: str, url: str, answer: Answer) -> Finding:
    status, reason = answer
    host = urlsplit(url).netloc.rpartition("@")[2]
    if status is None:
        remedy = f"look at the name, and let steps reach {host} by the network policies"
        return Finding(name, "bad", f"{host} is not reached: {reason}", remedy)
    if name.startswith("MLflow") and status != 200:
        remedy = (
            "steps show it no credentials but those in cluster.secrets, and call it by this address"
        )
        if status == 403:
            remedy += f": start it with --allowed-hosts {host}"
        return Finding(name, "bad", f"{host} answers {status} {reason}", remedy)
    if status >= 500:
        return Finding(name, "bad", f"{host} answers {status} {reason}", "look at its log")
    return Finding(name, "good", f"{host} answers ({status})")
