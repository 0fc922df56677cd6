"""docs/cluster.md: what it names exists, and its commands are run by tests/cluster, or are of those
that no test can run.
"""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from pipelines.settings import load_settings
from serving.cluster.manifest import check_settings, parse_options
from serving.cluster.requirements import REQUIREMENTS
from tests.support.cluster.paths import ROOT
from tests.support.cluster.rendering import COMPONENTS, OVERLAYS
from tests.support.commands import resolve
from tests.support.documents import read_blocks

DOCUMENT = ROOT / "docs" / "cluster.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
BLOCKS = read_blocks(DOCUMENT)
SHELL = [block for block in BLOCKS if block.language == "bash"]
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.S)

# Programs of the blocks that no test runs, and why: an engine, a cluster of one's own, a service
# that answers. kubectl is among them where it reads what only controllers write, or waits.
NOT_RUN = {"make", "docker", "kind", "curl", "export"}
READS_OF_CONTROLLERS = ("kubectl get", "kubectl port-forward")
NEEDS_AN_ADDRESS = ("kubectl create secret generic tasteloop-alerts",)


def commands(text: str) -> list[str]:
    """The commands of a block, continuation lines joined."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.strip() for line in joined.splitlines() if line.strip() and line[0] != "#"]


TASTELOOP = sorted(
    {
        # a variable of the shell is one word
        shlex.join(shlex.split(command.rstrip("&"), comments=True))
        for block in SHELL
        for command in commands(block.text)
        if command.startswith("tasteloop ")
    }
)


@pytest.mark.parametrize("command", TASTELOOP)
def test_every_command_exists_with_its_options(command: str) -> None:
    resolve(shlex.split(command)[1:])


def test_every_other_command_is_run_or_is_one_that_cannot_be() -> None:
    is_run = [block for block in SHELL if block.is_run]
    assert len(is_run) >= 6 and len(TASTELOOP) >= 15

    for block in SHELL:
        if block.is_run:
            continue
        for command in commands(block.text):
            program = command.split()[0]
            is_known = program in {*NOT_RUN, "tasteloop"} or command.startswith(
                (*READS_OF_CONTROLLERS, *NEEDS_AN_ADDRESS, "-H", "-d")
            )
            assert is_known, f"{block.heading}: no test runs {command!r}; mark the block"


def test_versions_are_those_that_the_check_asks_for() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (v?[0-9][^|]*) \| ([^|]+) \|$", TEXT, re.M)

    assert [tuple(cell.strip() for cell in row) for row in rows] == [
        (r.name, r.least, r.why) for r in REQUIREMENTS
    ]


def test_every_component_and_overlay_is_explained() -> None:
    for component in COMPONENTS:
        assert f"| `{component}` |" in TEXT, component
    for overlay in OVERLAYS:
        assert f"`overlays/{overlay}`" in TEXT or f"`{overlay}`" in TEXT, overlay


def test_every_setting_exists() -> None:
    """`--set section.key=value` is a profile's, without a dot it is the service's."""
    options = re.findall(r"--set (?:'([^']+)'|([^`\s\\)]+))", TEXT)
    given = sorted({quoted or plain for quoted, plain in options} - {"KEY=VALUE"})
    profile = [option for option in given if "." in option.partition("=")[0]]
    service = [option for option in given if option not in profile]
    assert len(profile) >= 8 and len(service) >= 4

    for option in profile:
        load_settings("cluster", [option])
    for option in service:
        name = option.partition("=")[0]
        if name in ("traces", "journal") and "http" not in option:
            option = f"{name}=http://collector:4318"
        check_settings("tasteloop", "tasteloop", **parse_options([option]))


def test_yaml_is_yaml_and_paths_exist() -> None:
    for block in BLOCKS:
        if block.language == "yaml":
            assert yaml.safe_load(block.text)
    for path in re.findall(
        r"`((?:infra|tests|tasteloop|serving)/[\w./-]+\.(?:py|json|yaml|md))`", TEXT
    ):
        if path.startswith(("tasteloop/", "serving/", "infra/", "tests/")):
            assert (ROOT / path).exists(), path


def test_links_lead_somewhere() -> None:
    def anchors(text: str) -> set[str]:
        return {
            re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-")
            for h in re.findall(r"^#+ (.*)$", text, re.M)
        }

    for target in re.findall(r"\]\(([^)\s]+)\)", PROSE):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        file = ROOT / "docs" / path if path else DOCUMENT
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target
