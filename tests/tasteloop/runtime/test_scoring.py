"""Offline scoring says what the server's session says, wherever a user's rows stand, or nothing at
all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from tasteloop.errors import TasteloopError
from tasteloop.runtime import event_file
from tasteloop.runtime.scoring import score
from tasteloop.runtime.session import Session

USERS = [f"{n:032x}" for n in range(7)]
FIELDS = ("kind", "item", "time", "value", "text")


def rows() -> list[dict[str, Any]]:
    """Events of seven users, one after the other in turn, so that no user's stand together."""
    out = []
    for n in range(60):
        kind = ("rate", "click", "search", "review")[n % 4]
        out.append(
            {
                "user": USERS[n % 7],
                "item": None if kind == "search" else f"i{(n * 11) % 40}",
                "kind": kind,
                "time": 1_700_000_000_000_000 + ((n * 37) % 60) * 1_000_000,
                "value": (n % 5) / 4 if kind in ("rate", "review") else None,
                "text": f'good film, "{n}"\nand more' if kind in ("search", "review") else None,
            }
        )
    return out


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return Session.load(tiny_bundle)


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    path = tmp_path / "events.parquet"
    pl.DataFrame(rows(), schema_overrides={"value": pl.Float32}).write_parquet(path)
    return path


def expected(session: Session, model: str, k: int | None) -> dict[str, Any]:
    """The server's answers: one instance a user, its events in the file's order."""
    instances: dict[str, dict[str, Any]] = {}
    for row in rows():
        event = {name: row[name] for name in FIELDS if row[name] is not None}
        instances.setdefault(row["user"], {"events": [], **({"k": k} if k else {})})[
            "events"
        ].append(event)
    return dict(zip(instances, session.answer(model, list(instances.values())), strict=True))


def check(session: Session, out: Path, model: str, k: int | None) -> None:
    name = {"interests": "interests", "recommend": "recommendations"}[model]
    table = pl.read_parquet(out)
    answers = expected(session, model, k)
    assert set(table["user"]) == set(answers)
    for user, answer in answers.items():
        mine = table.filter(pl.col("user") == user).to_dicts()
        assert [row["rank"] for row in mine] == list(range(1, len(answer[name]) + 1))
        for row, entry in zip(mine, answer[name], strict=True):
            reasons = [reason["terms"] for reason in entry.pop("reasons", [])]
            terms = {name: value for each in reasons for name, value in each.items()}
            for column, value in {**entry, **terms}.items():
                assert row[column] == (
                    pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
                )


@pytest.mark.parametrize(
    ("model", "k"), [("interests", None), ("interests", 2), ("recommend", None), ("recommend", 3)]
)
def test_the_answers_are_the_servers(
    session: Session, tiny_bundle: Path, parquet: Path, tmp_path: Path, model: str, k: int | None
) -> None:
    result = score(tiny_bundle, parquet, tmp_path / "out.parquet", model, k)
    check(session, tmp_path / "out.parquet", model, k)
    assert (result.events, result.scored, result.digest) == (60, 7, session.digest)
    assert result.rows == len(pl.read_parquet(tmp_path / "out.parquet"))
    told = pl.read_parquet_metadata(tmp_path / "out.parquet")
    assert told["tasteloop.bundle"] == session.digest
    assert (told["tasteloop.model"], told["tasteloop.runtime"]) == (model, session.runtime)


def test_parts_on_the_disk_change_nothing(
    session: Session,
    tiny_bundle: Path,
    parquet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_file, "_PART", 10)
    monkeypatch.setattr(event_file, "_BATCH", 8)
    monkeypatch.setattr(event_file, "_USERS", 2)
    score(tiny_bundle, parquet, tmp_path / "out.parquet", "interests")
    check(session, tmp_path / "out.parquet", "interests", None)


@pytest.mark.parametrize("time", ["micros", "iso"])
def test_csv_is_read_like_parquet(
    session: Session, tiny_bundle: Path, tmp_path: Path, time: str
) -> None:
    frame = pl.DataFrame(rows())
    if time == "iso":
        frame = frame.with_columns(
            pl.from_epoch("time", "us").dt.to_string("%Y-%m-%dT%H:%M:%S.%6fZ")
        )
    frame.write_csv(tmp_path / "events.csv")
    score(tiny_bundle, tmp_path / "events.csv", tmp_path / "out.parquet", "interests")
    check(session, tmp_path / "out.parquet", "interests", None)


def test_parquet_timestamps_are_times(session: Session, tiny_bundle: Path, tmp_path: Path) -> None:
    frame = pl.DataFrame(rows()).with_columns(
        pl.from_epoch("time", "us").dt.replace_time_zone("UTC")
    )
    frame.write_parquet(tmp_path / "events.parquet")
    score(tiny_bundle, tmp_path / "events.parquet", tmp_path / "out.parquet", "interests")
    check(session, tmp_path / "out.parquet", "interests", None)


def test_sentiment_judges_every_text(
    session: Session, tiny_bundle: Path, parquet: Path, tmp_path: Path
) -> None:
    score(tiny_bundle, parquet, tmp_path / "out.parquet", "sentiment")
    told = pl.read_parquet(tmp_path / "out.parquet").to_dicts()
    texts = [(n, row) for n, row in enumerate(rows(), 1) if row["text"]]
    answers = session.answer("sentiment", [{"text": row["text"]} for _, row in texts])
    assert len(told) == len(texts)
    for (n, row), answer, got in zip(texts, answers, told, strict=True):
        assert (got["row"], got["user"], got["item"]) == (n, row["user"], row["item"])
        assert got["sentiment"] == answer["sentiment"]
        assert got["probability"] == pytest.approx(answer["probability"], abs=1e-5)


def test_user_and_kind_are_enough(tiny_bundle: Path, tmp_path: Path) -> None:
    pl.DataFrame({"user": ["a"], "kind": ["view"], "more": [1]}).write_parquet(
        tmp_path / "events.parquet"
    )
    assert score(tiny_bundle, tmp_path / "events.parquet", tmp_path / "out.parquet").scored == 1


def test_a_file_without_rows_has_no_answers(
    tiny_bundle: Path, parquet: Path, tmp_path: Path
) -> None:
    pl.read_parquet(parquet).clear().write_parquet(parquet)
    assert score(tiny_bundle, parquet, tmp_path / "out.parquet", "recommend").rows == 0
    assert len(pl.read_parquet(tmp_path / "out.parquet")) == 0


BAD: list[tuple[dict[str, Any], str]] = [
    ({"kind": "veiw"}, r"row 41 of .*events.*: unknown event kind 'veiw'; known: view"),
    ({"kind": None}, "row 41 of .*: unknown event kind None"),
    ({"user": None}, "row 41 of .*: there is no user"),
    ({"user": " "}, "row 41 of .*: there is no user"),
    ({"value": 2.0}, "row 41 of .*: value is a number from 0 to 1"),
    ({"value": float("nan")}, "row 41 of .*: value is a number from 0 to 1"),
    ({"time": -1}, "row 41 of .*: time is an ISO 8601 string"),
    ({"item": ""}, "row 41 of .*: item is a string that is not blank"),
]


@pytest.mark.parametrize(("change", "told"), BAD)
def test_the_first_row_that_is_no_event_is_told(
    tiny_bundle: Path, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    given = rows()
    given[40] |= change
    given[50] |= {"kind": "later"}
    pl.DataFrame(given).write_parquet(tmp_path / "events.parquet")
    (tmp_path / "out.parquet").write_bytes(b"what was there")
    with pytest.raises(TasteloopError, match=told):
        score(tiny_bundle, tmp_path / "events.parquet", tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == b"what was there"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("column", "written", "told"),
    [
        ("value", "high", "row 41 of .*: value is 'high', not a number"),
        ("time", "yesterday", "row 41 of .*: time is an ISO 8601 string"),
    ],
)
def test_what_a_csv_says_is_shown(
    tiny_bundle: Path, tmp_path: Path, column: str, written: str, told: str
) -> None:
    given: list[dict[str, Any]] = [
        {k: None if v is None else str(v) for k, v in row.items()} for row in rows()
    ]
    given[40][column] = written
    pl.DataFrame(given).write_csv(tmp_path / "events.csv")
    with pytest.raises(TasteloopError, match=told):
        score(tiny_bundle, tmp_path / "events.csv", tmp_path / "out.parquet")


def test_files_that_are_none_are_told(tiny_bundle: Path, parquet: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    whole = parquet.read_bytes()
    cases: list[tuple[Path, Path, str, int | None, str]] = [
        (tmp_path / "none.parquet", out, "interests", None, "no file"),
        (parquet, tmp_path / "out.csv", "interests", None, "name a .parquet file"),
        (parquet, out, "taste", None, "unknown model 'taste'; known: interests"),
        (parquet, out, "sentiment", 3, "for interests and recommend"),
        (parquet, out, "recommend", 1001, "a number from 1 to 1000"),
    ]
    for name, content, told in (
        ("cut.parquet", whole[: len(whole) // 2], "not a whole Parquet file: it is truncated"),
        ("empty.csv", b"", "is empty"),
        ("events.json", b"{}", "no known format; allowed: .csv, .tsv"),
        ("other.csv", b"who,what\n1,2\n", "no column 'user', 'kind'; it has: who, what"),
    ):
        (tmp_path / name).write_bytes(content)
        cases.append((tmp_path / name, out, "interests", None, told))
    for events, target, model, k, told in cases:
        with pytest.raises(TasteloopError, match=told):
            score(tiny_bundle, events, target, model, k)
        assert not target.exists()


def test_the_command(tiny_bundle: Path, parquet: Path, tmp_path: Path) -> None:
    from pipelines.cli.app import app

    out = tmp_path / "out.parquet"
    arguments = [
        "score",
        "--events",
        str(parquet),
        "--out",
        str(out),
        "--bundle",
        str(tiny_bundle),
        "--json",
    ]
    told = CliRunner().invoke(app, [*arguments, "--model", "recommend", "-k", "2"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["rows"] == len(pl.read_parquet(out)) == 14
