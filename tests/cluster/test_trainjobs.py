"""TrainJobs against a real API server with Trainer's CRDs: taken whole, refused where wrong,
awaited.

Trainer's controller does not run here: its status is written by the tests, as it would be.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
import yaml

from pipelines.graphs.trainjob import build_trainjob
from pipelines.settings import load_settings
from serving.cluster import trainjob
from serving.cluster.trainjob import RUN, TRAIN_JOBS, Jobs, complete_job
from tasteloop import storage
from tasteloop.encoder.worker import MODEL, SNAPSHOTS
from tasteloop.errors import TasteloopError
from tests.support.cluster.accounts import make_account

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

GOLDEN = Path(__file__).parents[1] / "golden/trainjob.yaml"


@pytest.fixture
def jobs(api: Any, namespace: str) -> Jobs:
    return Jobs(api, namespace)


def template(*options: str) -> dict[str, Any]:
    cluster = load_settings(
        "cluster", ["cluster.finetune.gpu=4", "cluster.finetune.nodes=2", *options]
    ).cluster
    assert cluster is not None
    return build_trainjob(cluster, "registry.example/tasteloop-python:1")


def report(
    jobs: Jobs, name: str, kind: str, message: str = "message", reason: str = "Reason"
) -> None:
    """What Trainer's controller would write."""
    from kubernetes.client import CustomObjectsApi

    condition = {"type": kind, "status": "True", "reason": reason, "message": message}
    status = {
        "conditions": [{**condition, "lastTransitionTime": "2026-11-25T00:00:00Z"}],
        "jobsStatus": [
            {
                "name": "node",
                **dict.fromkeys(("active", "ready", "succeeded", "failed", "suspended"), 0),
            }
        ],
    }
    CustomObjectsApi(jobs._api).patch_namespaced_custom_object_status(
        TRAIN_JOBS.group,
        TRAIN_JOBS.version,
        jobs._namespace,
        TRAIN_JOBS.plural,
        name,
        {"status": status},
    )


def test_the_golden_trainjob_is_taken_whole(jobs):
    jobs._create(yaml.safe_load(GOLDEN.read_text()))
    stored = jobs.read("tasteloop-run-0")
    assert stored["spec"]["trainer"]["numNodes"] == 2
    assert stored["metadata"]["labels"][RUN] == "run"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("trainer", "numNodes"), "two", "numNodes"),
        (("trainer", "numNodes"), -1, "numNodes"),
        (("trainer", "resourcesPerNode", "limits", "nvidia.com/gpu"), "many", "nvidia.com/gpu"),
        (("runtimeRef",), {"kind": "ClusterTrainingRuntime"}, "name"),
        (("activeDeadlineSeconds",), "a day", "activeDeadlineSeconds"),
    ],
)
def test_a_wrong_manifest_is_refused_and_nothing_begins(jobs, path, value, message):
    job = complete_job(template(), "tasteloop-wrong-0", "/place/wrong", "{}")
    inner = job["spec"] = json.loads(json.dumps(job["spec"]))
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(TasteloopError, match=rf"refuses the TrainJob: .*{message}"):
        jobs._create(job)
    assert jobs.read("tasteloop-wrong-0") is None


def test_what_an_older_trainer_would_drop_is_not_ignored(jobs):
    job = complete_job(template(), "tasteloop-old-0", "/place/old", "{}")
    job["spec"] = {
        **job["spec"],
        "podTemplateOverrides": [],
    }  # a field that this one does not know, as an older patches
    with pytest.raises(
        TasteloopError, match=r"would drop spec\.podTemplateOverrides without a word.*2\.2"
    ):
        jobs._create(job)
    assert jobs.read("tasteloop-old-0") is None


def test_a_step_finds_its_job_again_and_begins_the_next_after_a_failed_one(jobs, tmp_path):
    place = f"{tmp_path}/Run_1"
    first = jobs.submit(template(), place, "{}")
    assert first == "tasteloop-run-1-0"
    assert jobs.submit(template(), place, "{}") == first
    report(jobs, first, "Failed", "a pod was lost")
    second = jobs.submit(template(), place, "{}")
    assert second == "tasteloop-run-1-1"
    report(jobs, second, "Complete")
    (tmp_path / "Run_1" / MODEL).mkdir(parents=True)
    assert jobs.submit(template(), place, "{}") == second, "its model is to be taken"
    storage.discard(f"{place}/{MODEL}")
    assert jobs.submit(template(), place, "{}") == "tasteloop-run-1-2", (
        "its model was taken and is gone"
    )


def test_waiting_ends_with_the_job_and_says_why_it_failed(jobs, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    name = jobs.submit(template(), f"{tmp_path}/a", "{}")
    with pytest.raises(
        TasteloopError, match=r"not complete within 0 s: the Trainer has not seen it yet"
    ):
        jobs.wait(name, 0, 0.1)
    report(jobs, name, "Suspended", "waits for its queue")
    with pytest.raises(
        TasteloopError, match="not complete within 1 s: Suspended: waits for its queue; node waits"
    ):
        jobs.wait(name, 1, 0.1)
    Timer(1, report, (jobs, name, "Complete", "jobset completed")).start()
    jobs.wait(name, 30, 0.1)
    report(jobs, name, "Failed", "jobset failed due to one or more job failures", "JobsFailed")
    with pytest.raises(
        TasteloopError,
        match=rf"failed: JobsFailed: jobset failed due .*kubectl logs -n {jobs._namespace} .*={name} ",
    ):
        jobs.wait(name, 30, 0.1)
    with pytest.raises(TasteloopError, match="is gone"):
        jobs.wait("tasteloop-a-7", 30, 0.1)


def test_a_lost_server_is_waited_for(jobs, tmp_path, monkeypatch, caplog):
    """A connection that is refused twice is no end of the waiting."""
    from kubernetes.client import ApiClient, Configuration

    caplog.set_level(logging.INFO)
    name = jobs.submit(template(), f"{tmp_path}/a", "{}")
    report(jobs, name, "Complete")
    nowhere = Configuration()
    nowhere.host, nowhere.retries = "http://127.0.0.1:1", False
    reachable, jobs._api = jobs._api, ApiClient(nowhere)
    Timer(1, setattr, (jobs, "_api", reachable)).start()
    jobs.wait(name, 30, 0.1)
    assert "was lost or refused" in caplog.text


def test_the_steps_may_begin_and_look_where_the_component_is_added_and_no_more(
    api, namespace, tmp_path
):
    from kubernetes.client import ApiException, CustomObjectsApi

    bare = Jobs(make_account(api, namespace, "tasteloop-monitor"), namespace)
    with pytest.raises(TasteloopError, match="may not get trainjobs.*components/trainer"):
        bare.submit(template(), f"{tmp_path}/a", "{}")
    steps = Jobs(make_account(api, namespace, "tasteloop-steps", "trainer"), namespace)
    name = steps.submit(template(), f"{tmp_path}/a", "{}")
    assert steps.read(name) is not None
    for refused in ("delete", "patch"):
        arguments: list[Any] = [TRAIN_JOBS.group, TRAIN_JOBS.version, namespace]
        arguments += [TRAIN_JOBS.plural, name]
        if refused == "patch":
            arguments.append({})
        with pytest.raises(ApiException, match="Forbidden"):
            getattr(CustomObjectsApi(steps._api), f"{refused}_namespaced_custom_object")(*arguments)


@contextmanager
def controller(jobs: Jobs, name: str, then: Any) -> Any:
    """Does with a job that appears what it does, as Trainer would."""
    stop = False

    def look() -> None:
        if jobs.read(name) is not None:
            then()
        elif not stop:
            start()

    def start() -> None:
        Timer(0.1, look).start()

    start()
    try:
        yield
    finally:
        stop = True


def test_a_step_hands_over_the_snapshots_and_takes_the_model(
    jobs, tmp_path, kubeconfig, monkeypatch
):
    """The whole of what the step does; the worker's part is a model that is put where a worker puts
    it.
    """
    monkeypatch.setattr(trainjob, "_NAMESPACE", tmp_path / "namespace")
    (tmp_path / "namespace").write_text(jobs._namespace)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/snapshots.parquet").write_text("rows")
    place = f"memory://bucket/{tmp_path.name}/run-9"

    def work() -> None:
        assert storage.fetch(f"{place}/{SNAPSHOTS}", tmp_path / "seen")
        (tmp_path / "trained").mkdir()
        (tmp_path / "trained/training.json").write_text("{}")
        storage.send(tmp_path / "trained", f"{place}/{MODEL}")
        report(jobs, "tasteloop-run-9-0", "Complete")

    with controller(jobs, "tasteloop-run-9-0", work):
        trainjob.run(
            json.dumps(template()), tmp_path / "in", '{"epochs": 1}', tmp_path / "out", place
        )
    assert (tmp_path / "seen/snapshots.parquet").read_text() == "rows"
    assert (tmp_path / "out/training.json").is_file()
    assert not storage.exists(f"{place}/{MODEL}") and not storage.exists(f"{place}/{SNAPSHOTS}")
    args = jobs.read("tasteloop-run-9-0")["spec"]["trainer"]["args"]
    assert args == ["--place", place, "--settings", '{"epochs": 1}']
