"""Service accounts as infra/k8s makes them, for tests of what each may do."""

from __future__ import annotations

from typing import Any

import yaml

from tests.support.cluster.paths import ROOT

K8S = ROOT / "infra/k8s"


def _read_documents(directory: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((K8S / directory / "rbac.yaml").read_text()))


def make_account(api: Any, namespace: str, name: str, *components: str) -> Any:
    """Make a service account as infra/k8s does, with the rights of its base and of these
    components; returns a client of it.
    """
    from kubernetes import client

    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    documents = [
        document for document in _read_documents("base") if document["metadata"]["name"] == name
    ]
    for component in components:
        documents += _read_documents(f"components/{component}")
    for document in documents:
        document["metadata"]["namespace"] = namespace
        match document["kind"]:
            case "ServiceAccount":
                core.create_namespaced_service_account(namespace, document)
            case "Role":
                rbac.create_namespaced_role(namespace, document)
            case "RoleBinding":
                document["subjects"][0]["namespace"] = namespace
                rbac.create_namespaced_role_binding(namespace, document)
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": []},
    }
    token = core.create_namespaced_service_account_token(name, namespace, request).status.token
    configuration = client.Configuration()
    configuration.host, configuration.verify_ssl = api.configuration.host, False
    configuration.api_key = {"authorization": f"Bearer {token}"}
    configuration.retries = False
    return client.ApiClient(configuration)
