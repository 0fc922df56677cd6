"""Whole runs on other data: a MovieLens folder, a mapped CSV file, and data that is refused."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.support.homes import mapped, rated, settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HTML = "<script>alert(1)</script>"


def test_a_movielens_folder_runs(movielens_champion):
    facts = json.loads((movielens_champion / "facts.json").read_text())

    assert facts["outcome"] == "promoted"
    assert not any(name.startswith("sentiment.") for name in facts["metrics"])


def raw_id(u: int) -> str:
    return f"quokka.{u}@warren-mail.example"


def everything_written(home: Path) -> str:
    """All that a reader could get out of a home: files as they are, Parquet and SQLite decoded."""
    parts = []
    for path in sorted(home.rglob("*")):
        if not path.is_file() or path.name == "pseudonym.key":
            continue
        parts += [path.name, path.read_bytes().decode("utf-8", "replace")]
        if path.suffix == ".parquet":
            parts.append(pl.read_parquet(path).write_ndjson())
        if path.suffix == ".db":
            with sqlite3.connect(path) as database:
                parts += list(database.iterdump())
    return "\n".join(parts)


def test_a_mapped_csv_runs_with_html_in_its_titles_and_no_raw_user_id_is_written(home, tmp_path):
    rows = rated(users=80, each=30, name=raw_id)
    for u in range(0, 80, 4):
        rows.append([raw_id(u), "", "searched", "", 1_700_000_500 + u, "a western with horses"])
        rows.append([raw_id(u), u % 40, "danced", 3, 1_700_000_600 + u, ""])  # a kind nobody knows
        rows.append([raw_id(u), u % 40, "rated", 3, -5, ""])  # before 1970
        rows.append([raw_id(u), u % 40, "rated", 77, 1_700_000_700 + u, ""])  # off the scale
    mapping = mapped(tmp_path / "mine", rows, title=HTML)
    facts = home.run(
        *settings(
            ingest__behaviour=str(mapping),
            ingest__reviews=None,
            gate__floors={"interests.micro_f1": 0.01},
            gate__beats=[],
        )
    )
    assert facts["outcome"] == "promoted"
    page = Path(home("report", "--run", facts["id"]).strip())

    written = everything_written(home.path)
    assert "quokka" not in written
    assert "warren-mail" not in written
    assert "danced" in written  # the quarantine kept what was rejected, without its user
    for path in [page, *home.path.rglob("*.html")]:
        assert HTML not in path.read_text()


def poisoned(folder: Path, poison: str) -> Path:
    rows = rated()
    match poison:
        case "unknown kinds":
            return mapped(folder, [[who, what, "danced", *rest] for who, what, _, *rest in rows])
        case "negative times":
            return mapped(folder, [[*start, -at, said] for *start, at, said in rows])
        case "one user":
            return mapped(folder, [["only", *rest] for _, *rest in rows])
        case "one label":
            return mapped(folder, rows, labels=["Drama"])
        case "no rows":
            return mapped(folder, [])
    raise AssertionError(poison)


@pytest.mark.parametrize(
    "poison", ["unknown kinds", "negative times", "one user", "one label", "no rows"]
)
def test_poisoned_data_is_refused_with_a_reason_and_nothing_is_trained(home, tmp_path, poison):
    mapping = poisoned(tmp_path / "mine", poison)
    process = home.start(
        "run",
        "--profile",
        "smoke",
        "--json",
        *settings(ingest__behaviour=str(mapping), ingest__reviews=None),
    )
    out, err = process.communicate(timeout=280)
    assert "Traceback" not in out + err
    if process.returncode == 2:  # a source of which nothing can be read is the caller's mistake
        assert poison == "no rows"
        assert "log.csv" in err
        return
    assert process.returncode == 4, out + err
    facts = json.loads(out)
    assert facts["outcome"] == "refused"
    assert "error" in facts["reason"]
    assert [step["step"] for step in facts["steps"]] == ["ingest", "validate"]
    assert not (home.path / "checkpoints").exists()
    assert home.status()["versions"] == []
    assert Path(home("report").strip()).is_file()


@pytest.mark.parametrize("poison", ["empty file", "truncated Parquet"])
def test_a_file_that_cannot_be_read_is_one_clear_message(home, tmp_path, poison):
    mapping = mapped(tmp_path / "mine", rated())
    log = mapping.parent / "log.csv"
    if poison == "empty file":
        log.write_text("")
    else:
        table = pl.read_csv(log)
        log = log.with_suffix(".parquet")
        table.write_parquet(log)
        log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
        changed = yaml.safe_load(mapping.read_text()) | {"events": log.name}
        mapping.write_text(yaml.safe_dump(changed))
    message = home(
        "run",
        "--profile",
        "smoke",
        *settings(ingest__behaviour=str(mapping), ingest__reviews=None),
        code=2,
    )
    assert log.name in message
    assert home.status()["versions"] == []
    assert home.status()["runs"][0]["outcome"] == "failed"
