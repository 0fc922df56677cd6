"""A CSV of users, items and titles alone ends in a served model with named interests, by one
command.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasteloop.files import read_parquet
from tests.support.homes import ROOT, Home, settings, write_csv

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOPICS = ("garden roses", "moon rocket", "pasta kitchen", "guitar chords")


def reads() -> list[tuple[int, int, str]]:
    """Each of 80 users reads nine of the twelve items of one topic, none twice, and one other."""
    draws = random.Random(0)
    rows = []
    for user in range(80):
        own = draws.sample(range(user % 4, 48, 4), 9)
        own.insert(draws.randrange(9), draws.choice(range((user + 1) % 4, 48, 4)))
        rows += [(user, item, f"{TOPICS[item % 4]} part {item}") for item in own]
    return rows


@dataclass(frozen=True)
class Done:
    """What the command printed, and what its run left behind."""

    printed: dict[str, Any]
    home: Home
    bundle: Path

    @property
    def card(self) -> dict[str, Any]:
        return json.loads((self.bundle / "card.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Done:
    """The example on who read which title, in order, without times, kinds or labels."""
    folder = tmp_path_factory.mktemp("discovered")
    write_csv(folder / "reads.csv", ("user", "item", "title"), reads())
    options = settings(
        training__encoder=str(tiny_encoder), prepare__interests__encoder=str(tiny_encoder)
    )
    command = [sys.executable, "examples/titles_only.py", str(folder / "reads.csv")]
    command += ["--home", str(folder / "home"), "--profile", "smoke", *options]
    process = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    (record,) = (folder / "home" / "runs").glob("*/run.json")
    bundle = Path(json.loads(record.read_text())["artifacts"]["bundle"])
    return Done(json.loads(process.stdout), Home(folder / "home"), bundle)


def test_titles_alone_become_a_champion_with_named_interests(done):
    words = {word for topic in TOPICS for word in topic.split()}

    assert done.printed["outcome"] == "promoted"
    assert done.printed["metrics"]["interests.micro_f1"] > 0
    assert (done.card["answers"], done.card["interests"]) == (
        ["interests", "recommend"],
        "discovered",
    )
    assert {word for label in done.card["labels"] for word in label.split(" / ")} & words
    assert f"{len(done.card['labels'])}, discovered: " in (done.bundle / "README.md").read_text()


def test_the_server_answers_with_them(done):
    answers = done.printed["answers"]

    assert {each["label"] for each in answers["interests"]["interests"]} == set(done.card["labels"])
    assert len(answers["recommend"]["recommendations"]) == 5


def test_the_items_of_the_bundle_are_marked(done):
    items = read_parquet(done.bundle / "items.parquet")

    assert items["inferred"].all() and items["labels"].list.len().to_list() == [1] * len(items)


def test_the_pages_say_that_they_were_discovered(done):
    (report,) = (done.home.path / "runs").glob("*/report.html")

    assert "The labels were discovered in behaviour and words" in report.read_text()
    assert Path(done.printed["site"]).is_file()
