"""Real servers that follow a registry: swaps, kills, canaries, shadows, and the journal of what
they answered.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from serving.client import Client
from serving.journal.reader import read_journal
from serving.release import promotion, registry
from serving.release.rollout import current_rollout, rollout_status
from serving.release.rollout_control import abort_rollout, start_rollout
from serving.release.rollout_decision import Rules
from tasteloop import files
from tasteloop.bundle.manifest import seal
from tasteloop.errors import TasteloopError
from tests.support.processes import HOUSE, Running, run_server, when_ready

sys.path.insert(0, str(HOUSE / "benchmarks" / "serving"))
import swaps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

Questions = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def other_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with another answer to everything."""
    return swaps.variant(tiny_bundle, tmp_path_factory.mktemp("other") / "bundle")


@pytest.fixture
def home(
    tiny_bundle: Path, other_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A home whose registry has versions 1, the champion, and 2."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    assert [
        swaps.register(bundle, tmp_path, n) for n, bundle in enumerate((tiny_bundle, other_bundle))
    ] == ["1", "2"]
    swaps.promote("1")
    return tmp_path / "home"


@pytest.fixture
def start(home: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> Running:
        ready = tmp_path / f"ready{len(started)}.json"
        process = run_server(
            "--port", "0", "--grpc-port", "0", "--ready-file", str(ready), *arguments
        )
        started.append(process)
        return when_ready(process, ready)

    yield start
    for process in started:
        with process:
            process.kill()


def status(server: Running) -> dict[str, Any]:
    state: dict[str, Any] = httpx.get(f"{server.http}/v1/status", timeout=30).json()
    return state


def until(happened: Callable[[], Any], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def sentiment(server: Running, text: str = "a good film", **fields: Any) -> dict[str, Any]:
    body = {"instances": [{"text": text, **fields}]}
    response = httpx.post(f"{server.http}/v1/models/sentiment:predict", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return {
        **response.json(),
        "id": response.headers["x-request-id"],
        "token": response.headers["x-feedback-token"],
    }


def spoilt(bundle: Path, out: Path) -> Path:
    """A whole bundle that does not answer as its trainer recorded."""

    def change(questions: list[dict[str, Any]]) -> None:
        for question in questions:
            if question["model"] == "sentiment":
                question["answer"]["probability"] += 0.01

    swaps.shutil.copytree(bundle, out)
    golden = files.read_json(out / "golden.json")
    change(golden["questions"])
    files.write_json(out / "golden.json", golden)
    seal(out)
    return out


# Swaps


@pytest.mark.alone
@pytest.mark.parametrize(("mode", "count"), [((), "6"), (("--kill",), "3")], ids=["load", "kill"])
def test_every_answer_is_one_versions_whatever_happens(
    tiny_bundle: Path, mode: tuple[str, ...], count: str
) -> None:
    command = [sys.executable, "benchmarks/serving/swaps.py", "--bundle", str(tiny_bundle)]
    command += ["--swaps", count, "--clients", "2", "--json", *mode]
    ended = subprocess.run(
        command, cwd=HOUSE, capture_output=True, text=True, timeout=1100, check=False
    )
    assert ended.stdout, ended.stderr
    report = json.loads(ended.stdout)
    assert (report["errors"], report["mixed"], report["unfollowed"]) == (0, 0, 0), report[
        "examples"
    ]
    assert all(report["by_version"][version] > 0 for version in ("1", "2"))
    assert (ended.returncode, report["exit_code"]) == (0, 0)


def test_a_version_that_fails_is_refused_and_told_and_a_restart_is_no_way_in(
    start: Callable[..., Running], other_bundle: Path, tmp_path: Path
) -> None:
    server = start()
    before = sentiment(server)
    bad = swaps.register(spoilt(other_bundle, tmp_path / "spoilt"), tmp_path, 3)
    swaps.promote(bad)
    until(lambda: status(server)["refused"])
    state = status(server)
    assert (state["version"], state["refused"][0]["version"]) == ("1", bad)
    assert "served answers differ from the trainer's" in state["refused"][0]["reason"]
    again = sentiment(server)
    assert (again["predictions"], again["model_version"]) == (before["predictions"], "1")
    metrics = httpx.get(f"{server.http}/metrics").text
    assert 'tasteloop_swaps_total{outcome="refused"} 1.0' in metrics

    restarted = start()
    assert sentiment(restarted)["model_version"] == "1"

    swaps.promote("2")
    until(lambda: status(server)["version"] == "2" and status(restarted)["version"] == "2")
    assert status(server)["refused"] == []
    assert sentiment(server)["predictions"] != before["predictions"]

    promotion.rollback()  # to the version that fails
    until(lambda: status(server)["refused"])
    weights = next(registry.find("1").path.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(TasteloopError):
        promotion.rollback()
    assert status(server)["version"] == "2"


# A registry that is away


def away(server: Running) -> float:
    """What the metric says."""
    (line,) = re.findall(
        r"^tasteloop_registry_away (.*)$", httpx.get(f"{server.http}/metrics").text, re.M
    )
    return float(line)


@pytest.mark.parametrize("how", ["zero bytes", "nobody listens"])
def test_a_server_that_is_restarted_while_its_registry_is_away_serves_what_it_served(
    start: Callable[..., Running], home: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    files.write_json(home / "served.json", {"version": "1", "digest": registry.pointer()[1]})  # type: ignore[index]
    database = (home / "mlflow.db").read_bytes()
    if how == "nobody listens":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:SECRET@127.0.0.1:9")
    else:
        (home / "mlflow.db").write_bytes(b"")

    server = start()
    assert sentiment(server)["model_version"] == "1"
    state = status(server)
    assert (state["version"], away(server)) == ("1", 1.0)
    assert (
        "cannot be asked" if how == "nobody listens" else "this home has had a champion"
    ) in state["problem"]

    if how != "nobody listens":
        (home / "restored").write_bytes(database)
        (home / "restored").replace(home / "mlflow.db")
        until(lambda: status(server)["problem"] is None)
        swaps.promote("2")
        until(lambda: status(server)["version"] == "2")
        assert away(server) == 0.0
    server.process.send_signal(signal.SIGTERM)
    output, _ = server.process.communicate(timeout=60)
    assert "the champion cannot be served, version 1 is, which was before: " in output
    assert "Traceback" not in output and "SECRET" not in output


# Rollouts


def test_a_canary_keeps_its_users_and_is_promoted(
    start: Callable[..., Running], home: Path
) -> None:
    server = start()
    start_rollout("2", 0.4, rules=Rules(answers=30, shift=1, latency_ratio=100, latency_seconds=10))
    with pytest.raises(TasteloopError, match="version 2 is being rolled out"):
        start_rollout("2", 0.4)
    until(lambda: status(server)["challenger"])
    assert status(server)["challenger"] == {"version": "2", "share": 0.4, "shadow": False}
    by_user: dict[int, set[str]] = {}
    answers: dict[str, set[str]] = {}
    for _ in range(2):
        for user in range(30):
            answer = sentiment(server, user=f"user {user}")
            by_user.setdefault(user, set()).add(answer["model_version"])
            answers.setdefault(answer["model_version"], set()).add(
                json.dumps(answer["predictions"])
            )
    assert all(len(versions) == 1 for versions in by_user.values()), "a user stays with a version"
    assert 3 < sum(versions == {"2"} for versions in by_user.values()) < 25
    assert [len(answers[version]) for version in ("1", "2")] == [1, 1]
    assert answers["1"] != answers["2"]
    urls = {
        version: f"{server.http}/v2/models/sentiment/versions/{version}"
        for version in ("1", "2", "3")
    }
    assert [httpx.get(url).status_code for url in urls.values()] == [200, 200, 404]

    for user in range(200):
        if not current_rollout().running:  # type: ignore[union-attr]
            break
        sentiment(server, user=f"user {user}")
    until(lambda: status(server)["version"] == "2")
    ended = current_rollout()
    assert ended is not None and ended.state == "promoted"
    assert any("error rate 0.0000" in reason for reason in ended.reasons)
    assert registry.pointer()[0] == "2"  # type: ignore[index]
    until(lambda: status(server)["challenger"] is None)
    assert {sentiment(server, user=f"user {user}")["model_version"] for user in range(10)} == {"2"}
    journal = read_journal(home / "journal")
    assert set(journal["role"]) == {"champion", "challenger"}


def test_a_shadow_answers_nobody_and_is_compared(
    start: Callable[..., Running], questions: Questions
) -> None:
    server = start()
    start_rollout("2", 1.0, shadow=True, automatic=False)
    until(lambda: status(server)["challenger"])
    for _ in range(4):
        for model, instances in questions.items():
            body = {"instances": instances}
            answer = httpx.post(
                f"{server.http}/v1/models/{model}:predict", json=body, timeout=60
            ).json()
            assert answer["model_version"] == "1"
            time.sleep(0.1)

    def compared() -> bool:
        rollout = rollout_status()
        assert rollout is not None
        return set(rollout.observed.agreement) == set(questions)

    until(compared)
    rollout = rollout_status()
    assert rollout is not None
    observed = rollout.observed
    assert observed.champion.answers == observed.challenger.answers > 0
    assert observed.agreement["sentiment"].distance > 0.01, (
        "the other bundle's probabilities are moved"
    )
    recommended = observed.agreement["recommend"]
    assert recommended.compared > 0 and recommended.overlap < 1, "it recommends otherwise, too"
    abort_rollout()
    until(lambda: status(server)["challenger"] is None)
    assert status(server)["version"] == "1"


def test_a_challenger_that_fails_the_rehearsal_answers_nobody(
    start: Callable[..., Running], other_bundle: Path, tmp_path: Path
) -> None:
    server = start()
    bad = swaps.register(spoilt(other_bundle, tmp_path / "spoilt"), tmp_path, 3)
    start_rollout(bad, 0.5)
    until(lambda: not current_rollout().running)  # type: ignore[union-attr]
    ended = current_rollout()
    assert ended is not None and ended.state == "rolled back"
    assert "served answers differ" in ended.reasons[0]
    assert {sentiment(server, user=str(n))["model_version"] for n in range(10)} == {"1"}


def test_a_rollout_ends_where_the_champion_moved(
    start: Callable[..., Running], home: Path, tmp_path: Path
) -> None:
    server = start()
    for version in ("1", "9"):
        with pytest.raises(TasteloopError):
            start_rollout(version, 0.5)
    start_rollout("2", 0.5)
    until(lambda: status(server)["challenger"])
    swaps.promote("2")  # by hand, past the rollout
    until(lambda: current_rollout().state == "promoted")  # type: ignore[union-attr]
    until(lambda: status(server)["version"] == "2" and status(server)["challenger"] is None)


# The journal

SECRET, USER = "what nobody else should read", "ada@example.org"


def everything_in(directory: Path) -> bytes:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    lines = [
        json.dumps(pl.read_parquet(p).to_dicts()).encode() for p in paths if p.suffix == ".parquet"
    ]
    return b"".join(
        [*lines, *(path.read_bytes() for path in paths), *(str(path).encode() for path in paths)]
    )


def test_every_answer_is_in_the_journal_and_nothing_raw(
    start: Callable[..., Running], home: Path, questions: Questions
) -> None:
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    server = start("--log-level", "info")
    first = sentiment(server, SECRET, user=USER)
    events = [{"kind": "search", "text": SECRET}, {"kind": "click", "item": "i1"}]
    instances = [{"events": events, "user": USER, "k": 3}, {"events": []}]
    ranked = httpx.post(
        f"{server.http}/v1/models/recommend:predict",
        json={"instances": instances},
        headers={"x-request-id": "mine"},
    )
    assert (ranked.status_code, ranked.headers["x-request-id"]) == (200, "mine")
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "data": [SECRET, "other"]}
    over_v2 = httpx.post(
        f"{server.http}/v2/models/sentiment/infer",
        json={"inputs": [tensor], "parameters": {"user": USER}},
    )
    assert over_v2.status_code == 200, over_v2.text
    with grpc.insecure_channel(server.grpc) as channel:
        contents = pb.InferTensorContents(
            bytes_contents=[json.dumps({"events": events, "user": USER}).encode()]
        )
        tensors = [
            pb.ModelInferRequest.InferInputTensor(
                name="events", datatype="BYTES", shape=[1], contents=contents
            )
        ]
        _, call = GRPCInferenceServiceStub(channel).ModelInfer.with_call(
            pb.ModelInferRequest(model_name="interests", inputs=tensors)
        )
    over_grpc = dict(call.trailing_metadata())
    refused = httpx.post(
        f"{server.http}/v1/models/sentiment:predict", json={"instances": [{"text": "a", "user": 3}]}
    )
    assert (refused.status_code, "instances[0].user" in refused.text) == (400, True)

    another = httpx.post(  # another user who chose the same id
        f"{server.http}/v1/models/sentiment:predict",
        json={"instances": [{"text": "other", "user": "bob"}]},
        headers={"x-request-id": "mine"},
    )
    assert another.headers["x-feedback-token"] != ranked.headers["x-feedback-token"]
    stranger = {"request": "mine", "kind": "click", "item": "i2"}
    for token in (None, first["token"], over_v2.headers["x-feedback-token"]):
        refused = httpx.post(
            f"{server.http}/v1/feedback", json={"feedback": [{**stranger, "token": token}]}
        )
        assert (refused.status_code, "token is none that came with" in refused.text) == (400, True)
    feedback = [
        {
            "request": "mine",
            "token": ranked.headers["x-feedback-token"],
            "kind": "click",
            "item": "i2",
        },
        {"request": first["id"], "token": first["token"], "kind": "rate", "value": 1.0},
    ]
    taken = httpx.post(f"{server.http}/v1/feedback", json={"feedback": feedback})
    assert (taken.status_code, taken.json()) == (202, {"accepted": 2})
    assert (
        httpx.post(f"{server.http}/v1/feedback", json={"feedback": [{"kind": "click"}]}).status_code
        == 400
    )
    assert httpx.post(f"{server.http}/v1/feedback", content=b"{").status_code == 400
    told_over_grpc = {
        "request": over_grpc["x-request-id"],
        "token": over_grpc["x-feedback-token"],
        "kind": "share",
    }
    assert (
        httpx.post(f"{server.http}/v1/feedback", json={"feedback": [told_over_grpc]}).status_code
        == 202
    )
    with Client(server.http) as client:
        answers = client.predict("sentiment", [{"text": "fine"}, {"text": "bad"}])
        client.feedback(answers, [{"instance": 1, "kind": "rate", "value": 0.5}])

    server.process.send_signal(signal.SIGTERM)
    output, _ = server.process.communicate(timeout=60)
    assert server.process.returncode == 0, output
    rows = read_journal(home / "journal").to_dicts()
    assert [(r["model"], r["instance"], r["protocol"]) for r in rows] == [
        ("sentiment", 0, "v1"),
        ("recommend", 0, "v1"),
        ("recommend", 1, "v1"),
        ("sentiment", 0, "v2"),
        ("sentiment", 1, "v2"),
        ("interests", 0, "grpc"),
        ("sentiment", 0, "v1"),
        ("sentiment", 0, "v1"),
        ("sentiment", 1, "v1"),
    ]
    assert {r["version"] for r in rows} == {"1"}
    assert (
        len({r["user"] for r in rows}) == 3 and [r["user"] is None for r in rows].count(True) == 3
    )
    assert [len(r["feedback"]) for r in rows] == [1, 1, 0, 0, 0, 1, 0, 0, 1]
    assert rows[1]["feedback"][0]["item"] == "i2"
    assert rows[0]["numbers"] == pytest.approx([first["predictions"][0]["probability"]])
    assert [entry["item"] for entry in ranked.json()["predictions"][0]["recommendations"]] == rows[
        1
    ]["names"]
    everything = everything_in(home / "journal") + output.encode()
    for raw in (SECRET, USER):
        assert raw.encode() not in everything


def test_a_killed_server_loses_no_more_answers_than_the_bound(
    start: Callable[..., Running], home: Path
) -> None:
    server = start("--journal-rows", "40")
    answered: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.http, timeout=60) as http:
            while not stop.is_set():
                try:
                    got = http.post(
                        "/v1/models/sentiment:predict", json={"instances": [{"text": "a film"}]}
                    )
                except httpx.TransportError:
                    return
                assert got.status_code == 200
                answered.append(got.headers["x-request-id"])

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: len(answered) > 150)
    dropped = status(server)["journal"]["dropped"]
    os.kill(server.process.pid, signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join()
    written = set(read_journal(home / "journal")["request"])
    assert written
    assert len(set(answered) - written) <= 40 + dropped
