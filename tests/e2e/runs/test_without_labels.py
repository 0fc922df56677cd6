"""The tasks of a model follow from its data: whole runs on behaviour and titles alone, without and
with reviews.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tasteloop.runtime.explain import explain
from tasteloop.runtime.questions import parse
from tasteloop.runtime.scoring import score
from tasteloop.runtime.session import Session
from tests.support.homes import ROOT, Home, ratings, settings, wait_for, write_csv

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HISTORY = [{"kind": "view", "item": "3"}, {"kind": "view", "item": "7"}]
RANKING = {f"recommend.{name}" for name in ("ndcg@10", "precision@10", "recall@10", "f1@10")}


def titles_alone(folder: Path) -> Path:
    """A mapping of who looked at what and when, and of titles: no kinds, values, labels or
    texts.
    """
    folder.mkdir()
    liked = [(user, item, at) for user, item, value, at in ratings(users=80, each=30) if value >= 4]
    write_csv(folder / "log.csv", ("who", "what", "at"), liked)
    write_csv(
        folder / "things.csv", ("what", "called"), [(item, f"Film {item}") for item in range(40)]
    )
    mapping = {
        "events": "log.csv",
        "columns": {"user": "who", "item": "what", "time": "at"},
        "kind": "view",
        "time": {"unit": "s"},
        "items": {"file": "things.csv", "columns": {"item": "what", "title": "called"}},
    }
    (folder / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    return folder / "mapping.yaml"


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path
) -> tuple[Home, dict[str, Any], dict[str, Any]]:
    """A home with two runs on titles alone, the second with reviews too."""
    folder = tmp_path_factory.mktemp("titles")
    home, mapping = Home(folder / "home"), titles_alone(folder / "mine")
    reviews = [(f"{'a good' if n % 2 else 'a bad'} film, number {n}", n % 2) for n in range(120)]
    write_csv(folder / "reviews.csv", ("text", "sentiment"), reviews)
    options = settings(
        ingest__behaviour=str(mapping),
        training__encoder=str(tiny_encoder),
        prepare__interests__source="labels",
    )
    without = home.run(*options, *settings(ingest__reviews=None))
    return home, without, home.run(*options, *settings(ingest__reviews=str(folder / "reviews.csv")))


def card(facts: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(facts["artifacts"]["bundle"], "card.json").read_text())
    return found


def test_titles_alone_become_a_champion_that_recommends(runs):
    _, facts, _ = runs
    assert (facts["outcome"], facts["version"]) == ("promoted", "1")
    assert card(facts)["answers"] == ["recommend"]
    assert set(facts["metrics"]) == RANKING | {"understanding"} | {
        f"understanding.{kind}" for kind in ("title", "title_inexact", "no_taste")
    }
    assert facts["metrics"]["recommend.ndcg@10"] > 0.3  # there is a pattern to be found


def test_reviews_without_labels_add_sentiment_alone(runs):
    _, before, facts = runs
    assert (facts["outcome"], facts["version"]) == ("promoted", "2")
    assert card(facts)["answers"] == ["recommend", "sentiment"]
    tasks = {name.partition(".")[0] for name in facts["metrics"]}
    assert tasks == {"recommend", "sentiment", "understanding"}
    assert "interests.micro_f1: skipped, this data set has no interests task" in facts["reason"]


def test_the_data_page_warns_that_there_are_no_labels_and_the_card_says_what_is_absent(runs):
    home, facts, _ = runs
    validation = json.loads((home.path / "runs" / facts["id"] / "validation.json").read_text())
    failed = [check["about"] for check in validation["checks"] if not check["passed"]]
    assert failed == [
        "items carry labels; without any, interests are discovered in behaviour and titles"
    ]
    readme = Path(facts["artifacts"]["bundle"], "README.md").read_text()
    assert (
        "Answers `recommend`. This model has no interests: the items of its data carry no labels"
        in readme
    )


def test_a_server_answers_and_says_why_it_has_no_interests(runs, tmp_path):
    home, _, _ = runs
    ready = tmp_path / "ready.json"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "serving",
            "--version",
            "1",
            "--port",
            "0",
            "--ready-file",
            str(ready),
        ],
        cwd=ROOT,
        env={**os.environ, "TASTELOOP_HOME": str(home.path)},
    )
    try:
        wait_for(ready.exists)
        client = httpx.Client(base_url=json.loads(ready.read_text())["http"])
        body = {"instances": [{"events": HISTORY, "k": 3}]}
        answer = client.post("/v1/models/recommend:predict", json=body).json()
        assert answer["model_version"] == "1"
        assert len(answer["predictions"][0]["recommendations"]) == 3
        assert client.get("/v1/models").json() == {"models": ["recommend"]}
        assert "/v1/models/interests:predict" not in client.get("/openapi.json").json()["paths"]
        for missing in (
            client.post("/v1/models/interests:predict", json=body),
            client.get("/v2/models/interests"),
            client.post("/v2/models/interests/infer", json={"inputs": []}),
        ):
            assert missing.status_code == 404
            assert missing.json()["error"].startswith(
                "this model has no interests: the items of its data carry no"
            )
    finally:
        process.terminate()
        process.wait()


def test_scores_and_explanations_need_no_interests(runs, tmp_path):
    import polars as pl

    _, facts, _ = runs
    bundle = Path(facts["artifacts"]["bundle"])
    write_csv(
        tmp_path / "events.csv",
        ("user", "item", "kind"),
        [("ann", e["item"], e["kind"]) for e in HISTORY],
    )
    score(bundle, tmp_path / "events.csv", tmp_path / "scores.parquet", "recommend", 3)
    assert pl.read_parquet(tmp_path / "scores.parquet").height == 3

    session = Session.load(bundle)
    [explained] = explain(session, "recommend", parse("recommend", [{"events": HISTORY, "k": 3}]))
    for entry in explained["recommendations"]:
        assert sum(term["contribution"] for term in entry["terms"]) == pytest.approx(
            entry["score"], abs=1e-5
        )


def test_such_a_champion_can_be_watched_and_shown(runs, tmp_path):
    home, facts, _ = runs
    steps = {step["step"]: step.get("outputs", {}) for step in facts["steps"]}
    assert steps["promote"]["reference"]  # what later windows are compared with
    assert "no window has closed" in home("monitor", "--once")
    site = json.loads(home("report", "--site", str(tmp_path / "site"), "--json"))
    assert site["models"] == 2
    page = Path(home("report", "--run", facts["id"]).strip()).read_text()
    assert "F1@10" in page and "precision@10" in page
