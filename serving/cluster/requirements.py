"""What has to be in a cluster, in which version, and how a version is read from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.cluster.api import Resource


@dataclass(frozen=True)
class Requirement:
    """Something that is installed in a cluster.

    Attributes:
        least: the oldest version that does what we ask of it.
        why: what an older one does not do.
    """

    name: str
    least: str
    why: str


KUBERNETES = Requirement("Kubernetes", "1.29", "rules (CEL) in the CRDs of KServe and Trainer")
PIPELINES = Requirement("Kubeflow Pipelines", "2.5", "placeholders of a run's id in parameters")
PIPELINES_SECURITY = Requirement(
    "Kubeflow Pipelines", "2.16", "user and group of a step; an older one runs it as its image says"
)
KSERVE = Requirement(
    "KServe",
    "0.20",
    "spec.canary, by which a version is tried; requests reach it in a newer one alone",
)
KSERVE_WITHOUT_REQUESTS = (0, 20)  # starts the pods of a canary, and sends them nothing (ADR 0018)
GATEWAY_API = Requirement("Gateway API", "1.0", "HTTPRoute v1, by which a canary gets its share")
TRAINER = Requirement("Kubeflow Trainer", "2.2", "spec.runtimePatches of a TrainJob")
JOBSET = Requirement("JobSet", "v1alpha2", "what Trainer makes of a TrainJob")

REQUIREMENTS = (
    KUBERNETES,
    PIPELINES,
    PIPELINES_SECURITY,
    KSERVE,
    GATEWAY_API,
    TRAINER,
    JOBSET,
)

WORKFLOWS = Resource("argoproj.io", "v1alpha1", "workflows")
WORKFLOW_RESULTS = Resource("argoproj.io", "v1alpha1", "workflowtaskresults")
JOB_SETS = Resource("jobset.x-k8s.io", "v1alpha2", "jobsets")

# Whether volumes of a provisioner can be mounted by pods on several nodes, by their documentation.
SHARES = {
    "cephfs.csi.ceph.com": True,
    "disk.csi.azure.com": False,
    "docker.io/hostpath": False,
    "driver.longhorn.io": True,
    "ebs.csi.aws.com": False,
    "efs.csi.aws.com": True,
    "file.csi.azure.com": True,
    "filestore.csi.storage.gke.io": True,
    "k8s.io/minikube-hostpath": False,
    "nfs.csi.k8s.io": True,
    "pd.csi.storage.gke.io": False,
    "rancher.io/local-path": False,
}


def parse_version(text: str) -> tuple[int, int] | None:
    """Major and minor of a version, an image's tag or a release; None where there is none.

    >>> parse_version("v1.33.4-gke.1"), parse_version("kserve/controller:v0.20.0@sha256:00")
    ((1, 33), (0, 20))
    >>> parse_version("registry:5000/kserve@sha256:00"), parse_version("latest")
    (None, None)
    """
    tag = text.partition("@")[0].rpartition("/")[2].rpartition(":")[2]
    match = re.match(r"v?(\d+)\.(\d+)", tag)
    return (int(match[1]), int(match[2])) if match else None


def is_older(version: str, requirement: Requirement) -> bool | None:
    """Whether a version is below the least; None where it says nothing.

    >>> is_older("v0.9.0", KSERVE), is_older("0.20.1", KSERVE), is_older("latest", KSERVE)
    (True, False, None)
    """
    parsed, least = parse_version(version), parse_version(requirement.least)
    return None if parsed is None or least is None else parsed < least


def has_field(definition: Mapping[str, Any], version: str, *path: str) -> bool:
    """Whether a CRD knows a field, such as `"spec", "canary"`, in one of its versions."""
    for served in definition["spec"]["versions"]:
        if served["name"] != version or not served.get("served", True):
            continue
        schema = (served.get("schema") or {}).get("openAPIV3Schema") or {}
        for name in path:
            schema = (schema.get("properties") or {}).get(name)
            if schema is None:
                return False
        return True
    return False
