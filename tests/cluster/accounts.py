"""Service accounts as infra/k8s makes them, for tests that ask what each may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parents[2] / "infra/k8s"


def _documents(place: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((K8S / place / "rbac.yaml").read_text()))


def account(api: Any, namespace: str, name: str, *components: str) -> Any:
    """A client with the rights that infra/k8s gives a service account, in base and in these
    components.
    """
    from kubernetes import client

    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    documents = [d for d in _documents("base") if d["metadata"]["name"] == name]
    for document in documents + [d for c in components for d in _documents(f"components/{c}")]:
        document["metadata"]["namespace"] = namespace
        match document["kind"]:
            case "ServiceAccount":
                core.create_namespaced_service_account(namespace, document)
            case "Role":
                rbac.create_namespaced_role(namespace, document)
            case "RoleBinding":
                document["subjects"][0]["namespace"] = namespace
                rbac.create_namespaced_role_binding(namespace, document)
    asked = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": []},
    }
    token = core.create_namespaced_service_account_token(name, namespace, asked).status.token
    configuration = client.Configuration()
    configuration.host, configuration.verify_ssl = api.configuration.host, False
    configuration.api_key = {"authorization": f"Bearer {token}"}
    configuration.retries = False
    return client.ApiClient(configuration)
