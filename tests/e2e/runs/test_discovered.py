"""A CSV of users, items and titles alone ends in a served model with named interests, and a
retraining goes on with them.
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

from tasteloop.files import read_parquet
from tests.support.homes import ROOT, Home, ratings, settings, wait_for, write_csv

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOPICS = ("garden roses", "moon rocket", "pasta kitchen", "guitar chords")


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path
) -> tuple[Home, dict[str, Any]]:
    """A home with a run on who read which title, in order, without times, kinds or labels."""
    folder = tmp_path_factory.mktemp("discovered")
    liked = [row for row in ratings(users=80, each=30) if row[2] >= 4]
    write_csv(
        folder / "reads.csv",
        ("who", "what", "called"),
        [(user, item, f"{TOPICS[item % 4]} part {item}") for user, item, *_ in liked],
    )
    mapping = {
        "events": "reads.csv",
        "columns": {"user": "who", "item": "what"},
        "kind": "view",
        "time": "order",
        "items": {"file": "reads.csv", "columns": {"item": "what", "title": "called"}},
    }
    (folder / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    home = Home(folder / "home")
    facts = home.run(
        *settings(
            ingest__behaviour=str(folder / "mapping.yaml"),
            ingest__reviews=None,
            training__encoder=str(tiny_encoder),
            prepare__interests__encoder=str(tiny_encoder),
        )
    )
    return home, facts


def test_titles_alone_become_a_champion_with_named_interests(run):
    _, facts = run
    bundle = Path(facts["artifacts"]["bundle"])
    card = json.loads((bundle / "card.json").read_text())

    assert (facts["outcome"], card["answers"]) == ("promoted", ["interests", "recommend"])
    assert card["interests"] == "discovered"
    words = {word for topic in TOPICS for word in topic.split()}
    assert {word for label in card["labels"] for word in label.split(" / ")} & words
    assert f"{len(card['labels'])}, discovered: " in (bundle / "README.md").read_text()


def test_the_items_of_the_bundle_are_marked(run):
    _, facts = run
    items = read_parquet(Path(facts["artifacts"]["bundle"], "items.parquet"))

    assert items["inferred"].all() and items["labels"].list.len().to_list() == [1] * len(items)


def test_the_evaluation_page_says_that_they_were_discovered(run):
    home, facts = run
    page = (home.path / "runs" / facts["id"] / "report.html").read_text()

    assert "The labels were discovered in behaviour and words" in page
    assert facts["metrics"]["interests.micro_f1"] > 0


def test_a_server_answers_with_them(run, tmp_path):
    home, facts = run
    labels = json.loads(Path(facts["artifacts"]["bundle"], "card.json").read_text())["labels"]
    ready = tmp_path / "ready.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "serving", "--port", "0", "--ready-file", str(ready)],
        cwd=ROOT,
        env={**os.environ, "TASTELOOP_HOME": str(home.path)},
    )
    try:
        wait_for(ready.exists)
        client = httpx.Client(base_url=json.loads(ready.read_text())["http"])
        body = {"instances": [{"events": [{"kind": "view", "item": "1"}]}]}
        answer = client.post("/v1/models/interests:predict", json=body).json()
        named = {each["label"] for each in answer["predictions"][0]["interests"]}
        assert named == set(labels)
    finally:
        process.terminate()
        process.wait()
