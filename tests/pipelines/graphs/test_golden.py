"""What a cluster is given, as files beside this one, so that a reviewer sees in the diff what a
change does to it.

After a change that is meant: `make golden`, then read `git diff tests/golden`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipelines.graphs.compile import GRAPHS, compile_to
from pipelines.graphs.trainjob import build_trainjob
from pipelines.settings import load_settings
from serving.cluster.api import KubernetesObject
from serving.cluster.manifest import (
    build_front,
    build_inference_service,
    build_pod,
    build_state,
    check_settings,
)
from serving.cluster.state import Release, Slot
from serving.cluster.trainjob import complete_job

pytestmark = pytest.mark.usefixtures("quick_graphs")

GOLDEN = Path(__file__).parents[2] / "golden"
RENEW = "TASTELOOP_RENEW_GOLDEN"


def same(name: str, content: str) -> None:
    """Compare with the file of that name; write it where the environment says so."""
    path = GOLDEN / name
    if os.environ.get(RENEW):
        path.write_text(content)
    assert path.is_file() and content == path.read_text(), (
        f"{path.name} differs; where that is meant: make golden"
    )


def dump(document: KubernetesObject) -> str:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    return str(yaml.dump(document, Dumper=Plain, sort_keys=False, width=120))


@pytest.mark.parametrize("name", GRAPHS)
def test_each_graph_for_a_cluster(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TASTELOOP_IMAGE", "registry.example/tasteloop-python@sha256:" + "0" * 64)
    compile_to(load_settings("cluster"), tmp_path / f"{name}.yaml", GRAPHS[name])
    documents = list(yaml.safe_load_all((tmp_path / f"{name}.yaml").read_text()))
    documents[0]["sdkVersion"] = "kfp"  # a newer kfp is no change of ours
    same(f"{name}.yaml", yaml.safe_dump_all(documents, width=120))


def test_the_inference_service_with_a_canary():
    one, two = (
        Release(v, f"s3://models/{v}", v * 64, f"registry.example/serving@sha256:{v * 64}")
        for v in ("1", "2")
    )
    settings = check_settings("tasteloop", "tasteloop", journal="http://tasteloop-journal:8082")
    tried = Slot("b", two, build_pod(settings, two))
    state = replace(build_state(settings, one), tried=tried, percent=10, pods=1, strength=2)
    service = build_inference_service(settings, state)
    front = build_front(settings, state, {"metadata": {"name": "tasteloop", "uid": "0"}})
    same("inferenceservice.yaml", dump(service))
    same("service.yaml", dump(front))


def test_the_trainjob_of_two_nodes_with_four_gpus():
    options = [
        "cluster.finetune.gpu=4",
        "cluster.finetune.nodes=2",
        "cluster.checkpoints=s3://bucket/checkpoints",
    ]
    cluster = load_settings("cluster", options).cluster
    template = build_trainjob(cluster, "registry.example/tasteloop-python@sha256:" + "0" * 64)
    job = complete_job(template, "tasteloop-run-0", "s3://bucket/checkpoints/run", '{"epochs": 3}')
    same("trainjob.yaml", yaml.safe_dump(job, sort_keys=False, width=120))


def test_what_a_step_does_is_described_in_whole_sentences() -> None:
    from pipelines.graphs.training import STEPS

    for step in STEPS:
        assert step.summary.endswith("."), step.name
        assert "\n" not in step.summary and step.summary.count("`") % 2 == 0, step.name
