"""A real server in a process of its own, on the tiny bundle."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import VERSION, Running, run_server, when_ready


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Start servers on free ports; they are stopped when the tests end."""
    started: list[subprocess.Popen[str]] = []

    def serve(*arguments: str, **environment: str) -> Running:
        ready_file = tmp_path_factory.mktemp("server") / "ready.json"
        started.append(
            run_server(
                *arguments,
                "--port",
                "0",
                "--grpc-port",
                "0",
                "--ready-file",
                str(ready_file),
                **environment,
            )
        )
        return when_ready(started[-1], ready_file)

    yield serve
    for process in started:
        with process:
            process.kill()


@pytest.fixture(scope="session")
def server(serve: Callable[..., Running], tiny_bundle: Path) -> Running:
    return serve("--bundle", str(tiny_bundle), "--version", VERSION)


@pytest.fixture(scope="session")
def golden(tiny_bundle: Path) -> list[dict[str, Any]]:
    questions: list[dict[str, Any]] = json.loads((tiny_bundle / "golden.json").read_text())[
        "questions"
    ]
    return questions


@pytest.fixture(scope="session")
def questions(golden: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Up to three golden instances of each model."""
    questions: dict[str, list[dict[str, Any]]] = {}
    for question in golden:
        questions.setdefault(question["model"], []).append(question["instance"])
    return {model: instances[:3] for model, instances in questions.items()}


@pytest.fixture(scope="session")
def session(tiny_bundle: Path) -> Any:
    from tasteloop.runtime.session import Session

    return Session.load(tiny_bundle)
