"""A served model is added by its declaration and the function that computes it: every protocol, the
journal, the OpenAPI document, the rehearsal, offline scores and `tasteloop ask` know it then.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from pipelines.cli.questions import instances
from serving.answering.batching import Batcher
from serving.answering.live import Live
from serving.answering.predictor import Predictor
from serving.answering.tensors import from_v2, v2_input
from serving.client import Client, ServingError
from serving.http.access import Access
from serving.http.routes import routes
from serving.http.server import Server
from serving.journal.reader import read_journal
from serving.journal.tokens import FeedbackTokens
from serving.journal.writer import Journal
from serving.release.answer_comparison import compare
from serving.settings import JournalSettings, ServerSettings
from tasteloop.answers import BYTES, FP32, HISTORY, SERVED_MODELS, Field, ServedModel
from tasteloop.runtime import session as runtime
from tasteloop.runtime.scoring import score
from tasteloop.runtime.session import Session
from tests.support.edge import running

HOUSE = Path(__file__).parents[2]
KEY = b"the pseudonym key of a test"
EVENTS = [
    {"kind": "click", "item": "50"},
    {"kind": "click", "item": "172"},
    {"kind": "search", "text": "space opera"},
    {"kind": "rate", "item": "50", "value": 1.0},
]
ANSWER = {
    "activity": [
        {"kind": "click", "share": 0.5},
        {"kind": "rate", "share": 0.25},
        {"kind": "search", "share": 0.25},
    ]
}

# --- tasteloop/answers.py

ACTIVITY = ServedModel(
    name="activity",
    input=HISTORY,
    ranking="activity",
    fields=(Field("kind", BYTES, ""), Field("share", FP32, 0.0)),
    label="kind",
    number="share",
)

# --- tasteloop/runtime/session.py


def answer_activity(
    session: Session, questions: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The kinds of behaviour in each history with their shares, largest first."""
    answers = []
    for question in questions:
        counts = Counter(event.kind for event in question["events"])
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: question["k"]]
        entries = [{"kind": kind, "share": n / counts.total()} for kind, n in ranked]
        answers.append({"activity": entries})
    return answers


@pytest.fixture(autouse=True)
def activity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SERVED_MODELS, "activity", ACTIVITY)
    monkeypatch.setitem(runtime.COMPUTE, "activity", answer_activity)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(JournalSettings(directory=tmp_path / "journal"))


@pytest.fixture
def url(tiny_bundle: Path, journal: Journal) -> Iterator[str]:
    """A real server on the tiny bundle, which was made before the model was added."""
    live = Live(Predictor.load(tiny_bundle, "1"), journal, KEY)
    server = Server(
        ServerSettings(port=0, grpc_port=0),
        Access(None, None, True),
        routes(live.status, journal, FeedbackTokens(KEY)),
    )
    batcher = Batcher(live, on_answer=live.on_answer)
    server.open(batcher)
    try:
        with running(server) as (host, port):
            yield f"http://{host}:{port}"
    finally:
        server._listener.close()
        batcher.close()


def test_a_served_model_is_asked_over_both_protocols_and_journalled(
    url: str, journal: Journal, tmp_path: Path
) -> None:
    with Client(url) as client:
        answers = client.predict("activity", [{"events": EVENTS, "user": "ann"}])
        response = client.infer("activity", [v2_input("activity", {"events": EVENTS, "k": 2})])
        with pytest.raises(ServingError, match="activity has no explainer"):
            client._ask("POST", "/v1/models/activity:explain", {"instances": [{"events": []}]})
        client.feedback(answers, [{"kind": "click", "item": "50"}])
    document = httpx.get(f"{url}/openapi.json").json()
    metadata = httpx.get(f"{url}/v2/models/activity").json()
    journal.close()

    assert answers == [ANSWER]
    assert from_v2("activity", response["outputs"], 1) == [{"activity": ANSWER["activity"][:2]}]
    assert metadata["outputs"] == [
        {"name": "kind", "datatype": "BYTES", "shape": [-1, -1]},
        {"name": "share", "datatype": "FP32", "shape": [-1, -1]},
    ]
    assert {"/v1/models/activity:predict", "/v2/models/activity/infer"} <= set(document["paths"])
    rows = read_journal(tmp_path / "journal").filter(pl.col("model") == "activity")
    first = rows.filter(pl.col("protocol") == "v1").row(0, named=True)
    assert rows.height == 2
    assert (first["names"], first["numbers"]) == (["click", "rate", "search"], [0.5, 0.25, 0.25])
    assert first["feedback"][0]["item"] == "50"


def test_a_served_model_is_rehearsed_scored_offline_and_asked_by_the_command_line(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    other = {"activity": [{"kind": "share", "share": 0.5}, *ANSWER["activity"][1:]]}
    events = pl.DataFrame({"user": ["a", "a", "b"], "kind": ["click", "click", "view"]})
    events.with_columns(item=pl.lit("50")).write_parquet(tmp_path / "events.parquet")

    score(tiny_bundle, tmp_path / "events.parquet", tmp_path / "scores.parquet", "activity")

    assert compare("activity", ANSWER, ANSWER, 1e-4) == []
    assert compare("activity", ANSWER, other, 1e-4) == [
        "kind 'share' instead of 'click' in place 0"
    ]
    assert pl.read_parquet(tmp_path / "scores.parquet").rows() == [
        ("a", 1, "click", 1.0),
        ("b", 1, "view", 1.0),
    ]
    assert instances("activity", '[{"kind": "view"}]', None, 10) == [{"events": [{"kind": "view"}]}]


def test_the_guide_names_at_most_six_code_files_that_are_there() -> None:
    guide = (HOUSE / "docs" / "extending.md").read_text(encoding="utf-8")
    section = guide.partition("## A served model\n")[2].partition("\n## ")[0]

    files = {path for path in re.findall(r"`([\w/]+\.py)`", section) if "tests/" not in path}

    assert {"tasteloop/answers.py", "tasteloop/runtime/session.py"} <= files
    assert len(files) <= 6 and all((HOUSE / path).is_file() for path in files)
