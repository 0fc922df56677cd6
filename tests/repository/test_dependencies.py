"""What pyproject.toml declares and what the lock files pin agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "torch.lock")


def test_every_declared_dependency_is_pinned_within_its_bounds() -> None:
    """Else pip can neither install an extra nor check what is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    text = "\n".join((ROOT / name).read_text() for name in LOCKS)
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", text, re.MULTILINE)
    versions = {canonicalize_name(name): version for name, version in pins}

    unmet = [
        line
        for line in declared
        if versions.get(canonicalize_name((wanted := Requirement(line)).name), "0")
        not in wanted.specifier
    ]

    assert unmet == []
