"""The examples in docstrings run as they stand."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("tasteloop", "validation", "serving", "components", "pipelines", "tests/repository")
# Paths that an example may use by name without making them, and the fixture that each is.
PATHS = {
    "encoder": "tiny_encoder",
    "snapshots": "tiny_snapshots",
    "model": "tiny_model",
    "bundle": "tiny_bundle",
}


def modules_with_examples() -> list[str]:
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in paths
        if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]


def names_used(module: ModuleType) -> set[str]:
    """The names that the examples of a module read and do not assign."""
    names: set[str] = set()
    for test in doctest.DocTestFinder().find(module):
        nodes = ast.walk(ast.parse("".join(example.source for example in test.examples)))
        of_test = [node for node in nodes if isinstance(node, ast.Name)]
        assigned = {node.id for node in of_test if isinstance(node.ctx, ast.Store)}
        names |= {node.id for node in of_test} - assigned
    return names


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    module = importlib.import_module(name.removesuffix(".__init__"))
    paths = {
        path: request.getfixturevalue(fixture)
        for path, fixture in PATHS.items()
        if path in names_used(module) and not hasattr(module, path)
    }

    results = doctest.testmod(
        module,
        extraglobs=paths,
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
    )

    assert results.attempted > 0
    assert results.failed == 0, "see the output above"
