"""The one image in which every step runs on a cluster."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import tasteloop

IMAGE = "tasteloop-python"  # kfp's local runner warns about names without "python"


def image() -> str:
    """The full reference: `TASTELOOP_IMAGE`, else the name tagged by the git commit, else by the
    version.
    """
    override = os.environ.get("TASTELOOP_IMAGE")
    if override:
        return override
    git = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{IMAGE}:{git.stdout.strip() or tasteloop.__version__}"
