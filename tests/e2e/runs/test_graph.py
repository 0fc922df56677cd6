"""The graph as a cluster gets it: facts that a change must not lose."""

from __future__ import annotations

import json

import pytest
import yaml
from google.protobuf import json_format
from kfp import components
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig

from components.image import IMAGE, image
from pipelines.alerts import WEBHOOK
from pipelines.graphs.compile import GRAPHS, compile_to
from pipelines.graphs.training import STEPS, training
from pipelines.settings import load_settings
from tasteloop.errors import TasteloopError

pytestmark = pytest.mark.usefixtures("quick_graphs")

GPU = "nvidia.com/gpu"
DECISIONS = {  # the task each condition waits for, outermost first
    "data accepted": "validate",
    "bundle is new": "champion",
    "gate passed": "gate",
    "rehearsal passed": "rehearse",
}


def compiled(tmp_path, profile="cluster", overrides=()):
    path = tmp_path / f"{profile}.yaml"
    compile_to(load_settings(profile, overrides), path)
    return path, next(yaml.safe_load_all(path.read_text()))


def executors(graph):
    found = graph["deploymentSpec"]["executors"]
    return {
        name.removeprefix("exec-"): e["container"] for name, e in found.items() if "container" in e
    }


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


def platform(path):
    """What kfp's own message makes of the Kubernetes part, by step: a wrong field does not
    parse.
    """
    _, second = yaml.safe_load_all(path.read_text())
    found = second["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        name.removeprefix("exec-"): json_format.ParseDict(config, KubernetesExecutorConfig())
        for name, config in found.items()
    }


def test_the_fine_tuning_step_alone_asks_for_a_gpu_and_only_on_a_cluster(tmp_path):
    def accelerators(*overrides):
        _, graph = compiled(tmp_path, overrides=overrides)
        asked = {name: c["resources"].get("accelerator") for name, c in executors(graph).items()}
        return {name: (a["resourceType"], a["resourceCount"]) for name, a in asked.items() if a}

    assert accelerators() == {"finetune": (GPU, "1")}
    assert accelerators("cluster.finetune.gpu=0") == {}
    _, graph = compiled(tmp_path, "local")
    assert not any(
        "resources" in container or "env" in container for container in executors(graph).values()
    )


@pytest.mark.parametrize("asked", ["cluster.finetune.gpu=4", "cluster.finetune.nodes=2"])
def test_for_several_gpus_or_nodes_the_step_waits_for_a_trainjob_and_asks_for_no_gpu(
    tmp_path, asked
):
    def given(*overrides):
        path, graph = compiled(tmp_path, overrides=overrides)
        inputs = tasks(graph)["finetune"]["inputs"]["parameters"]
        told = {name: inputs[name].get("runtimeValue", {}).get("constant") for name in inputs}
        return told, executors(graph)["finetune"]["resources"], platform(path)["finetune"]

    told, resources, _ = given()
    assert "trainjob" not in told and "store" not in told
    assert resources["accelerator"]["resourceCount"] == "1"
    told, resources, placed = given(
        asked, "cluster.finetune.timeout=1000", "cluster.checkpoints=s3://bucket/here"
    )
    job = json.loads(told["trainjob"])
    key, value = asked.removeprefix("cluster.finetune.").split("=")
    assert job["spec"]["trainer"][{"gpu": "numProcPerNode", "nodes": "numNodes"}[key]] == int(value)
    assert job["spec"]["trainer"]["image"] == image()
    assert told["store"] == "s3://bucket/here"
    assert "accelerator" not in resources and not placed.tolerations
    assert placed.active_deadline_seconds > job["spec"]["activeDeadlineSeconds"] == 1000, (
        "else the step says nothing"
    )


def test_several_gpus_without_a_place_in_common_are_refused():
    with pytest.raises(TasteloopError, match=r"cluster\.volume.*cluster\.checkpoints"):
        load_settings("cluster", ["cluster.finetune.gpu=2", "cluster.volume=null"])
    assert load_settings(
        "cluster",
        ["cluster.finetune.gpu=2", "cluster.volume=null", "cluster.checkpoints=s3://bucket/a"],
    )


def test_every_step_says_what_it_asks_and_how_long_it_may_try(tmp_path):
    path, graph = compiled(
        tmp_path,
        overrides=[
            "cluster.heavy.memory=64Gi",
            "cluster.light.cpu=250m",
            "cluster.light.cpu_limit=1",
            "cluster.light.timeout=60",
            "cluster.light.retries=0",
            "cluster.finetune.memory=32Gi",
            "cluster.finetune.memory_limit=40Gi",
        ],
    )
    asked = {name: c["resources"] for name, c in executors(graph).items()}
    assert {name for name, r in asked.items() if r["resourceMemoryLimit"] == "64Gi"} == {
        step.name for step in STEPS if step.size == "heavy"
    }
    assert asked["finetune"]["resourceMemoryRequest"] == "32Gi"
    assert asked["finetune"]["resourceMemoryLimit"] == "40Gi"
    assert asked["promote"]["resourceCpuRequest"] == "250m"
    assert asked["promote"]["resourceCpuLimit"] == "1"
    assert "resourceCpuLimit" not in asked["evaluate"]
    retried = {
        name: t.get("retryPolicy", {}).get("maxRetryCount") for name, t in tasks(graph).items()
    }
    assert (retried["evaluate"], retried["promote"]) == (2, None)
    seconds = {name: p.active_deadline_seconds for name, p in platform(path).items()}
    assert (seconds["promote"], seconds["evaluate"], seconds["finetune"]) == (
        60,
        4 * 3600,
        24 * 3600,
    )


def test_no_step_runs_as_root_and_each_finds_its_home_and_secrets(tmp_path):
    path, graph = compiled(
        tmp_path,
        overrides=[
            "cluster.secrets={AWS_SECRET_ACCESS_KEY: store/secret}",
            "cluster.pull_secrets=[registry]",
        ],
    )
    placed = platform(path)
    assert placed.keys() == {step.name for step in STEPS}
    for name, config in placed.items():
        assert (
            config.security_context.run_as_non_root and config.security_context.run_as_user == 10001
        ), name
        assert [(v.constant, v.mount_path) for v in config.pvc_mount] == [
            ("tasteloop-home", "/var/lib/tasteloop")
        ]
        (secret,) = config.secret_as_env
        assert (secret.secret_name, secret.key_to_env[0].secret_key) == ("store", "secret")
        assert secret.key_to_env[0].env_var == "AWS_SECRET_ACCESS_KEY"
        assert [s.secret_name for s in config.image_pull_secret] == ["registry"]
    for container in executors(graph).values():
        env = {e["name"]: e["value"] for e in container["env"]}
        assert env["TASTELOOP_HOME"] == "/var/lib/tasteloop/home"
        assert env["MLFLOW_TRACKING_URI"] == load_settings("cluster").cluster.tracking

    path, _ = compiled(tmp_path, overrides=["cluster.volume=null"])
    for config in platform(path).values():
        assert not config.pvc_mount
        assert [v.mount_path for v in config.empty_dir_mounts] == ["/var/lib/tasteloop"]


def test_a_step_goes_to_the_nodes_that_are_named(tmp_path):
    path, _ = compiled(
        tmp_path,
        overrides=[
            "cluster.finetune.node_selector={nvidia.com/gpu.product: NVIDIA-A100-SXM4-40GB}",
            "cluster.heavy.tolerations=[{key: batch, operator: Equal, value: 'yes', effect: NoExecute}]",
        ],
    )
    placed = platform(path)
    assert dict(placed["finetune"].node_selector.labels) == {
        "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"
    }
    assert [(t.key, t.operator, t.effect) for t in placed["finetune"].tolerations] == [
        (GPU, "Exists", "NoSchedule")
    ]
    assert [(t.key, t.value, t.effect) for t in placed["prepare"].tolerations] == [
        ("batch", "yes", "NoExecute")
    ]
    assert not placed["promote"].tolerations and not placed["promote"].node_selector.labels


def test_a_killed_fine_tuning_resumes_in_its_own_run_only(tmp_path):
    _, graph = compiled(tmp_path)
    given = tasks(graph)["finetune"]["inputs"]["parameters"]["checkpoints"]["runtimeValue"][
        "constant"
    ]
    assert given == "{{$.pipeline_job_uuid}}"


def test_one_image_tagged_or_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("TASTELOOP_IMAGE", raising=False)
    _, graph = compiled(tmp_path)
    assert {c["image"] for c in executors(graph).values()} == {image()}
    assert image().startswith(f"{IMAGE}:")
    assert "python" in IMAGE
    monkeypatch.setenv("TASTELOOP_IMAGE", "registry.example/tasteloop-python:1")
    _, graph = compiled(tmp_path)
    assert {c["image"] for c in executors(graph).values()} == {
        "registry.example/tasteloop-python:1"
    }


@pytest.mark.parametrize(
    ("profile", "cached"),
    [
        ("cluster", {"prepare", "finetune", "fit-recommender", "evaluate"}),
        ("local", {"ingest", "prepare", "finetune", "fit-recommender", "evaluate"}),
    ],
)
def test_only_steps_that_depend_on_nothing_outside_their_inputs_are_cached(
    tmp_path, profile, cached
):
    _, graph = compiled(tmp_path, profile)
    found = {
        name
        for name, task in tasks(graph).items()
        if task.get("cachingOptions", {}).get("enableCache")
    }
    assert {name for name in found if not name.startswith("condition-")} == cached


def test_each_decision_guards_the_next(tmp_path):
    _, graph = compiled(tmp_path)
    conditions = [
        task["triggerPolicy"]["condition"]
        for task in tasks(graph).values()
        if "triggerPolicy" in task
    ]
    assert len(conditions) == len(DECISIONS)
    # any other output's name would be taken for false by kfp's local runner
    for task in DECISIONS.values():
        assert sum(f"pipelinechannel--{task}-Output" in condition for condition in conditions) == 1
    promote = next(
        c["dag"]["tasks"]
        for c in graph["components"].values()
        if "promote" in c.get("dag", {}).get("tasks", {})
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
    one, other = (training(load_settings("local"), fingerprint=f).pipeline_spec for f in ("a", "b"))
    assert one.root.dag.tasks["ingest"] != other.root.dag.tasks["ingest"]
    assert one.root.dag.tasks["validate"] == other.root.dag.tasks["validate"]


# The graphs besides training


def other(tmp_path, name, overrides=()):
    path = tmp_path / f"{name}.yaml"
    compile_to(load_settings("cluster", overrides), path, GRAPHS[name])
    return path, next(yaml.safe_load_all(path.read_text()))


def given(graph, task="monitor"):
    return graph["root"]["dag"]["tasks"][task]["inputs"]["parameters"]["settings"]["runtimeValue"][
        "constant"
    ]


@pytest.mark.parametrize("name", ["monitoring", "scoring"])
def test_what_depends_on_the_champion_is_never_cached(tmp_path, name):
    _, graph = other(tmp_path, name, ["cluster.incoming=s3://bucket/incoming"])
    found = tasks(graph)
    assert {"importer", "monitor" if name == "monitoring" else "score"} == found.keys()
    assert not any(task["cachingOptions"].get("enableCache") for task in found.values())
    assert graph["deploymentSpec"]["executors"]["exec-importer"]["importer"]["reimport"]


def test_the_monitors_step_has_its_volumes_and_the_webhook_by_secret_only(tmp_path):
    path, graph = other(tmp_path, "monitoring")
    config = platform(path)["monitor"]
    assert config.security_context.run_as_non_root and config.security_context.run_as_user == 10001
    assert [(v.constant, v.mount_path) for v in config.pvc_mount] == [
        ("tasteloop-home", "/var/lib/tasteloop"),
        ("tasteloop-journal", "/var/lib/tasteloop/home/journal"),
    ]
    (webhook,) = [s for s in config.secret_as_env if s.key_to_env[0].env_var == WEBHOOK]
    assert (webhook.secret_name, webhook.key_to_env[0].secret_key, webhook.optional) == (
        "tasteloop",
        "webhook",
        True,
    )
    assert WEBHOOK not in str(platform(compiled(tmp_path)[0]))  # no step of a training run gets it
    assert "accelerator" not in executors(graph)["monitor"]["resources"]
    assert "pip install" not in str(executors(graph)["monitor"]["command"])
    _, graph = other(tmp_path, "monitoring", ["cluster.monitor.gpu=1"])
    assert executors(graph)["monitor"]["resources"]["accelerator"]["resourceType"] == GPU
    with pytest.raises(TasteloopError, match="readable in the graph"):
        other(tmp_path, "monitoring", ["alerts.webhook=https://example/secret"])


def test_a_pass_gets_the_settings_as_they_are_on_one_machine(tmp_path):
    _, graph = other(tmp_path, "monitoring", ["training.learning_rate=1e-5", "decision.weekly=0"])
    profile = tmp_path / "monitor.yaml"
    profile.write_text(yaml.safe_dump(json.loads(given(graph))))  # as the step does
    wanted = load_settings(
        "cluster", ["training.learning_rate=1e-5", "decision.weekly=0", "cluster=null"]
    )
    assert load_settings(str(profile)) == wanted


def test_the_file_to_score_is_a_parameter(tmp_path):
    _, graph = other(tmp_path, "scoring")
    parameters = graph["root"]["inputDefinitions"]["parameters"]
    assert parameters.keys() == {"events", "model", "k"} and not parameters["events"].get(
        "isOptional"
    )
    assert executors(graph)["score"]["resources"]["resourceMemoryLimit"] == "8Gi"
