"""The graph as a cluster gets it: facts that a change must not lose."""

from __future__ import annotations

import pytest
import yaml
from kfp import components

from components.image import IMAGE, image
from pipelines.settings import load
from pipelines.training import STEPS, compile_to, training

GPU = "nvidia.com/gpu"
DECISIONS = {  # the task each condition waits for, outermost first
    "data accepted": "validate",
    "bundle is new": "champion",
    "gate passed": "gate",
    "rehearsal passed": "rehearse",
}


def compiled(tmp_path, profile="cluster", overrides=()):
    path = tmp_path / f"{profile}.yaml"
    compile_to(load(profile, overrides), path)
    return path, next(yaml.safe_load_all(path.read_text()))


def executors(graph):
    return {name.removeprefix("exec-"): e["container"] for name, e in graph["deploymentSpec"]["executors"].items()}


def tasks(graph):
    """Every task of the graph and its nested conditions, by name."""
    found = dict(graph["root"]["dag"]["tasks"])
    for component in graph["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return found


def test_kfp_loads_what_is_written(tmp_path):
    path, graph = compiled(tmp_path)
    loaded = components.load_component_from_file(str(path))
    assert loaded.pipeline_spec.pipeline_info.name == "tasteloop-training"
    assert set(executors(graph)) == {step.name for step in STEPS}


def test_the_fine_tuning_step_alone_asks_for_a_gpu_and_only_on_a_cluster(tmp_path):
    _, graph = compiled(tmp_path)
    asked = {name: c["resources"] for name, c in executors(graph).items() if "resources" in c}
    assert set(asked) == {"finetune"}
    assert asked["finetune"]["accelerator"]["resourceType"] == GPU
    assert asked["finetune"]["accelerator"]["resourceCount"] == "1"
    assert asked["finetune"]["resourceMemoryRequest"] == "16Gi"

    _, graph = compiled(tmp_path, overrides=["cluster.gpu=4", "cluster.memory=64Gi"])
    assert executors(graph)["finetune"]["resources"]["accelerator"]["resourceCount"] == "4"
    assert executors(graph)["finetune"]["resources"]["resourceMemoryLimit"] == "64Gi"

    _, graph = compiled(tmp_path, overrides=["cluster.gpu=0"])
    assert "accelerator" not in executors(graph)["finetune"]["resources"]

    _, graph = compiled(tmp_path, "local")
    assert not any("resources" in container for container in executors(graph).values())


def test_one_image_tagged_or_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("TASTELOOP_IMAGE", raising=False)
    _, graph = compiled(tmp_path)
    assert {c["image"] for c in executors(graph).values()} == {image()}
    assert image().startswith(f"{IMAGE}:")
    assert "python" in IMAGE
    monkeypatch.setenv("TASTELOOP_IMAGE", "registry.example/tasteloop-python:1")
    _, graph = compiled(tmp_path)
    assert {c["image"] for c in executors(graph).values()} == {"registry.example/tasteloop-python:1"}


@pytest.mark.parametrize(
    ("profile", "cached"),
    [
        ("cluster", {"prepare", "finetune", "fit-recommender", "evaluate"}),
        ("local", {"ingest", "prepare", "finetune", "fit-recommender", "evaluate"}),
    ],
)
def test_only_steps_that_depend_on_nothing_outside_their_inputs_are_cached(tmp_path, profile, cached):
    _, graph = compiled(tmp_path, profile)
    found = {name for name, task in tasks(graph).items() if task.get("cachingOptions", {}).get("enableCache")}
    assert {name for name in found if not name.startswith("condition-")} == cached


def test_each_decision_guards_the_next(tmp_path):
    _, graph = compiled(tmp_path)
    conditions = [task["triggerPolicy"]["condition"] for task in tasks(graph).values() if "triggerPolicy" in task]
    assert len(conditions) == len(DECISIONS)
    for task in DECISIONS.values():  # any other output's name would be taken for false by kfp's local runner
        assert sum(f"pipelinechannel--{task}-Output" in condition for condition in conditions) == 1
    promote = next(
        c["dag"]["tasks"] for c in graph["components"].values() if "promote" in c.get("dag", {}).get("tasks", {})
    )
    assert set(promote) == {"promote"}
    assert set(graph["root"]["dag"]["tasks"]) == {"ingest", "validate", "condition-1"}


def test_no_step_installs_anything_and_shells_are_thin(tmp_path):
    _, graph = compiled(tmp_path)
    for container in executors(graph).values():
        assert "pip install" not in " ".join(container["command"])
    for step in STEPS:
        source = executors(graph)[step.name]["command"][-1]
        assert "from components.step import step" in source
        assert len(source.splitlines()) < 60


def test_a_fingerprint_changes_the_first_step_and_so_all_that_follow():
    one, other = (training(load("local"), fingerprint=f).pipeline_spec for f in ("a", "b"))
    assert one.root.dag.tasks["ingest"] != other.root.dag.tasks["ingest"]
    assert one.root.dag.tasks["validate"] == other.root.dag.tasks["validate"]
