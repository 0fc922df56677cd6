"""Which code this is."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import tasteloop

# Templates and style sheets are code: the pages of a run change with them.
_SOURCES = (".py", ".html", ".css")
_PACKAGES = ("tasteloop", "validation", "serving", "components", "pipelines")


@cache
def code_version() -> str:
    """Version and a hash over the project's sources: two runs of equal code have equal versions."""
    root = Path(tasteloop.__file__).parent.parent
    total = hashlib.sha256()
    for package in _PACKAGES:
        files = (root / package).rglob("*")
        for path in sorted(file for file in files if file.suffix in _SOURCES):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{tasteloop.__version__}+{total.hexdigest()[:12]}"
