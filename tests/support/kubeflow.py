"""A small Kubeflow Pipelines server: the v2beta1 API as `kfp_server_api` describes it, on a free
port of loopback.

Bodies are held against the generated models (an unknown field or a wrong type is a 400, as
protobuf's JSON makes it), uploaded graphs are parsed by kfp's own messages, the Kubernetes part of
them too, and a run is the submitted graph in `kfp.local`.
"""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2

ROOT = Path(__file__).parents[2]
PREFIX = "/apis/v2beta1"
RUNNER = """
import json, sys
from kfp import components, local
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2], raise_on_error=True)
components.load_component_from_file(sys.argv[1])(**json.loads(sys.argv[3]))
"""


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


def check(kind: str, value: Any, where: str = "body") -> Any:
    """The value, if the generated models say that it is of this type."""
    if value is None:
        return value
    if inner := re.fullmatch(r"(?:list\[(.*)\]|dict\(str, (.*)\))", kind):
        if inner[1]:
            return [check(inner[1], v, where) for v in value]
        return {k: check(inner[2], v, f"{where}.{k}") for k, v in value.items()}
    plain = {"str": str, "int": int, "bool": bool, "object": object, "datetime": str}.get(kind)
    if plain:
        # protobuf's JSON takes an int64 as a number or a string
        if kind == "str" and isinstance(value, int):
            value = str(value)
        if not isinstance(value, plain):
            raise Refused(400, f"{where}: {kind} expected, not {value!r}")
        return value
    model = getattr(kfp_server_api, kind)
    if isinstance(value, str) and not model.openapi_types:  # an enumeration
        known = [v for k, v in vars(model).items() if k.isupper()]
        if value not in known:
            raise Refused(400, f"{where}: {value!r} is none of {known}")
        return value
    names = {model.attribute_map[name]: t for name, t in model.openapi_types.items()}
    if unknown := value.keys() - names.keys():
        raise Refused(400, f"{where}: unknown field {sorted(unknown)[0]!r} of {kind}")
    return {key: check(names[key], v, f"{where}.{key}") for key, v in value.items()}


def parse(text: str) -> list[dict[str, Any]]:
    """The documents of a graph, read by kfp's own messages."""
    try:
        spec, *platform = list(yaml.safe_load_all(text))
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
        for document in platform:
            json_format.ParseDict(document, pipeline_spec_pb2.PlatformSpec())
            for config in document["platforms"]["kubernetes"]["deploymentSpec"][
                "executors"
            ].values():
                json_format.ParseDict(config, KubernetesExecutorConfig())
    except (yaml.YAMLError, json_format.ParseError, ValueError) as error:
        raise Refused(400, f"Failed to parse the pipeline: {error}") from error
    return [spec, *platform]


# what the value of a parameter has to be in JSON: backend/src/apiserver/template/v2_template.go of
# kubeflow/pipelines at 7b70c7b9
JSON_TYPES: dict[str, Any] = {
    "NUMBER_DOUBLE": (int, float),
    "NUMBER_INTEGER": (int, float),
    "STRING": str,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


def check_parameters(graph: str, body: dict[str, Any]) -> None:
    """validatePipelineJobInputs of that file: each parameter that the graph requires is given, and
    of its type. Others are passed on.
    """
    root = parse(graph)[0]["root"]
    values = (body.get("runtime_config") or {}).get("parameters") or {}
    for name, parameter in root.get("inputDefinitions", {}).get("parameters", {}).items():
        if name not in values:
            if not parameter.get("isOptional") and "defaultValue" not in parameter:
                raise Refused(
                    400,
                    f"Invalid input error: parameter {name} is not optional, yet has neither default "
                    "value nor user provided value",
                )
            continue
        kind, value = parameter["parameterType"], values[name]
        is_bool = isinstance(value, bool)
        if not isinstance(value, JSON_TYPES[kind]) or (is_bool and kind != "BOOLEAN"):
            raise Refused(400, f"Invalid input error: input parameter {name} requires type {kind}")


def count_retries(policy: dict[str, Any], seconds: float) -> int:
    """How often a step is tried again whose every try fails after that many seconds.

    The policy is the compiled task's; argocompiler/container.go hands it to Argo as it is. There
    (argo-workflows at f016ad89, workflow/controller/operator.go: processNodeRetries) the longest
    duration is counted from the start of the first try, not of the waiting.
    """
    wait, longest = (
        float(str(policy[key]).removesuffix("s"))
        for key in ("backoffDuration", "backoffMaxDuration")
    )
    now, retries = seconds, 0
    while retries < policy["maxRetryCount"]:
        now += wait * policy["backoffFactor"] ** retries
        if now > longest:
            break
        retries, now = retries + 1, now + seconds
    return retries


class Kubeflow:
    """The server's state: what was made, by kind and id.

    Args:
        folder: where runs keep what they make; None: a run is accepted and succeeds, nothing is
            executed.
        token: asked for, where there is one.
    """

    def __init__(self, folder: Path | None = None, token: str | None = None) -> None:
        self.folder, self.token, self.multi_user = folder, token, False
        self.resources: dict[str, dict[str, dict[str, Any]]] = {
            kind: {} for kind in ("pipelines", "versions", "experiments", "runs", "recurringruns")
        }
        self.graphs: dict[str, str] = {}  # by version
        self.ends = "SUCCEEDED"
        self.log = ""
        self.requests: list[str] = []

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        self.requests.append(f"{method} {path}")
        kind, *rest = path.strip("/").split("/")
        match method, kind, rest:
            case "GET", "healthz", []:
                return {"multi_user": self.multi_user}
            case "POST", "pipelines", ["upload_version"]:
                return self.upload(query, body)
            case "POST", "pipelines", []:
                return self.make("pipelines", "pipeline_id", check("V2beta1Pipeline", body))
            case "GET", "pipelines", [pipeline, "versions"]:
                matches = [
                    v for v in self.listed("versions", query) if v["pipeline_id"] == pipeline
                ]
                return {"pipeline_versions": matches, "total_size": len(matches)}
            case "POST", "experiments", []:
                if self.multi_user and not body.get("namespace"):
                    raise Refused(400, "Invalid input error: Namespace is empty")
                return self.make("experiments", "experiment_id", check("V2beta1Experiment", body))
            case "POST", "runs", []:
                return self.run(check("V2beta1Run", body))
            case "POST", "recurringruns", []:
                return self.recur(check("V2beta1RecurringRun", body))
            case "GET", ("pipelines" | "experiments" | "runs" | "recurringruns"), []:
                matches = self.listed(kind, query)
                return {
                    {"recurringruns": "recurringRuns"}.get(kind, kind): matches,
                    "total_size": len(matches),
                }
            case "GET", ("pipelines" | "experiments" | "runs" | "recurringruns"), [name]:
                return self.find(kind, name)
            case "DELETE", "recurringruns", [name]:
                self.find("recurringruns", name)
                del self.resources["recurringruns"][name]
                return {}
        raise Refused(404, f"Not Found: {method} {path}")

    def find(self, kind: str, name: str) -> dict[str, Any]:
        if name not in self.resources[kind]:
            raise Refused(404, f"{kind} {name} not found")
        return self.resources[kind][name]

    def listed(self, kind: str, query: dict[str, str]) -> list[dict[str, Any]]:
        predicates = json.loads(query.get("filter") or '{"predicates": []}')["predicates"]
        for predicate in predicates:
            if predicate.keys() != {"operation", "key", "stringValue"} or predicate[
                "operation"
            ] not in ("EQUALS", 1):
                raise Refused(400, f"Invalid input error: filter {predicate}")
            if predicate["key"] != "display_name":
                raise Refused(400, f"Invalid input error: filter key {predicate['key']}")
        return [
            o
            for o in self.resources[kind].values()
            if all(o[p["key"]] == p["stringValue"] for p in predicates)
        ]

    def make(self, kind: str, key: str, values: dict[str, Any]) -> dict[str, Any]:
        if not values.get("display_name"):
            raise Refused(400, f"Invalid input error: {kind} without a display_name")
        resource = {**values, key: str(uuid.uuid4())}
        self.resources[kind][resource[key]] = resource
        return resource

    def upload(self, query: dict[str, str], body: str) -> dict[str, Any]:
        if query.keys() - {"name", "display_name", "pipelineid", "description", "tags"}:
            raise Refused(400, f"unknown parameters {sorted(query)}")
        pipeline = self.find("pipelines", query["pipelineid"])["pipeline_id"]
        if any(
            v["pipeline_id"] == pipeline and v["name"] == query["name"]
            for v in self.resources["versions"].values()
        ):
            raise Refused(409, f"Already exist error: version {query['name']}")
        parse(body)
        values = {"pipeline_id": pipeline, "display_name": query["name"], "name": query["name"]}
        version = self.make("versions", "pipeline_version_id", values)
        self.graphs[version["pipeline_version_id"]] = body
        return version

    def graph(self, body: dict[str, Any]) -> str:
        self.find("experiments", body["experiment_id"])
        reference = body["pipeline_version_reference"]
        version = self.find("versions", reference["pipeline_version_id"])
        if version["pipeline_id"] != reference["pipeline_id"]:
            raise Refused(400, "Invalid input error: that version is of another pipeline")
        return self.graphs[version["pipeline_version_id"]]

    def recur(self, body: dict[str, Any]) -> dict[str, Any]:
        check_parameters(self.graph(body), body)
        if len(body["trigger"]["cron_schedule"]["cron"].split()) != 6:
            raise Refused(400, "Invalid input error: cron")
        return self.make("recurringruns", "recurring_run_id", body)

    def run(self, body: dict[str, Any]) -> dict[str, Any]:
        graph = self.graph(body)
        check_parameters(graph, body)
        run = self.make("runs", "run_id", {**body, "state": "PENDING"})
        threading.Thread(target=self.execute, args=(run, graph), daemon=True).start()
        return run

    def execute(self, run: dict[str, Any], graph: str) -> None:
        run["state"] = "RUNNING"
        if self.folder is None:
            run["state"] = self.ends
            return
        spec, *_ = parse(graph)
        containers = [
            x.get("container", {}) for x in spec["deploymentSpec"]["executors"].values()
        ]  # importers have none
        env = [e for container in containers for e in container.get("env", [])]
        values = (run.get("runtime_config") or {}).get("parameters") or {}
        package = self.folder / f"{run['run_id']}.yaml"
        package.write_text(yaml.safe_dump(spec))
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                RUNNER,
                str(package),
                str(self.folder / "artifacts"),
                json.dumps(values),
            ],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), **{e["name"]: e["value"] for e in env}},
        )
        self.log = done.stdout + done.stderr
        if done.returncode:
            run["error"] = {"code": 13, "message": done.stderr.strip().rpartition("\n")[2]}
        run["state"] = "FAILED" if done.returncode else "SUCCEEDED"


@contextmanager
def serving(state: Kubeflow) -> Iterator[str]:
    """The server's address while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            address = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(address.query).items()}
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                if state.token and self.headers.get("authorization") != f"Bearer {state.token}":
                    raise Refused(401, "Unauthenticated")
                if not address.path.startswith(PREFIX):
                    raise Refused(404, "Not Found")
                status, response = (
                    200,
                    state.answer(self.command, address.path[len(PREFIX) :], query, self.body(data)),
                )
            except Refused as refused:
                status, response = (
                    refused.status,
                    {"error": refused.message, "message": refused.message, "code": 3},
                )
            data_sent = json.dumps(response).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data_sent)))
            self.end_headers()
            self.wfile.write(data_sent)

        def body(self, data: bytes) -> Any:
            kind = self.headers.get("content-type", "")
            if "multipart/form-data" in kind:
                message = email.message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + data)
                (part,) = message.get_payload()
                assert part.get_param("name", header="content-disposition") == "uploadfile"
                return part.get_payload(decode=True).decode()
            return json.loads(data) if data else None

        do_GET = do_POST = do_DELETE = do

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
