"""What Kubeflow's launcher does around a step: its artifacts come from the object store and go
there.

A step's command runs behind this as its entrypoint, in the steps image, so the standard library has
to do. `STORE` is an S3 endpoint that checks no signature, `BUCKET` in it is where artifacts go,
`ROOT` is kfp.local's pipeline root. A step sees what it sees on a cluster: `s3://` URIs, and its
artifacts under /s3, which is memory of its own.

usage: launcher.py COMMAND…          a step
       launcher.py fetch URI FOLDER  what KServe's storage initialiser does
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

OUTPUT = "executor_output.json"
# moto looks at who signed, not at what
SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def call(method: str, path: str, data: bytes | None = None) -> bytes:
    """One request to the store; `path` is /bucket/key, or /bucket?query."""
    headers = {"Authorization": SIGNED, "Content-Type": "application/octet-stream"}
    request = Request(os.environ["STORE"] + path, data=data, method=method, headers=headers)
    with urlopen(request, timeout=120) as answer:
        return bytes(answer.read())


def keys(bucket: str, prefix: str) -> list[str]:
    """All keys of a bucket with this prefix."""
    names: list[str] = []
    after = ""
    while True:
        query = f"/{bucket}?list-type=2&prefix={quote(prefix)}"
        if after:
            query += f"&start-after={quote(after)}"
        page = ET.fromstring(call("GET", query))
        space = page.tag.partition("}")[0] + "}" if page.tag.startswith("{") else ""
        names += [str(key.text) for key in page.iter(f"{space}Key")]
        if page.findtext(f"{space}IsTruncated") != "true":
            return names
        after = names[-1]


def fetch(uri: str, destination: Path) -> None:
    """Write the object of that URI, or all objects below it, to a file or a directory."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    selected = [
        key
        for key in keys(bucket, prefix)
        if key == prefix or key.startswith(prefix.rstrip("/") + "/")
    ]
    if not selected:
        raise SystemExit(f"nothing at {uri}")
    for key in selected:
        target = destination
        if key != prefix:
            target = destination / key[len(prefix) :].lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(call("GET", f"/{bucket}/{quote(key)}"))


def send(source: Path, uri: str) -> None:
    """Put a file, or all files of a directory, into the store."""
    files = [source]
    if not source.is_file():
        files = sorted(path for path in source.rglob("*") if path.is_file())
    for path in files:
        below = "" if path == source else f"/{path.relative_to(source).as_posix()}"
        call("PUT", "/" + quote(uri.removeprefix("s3://") + below), path.read_bytes())


def artifacts(side: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        artifact
        for listed in side.get("artifacts", {}).values()
        for artifact in listed["artifacts"]
    ]


def run(command: list[str]) -> int:
    at = command.index("--executor_input") + 1
    executor_input = json.loads(command[at])
    inputs, outputs = executor_input.get("inputs", {}), executor_input["outputs"]
    for artifact in artifacts(outputs):
        artifact["uri"] = os.environ["BUCKET"] + artifact["uri"].removeprefix(os.environ["ROOT"])
    for artifact in artifacts(inputs):
        fetch(artifact["uri"], Path("/s3") / artifact["uri"].removeprefix("s3://"))
    command[at] = json.dumps(executor_input)
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        for artifact in artifacts(outputs):
            send(Path("/s3") / artifact["uri"].removeprefix("s3://"), artifact["uri"])
        output = Path(outputs["outputFile"])
        if output.is_file():
            send(output, os.environ["BUCKET"] + str(output).removeprefix(os.environ["ROOT"]))
    return code


if __name__ == "__main__":
    if sys.argv[1] == "fetch":
        fetch(sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(run(sys.argv[1:]))
