"""TrainJobs against a stand-in for Trainer's webhook and controller, in memory."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from pipelines.graphs.trainjob import build_trainjob
from pipelines.settings import load_settings
from serving.cluster.trainjob import Jobs
from tests.support.cluster import trainer
from tests.support.cluster.memory import MemoryApi

RUN = str(uuid.UUID(int=2**127))  # what Pipelines calls a run


@pytest.fixture
def client() -> MemoryApi:
    client = MemoryApi()
    client.admission.append(trainer.admit)
    return client


def template(*options: str, nodes: int = 2) -> dict[str, Any]:
    settings = ["cluster.finetune.gpu=4", f"cluster.finetune.nodes={nodes}", *options]
    cluster = load_settings("cluster", settings).cluster
    assert cluster is not None
    return build_trainjob(cluster, "registry.example/tasteloop-python:1")


@pytest.mark.parametrize("run", ["run", RUN, "a-run-with-a-name-" + "of-many-words-" * 5])
@pytest.mark.parametrize("nodes", [2, 12, 300])
def test_the_pods_of_any_run_get_their_names(client, run, nodes):
    controller = trainer.Trainer(client)
    jobs = Jobs(client, "default")
    name = jobs.submit(template(nodes=nodes), f"s3://bucket/checkpoints/{run}", "{}")
    controller.reconcile()
    assert controller.events == []
    assert jobs.read(name)["status"]["jobsStatus"][0]["active"] == 1


def test_runs_that_begin_alike_have_jobs_of_their_own_and_each_finds_its_own_again(client):
    jobs = Jobs(client, "default")
    places = [f"s3://bucket/{'x' * 60}{end}" for end in "ab"]
    names = [jobs.submit(template(), place, "{}") for place in places]
    assert len(set(names)) == 2
    assert [jobs.submit(template(), place, "{}") for place in places] == names


def test_what_the_webhook_adds_or_writes_otherwise_is_nothing_dropped(client):
    options = ("cluster.finetune.cpu=4000m", "cluster.finetune.memory=16384Mi")
    name = Jobs(client, "default").submit(template(*options), "s3://bucket/run", "{}")
    spec = Jobs(client, "default").read(name)["spec"]
    requests = spec["trainer"]["resourcesPerNode"]["requests"]
    assert (requests["cpu"], requests["memory"]) == ("4", "16Gi")
    assert spec["runtimePatches"][0]["time"]
