"""What the README tells a reader to type works as it stands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from typer.main import get_command

from tests.support.processes import Running

README = (Path(__file__).parents[3] / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
CURLS = [block.strip() for block in BLOCKS if block.startswith("curl")]
COMMANDS = [
    line for block in BLOCKS for line in block.splitlines() if line.startswith("tasteloop ")
]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
@pytest.mark.parametrize("example", CURLS, ids=lambda e: e.split("/models/")[1].split()[0])
def test_curl_examples(example: str, server: Running) -> None:
    command = example.replace("http://127.0.0.1:8080", server.http)
    answer = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    body = json.loads(answer)
    assert "error" not in body, body
    assert body["model_version"]
    assert body.get("predictions") or body.get("outputs") or body.get("explanations")


def test_all_three_models_are_shown_over_both_protocols() -> None:
    shown = {re.search(r"/(v[12])/models/(\w+)", example).groups() for example in CURLS}  # type: ignore[union-attr]
    assert shown == {(v, m) for v in ("v1", "v2") for m in ("interests", "recommend", "sentiment")}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line: str) -> None:
    from pipelines.cli.app import app

    words = shlex.split(line, comments=True)[1:]
    command: click.Command = get_command(app)  # type: ignore[assignment]
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{line!r} names no command"
    command.make_parser(
        command.make_context("tasteloop", list(words), resilient_parsing=True)
    ).parse_args(list(words))
