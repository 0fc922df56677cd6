"""The server does what its OpenAPI document says: schemathesis makes the requests, valid and
invalid, and judges.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TENSORS = "/infer$"


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("everything but tensors", ["--exclude-path-regex", TENSORS]),
        # A JSON schema cannot say that a tensor has as many elements as its shape: not every valid
        # one is accepted.
        (
            "tensors",
            ["--include-path-regex", TENSORS, "--exclude-checks", "positive_data_acceptance"],
        ),
    ],
)
def test_the_document_is_true(target: Any, what: str, options: list[str], tmp_path: Path) -> None:
    headers = [
        part for name, value in target.metadata() for part in ("--header", f"{name}:{value}")
    ]
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        f"{target.url}/openapi.json",
        *headers,
        *options,
    ]
    command += [
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "15",
        "--generation-database",
        "none",
    ]
    command += [
        "--no-color",
        "--request-timeout",
        "60",
        "--continue-on-failure",
        "--seed",
        "1",
        "--warnings",
        "off",
    ]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]


def test_the_document_names_the_model(target: Any) -> None:
    paths = target.http.get("/openapi.json").json()["paths"]
    assert any(target.model in path for path in paths)
