"""Hold every pod in rendered manifests against the level `restricted` of the Pod Security
Standards, without a cluster.

usage: check_pods.py FILE...
exit code 1 where a pod is not restricted, with a line for each reason

Pods are found wherever an object holds a list of containers, in kinds of Kubernetes and in custom
ones; a SparkApplication has fields of its own for the same. The rules are those of Kubernetes 1.33,
https://kubernetes.io/docs/concepts/security/pod-security-standards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
SELINUX_TYPES = {
    None,
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
}
LISTS = ("initContainers", "containers", "ephemeralContainers")

Fields = Mapping[str, Any]


def find_pods(document: Any, path: str = "") -> Iterator[tuple[str, Fields]]:
    """Where an object specifies pods, and their specifications as Kubernetes writes them."""
    if isinstance(document, Mapping):
        if document.get("kind") == "SparkApplication":
            for role in ("driver", "executor"):
                pod = document["spec"][role]
                container = {"name": role, "securityContext": pod.get("securityContext")}
                spec = {"securityContext": pod.get("podSecurityContext"), "containers": [container]}
                yield f"spec.{role}", spec | {"volumes": document["spec"].get("volumes", [])}
            return
        if isinstance(document.get("containers"), list):
            yield path, document
        for key, value in document.items():
            yield from find_pods(value, f"{path}.{key}".lstrip("."))
    elif isinstance(document, list):
        for n, value in enumerate(document):
            yield from find_pods(value, f"{path}[{n}]")


def find_violations(pod: Fields) -> Iterator[str]:
    """Why a pod is not `restricted`: a phrase for each reason."""
    # 1. the pod
    context = pod.get("securityContext") or {}
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} is set"
    for volume in pod.get("volumes") or []:
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    for sysctl in context.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _find_profile_violations(context, "the pod")

    # 2. its containers; what one does not say is the pod's
    for container in (c for name in LISTS for c in pod.get(name) or []):
        name = f"container {container['name']}"
        own = container.get("securityContext") or {}
        yield from _find_container_violations(name, container, own)
        yield from _find_profile_violations(own, name)
        if own.get("runAsNonRoot", context.get("runAsNonRoot")) is not True:
            yield f"{name}: runAsNonRoot is not true"
        if own.get("runAsUser", context.get("runAsUser")) == 0:
            yield f"{name}: runs as user 0"
        profile = own.get("seccompProfile") or context.get("seccompProfile") or {}
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: no seccompProfile"


def _find_container_violations(name: str, container: Fields, own: Fields) -> Iterator[str]:
    if own.get("privileged"):
        yield f"{name}: privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation is not false"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield f"{name}: does not drop all capabilities"
    for added in set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield f"{name}: adds the capability {added}"
    if own.get("procMount", "Default") != "Default":
        yield f"{name}: procMount is {own['procMount']}"
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield f"{name}: hostPort {port['hostPort']}"
    for hook in ("livenessProbe", "readinessProbe", "startupProbe"):
        for action in ("httpGet", "tcpSocket"):
            if ((container.get(hook) or {}).get(action) or {}).get("host"):
                yield f"{name}: {hook} names a host"


def _find_profile_violations(context: Fields, name: str) -> Iterator[str]:
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"{name}: seLinuxOptions {dict(selinux)}"
    armour = (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault")
    if armour not in ("RuntimeDefault", "Localhost"):
        yield f"{name}: appArmorProfile is {armour}"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{name}: hostProcess"


def main(arguments: list[str]) -> int:
    pods = violations = 0
    for file in arguments:
        for document in yaml.safe_load_all(Path(file).read_text()):
            if not document:
                continue
            name = f"{document['kind']}/{document['metadata']['name']}"
            for path, pod in find_pods(document):
                pods += 1
                for violation in find_violations(pod):
                    violations += 1
                    print(f"{file}: {name} {path}: {violation}", file=sys.stderr)
    print(f"manifests: {pods} pods, {violations} reasons why one is not restricted")
    return 1 if violations or not pods else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
