"""What goes into an image, as far as files tell; building one needs an engine (docs/cluster.md)."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "infra" / "docker"


def pins(path: Path) -> set[str]:
    """The pins of a lock file, without the hashes below each."""
    return {
        line.removesuffix("\\").strip()
        for line in path.read_text().splitlines()
        if line.strip() and not line.startswith(("#", "    --hash="))
    }


@pytest.mark.parametrize(
    "lock", ["requirements.lock", "infra/docker/steps.lock", "infra/docker/serving.lock"]
)
def test_every_pin_but_torchs_has_the_hashes_of_its_files(lock):
    text = (ROOT / lock).read_text()

    without = [
        pin
        for pin in pins(ROOT / lock)
        if not re.search(re.escape(pin) + r" \\\n    --hash=sha256:[0-9a-f]{64}", text)
    ]

    assert without == []
    assert [pin.partition("==")[0] for pin in pins(ROOT / "torch.lock")] == ["torch"]


@pytest.mark.parametrize("image", ["steps", "serving"])
def test_an_image_holds_nothing_that_the_lock_does_not_pin(image):
    assert pins(DOCKER / f"{image}.lock") <= pins(ROOT / "requirements.lock")
    assert all("==" in pin for pin in pins(DOCKER / f"{image}.lock"))


def test_serving_has_no_trainer_and_the_steps_no_tools():
    serving = {pin.partition("==")[0].lower() for pin in pins(DOCKER / "serving.lock")}
    assert not serving & {
        "torch",
        "transformers",
        "mlflow",
        "kfp",
        "great_expectations",
        "pytest",
        "mypy",
    }
    steps = {pin.partition("==")[0].lower() for pin in pins(DOCKER / "steps.lock")}
    assert not steps & {"pytest", "mypy", "ruff", "schemathesis", "pre_commit"}


def test_what_the_server_imports_when_it_starts_is_in_its_image():
    """Imports outside functions: serving's, and of what it imports of ours."""
    wanted = {
        "google": "protobuf",
        "grpc": "grpcio",
        "yaml": "pyyaml",
        "prometheus_client": "prometheus_client",
        "opentelemetry": "opentelemetry-api",
    }
    paths = (ROOT / "serving").rglob("*.py")
    todo = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    seen: set[str] = set()
    packages = {
        pin.partition("==")[0].lower().replace("-", "_") for pin in pins(DOCKER / "serving.lock")
    }
    while todo:
        module = todo.pop()
        if module in seen or not (path := ROOT / (module.replace(".", "/") + ".py")).is_file():
            continue
        seen.add(module)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [
                    node.module or "",
                    *(f"{node.module}.{alias.name}" for alias in node.names),
                ]
            else:
                continue
            todo += names
            for name in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names):
                if name not in ("serving", "tasteloop"):
                    assert wanted.get(name, name).lower().replace("-", "_") in packages, (
                        f"{path} imports {name}"
                    )
    assert len(seen) > 20


@pytest.mark.parametrize("image", ["steps", "serving"])
def test_an_image_is_built_in_two_stages_from_a_base_that_is_given_and_is_not_root(image):
    lines = (DOCKER / f"{image}.Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == [
        "FROM ${BASE} AS build",
        "FROM ${BASE}",
    ]
    assert "USER 10001:10001" in lines[lines.index("FROM ${BASE}") :]
    # how it was built does not stay
    assert not any(re.match(r"ENV .*(PIP_|PROXY|CERT)", line) for line in lines)


def test_only_what_images_hold_is_sent_to_the_engine():
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert rules.index("*") < min(i for i, rule in enumerate(rules) if rule.startswith("!"))
    assert not any(rule in rules for rule in ("!tests", "!.git", "!docs", "!."))
