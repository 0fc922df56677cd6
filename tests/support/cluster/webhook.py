"""The stand-in for KServe's webhooks as a server that a real API server calls, and the definition
of HTTPRoutes, of which the tests need names and rules alone.
"""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from serving.cluster.api import call
from tests.support.cluster.kserve import Config, admit
from tests.support.cluster.memory import Denied, Object

HTTP_ROUTES: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "httproutes.gateway.networking.k8s.io",
        "annotations": {
            "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"
        },
    },
    "spec": {
        "group": "gateway.networking.k8s.io",
        "scope": "Namespaced",
        "names": {
            "kind": "HTTPRoute",
            "listKind": "HTTPRouteList",
            "plural": "httproutes",
            "singular": "httproute",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


def review(request: Object, config: Config) -> Object:
    """The answer to an AdmissionReview."""
    new, old = request["object"], request.get("oldObject")
    answer: Object = {"uid": request["uid"], "allowed": True}
    try:
        admit(config)("inferenceservices", old, new)
    except Denied as denied:
        return {**answer, "allowed": False, "status": {"code": 400, "message": str(denied)}}
    patch = [{"op": "replace", "path": "/spec", "value": new["spec"]}]
    encoded = base64.b64encode(json.dumps(patch).encode()).decode()
    return {**answer, "patchType": "JSONPatch", "patch": encoded}


@contextmanager
def serve_webhook(api: Any, folder: Path, config: Config) -> Iterator[None]:
    """Register the webhook with the API server, and answer it while the block runs."""
    certificate, key = folder / "webhook.crt", folder / "webhook.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            response = json.dumps({**body, "response": review(body["request"], config)}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(response)))
            self.end_headers()
            self.wfile.write(response)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        rule = {
            "apiGroups": ["serving.kserve.io"],
            "apiVersions": ["v1beta1"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["inferenceservices"],
        }
        name = "inferenceservice.serving.kserve.io"
        client = {
            "url": f"https://127.0.0.1:{server.server_port}/",
            "caBundle": base64.b64encode(certificate.read_bytes()).decode(),
        }
        webhook = {
            "name": name,
            "rules": [rule],
            "clientConfig": client,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 10,
        }
        path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
        body = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [webhook],
        }
        call(api, "POST", path, body=body)
        try:
            yield
        finally:
            call(api, "DELETE", f"{path}/{name}")
            server.shutdown()
