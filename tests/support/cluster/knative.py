"""A stand-in for Knative Serving: its admission, as github.com/knative/serving at 98e5ef90 has it,
and a controller that makes a revision of every template.
"""

from __future__ import annotations

import json
from typing import Any

from tests.support.cluster.kserve import Api
from tests.support.cluster.memory import Denied, Object

# pkg/apis/serving/fieldmask.go, with the features that pkg/apis/config/features.go enables
POD = {
    "serviceAccountName",
    "containers",
    "volumes",
    "imagePullSecrets",
    "enableServiceLinks",
    "automountServiceAccountToken",
}
CONTAINER = {
    "name",
    "args",
    "command",
    "env",
    "workingDir",
    "envFrom",
    "image",
    "imagePullPolicy",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
}
SECURITY = {
    "capabilities",
    "readOnlyRootFilesystem",
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "allowPrivilegeEscalation",
    "seccompProfile",
}
RESERVED = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}  # k8s_validation.go


def admit(plural: str, old: Object | None, new: Object) -> None:
    """pkg/apis/serving/k8s_validation.go: ValidatePodSpec and what it calls."""
    if plural != "services" or new.get("apiVersion") != "serving.knative.dev/v1":
        return
    pod = new["spec"]["template"]["spec"]
    refused = sorted(pod.keys() - POD)
    if pod.get("automountServiceAccountToken"):
        refused.append("automountServiceAccountToken")
    for container in pod["containers"]:
        refused += sorted(container.keys() - CONTAINER)
        context = container.get("securityContext", {})
        refused += [f"securityContext.{key}" for key in sorted(context.keys() - SECURITY)]
        if "add" in context.get("capabilities", {}):
            refused.append("capabilities.add")
        if len(container.get("ports", [])) > 1:
            raise Denied("more than one container port is set: ports")
        for variable in container.get("env", []):
            if variable["name"] in RESERVED:
                raise Denied(f'"{variable["name"]}" is a reserved environment variable')
    for volume in pod.get("volumes", []):
        refused += sorted(volume.keys() - {"name", "secret", "configMap", "projected", "emptyDir"})
    if refused:
        raise Denied(
            "validation failed: must not set the field(s): "
            + ", ".join(f"spec.template.spec.{field}" for field in refused)
        )


class Knative:
    """The controller: a revision for each template, ready after one pass unless its image does not
    start; then the traffic goes where the Service says.
    """

    def __init__(self, client: Any, namespace: str = "default") -> None:
        self.api = Api(client, namespace)
        self.revisions: dict[str, list[str]] = {}  # templates by the Service's name, as JSON

    def reconcile(self) -> None:
        for service in self.api.list("serving.knative.dev/v1", "services"):
            name, spec = service["metadata"]["name"], service["spec"]
            revisions = self.revisions.setdefault(name, [])
            template = json.dumps(spec["template"], sort_keys=True)
            is_new = not revisions or revisions[-1] != template
            if is_new:
                revisions.append(template)
            created = f"{name}-{len(revisions):05}"
            status = dict(service.get("status") or {})
            status["observedGeneration"] = service["metadata"]["generation"]
            status["latestCreatedRevisionName"] = created
            if not is_new and "never-starts" not in template:
                status["latestReadyRevisionName"] = created
            ready = status.get("latestReadyRevisionName")
            if ready:
                status["traffic"] = [
                    {**target, "revisionName": target.get("revisionName", ready)}
                    for target in spec["traffic"]
                ]
            if status != service.get("status"):
                service["status"] = status
                self.api.update("serving.knative.dev/v1", "services", service, "/status")
