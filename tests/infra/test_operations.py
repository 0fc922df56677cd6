"""The runbook: whoever follows it at night finds every alert in it, and types nothing that does not
exist.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
import yaml

from pipelines.alerts import TYPE
from pipelines.loop.retraining import RESULTS
from pipelines.settings import load_settings
from serving.__main__ import _arguments
from tests.support.commands import resolve
from validation.monitor.decision import Result

HOUSE = Path(__file__).parents[2]
TEXT = (HOUSE / "docs" / "operations.md").read_text(encoding="utf-8")
TYPED = [*re.findall(r"```bash\n(.*?)```", TEXT, re.S)]
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.S)
COMMANDS = sorted(
    {
        shlex.join(shlex.split(line, comments=True))
        for line in [*"\n".join(TYPED).splitlines(), *re.findall(r"`([^`]+)`", PROSE)]
        if line.replace("\n", " ").startswith(("tasteloop ", "python -m serving"))
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_exists_with_its_options(line: str) -> None:
    words = line.split()
    if words[0] == "python":
        _arguments(words[3:])
        return
    resolve(shlex.split(line)[1:])


@pytest.mark.parametrize(
    "wrong", ["monitor --onc", "nope", "rollout undo", "cluster deploy --version 3"]
)
def test_one_that_does_not_exist_is_seen(wrong: str) -> None:
    with pytest.raises(Exception, match="No such option|nope|undo|Missing parameter"):
        resolve(wrong.split())


def test_every_setting_exists() -> None:
    assert len(COMMANDS) >= 15, COMMANDS
    given = set(re.findall(r"--set ([a-z_]+\.[^`\s]+)", TEXT))
    assert len(given) >= 4
    load_settings("local", sorted(given))


def rules() -> set[str]:
    written = re.findall(
        r"```yaml\n(groups:.*?)```", (HOUSE / "docs" / "monitoring.md").read_text(), re.S
    )
    monitor = [
        rule["alert"]
        for text in written
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
    ]
    objects = yaml.safe_load_all(
        (HOUSE / "infra/k8s/components/monitoring/prometheus.yaml").read_text()
    )
    serving = [
        r["alert"]
        for o in objects
        if o["kind"] == "PrometheusRule"
        for g in o["spec"]["groups"]
        for r in g["rules"]
    ]
    return {*monitor, *serving}


def test_every_alert_has_its_place() -> None:
    headings = " ".join(re.findall(r"^### (.*)$", TEXT, re.M))
    assert len(rules()) >= 8
    for name in rules():
        assert name in headings, name
    for what in ("alert-human", "rollback"):
        assert f"`{TYPE}.{what}`" in headings
    assert f"`{TYPE}.retraining.*`" in headings
    assert set(RESULTS.values()) <= set(get_args(Result))
    for result in get_args(Result):
        assert f"| `{result}` |" in TEXT


def test_links_lead_somewhere() -> None:
    def anchors(text: str) -> set[str]:
        return {
            re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-")
            for h in re.findall(r"^#+ (.*)$", text, re.M)
        }

    for name in ("operations", "monitoring"):
        text = (HOUSE / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if path.startswith("http"):
                continue
            file = HOUSE / "docs" / path if path else HOUSE / "docs" / f"{name}.md"
            assert file.exists(), target
            assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target
