"""How the modules of the house may import each other, and what they may import from outside.

Every import statement counts: those at the top of a module, those inside functions, those for type
checkers alone, and the packages whose `__init__` an import runs.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("tasteloop", "validation", "serving", "components", "pipelines")

# Packages with a distribution that is named otherwise, or that several distributions share.
PROVIDED_BY = {"google": "protobuf", "pydantic_core": "pydantic"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the house by its dotted name."""
    module_paths = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            module_paths[name] = path
    return module_paths


def imported_names(path: Path, module: str) -> Iterator[str]:
    """What a file imports: `import a.b` gives a.b, `from a import b` gives a and a.b."""
    is_package = path.name == "__init__.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) - node.level + is_package]
                source = ".".join([*above, source] if source else above)
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def imports_of(module: str) -> set[str]:
    """The modules of the house that one module imports.

    The packages above an imported module count where their `__init__` holds anything: importing
    runs it.
    """
    imported = set()
    for name in imported_names(modules()[module], module):
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            candidate = ".".join(parts[:depth])
            if candidate in modules() and (depth == len(parts) or holds_code(candidate)):
                imported.add(candidate)
    return imported - {module}


@cache
def holds_code(module: str) -> bool:
    body = ast.parse(modules()[module].read_text(encoding="utf-8")).body
    return any(not isinstance(node, ast.Expr) for node in body)


def strong_components(graph: dict[str, set[str]]) -> list[frozenset[str]]:
    """Tarjan's algorithm: the sets of nodes that all reach each other.

    >>> strong_components({"a": {"b"}, "b": {"a"}, "c": {"a"}})
    [frozenset(...), frozenset({'c'})]
    """
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    components: list[frozenset[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        path.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in path:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            start = path.index(node)
            components.append(frozenset(path[start:]))
            del path[start:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return components


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set()}

    components = strong_components(graph)

    assert set(components) == {frozenset("abc"), frozenset("d"), frozenset("e")}


def test_no_modules_import_each_other_in_a_circle_of_any_kind() -> None:
    graph = {module: imports_of(module) for module in modules()}

    circles = [sorted(nodes) for nodes in strong_components(graph) if len(nodes) > 1]

    assert circles == [], "modules that import each other"


def test_importing_a_room_runs_nothing() -> None:
    """Packages hold nothing but a line on what they are for. `tasteloop` alone does something: it
    switches off what libraries would report to their makers, before any of them is imported.
    """
    packages = [name for name, path in modules().items() if path.name == "__init__.py"]

    assert [name for name in packages if holds_code(name)] == ["tasteloop"]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["spark"], *extras["valkey"]]
    return {normalised(re.split(r"[\[<>=!~; ]", line)[0]) for line in lines}


def test_every_package_that_is_imported_is_declared() -> None:
    provided_by = packages_distributions()
    ours = {*PACKAGES, "benchmarks", ""}  # `tasteloop bench` is for a checkout
    undeclared: dict[str, str] = {}
    for module, path in modules().items():
        for name in imported_names(path, module):
            package = name.partition(".")[0]
            if package in ours or package in sys.stdlib_module_names:
                continue
            distributions = [PROVIDED_BY[package]] if package in PROVIDED_BY else []
            distributions += provided_by.get(package, [package])
            if not declared() & {normalised(name) for name in distributions}:
                undeclared.setdefault(package, module)

    assert undeclared == {}, "imported by the module named, but not in pyproject.toml"
