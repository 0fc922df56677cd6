"""How often Argo tries a step again, by what the compiled graph says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.graphs.compile import GRAPHS, compile_to
from pipelines.settings import load_settings
from tests.support.kubeflow import count_retries

pytestmark = pytest.mark.usefixtures("quick_graphs")

RETRIES = 2


def read_policies(path: Path) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Each task that is retried, with its policy and the seconds that one try may take."""
    graph, platform = yaml.safe_load_all(path.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for component in (graph["root"], *graph["components"].values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            if "retryPolicy" in task:
                executor = graph["components"][task["componentRef"]["name"]]["executorLabel"]
                seconds = int(executors[executor]["activeDeadlineSeconds"])
                yield task["taskInfo"]["name"], task["retryPolicy"], seconds


@pytest.mark.parametrize("name", GRAPHS)
def test_a_try_that_takes_all_its_time_is_followed_by_all_retries(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TASTELOOP_IMAGE", "registry.example/tasteloop-python@sha256:" + "0" * 64)
    settings = load_settings("cluster", [f"cluster.finetune.retries={RETRIES}"])
    compile_to(settings, tmp_path / "graph.yaml", GRAPHS[name])
    tasks = list(read_policies(tmp_path / "graph.yaml"))
    assert tasks
    assert {task: count_retries(policy, seconds) for task, policy, seconds in tasks} == {
        task: RETRIES for task, *_ in tasks
    }
