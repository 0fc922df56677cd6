"""What a server says of an answer's reasons, and what `tasteloop score` says of a whole file: the
same session's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from serving.client import Client
from tasteloop.runtime.scoring import score
from tests.support.processes import VERSION, Running

pytestmark = pytest.mark.slow

EVENTS = [{"kind": "rate", "item": f"i{n}", "time": n, "value": (n % 3) / 2} for n in range(12)]


def explained(server: Running, model: str, body: Any) -> httpx.Response:
    return httpx.post(f"{server.http}/v1/models/{model}:explain", json=body, timeout=60)


def test_interests_are_explained(server: Running) -> None:
    answer = explained(
        server, "interests", {"instances": [{"events": EVENTS}, {"events": []}]}
    ).json()
    assert answer["model_version"] == VERSION
    for explanation in answer["explanations"]:
        for entry in explanation["interests"]:
            total = sum(part["contribution"] for part in entry["parts"])
            assert total == pytest.approx(entry["probability"] - entry["baseline"], abs=1e-6)


def test_recommendations_are_explained(server: Running) -> None:
    instance = {"events": EVENTS, "k": 3}
    [explanation] = explained(server, "recommend", {"instances": [instance]}).json()["explanations"]
    with Client(server.http) as client:
        [answer] = client.predict("recommend", [instance])
    for entry, recommendation in zip(
        explanation["recommendations"], answer["recommendations"], strict=True
    ):
        assert (entry["item"], entry["score"]) == (
            recommendation["item"],
            pytest.approx(recommendation["score"], abs=1e-6),
        )
        assert sum(term["contribution"] for term in entry["terms"]) == pytest.approx(
            entry["score"], abs=1e-6
        )


def test_reasons_are_told_over_every_way_to_ask(server: Running) -> None:
    search = {"kind": "search", "text": "good comedy", "time": 20}
    instance = {"events": [*EVENTS, search], "k": 2, "language": "zh", "against": True}
    with Client(server.http) as client:
        [answer] = client.predict("recommend", [instance])
        [explained] = client.explain("recommend", [instance])
        [sentiment] = client.explain("sentiment", [{"text": "a good film"}])
        element = json.dumps({"events": instance["events"]})
        tensor = {"name": "events", "datatype": "BYTES", "shape": [1], "data": [element]}
        told = {"k": 2, "language": "zh", "against": True}
        outputs = client.infer("recommend", [tensor], told)["outputs"]

    entries = answer["recommendations"]
    assert all(e["reason"].startswith(("因为", "几乎没有")) for e in entries)
    data = {output["name"]: output["data"] for output in outputs}
    for name in ("reason", "against"):
        assert [entry[name] for entry in entries] == data[name]
        assert [entry[name] for entry in explained["recommendations"]] == data[name]
    assert sentiment["reason"].startswith("Read as ")


@pytest.mark.parametrize(
    ("model", "body", "status", "message"),
    [
        ("interests", {}, 400, "instances"),
        ("interests", {"instances": [{"events": []}] * 9}, 400, "at most 8"),
        ("recommend", {"instances": [{"events": [{"kind": "veiw"}]}]}, 400, "unknown event kind"),
        ("sentiment", {"instances": [{"text": "good", "language": "fr"}]}, 400, "one of en, zh"),
        ("taste", {"instances": []}, 404, "taste"),
    ],
)
def test_what_cannot_be_explained(
    server: Running, model: str, body: Any, status: int, message: str
) -> None:
    response = explained(server, model, body)
    assert response.status_code == status
    assert message in response.json()["error"]


def test_a_scored_file_is_what_the_server_answers(
    server: Running, tiny_bundle: Path, tmp_path: Path
) -> None:
    users = {f"u{n}": EVENTS[: n + 1] for n in range(8)}
    rows = [{"user": user, **event} for user, events in users.items() for event in events]
    pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=0).sort("time").write_parquet(
        tmp_path / "events.parquet"
    )
    score(tiny_bundle, tmp_path / "events.parquet", tmp_path / "out.parquet", "recommend", 5)
    table = pl.read_parquet(tmp_path / "out.parquet")
    with Client(server.http) as client:
        answers = client.predict(
            "recommend", [{"events": events, "k": 5} for events in users.values()]
        )
    for user, answer in zip(users, answers, strict=True):
        mine = table.filter(pl.col("user") == user)
        assert mine["item"].to_list() == [entry["item"] for entry in answer["recommendations"]]
        scores = [entry["score"] for entry in answer["recommendations"]]
        assert mine["score"].to_list() == pytest.approx(scores, abs=1e-5)
