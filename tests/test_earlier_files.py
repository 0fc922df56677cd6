"""A bundle, a journal and a ledger that an earlier version wrote are still read, and say what they
said.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from serving.answering.predictor import Predictor
from serving.journal.reader import read_journal
from validation.monitor.ledger import Ledger

EARLIER = Path(__file__).parent / "fixtures/before-rooms"


def saved(name: str) -> Any:
    return json.loads((EARLIER / name).read_text())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("earlier")
    with tarfile.open(EARLIER / "bundle.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory / "bundle"


def test_the_bundle_is_whole_and_answers_as_it_did(bundle: Path) -> None:
    predictor = Predictor.load(bundle, "3")
    written = saved("answers.json")

    for model, questions in written["questions"].items():
        answers = [_as_written(answer) for answer in predictor.predict(model, questions)]
        assert _rounded(answers) == _rounded(written["answers"][model])


def test_the_journal_is_read_with_its_feedback(tmp_path: Path) -> None:
    shutil.copytree(EARLIER / "journal", tmp_path / "journal")

    rows = read_journal(tmp_path / "journal").to_dicts()

    later = {"heard": None, "reasons": None}  # columns that it did not have
    assert json.loads(json.dumps(rows)) == [{**row, **later} for row in saved("journal.json")]
    assert [row["feedback"] for row in rows if row["request"] == "r1"] != [[]]


def test_the_ledger_is_read_and_its_chain_holds(tmp_path: Path) -> None:
    shutil.copytree(EARLIER / "ledger", tmp_path / "ledger")
    ledger = Ledger(tmp_path / "ledger")

    assert [record.model_dump(mode="json") for record in ledger.records()] == saved("ledger.json")
    assert [trigger.result for trigger in ledger.triggers()] == ["promoted"]


def _as_written(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer with its recommendations' terms as they were listed before reasons had words."""
    if "recommendations" not in answer:
        return answer
    listed = []
    for entry in answer["recommendations"]:
        terms = {
            name: value for reason in entry["reasons"] for name, value in reason["terms"].items()
        }
        by_size = sorted(terms.items(), key=lambda term: -term[1])
        reasons = [{"term": name, "contribution": value} for name, value in by_size]
        kept = {name: entry[name] for name in ("item", "title", "score")}
        listed.append({**kept, "reasons": reasons})
    return {**answer, "recommendations": listed}


def _rounded(value: Any) -> Any:
    """Numbers to three digits: another processor may sum in another order."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value
