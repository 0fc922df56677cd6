"""Where the tools and binaries of a Kubernetes API server lie."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[3]
TOOLS = Path(os.environ.get("TASTELOOP_CLUSTER_TOOLS", ROOT.parent / "shared" / "cluster"))
BIN = Path(os.environ.get("TASTELOOP_K8S_BIN", "/var/cache/k8s-1.20/bin"))
