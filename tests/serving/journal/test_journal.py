"""The journal's laws: segments are whole, what is lost is bounded and counted, nothing raw is
written.
"""

from __future__ import annotations

import errno
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from serving.journal import writer as module
from serving.journal.answered import rows
from serving.journal.feedback import parse_feedback
from serving.journal.reader import describe, read_failures, read_journal
from serving.journal.segments import segments
from serving.journal.tokens import FeedbackTokens
from tasteloop.errors import TasteloopError
from tasteloop.journal import ANSWERS, FEEDBACK, schema
from tests.support.journals import SECRET, SENTIMENT, answer, keep

HOUSE = Path(__file__).parents[3]
EVENTS = [
    {"kind": "rate", "item": "50", "value": 1.0, "time": "2026-11-01T20:00:00Z"},
    {"kind": "search", "text": SECRET, "time": "2026-11-02T20:00:00Z"},
]


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    journal = keep(tmp_path)
    ranked = [
        {
            "item": "7",
            "title": "Seven",
            "score": 1.5,
            "reason": f"Because you searched for “{SECRET}”.",
            "reasons": [
                {"kind": "asked", "contribution": 2.0, "terms": {}, "what": [{"event": 1}]},
                {"kind": "popularity", "contribution": -0.5, "terms": {}, "what": []},
                {"term": "of another server", "contribution": 1.0},
                5,
            ],
        },
        {"item": "9", "score": 1.0},
    ]
    labels = [{"label": "war", "probability": 0.5, "predicted": True, "confident": False}]
    journal.answered(answer(1))
    journal.answered(
        answer(
            2,
            model="recommend",
            instances=[{"events": EVENTS, "k": 2}],
            outputs=[{"recommendations": ranked}],
        )
    )
    journal.answered(
        answer(
            3,
            model="interests",
            instances=[{"events": []}] * 2,
            outputs=[{"interests": labels}, {"interests": []}],
            users=[None, "b" * 32],
            timings={},
        ),
        "challenger",
    )
    journal.close()
    table = read_journal(tmp_path).to_dicts()
    assert [(row["request"], row["instance"], row["role"]) for row in table] == [
        ("r1", 0, "champion"),
        ("r2", 0, "champion"),
        ("r3", 0, "challenger"),
        ("r3", 1, "challenger"),
    ]
    first, second, third, fourth = table
    assert (first["names"], first["numbers"], first["user"]) == (["positive"], [0.75], "a" * 32)
    assert (first["characters"], first["events"], first["input"]) == (len(SECRET) + 2, None, None)
    assert first["seconds"] == pytest.approx(0.005)
    assert (second["names"], second["numbers"], second["k"]) == (["7", "9"], [1.5, 1.0], 2)
    assert (second["events"], second["characters"]) == (2, len(SECRET))
    assert second["latest"] == int(datetime(2026, 11, 2, 20, tzinfo=UTC).timestamp()) * 1_000_000
    assert (third["predicted"], third["user"], third["seconds"]) == ([True], None, None)
    assert [row["confident"] for row in table] == [[True], None, [False], []]
    assert second["reasons"] == [
        [
            {"kind": "asked", "contribution": 2.0},
            {"kind": "popularity", "contribution": -0.5},
        ],
        [],
    ]
    assert first["reasons"] is None and third["reasons"] is None
    assert SECRET.encode() not in raw_bytes(tmp_path)
    assert (fourth["names"], fourth["events"], fourth["user"]) == ([], 0, "b" * 32)
    assert all(row["feedback"] == [] for row in table)


def test_what_was_understood_of_words_is_kept_and_the_words_are_not(tmp_path: Path) -> None:
    heard = {
        **dict.fromkeys(("searches", "understood", "asks", "refusals", "favourable"), 1),
        **dict.fromkeys(("neutral", "unfavourable"), 0),
        "unmet": 0.5,
        "wanted": ["War"],
        "refused": [],
    }
    asked = {"model": "recommend", "instances": [{"events": EVENTS}]}
    journal = keep(tmp_path)
    journal.answered(answer(1, **asked, outputs=[{"recommendations": []}], heard=[heard]))
    journal.answered(answer(2, **asked, outputs=[{"recommendations": []}]))
    journal.close()

    assert read_journal(tmp_path)["heard"].to_list() == [heard, None]
    assert SECRET.encode() not in raw_bytes(tmp_path)


def test_since_and_until(tmp_path: Path) -> None:
    journal = keep(tmp_path)
    for n in range(5):
        journal.answered(answer(n, time=n * 1_000_000))
    journal.close()

    def at(seconds: int) -> datetime:
        return datetime.fromtimestamp(seconds, UTC)

    assert read_journal(tmp_path, at(1), at(3))["request"].to_list() == ["r1", "r2"]
    assert read_journal(tmp_path, since=at(3))["request"].to_list() == ["r3", "r4"]
    assert read_journal(tmp_path, until=at(0)).height == 0


def test_an_empty_journal_and_none(tmp_path: Path) -> None:
    assert read_journal(tmp_path).height == 0
    assert describe(tmp_path)["answers"] == 0
    with pytest.raises(TasteloopError, match="no journal in"):
        read_journal(tmp_path / "nowhere")


# Privacy


def raw_bytes(directory: Path) -> bytes:
    """Everything below a directory, Parquet's compressed pages unpacked."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    lines = [
        json.dumps(pl.read_parquet(path).to_dicts()).encode()
        for path in paths
        if path.suffix == ".parquet"
    ]
    return b"".join(
        [*(path.read_bytes() for path in paths), *lines, *(str(path).encode() for path in paths)]
    )


def test_failures_are_kept_beside_the_answers(tmp_path: Path) -> None:
    journal = keep(tmp_path)
    journal.answered(answer(1))
    for n, version in enumerate(("1", "2", "2")):
        assert journal.failed(f"f{n}", "recommend", version, 100 + n)
    journal.close()
    assert read_failures(tmp_path, 101, 103).rows() == [
        ("f1", 101, "recommend", "2"),
        ("f2", 102, "recommend", "2"),
    ]
    assert read_failures(tmp_path, 0, 100).height == 0 and read_journal(tmp_path).height == 1
    assert describe(tmp_path)["segments"]["failures"] == 1


@pytest.mark.parametrize("text", [False, True])
def test_raw_text_is_written_only_where_it_is_allowed(tmp_path: Path, text: bool) -> None:
    journal = keep(tmp_path, text=text)
    journal.answered(answer(1, headers={"authorization": "Bearer of secrets"}))
    journal.answered(
        answer(2, model="interests", instances=[{"events": EVENTS}], outputs=[{"interests": []}])
    )
    journal.close()
    written = raw_bytes(tmp_path)
    assert (SECRET.encode() in written) == text
    assert b"Bearer" not in written
    assert read_journal(tmp_path)["input"].is_null().all() != text


# What is lost


def test_beyond_the_bound_rows_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left", str(tmp_path))

    with monkeypatch.context() as patch:
        patch.setattr(module.files, "write_parquet", full)
        journal = keep(tmp_path, bound=10)
        accepted = [journal.answered(answer(n)) for n in range(25)]
        assert accepted == [True] * 10 + [False] * 15
        assert not journal.answered(answer(99, outputs=[SENTIMENT] * 3))
        until(lambda: journal.status()["error"] is not None)
        state = journal.status()
        assert (state["waiting"], state["dropped"], state["written"]["answers"]) == (10, 18, 0)
        assert state["error"] == "no space left", "a caller may see it: no path"
    until(lambda: journal.status()["waiting"] == 0)  # the disk took it after all
    assert journal.answered(answer(30))
    journal.close()
    state = journal.status()
    assert (state["dropped"], state["written"]["answers"], state["error"]) == (18, 11, None)
    assert read_journal(tmp_path)["request"].to_list() == [f"r{n}" for n in range(10)] + ["r30"]


def test_an_answer_that_cannot_be_told_does_not_keep_the_others_out(tmp_path: Path) -> None:
    journal = keep(tmp_path, seconds=0.5)
    journal.answered(answer(1))
    journal.answered(answer(2, outputs=[{"nothing": 1}]))
    journal.answered(answer(3))
    journal.close()
    assert read_journal(tmp_path)["request"].to_list() == ["r1", "r3"]
    assert journal.status()["dropped"] == 1


def test_after_the_end_nothing_is_accepted(tmp_path: Path) -> None:
    journal = keep(tmp_path)
    journal.close()
    assert not journal.answered(answer(1))


WRITE = """
import sys, time
from pathlib import Path
from tests.support.journals import answer, keep
journal = keep(Path(sys.argv[1]), bound=200, seconds=0.02)
n = 0
while True:
    if journal.answered(answer(n)):
        sys.stdout.write(f"{n}\\n")
        sys.stdout.flush()
    n += 1
    time.sleep(0.0005)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_loses_no_more_than_the_bound(tmp_path: Path, seed: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path)], cwd=HOUSE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    until(lambda: len(segments(tmp_path, ANSWERS)) > 2)
    time.sleep(random.Random(seed).uniform(0, 0.3))
    process.kill()
    accepted = {"r0", *(f"r{line.strip()}" for line in process.stdout.read().splitlines() if line)}
    process.wait()
    written = read_journal(tmp_path)["request"].to_list()
    assert len(written) == len(set(written))
    assert written == sorted(written, key=lambda name: int(name[1:]))
    assert len(accepted - set(written)) <= 200
    assert len(written) > 0


# Segments


def test_small_segments_become_one_and_a_kill_in_between_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MERGED", 4)
    parts_paths: list[Path] = []
    journal = keep(tmp_path, seconds=0.005)
    for n in range(21):
        journal.answered(answer(n))
        until(lambda: journal.status()["waiting"] == 0)
    journal.close()
    names = [path.name.split("-", 2)[2] for path in segments(tmp_path, ANSWERS)]
    assert names == [
        "00000000-00000015.parquet",
        "00000016-00000019.parquet",
        "00000020-00000020.parquet",
    ]
    assert read_journal(tmp_path)["request"].to_list() == [f"r{n}" for n in range(21)]

    # what a kill leaves: the merged segment, and parts of it
    merged = segments(tmp_path, ANSWERS)[0]
    parts = pl.read_parquet(merged)
    for first, last in ((0, 3), (4, 7), (9, 9)):
        parts_paths.append(
            merged.with_name(merged.name.replace("00000000-00000015", f"{first:08d}-{last:08d}"))
        )
        parts.slice(first, last - first + 1).write_parquet(parts_paths[-1])
    assert len(list(merged.parent.iterdir())) == 6
    assert read_journal(tmp_path)["request"].to_list() == [f"r{n}" for n in range(21)]


def test_a_level_that_is_too_large_is_left_alone_and_nothing_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MERGED", 2)
    monkeypatch.setattr(module, "_LARGEST", 5)
    journal = keep(tmp_path, seconds=0.005)
    sizes = [1, 1, 3, 3, 1, 1, 1, 1]
    for n, size in enumerate(sizes):
        journal.answered(answer(n, outputs=[SENTIMENT] * size, instances=[], users=[]))
        until(lambda: journal.status()["waiting"] == 0)
    journal.close()
    assert read_journal(tmp_path).height == sum(sizes)


def test_half_written_files_are_passed_over_and_old_days_removed(tmp_path: Path) -> None:
    now = datetime.now(UTC).date()
    for days in (40, 31, 30, 1):
        day = tmp_path / (now - timedelta(days=days)).isoformat()
        day.mkdir()
        pl.DataFrame(rows(answer(days), "champion"), schema=schema(ANSWERS)).write_parquet(
            day / f"answers-abc-{days:08d}-{days:08d}.parquet"
        )
    (tmp_path / now.isoformat()).mkdir()
    (tmp_path / now.isoformat() / ".answers-abc-00000000-00000000.parquet.0123.tmp").write_bytes(
        b"PAR1"
    )
    (tmp_path / "notes").mkdir()
    assert read_journal(tmp_path).height == 4
    journal = keep(tmp_path, days=30)
    journal.answered(answer(0))
    until(lambda: not (tmp_path / (now - timedelta(days=31)).isoformat()).exists())
    journal.close()
    assert sorted(read_journal(tmp_path)["request"]) == ["r0", "r1", "r30"]
    assert (tmp_path / "notes").exists()


def damage(content: bytes, how: str) -> bytes:
    return {
        "cut": content[:-10],
        "empty": b"",
        "zeros": b"\0" * len(content),
        "pages": content[:4] + b"\xff" * 60 + content[64:],
        "another table": content,
    }[how]


@pytest.mark.parametrize("how", ["cut", "empty", "zeros", "pages", "another table"])
def test_a_damaged_segment_is_set_aside_by_name_and_counted_and_the_others_are_read(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(2):
        journal = keep(tmp_path)
        journal.answered(answer(n))
        journal.close()
    [path, other] = segments(tmp_path, ANSWERS)
    others = pl.read_parquet(other)["request"].to_list()
    if how == "another table":
        pl.DataFrame({"request": [1.5]}).write_parquet(path)
    content = damage(path.read_bytes(), how)
    path.write_bytes(content)

    read = read_journal(tmp_path)["request"].to_list()

    assert read == others and read_journal(tmp_path)["request"].to_list() == others
    assert f"{path} is damaged and was set aside" in caplog.text
    aside = path.with_name(path.name + ".damaged")
    assert not path.exists() and aside.read_bytes() == content, "nothing is deleted"
    overview = describe(tmp_path)
    assert overview["answers"] == 1
    assert [entry["file"] for entry in overview["damaged"]] == [str(aside)]
    assert overview["damaged"][0]["rows"] == (1 if how in ("pages", "another table") else None)


def test_a_damaged_segment_of_feedback_or_failures_stops_nothing_either(tmp_path: Path) -> None:
    journal = keep(tmp_path)
    journal.answered(answer(1))
    journal.feedback(parse_feedback({"feedback": [{"request": "r1", "kind": "click"}]}, at=0))
    journal.failed("f1", "recommend", "2", 100)
    journal.close()
    for kind in ("feedback", "failures"):
        [path] = segments(tmp_path, kind)
        path.write_bytes(b"PAR1")

    assert read_failures(tmp_path, 0, 2**62).height == 0
    assert read_journal(tmp_path)["feedback"].to_list() == [[]]
    assert [Path(entry["file"]).name.split("-")[0] for entry in describe(tmp_path)["damaged"]] == [
        "failures",
        "feedback",
    ]


def test_what_a_damaged_segment_lost_is_described_and_monitored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from pipelines.cli.app import app
    from pipelines.loop.metrics import write_metrics

    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path))
    journal = keep(tmp_path / "journal")
    journal.answered(answer(1))
    journal.close()
    [path] = segments(tmp_path / "journal", ANSWERS)
    path.write_bytes(path.read_bytes()[:-10])
    (tmp_path / "monitor").mkdir()

    output = CliRunner().invoke(app, ["journal", "describe"]).stdout
    metrics = write_metrics().read_text()

    assert f"lost       an unknown number of rows: damaged, set aside as {path}.damaged" in output
    assert "tasteloop_monitor_journal_damaged_segments 1.0" in metrics


def test_a_damaged_segment_that_cannot_be_renamed_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(2):
        journal = keep(tmp_path)
        journal.answered(answer(n))
        journal.close()
    [path, _] = segments(tmp_path, ANSWERS)
    path.write_bytes(b"PAR1")

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)  # root writes into any directory, whatever its mode

    assert read_journal(tmp_path).height == 1
    assert f"{path} is damaged and passed over (Read-only file system)" in caplog.text


def test_a_segment_of_an_older_version_is_read(tmp_path: Path) -> None:
    journal = keep(tmp_path)
    journal.answered(answer(1))
    journal.feedback(
        parse_feedback({"feedback": [{"request": "r1", "kind": "click", "item": "50"}]}, at=0)
    )
    journal.close()
    for kind, later in ((ANSWERS, ["answer", "heard"]), (FEEDBACK, ["answer", "arrived"])):
        [path] = segments(tmp_path, kind)
        pl.read_parquet(path).drop(later).write_parquet(path)

    [row] = read_journal(tmp_path).to_dicts()

    assert row["request"] == "r1" and [told["item"] for told in row["feedback"]] == ["50"]
    assert row["heard"] is None


def test_an_answer_with_an_impossible_time_is_counted_and_stops_no_description(
    tmp_path: Path,
) -> None:
    journal = keep(tmp_path)
    for n, time_ in enumerate((-62_135_683_140_000_000, 1_700_000_000_000_000, 2**62)):
        journal.answered(answer(n, time=time_))
    journal.close()

    overview = describe(tmp_path)

    assert (overview["answers"], overview["impossible_times"]) == (3, 2)
    assert overview["span"] == ["2023-11-14T22:13:20+00:00"] * 2


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TasteloopError, match="--journal"):
        keep(tmp_path / "file" / "journal")


# Feedback


def test_outcomes_are_joined_by_request_and_instance(tmp_path: Path) -> None:
    journal = keep(tmp_path)
    journal.answered(answer(1, outputs=[SENTIMENT] * 2, instances=[], users=[]))
    journal.answered(answer(2))
    entries = [
        {"request": "r1", "kind": "click", "item": "50", "time": 10},
        {"request": "r1", "kind": "rate", "item": "50", "value": 0.5, "time": 20},
        {"request": "r1", "kind": "rate", "item": "50", "value": 1.0, "time": 30},
        {"request": "r1", "instance": 1, "kind": "purchase", "item": "7", "time": 40},
        {"request": "gone", "kind": "click", "time": 50},
    ]
    assert journal.feedback(parse_feedback({"feedback": entries}, at=0))
    journal.close()
    first, second, third = read_journal(tmp_path)["feedback"].to_list()
    assert [(o["kind"], o["item"], o["value"], o["time"]) for o in first] == [
        ("click", "50", None, 10),
        ("rate", "50", 1.0, 30),
    ]
    assert [(o["kind"], o["item"]) for o in second] == [("purchase", "7")]
    assert third == []
    overview = describe(tmp_path)
    assert (overview["answers"], overview["with_feedback"]) == (3, 2)
    assert overview["by"] == [
        {"model": "sentiment", "version": "3", "role": "champion", "answers": 3}
    ]
    assert json.loads(json.dumps(overview)) == overview


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "must be a JSON object"),
        ([], "must be a JSON object"),
        ({}, "must be a JSON object"),
        ({"feedback": []}, "send 1 to 256"),
        ({"feedback": [{}] * 257}, "send 1 to 256"),
        ({"feedback": [3]}, r"feedback\[0\]: an object"),
        ({"feedback": [{"kind": "click"}]}, r"feedback\[0\]: request is the id"),
        ({"feedback": [{"request": "", "kind": "click"}]}, "request is the id"),
        ({"feedback": [{"request": "x" * 129, "kind": "click"}]}, "request is the id"),
        ({"feedback": [{"request": "r", "kind": "clik"}]}, "unknown event kind 'clik'"),
        ({"feedback": [{"request": "r"}]}, "unknown event kind None"),
        (
            {"feedback": [{"request": "r", "kind": "rate", "value": 5}]},
            "value is a number from 0 to 1",
        ),
        ({"feedback": [{"request": "r", "kind": "rate", "instance": -1}]}, "instance is the place"),
        (
            {"feedback": [{"request": "r", "kind": "rate", "instance": True}]},
            "instance is the place",
        ),
        (
            {"feedback": [{"request": "r", "kind": "review", "text": "secret"}]},
            "unknown key 'text'",
        ),
        ({"feedback": [{"request": "r", "kind": "click", "time": "soon"}]}, "time is an ISO 8601"),
    ],
)
def test_bad_feedback(body: object, message: str) -> None:
    with pytest.raises(TasteloopError, match=message):
        parse_feedback(body, at=0)


TOKENS = FeedbackTokens(b"0123456789abcdef")


def make_feedback(
    request: str, answer_id: str | None, item: str, at: int = 0, **more: Any
) -> list[dict[str, Any]]:
    """The rows of one outcome of the answer with an id; None: told by who writes the journal
    itself.
    """
    entry = {"request": request, "kind": "click", "item": item, **more}
    if answer_id is None:
        return parse_feedback({"feedback": [entry]}, at)
    return parse_feedback(
        {"feedback": [{**entry, "token": TOKENS.issue(request, answer_id)}]}, at, TOKENS
    )


def outcomes(directory: Path) -> list[list[str]]:
    return [[told["item"] for told in row] for row in read_journal(directory)["feedback"].to_list()]


def test_an_outcome_is_that_of_the_answer_whose_token_it_shows_and_of_no_other_with_its_request_id(
    tmp_path: Path,
) -> None:
    journal = keep(tmp_path)
    journal.answered(answer(1, request_id="same", answer="a1"))
    journal.answered(answer(2, request_id="same", answer="a2", users=["b" * 32]))
    journal.answered(answer(3, request_id="same"))
    journal.feedback(make_feedback("same", "a2", "50"))
    journal.close()

    assert outcomes(tmp_path) == [[], ["50"], []]


@pytest.mark.parametrize(
    "token", [None, "", 3, "a1", "a1.", "a1." + "0" * 32, "ä.ö", "x" * 100_000]
)
def test_without_the_answers_token_feedback_is_refused(token: object) -> None:
    entry = {"request": "r1", "kind": "click", "token": token}
    with pytest.raises(
        TasteloopError,
        match=r"feedback\[0\]: token is none that came with an answer to request 'r1'",
    ):
        parse_feedback({"feedback": [entry]}, 0, TOKENS)


def test_a_token_is_for_its_request_and_its_key() -> None:
    for other in (
        TOKENS.issue("r2", "a1"),
        FeedbackTokens(b"another key, as long").issue("r1", "a1"),
    ):
        with pytest.raises(TasteloopError, match="token is none"):
            parse_feedback(
                {"feedback": [{"request": "r1", "kind": "click", "token": other}]}, 0, TOKENS
            )
    [row] = make_feedback("r1", "a1", "50")
    assert (row["request"], row["answer"]) == ("r1", "a1")


def test_of_answers_without_an_id_only_one_that_bears_its_request_id_alone_has_outcomes(
    tmp_path: Path,
) -> None:
    journal = keep(tmp_path)
    for n, request in enumerate(("alone", "shared", "shared", "with an id")):
        journal.answered(answer(n, request_id=request))
    journal.answered(answer(4, request_id="with an id", answer="a4"))
    for request in ("alone", "shared", "with an id"):
        journal.feedback(make_feedback(request, None, "50"))
    journal.feedback(make_feedback("alone", "not journalled", "51"))
    journal.close()

    assert outcomes(tmp_path) == [["50", "51"], [], [], [], []]


def test_what_arrives_last_counts_whatever_time_it_names(tmp_path: Path) -> None:
    journal = keep(tmp_path)
    journal.answered(answer(1, answer="a1"))
    for arrival, value, time_ in ((100, 0.25, 90), (300, 1.0, 10), (200, 0.5, 150)):
        journal.feedback(
            make_feedback("r1", "a1", "50", arrival, kind="rate", value=value, time=time_)
        )
    journal.close()

    [[outcome]] = read_journal(tmp_path)["feedback"].to_list()

    assert (outcome["value"], outcome["time"]) == (1.0, 10)


def test_an_older_entry_from_the_year_9999_gives_way_to_a_new_one(tmp_path: Path) -> None:
    late = 253_402_300_799_000_000
    journal = keep(tmp_path)
    journal.answered(answer(1))
    journal.feedback(
        [
            {
                **make_feedback("r1", None, "50", kind="rate", value=0.0)[0],
                "time": late,
                "arrived": None,
            }
        ]
    )
    journal.feedback(make_feedback("r1", None, "50", 100, kind="rate", value=1.0))
    journal.close()

    [[outcome]] = read_journal(tmp_path)["feedback"].to_list()

    assert outcome["value"] == 1.0


@pytest.mark.parametrize(
    "time_", [300_000_001, "9999-12-31T23:59:59Z", "1970-01-01T00:05:01+00:00"]
)
def test_feedback_from_beyond_the_clocks_skew_is_refused(time_: object) -> None:
    with pytest.raises(
        TasteloopError,
        match=r"feedback\[0\]: time .* is more than 300 s ahead of this server's clock",
    ):
        make_feedback("r1", None, "50", at=0, time=time_)
    assert make_feedback("r1", None, "50", at=0, time=300_000_000)


def test_feedback_has_a_time_of_its_own_or_the_servers() -> None:
    rows = parse_feedback({"feedback": [{"request": "r", "kind": "click"}]}, at=7)
    assert (rows[0]["time"], rows[0]["instance"], rows[0]["arrived"]) == (7, 0, 7)
    assert FEEDBACK == "feedback" and set(rows[0]) == set(schema(FEEDBACK))
