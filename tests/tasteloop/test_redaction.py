"""No message, log or record holds a secret of an address or of the environment, or a raw value of
the input.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasteloop.errors import TasteloopError
from tasteloop.redaction import column_names, masked, redact, redact_strings

ROOT = Path(__file__).parents[2]
SECRET = "h0rse-battery"
RAW = "alice@example.com"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            f"http://user:{SECRET}@mlflow.example:5000/x is away",
            "http://***@mlflow.example:5000/x is away",
        ),
        (f"'postgresql+psycopg://u:a@b{SECRET}@db/x'", "'postgresql+psycopg://***@db/x'"),
        (f"https://u:a/b?{SECRET}@host/hook", "https://***@host/hook"),
        (
            f"https://hooks.example/a?room=1&token={SECRET}",
            "https://hooks.example/a?room=1&token=***",
        ),
        (f"s3://b/k?X-Amz-Signature={SECRET}&x=1", "s3://b/k?X-Amz-Signature=***&x=1"),
        (f"sc://spark:15002/;token={SECRET};user_id=7", "sc://spark:15002/;token=***;user_id=7"),
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
        (f"basic authentication, Basic {SECRET}==", "basic authentication, Basic ***"),
        (f"no user {RAW}; known: none", "no user ***@***; known: none"),
    ],
)
def test_a_message_keeps_the_address_and_not_its_secret(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert str(TasteloopError(text)) == shown
    assert redact_strings({"a": [text, 1, None]}) == {"a": [shown, 1, None]}


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8080/v1/models/recommend:predict",
        "registry.example/me/tasteloop-python@sha256:0123",
        "/home/bob@corp.example/.tasteloop/runs/x/log.txt",
        "s3://bucket/part@1/x.parquet?versionId=3",
        "monkey=1; key=value; ?page=2",
        "kserve==0.21 at 12:30, 5 of 7 rows (a@b)",
    ],
)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "part", ["://", "://a:b", "@://x:", "?key", "a@", "bearer ", "http://h:1/", "-", "a.b@"]
)
def test_a_text_of_a_megabyte_is_redacted_in_time_that_grows_with_its_length(part: str) -> None:
    text = part * (2**20 // len(part))
    # quadratic time would be an hour: the test's own limit ends it
    assert len(redact(text)) <= 2 * len(text)


def test_a_value_of_the_input_is_shown_by_its_shape() -> None:
    assert masked("2024-13-01") == "'9999-99-99'"
    assert masked(RAW) == "'xxxxx@xxxxxxx.xxx'"
    assert masked("ä" * 5000) == repr("x" * 40) + " … (5000 characters)"


@pytest.mark.parametrize(
    "first",
    [
        [f"{RAW};50;5;881250949"],
        ["alice", "50", "5"],
        ["u", "2024-01-01T00:00:00"],
        [RAW, "item"],
        ["a", ""],
    ],
)
def test_a_first_line_that_is_data_is_not_quoted(first: list[str]) -> None:
    assert column_names(["user", "item id", "Größe (cm)"]) == "it has user, item id, Größe (cm)"
    assert (
        column_names(first)
        == f"its first line is no header: of its {len(first)} fields some are not names"
    )


@pytest.mark.fuzz
@given(st.text("ab1:/?#@&=;%+-_.~!$*ü", min_size=1, max_size=20))
def test_no_password_of_an_address_is_left_whatever_is_in_it(password: str) -> None:
    # which is a port and the rest of another address
    assume(not re.match(r"\d{1,5}[/?#]", password))
    assert (
        redact(f"at <postgresql://me:{password}@db.example:5432/x> now")
        == "at <postgresql://***@db.example:5432/x> now"
    )


def command(home: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code of `tasteloop` with arguments, and everything that it said and wrote."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home.parent),
        "TASTELOOP_HOME": str(home),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    files = "".join(path.read_text(errors="replace") for path in home.rglob("*") if path.is_file())
    return done.returncode, done.stdout + done.stderr + files


@pytest.mark.slow
def test_neither_the_console_nor_a_run_holds_a_raw_id_or_a_password(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "log.csv").write_text(f"{RAW};50;5;881250949\n{RAW};51;3;881250950\n")
    (tmp_path / "m.yaml").write_text(
        "events: log.csv\ncolumns: {user: u, item: i, time: t}\nkind: view\n"
    )
    ingest = ["--set", f"ingest.behaviour={tmp_path / 'm.yaml'}", "--set", "ingest.reviews=null"]
    home = tmp_path / "home"
    tracking = f"http://user:{SECRET}@127.0.0.1:9/"

    code, seen = command(
        home, "run", "--profile", "smoke", *ingest, "--set", f"training.encoder={tiny_encoder}"
    )

    assert code == 2
    assert "first line is no header" in seen
    assert RAW not in seen
    facts = json.loads(next(home.glob("runs/*/run.json")).read_text())
    assert facts["outcome"] == "failed"

    code, seen = command(
        tmp_path / "other",
        "status",
        MLFLOW_TRACKING_URI=tracking,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )

    assert code == 2 and "***@127.0.0.1:9" in seen
    assert SECRET not in seen
