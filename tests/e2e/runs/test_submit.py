"""`tasteloop submit` through the real SDK, to a server that holds every body against the API's own
description.
"""

from __future__ import annotations

import json
import socket

import pytest
import yaml
from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

from pipelines.cli.app import main
from pipelines.graphs.compile import compile_to
from pipelines.graphs.submit import PipelineServer, arguments, read_argument, submit
from pipelines.graphs.training import NAME
from pipelines.settings import CONFIGS, load_settings
from tasteloop.errors import TasteloopError
from tasteloop.files import read_parquet, write_parquet
from tests.support.homes import movielens, settings
from tests.support.kubeflow import Kubeflow, Refused, check, check_parameters, parse, serving
from tests.support.turning import chosen, turned
from validation.monitor.ledger import Ledger

pytestmark = pytest.mark.usefixtures("quick_graphs")


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
    monkeypatch.setattr(
        "kfp.client.client.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json")
    )
    monkeypatch.setenv("TASTELOOP_IMAGE", "registry.example/tasteloop-python:1")


@pytest.fixture
def kubeflow():
    state = Kubeflow()
    with serving(state) as host:
        state.host = host
        yield state


def test_a_graph_is_uploaded_once_and_run_each_time(kubeflow):
    server = PipelineServer(kubeflow.host)
    one = submit(load_settings("cluster"), server, "nightly")
    other = submit(load_settings("cluster"), server, "nightly")
    assert (one["version"], one["experiment"]) == (other["version"], other["experiment"])
    assert one["run"] != other["run"]
    assert one["page"] == f"{kubeflow.host}/#/runs/details/{one['run']}"
    assert [p["display_name"] for p in kubeflow.resources["pipelines"].values()] == [NAME]
    assert len(kubeflow.resources["versions"]) == 1 and len(kubeflow.resources["runs"]) == 2
    run = kubeflow.resources["runs"][one["run"]]
    assert run["pipeline_version_reference"]["pipeline_version_id"] == one["version_id"]
    assert run["service_account"] == "tasteloop-steps"
    changed = submit(load_settings("cluster", ["cluster.finetune.gpu=2"]), server, "nightly")
    assert changed["version"] != one["version"] and len(kubeflow.resources["versions"]) == 2


def test_the_object_store_is_the_runs_root(kubeflow):
    told = submit(
        load_settings("cluster", ["cluster.root=s3://bucket/runs"]),
        PipelineServer(kubeflow.host),
        "e",
    )
    assert (
        kubeflow.resources["runs"][told["run"]]["runtime_config"]["pipeline_root"]
        == "s3://bucket/runs"
    )
    assert "defaultPipelineRoot: s3://bucket/runs" in kubeflow.graphs[told["version_id"]]


def test_waiting_tells_each_state_and_how_it_ended(kubeflow):
    said = []
    told = submit(
        load_settings("cluster"), PipelineServer(kubeflow.host), "e", wait=0.01, say=said.append
    )
    assert told["state"] == "SUCCEEDED" and said[-1] == "succeeded"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_did_not_succeed_is_exit_code_1(kubeflow, monkeypatch, capsys, state):
    kubeflow.ends = state
    monkeypatch.setattr(
        "sys.argv", ["tasteloop", "submit", "--host", kubeflow.host, "--wait", "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code == 1 and state.lower() in err
    assert json.loads(out)["state"] == state  # and nothing but JSON, though the SDK prints links


def test_a_schedule_is_made_once_and_replaced_when_it_changes(kubeflow):
    server = PipelineServer(kubeflow.host)
    one = submit(load_settings("cluster"), server, "e", cron="0 2 * * *")
    assert one["cron"] == "0 0 2 * * *"
    assert (
        submit(load_settings("cluster"), server, "e", cron="0 2 * * *")["schedule"]
        == one["schedule"]
    )
    made = kubeflow.resources["recurringruns"][one["schedule"]]
    assert (made["mode"], made["max_concurrency"], made["no_catchup"]) == ("ENABLE", "1", True)
    other = submit(load_settings("cluster"), server, "e", cron="0 3 * * *")
    newer = submit(
        load_settings("cluster", ["cluster.finetune.gpu=2"]), server, "e", cron="0 3 * * *"
    )
    assert len({one["schedule"], other["schedule"], newer["schedule"]}) == 3
    assert list(kubeflow.resources["recurringruns"]) == [newer["schedule"]]
    assert not kubeflow.resources["runs"]


@pytest.mark.parametrize("cron", ["", "* * * *", "nightly", "0 2 * * * * *", "0 2 * * $(x)"])
def test_a_schedule_that_is_none_is_refused_before_anything_is_sent(kubeflow, cron):
    if not cron:
        cron = " "
    with pytest.raises(TasteloopError, match="five fields"):
        submit(load_settings("cluster"), PipelineServer(kubeflow.host), "e", cron=cron)
    assert not kubeflow.requests


def test_a_namespace_goes_along_where_there_are_several_users(kubeflow):
    kubeflow.multi_user = True
    told = submit(load_settings("cluster"), PipelineServer(kubeflow.host, "alice"), "e")
    assert kubeflow.resources["experiments"][told["experiment"]]["namespace"] == "alice"
    with pytest.raises(TasteloopError, match="Namespace is empty"):
        submit(load_settings("cluster"), PipelineServer(kubeflow.host), "other")


def test_a_token_is_read_from_the_file_that_the_sdk_names(kubeflow, monkeypatch, tmp_path):
    kubeflow.token = "a-token-of-a-service-account"
    with pytest.raises(TasteloopError, match="401 Unauthenticated; .*KF_PIPELINES_SA_TOKEN_PATH"):
        submit(load_settings("cluster"), PipelineServer(kubeflow.host), "e")
    (tmp_path / "token").write_text(kubeflow.token)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert submit(load_settings("cluster"), PipelineServer(kubeflow.host), "e")["run"]
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(TasteloopError, match="KF_PIPELINES_SA_TOKEN_PATH"):
        submit(load_settings("cluster"), PipelineServer(kubeflow.host), "e")


def test_a_server_that_is_not_there_is_one_sentence(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(TasteloopError, match="does not answer .*port-forward"):
        submit(load_settings("cluster"), PipelineServer(host), "e")


def test_settings_for_one_machine_are_not_submitted(kubeflow):
    with pytest.raises(TasteloopError, match="--profile cluster"):
        submit(load_settings("local"), PipelineServer(kubeflow.host), "e")


def test_the_server_refuses_what_the_api_does_not_know(tmp_path):
    """That the tests above could fail."""
    with pytest.raises(Refused, match="unknown field 'displayname'"):
        check("V2beta1Run", {"displayname": "x"})
    with pytest.raises(Refused, match="mode"):
        check("V2beta1RecurringRun", {"mode": "MAYBE"})
    with pytest.raises(Refused, match="bool expected"):
        check("V2beta1RecurringRun", {"no_catchup": "yes"})
    compile_to(load_settings("cluster"), tmp_path / "g.yaml")
    spec, platform = yaml.safe_load_all((tmp_path / "g.yaml").read_text())
    assert len(parse(yaml.safe_dump_all([spec, platform]))) == 2
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors["exec-finetune"]["gpuType"] = "A100"
    with pytest.raises(Refused, match="gpuType"):
        parse(yaml.safe_dump_all([spec, platform]))
    spec["deploymentSpec"]["executors"]["exec-finetune"]["container"]["gpu"] = 1
    with pytest.raises(Refused, match="gpu"):
        parse(yaml.safe_dump(spec))


@pytest.mark.parametrize("value", ["5", True, None])
def test_the_server_refuses_a_parameter_that_is_not_of_its_type(value):
    parameters = {"k": {"parameterType": "NUMBER_INTEGER"}}
    graph = yaml.safe_dump(
        {"root": {"inputDefinitions": {"parameters": parameters}}, "deploymentSpec": {}}
    )
    check_parameters(graph, {"runtime_config": {"parameters": {"k": 5}}})
    with pytest.raises(Refused, match="requires type NUMBER_INTEGER"):
        check_parameters(graph, {"runtime_config": {"parameters": {"k": value}}})
    with pytest.raises(Refused, match="k is not optional"):
        check_parameters(graph, {})


def test_the_monitor_comes_back_on_its_schedule(kubeflow):
    server = PipelineServer(kubeflow.host)
    one = submit(load_settings("cluster"), server, "e", cron="0 0 * * * *", pipeline="monitoring")
    nightly = submit(load_settings("cluster"), server, "e", cron="0 2 * * *")
    assert one["version"].startswith("tasteloop-monitoring-") and one["cron"] == "0 0 * * * *"
    # neither replaces the other
    assert set(kubeflow.resources["recurringruns"]) == {one["schedule"], nightly["schedule"]}
    made = kubeflow.resources["recurringruns"][one["schedule"]]
    assert (made["max_concurrency"], made["no_catchup"], made["service_account"]) == (
        "1",
        True,
        "tasteloop-steps",
    )
    assert {p["display_name"] for p in kubeflow.resources["pipelines"].values()} == {
        NAME,
        "tasteloop-monitoring",
    }


def test_parameters_are_those_of_the_pipeline_and_a_schedule_knows_them(kubeflow):
    server, asked = (
        PipelineServer(kubeflow.host),
        arguments(["events=s3://bucket/events.parquet", "k=5"]),
    )

    def nightly(given):
        return submit(
            load_settings("cluster"),
            server,
            "e",
            cron="0 2 * * *",
            pipeline="scoring",
            arguments=given,
        )["schedule"]

    told = submit(load_settings("cluster"), server, "e", pipeline="scoring", arguments=asked)
    run = kubeflow.resources["runs"][told["run"]]
    assert run["runtime_config"]["parameters"] == {"events": "s3://bucket/events.parquet", "k": 5}
    assert nightly(asked) == nightly(asked) != nightly({**asked, "k": 10})
    before = len(kubeflow.requests)
    for given, match in (
        ({}, "needs events: --argument"),
        ({**asked, "modle": "x"}, "no parameter 'modle'; it has"),
    ):
        with pytest.raises(TasteloopError, match=match):
            submit(load_settings("cluster"), server, "e", pipeline="scoring", arguments=given)
    with pytest.raises(TasteloopError, match="known: training, monitoring, scoring"):
        submit(load_settings("cluster"), server, "e", pipeline="monitor")
    with pytest.raises(TasteloopError, match="KEY=VALUE"):
        arguments(["events"])
    assert len(kubeflow.requests) == before


@pytest.mark.parametrize("written", ["*.parquet", "0123", "on", "&a", "[", "2026-03-02", "a=b"])
def test_text_goes_out_as_it_was_written(kubeflow, written):
    asked = arguments([f"events={written}"])

    told = submit(
        load_settings("cluster"),
        PipelineServer(kubeflow.host),
        "e",
        pipeline="scoring",
        arguments=asked,
    )

    assert kubeflow.resources["runs"][told["run"]]["runtime_config"]["parameters"] == {
        "events": written
    }


@pytest.mark.parametrize(
    "k",
    ["ten", "0123", "1.5", "true", "1e400", "NaN", "null", "9" * 5000, "[" * 100_000, str(2**63)],
)
def test_an_argument_that_is_not_of_its_parameters_type_is_refused_before_anything_is_sent(
    kubeflow, k
):
    asked = arguments(["events=a", f"k={k}"])

    with pytest.raises(
        TasteloopError, match=r"^--argument k=.{1,50}: k is a whole number of 64 bits, such as 10$"
    ):
        submit(
            load_settings("cluster"),
            PipelineServer(kubeflow.host),
            "e",
            pipeline="scoring",
            arguments=asked,
        )
    with pytest.raises(TasteloopError, match="events is there twice"):
        arguments(["events=a", "events=b"])
    assert not kubeflow.requests


@pytest.mark.parametrize(
    ("parameter_type", "written", "value"),
    [
        ("STRING", "true", "true"),
        ("NUMBER_INTEGER", "-7", -7),
        ("NUMBER_DOUBLE", "0.5", 0.5),
        ("NUMBER_DOUBLE", "1e400", None),
        ("NUMBER_DOUBLE", "NaN", None),
        ("BOOLEAN", "true", True),
        ("BOOLEAN", "yes", None),
        ("BOOLEAN", "1", None),
        ("LIST", '["a", 1]', ["a", 1]),
        ("LIST", "a", None),
        ("STRUCT", '{"a": 1}', {"a": 1}),
        ("STRUCT", "[]", None),
    ],
)
def test_every_type_of_a_parameter_is_read_as_json_writes_it(parameter_type, written, value):
    kind = ParameterType.ParameterTypeEnum.Value(parameter_type)

    if value is None:
        with pytest.raises(TasteloopError, match="--argument x="):
            read_argument("x", written, kind)
    else:
        assert read_argument("x", written, kind) == value


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:8O80", "127.0.0.1:8888", "http://[", "ftp://example"]
)
def test_a_host_that_is_no_address_is_refused(host):
    with pytest.raises(TasteloopError, match="--host .* is no address of a server"):
        submit(load_settings("cluster"), PipelineServer(host), "e")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_was_submitted_trains_scores_and_is_monitored(tmp_path, tiny_encoder, monkeypatch):
    """The server executes the uploaded graphs itself, step by step in processes of their own."""
    from serving.release.registry import champion

    state, home = Kubeflow(tmp_path), tmp_path / "mount" / "home"
    monkeypatch.setenv("TASTELOOP_HOME", str(home))
    profile = tmp_path / "small.yaml"
    profile.write_text(
        yaml.safe_dump(yaml.safe_load((CONFIGS / "smoke.yaml").read_text()) | {"cluster": {}})
    )
    small = [
        *chosen(movielens(tmp_path / "data", users=80, each=30))[1::2],
        *settings(training__encoder=str(tiny_encoder), cluster__mount=str(tmp_path / "mount"))[
            1::2
        ],
    ]

    def run(pipeline, **given):
        told = submit(
            load_settings(str(profile), small),
            PipelineServer(host),
            "e",
            wait=0.5,
            pipeline=pipeline,
            arguments=given,
        )
        assert told["state"] == "SUCCEEDED", state.log[-3000:]
        return champion()

    with serving(state) as host:
        first = run("training")
        assert first is not None, state.log[-3000:]
        assert (
            run(
                "scoring",
                events=str(home / "monitor" / "data" / first.digest / "dataset" / "events.parquet"),
            )
            == first
        )
        (answers,) = tmp_path.rglob("score/answers/answers.parquet")
        assert read_parquet(answers)["user"].n_unique() == 80

        write_parquet(home / "incoming" / "a.parquet", turned())  # all want horror now
        live = run("monitoring")
    (entry,) = [e for e in Ledger(home / "monitor").history() if e.outcome == "retrain"]
    assert entry.result == "promoted", f"{entry}\n{state.log[-5000:]}"
    assert live.version == entry.version == "2" and live.digest != first.digest
    (watched,) = [json.loads(p.read_text()) for p in tmp_path.rglob("watched") if p.is_file()]
    assert watched["outcome"] == "retrain" and watched["windows"][-1] == entry.window
