"""Which code this is."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import tasteloop

_PACKAGES = ("tasteloop", "validation", "serving", "components", "pipelines")


@cache
def code_version() -> str:
    """Version and a hash over the project's sources: two runs of equal code have equal versions."""
    root = Path(tasteloop.__file__).parent.parent
    total = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{tasteloop.__version__}+{total.hexdigest()[:12]}"
