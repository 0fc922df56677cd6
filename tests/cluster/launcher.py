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
    asked = Request(os.environ["STORE"] + path, data=data, method=method, headers=headers)
    with urlopen(asked, timeout=120) as answer:
        return bytes(answer.read())


def keys(bucket: str, prefix: str) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        query = f"/{bucket}?list-type=2&prefix={quote(prefix)}" + (
            f"&start-after={quote(after)}" if after else ""
        )
        page = ET.fromstring(call("GET", query))
        space = page.tag.partition("}")[0] + "}" if page.tag.startswith("{") else ""
        found += [str(key.text) for key in page.iter(f"{space}Key")]
        if page.findtext(f"{space}IsTruncated") != "true":
            return found
        after = found[-1]


def fetch(uri: str, place: Path) -> None:
    """The object of that URI, or all below it."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    found = [
        key
        for key in keys(bucket, prefix)
        if key == prefix or key.startswith(prefix.rstrip("/") + "/")
    ]
    if not found:
        raise SystemExit(f"nothing at {uri}")
    for key in found:
        target = place / key[len(prefix) :].lstrip("/") if key != prefix else place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(call("GET", f"/{bucket}/{quote(key)}"))


def send(place: Path, uri: str) -> None:
    files = (
        [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    )
    for path in files:
        below = "" if path == place else f"/{path.relative_to(place).as_posix()}"
        call("PUT", "/" + quote(uri.removeprefix("s3://") + below), path.read_bytes())


def artifacts(side: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        artifact
        for listed in side.get("artifacts", {}).values()
        for artifact in listed["artifacts"]
    ]


def run(command: list[str]) -> int:
    at = command.index("--executor_input") + 1
    given = json.loads(command[at])
    inputs, outputs = given.get("inputs", {}), given["outputs"]
    for artifact in artifacts(outputs):
        artifact["uri"] = os.environ["BUCKET"] + artifact["uri"].removeprefix(os.environ["ROOT"])
    for artifact in artifacts(inputs):
        fetch(artifact["uri"], Path("/s3") / artifact["uri"].removeprefix("s3://"))
    command[at] = json.dumps(given)
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        for artifact in artifacts(outputs):
            send(Path("/s3") / artifact["uri"].removeprefix("s3://"), artifact["uri"])
        told = Path(outputs["outputFile"])
        if told.is_file():
            send(told, os.environ["BUCKET"] + str(told).removeprefix(os.environ["ROOT"]))
    return code


if __name__ == "__main__":
    if sys.argv[1] == "fetch":
        fetch(sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(run(sys.argv[1:]))
