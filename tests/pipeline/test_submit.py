"""`tasteloop submit` through the real SDK, to a server that holds every body against the API's own description."""

from __future__ import annotations

import json
import socket

import pytest
import yaml
from homes import movielens, settings
from kubeflow import Kubeflow, Refused, check, parse, serving

from pipelines.cli import main
from pipelines.settings import load
from pipelines.submit import Server, submit
from pipelines.training import NAME, compile_to
from tasteloop.errors import TasteloopError


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path):
    """No server, token or namespace of whoever runs the tests."""
    for name in (
        "KF_PIPELINES_ENDPOINT",
        "KF_PIPELINES_SA_TOKEN_PATH",
        "KF_PIPELINES_UI_ENDPOINT",
        "MLFLOW_TRACKING_URI",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("kfp.client.client.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setenv("TASTELOOP_IMAGE", "registry.example/tasteloop-python:1")


@pytest.fixture
def kubeflow():
    state = Kubeflow()
    with serving(state) as host:
        state.host = host
        yield state


def test_a_graph_is_uploaded_once_and_run_each_time(kubeflow):
    server = Server(kubeflow.host)
    one = submit(load("cluster"), server, "nightly")
    other = submit(load("cluster"), server, "nightly")
    assert (one["version"], one["experiment"]) == (other["version"], other["experiment"])
    assert one["run"] != other["run"]
    assert one["page"] == f"{kubeflow.host}/#/runs/details/{one['run']}"
    assert [p["display_name"] for p in kubeflow.made["pipelines"].values()] == [NAME]
    assert len(kubeflow.made["versions"]) == 1 and len(kubeflow.made["runs"]) == 2
    run = kubeflow.made["runs"][one["run"]]
    assert run["pipeline_version_reference"]["pipeline_version_id"] == one["version_id"]
    assert run["service_account"] == "tasteloop-steps"
    changed = submit(load("cluster", ["cluster.finetune.gpu=2"]), server, "nightly")
    assert changed["version"] != one["version"] and len(kubeflow.made["versions"]) == 2


def test_the_object_store_is_the_runs_root(kubeflow):
    told = submit(load("cluster", ["cluster.root=s3://bucket/runs"]), Server(kubeflow.host), "e")
    assert kubeflow.made["runs"][told["run"]]["runtime_config"]["pipeline_root"] == "s3://bucket/runs"
    assert "defaultPipelineRoot: s3://bucket/runs" in kubeflow.graphs[told["version_id"]]


def test_waiting_tells_each_state_and_how_it_ended(kubeflow):
    said = []
    told = submit(load("cluster"), Server(kubeflow.host), "e", wait=0.01, say=said.append)
    assert told["state"] == "SUCCEEDED" and said[-1] == "succeeded"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_did_not_succeed_is_exit_code_1(kubeflow, monkeypatch, capsys, state):
    kubeflow.ends = state
    monkeypatch.setattr("sys.argv", ["tasteloop", "submit", "--host", kubeflow.host, "--wait", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code == 1 and state.lower() in err
    assert json.loads(out)["state"] == state  # and nothing but JSON, though the SDK prints links


def test_a_schedule_is_made_once_and_replaced_when_it_changes(kubeflow):
    server = Server(kubeflow.host)
    one = submit(load("cluster"), server, "e", cron="0 2 * * *")
    assert one["cron"] == "0 0 2 * * *"
    assert submit(load("cluster"), server, "e", cron="0 2 * * *")["schedule"] == one["schedule"]
    made = kubeflow.made["recurringruns"][one["schedule"]]
    assert (made["mode"], made["max_concurrency"], made["no_catchup"]) == ("ENABLE", "1", True)
    other = submit(load("cluster"), server, "e", cron="0 3 * * *")
    newer = submit(load("cluster", ["cluster.finetune.gpu=2"]), server, "e", cron="0 3 * * *")
    assert len({one["schedule"], other["schedule"], newer["schedule"]}) == 3
    assert list(kubeflow.made["recurringruns"]) == [newer["schedule"]]
    assert not kubeflow.made["runs"]


@pytest.mark.parametrize("cron", ["", "* * * *", "nightly", "0 2 * * * * *", "0 2 * * $(x)"])
def test_a_schedule_that_is_none_is_refused_before_anything_is_sent(kubeflow, cron):
    if not cron:
        cron = " "
    with pytest.raises(TasteloopError, match="five fields"):
        submit(load("cluster"), Server(kubeflow.host), "e", cron=cron)
    assert not kubeflow.asked


def test_a_namespace_goes_along_where_there_are_several_users(kubeflow):
    kubeflow.multi_user = True
    told = submit(load("cluster"), Server(kubeflow.host, "alice"), "e")
    assert kubeflow.made["experiments"][told["experiment"]]["namespace"] == "alice"
    with pytest.raises(TasteloopError, match="Namespace is empty"):
        submit(load("cluster"), Server(kubeflow.host), "other")


def test_a_token_is_read_from_the_file_that_the_sdk_names(kubeflow, monkeypatch, tmp_path):
    kubeflow.token = "a-token-of-a-service-account"
    with pytest.raises(TasteloopError, match="401 Unauthenticated; .*KF_PIPELINES_SA_TOKEN_PATH"):
        submit(load("cluster"), Server(kubeflow.host), "e")
    (tmp_path / "token").write_text(kubeflow.token)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert submit(load("cluster"), Server(kubeflow.host), "e")["run"]
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(TasteloopError, match="KF_PIPELINES_SA_TOKEN_PATH"):
        submit(load("cluster"), Server(kubeflow.host), "e")


def test_a_server_that_is_not_there_is_one_sentence(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(TasteloopError, match="does not answer .*port-forward"):
        submit(load("cluster"), Server(host), "e")


def test_settings_for_one_machine_are_not_submitted(kubeflow):
    with pytest.raises(TasteloopError, match="--profile cluster"):
        submit(load("local"), Server(kubeflow.host), "e")


def test_the_server_refuses_what_the_api_does_not_know(tmp_path):
    """That the tests above could fail."""
    with pytest.raises(Refused, match="unknown field 'displayname'"):
        check("V2beta1Run", {"displayname": "x"})
    with pytest.raises(Refused, match="mode"):
        check("V2beta1RecurringRun", {"mode": "MAYBE"})
    with pytest.raises(Refused, match="bool expected"):
        check("V2beta1RecurringRun", {"no_catchup": "yes"})
    compile_to(load("cluster"), tmp_path / "g.yaml")
    spec, platform = yaml.safe_load_all((tmp_path / "g.yaml").read_text())
    assert len(parse(yaml.safe_dump_all([spec, platform]))) == 2
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors["exec-finetune"]["gpuType"] = "A100"
    with pytest.raises(Refused, match="gpuType"):
        parse(yaml.safe_dump_all([spec, platform]))
    spec["deploymentSpec"]["executors"]["exec-finetune"]["container"]["gpu"] = 1
    with pytest.raises(Refused, match="gpu"):
        parse(yaml.safe_dump(spec))


@pytest.mark.slow
def test_what_was_submitted_runs_to_a_promoted_version(tmp_path, tiny_encoder, monkeypatch):
    """The server executes the uploaded graph itself, step by step in processes of their own."""
    from serving.registry import champion

    state = Kubeflow(tmp_path)
    small = settings(
        ingest__behaviour=str(movielens(tmp_path / "data")), ingest__reviews=None, prepare__horizon=5,
        training__encoder=str(tiny_encoder), training__epochs=1,
        gate__floors={"interests.micro_f1": 0.01}, gate__beats=[], gate__ceilings={}, gate__required_slices=[],
        cluster__mount=str(tmp_path / "mount"), cluster__tracking=None, cluster__secrets={},
    )[1::2]  # fmt: skip
    with serving(state) as host:
        told = submit(load("cluster", small), Server(host), "e", wait=0.5)
    assert told["state"] == "SUCCEEDED", state.log[-3000:]
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "mount" / "home"))
    assert champion() is not None, state.log[-3000:]
