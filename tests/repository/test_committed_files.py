"""What may lie in the repository."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIXTURES_LIMIT = 300_000  # bytes


def committed() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = [Path(name) for name in listing.stdout.decode().split("\0") if name]
    return [path for path in paths if (ROOT / path).is_file()]


def is_binary(path: Path) -> bool:
    """Whether a file is not text in UTF-8."""
    try:
        return "\0" in (ROOT / path).read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return True


def test_no_binary_file_is_committed_but_fixtures_and_pictures_of_the_documents() -> None:
    binary = [
        path
        for path in committed()
        if is_binary(path)
        and not path.is_relative_to("tests/fixtures")
        and not (path.is_relative_to("docs") and path.suffix == ".png")
    ]

    assert binary == []


def test_fixtures_are_small() -> None:
    sizes = {
        str(path): (ROOT / path).stat().st_size
        for path in committed()
        if path.is_relative_to("tests/fixtures")
    }

    assert sum(sizes.values()) <= FIXTURES_LIMIT, sizes


def test_no_test_imports_another_test() -> None:
    """What several tests need lies in tests/support."""
    imports = []
    for path in committed():
        if not path.is_relative_to("tests") or path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            imports += [
                f"{path}: {name}"
                for name in names
                if name.rpartition(".")[2].startswith("test_")
                or name.rpartition(".")[2] == "conftest"
            ]

    assert imports == []


def test_no_two_test_files_have_one_name() -> None:
    """Pytest imports them by their bare names, and refuses the second."""
    tests = [path for path in committed() if path.parts[0] == "tests" and path.match("test_*.py")]
    names = Counter(path.name for path in tests)
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []
