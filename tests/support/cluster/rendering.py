"""infra/k8s as kustomize renders it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster.paths import ROOT

K8S = ROOT / "infra/k8s"
OVERLAYS = ("dev", "kind", "prod", "single-user")  # ours; others may lie beside them
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())


def render(directory: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl")
    command = ["kubectl", "kustomize", directory]
    rendering = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rendering.returncode == 0, rendering.stderr
    return list(yaml.safe_load_all(rendering.stdout))


def render_with(
    directory: Path, resources: list[str], components: list[str] | None = None, **fields: Any
) -> list[dict[str, Any]]:
    """The objects of an overlay above ours, as a reader of the documentation writes one.

    Args:
        directory: an empty one, in which it is written.
        resources, components: paths below infra/k8s.
        fields: of the kustomization, such as `images`.
    """
    above = os.path.relpath(K8S, directory)  # kustomize refuses absolute paths
    kustomization = {
        "resources": [f"{above}/{name}" for name in resources],
        "components": [f"{above}/components/{name}" for name in components or []],
        **fields,
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(directory)
