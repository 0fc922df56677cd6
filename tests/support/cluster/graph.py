"""The smoke profile's training graph, compiled for a cluster without a volume, and run by a runner
of kfp.local.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipelines.graphs.compile import compile_to
from pipelines.settings import load_settings
from tasteloop.datasets.fetch import fetch
from tasteloop.files import cache
from tests.support.cluster import launcher
from tests.support.cluster.launcher import OUTPUT
from tests.support.cluster.stores import BUCKET, Stores

MOUNT = "/var/lib/tasteloop"
PREFIX = f"s3://{BUCKET}/runs"
LAUNCHER = Path(__file__).with_name("launcher.py")
STEPS = {
    "ingest",
    "validate",
    "prepare",
    "finetune",
    "fit-recommender",
    "champion",
    "evaluate",
    "gate",
    "record",
    "rehearse",
    "promote",
}
# What goes from step to step, as Kubeflow's launcher names it in the store.
ARTIFACTS = {
    "ingest/dataset",
    "validate/validation",
    "validate/page",
    "prepare/snapshots",
    "finetune/model",
    "fit-recommender/bundle",
    "evaluate/evaluation",
    "evaluate/metrics",
    "evaluate/sentiment",
    "gate/verdict",
    "gate/page",
    "rehearse/rehearsal",
}


def fetch_sources() -> Path:
    """The folder with MovieLens, the reviews and MiniLM, fetched where they are not there yet."""
    for name in ("ml-100k", "rotten-tomatoes", "minilm"):
        fetch(name)
    return cache() / "sources"


def compile_for_cluster(path: Path, image: str, tracking: str, more: Sequence[str] = ()) -> Path:
    """Write the graph as IR YAML; without a volume, so that steps share nothing but the object
    store and MLflow.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASTELOOP_IMAGE", image)
        options = [
            f"cluster.tracking={tracking}",
            "cluster.volume=null",
            f"cluster.mount={MOUNT}",
            "cluster.secrets={TASTELOOP_PSEUDONYM_KEY: tasteloop/pseudonym-key}",
            "cluster.finetune.gpu=0",
        ]
        compile_to(load_settings("smoke", [*options, *more]), path)
    return path


@contextmanager
def local_runner(runner: Any, root: Path) -> Iterator[None]:
    """kfp.local set up with a runner inside the block, and as it was before afterwards."""
    from kfp import local as kfp_local
    from kfp.local.config import LocalExecutionConfig

    before = LocalExecutionConfig.instance
    kfp_local.init(runner, pipeline_root=str(root), raise_on_error=True)
    try:
        yield
    finally:
        LocalExecutionConfig.instance = before


def run_graph(package: Path) -> None:
    from kfp import components

    components.load_component_from_file(str(package))()


def launcher_variables(stores: Stores, root: Path) -> dict[str, str]:
    """What the launcher needs to know."""
    return {"STORE": stores.s3, "BUCKET": PREFIX, "ROOT": str(root)}


def list_keys(stores: Stores, prefix: str) -> list[str]:
    """The keys in the store that begin so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORE", stores.s3)
        return launcher.keys(BUCKET, prefix)


def check_stores(stores: Stores, root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Check that everything that went from step to step is in the store and nothing on a disk;
    returns the champion.
    """
    from serving.release.registry import champion, evidence

    (run,) = {key.split("/")[1] for key in list_keys(stores, "runs/")}
    stored = {"/".join(key.split("/")[2:4]) for key in list_keys(stores, "runs/")}
    assert {name for name in stored if not name.endswith(OUTPUT)} == ARTIFACTS, run
    left = {path.name for path in root.rglob("*") if path.is_file()}
    assert left <= {OUTPUT}, f"a step left {left} on a disk that it shares"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stores.tracking)
    monkeypatch.setenv("TASTELOOP_HOME", str(home))
    live = champion()
    assert live is not None and evidence(live.version).keys() == {
        "evaluation.json",
        "verdict.json",
        "rehearsal.json",
    }
    assert any(key.endswith("bundle/manifest.json") for key in list_keys(stores, "mlflow/"))
    return live


def read_object(stores: Stores, key: str) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORE", stores.s3)
        return launcher.call("GET", f"/{BUCKET}/{quote(key)}")


def thread_variables() -> dict[str, str]:
    """Processors are few where tests run; a step takes as many as its pod would get."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
