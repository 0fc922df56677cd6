"""The compiled training graph, whole, in the real steps image under kfp.local's Docker runner.

Each container is as a pod of production: another user, a read-only root, no capabilities, a home of
its own that is gone with it. What steps hand on goes through S3, moved by a launcher in the place
of Kubeflow's; what they record, through an MLflow server that keeps its artifacts there. The disk
that kfp.local shares with them carries parameters, no more.
"""

from __future__ import annotations

import os
import socket

import pytest

from tests.support.cluster.graph import (
    LAUNCHER,
    MOUNT,
    check_stores,
    compile_for_cluster,
    fetch_sources,
    launcher_variables,
    local_runner,
    run_graph,
    thread_variables,
)
from tests.support.cluster.stores import run_stores

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    with run_stores(
        tmp_path_factory.mktemp("stores"), "127.0.0.1", (free_port(), free_port())
    ) as running:
        yield running


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_the_training_graph_runs_in_containers_that_share_no_disk(
    images, stores, tmp_path, monkeypatch
):
    from docker.types import Mount
    from kfp.local import DockerRunner

    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, 10001, 10001)
    own = dict.fromkeys(("/s3", f"{MOUNT}/home", f"{MOUNT}/cache"), "uid=10001,gid=10001,mode=0700")
    runner = DockerRunner(
        network_mode="host",
        user="10001:10001",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": "", **own},
        entrypoint=["python", "/launcher.py"],
        mounts=[
            Mount("/launcher.py", str(LAUNCHER), type="bind", read_only=True),
            Mount(f"{MOUNT}/cache/sources", str(fetch_sources()), type="bind", read_only=True),
        ],
        environment={
            **launcher_variables(stores, root),
            **thread_variables(),
            "TASTELOOP_PSEUDONYM_KEY": "0" * 64,
        },
    )
    package = compile_for_cluster(tmp_path / "training.yaml", images["steps"], stores.tracking)
    with local_runner(runner, root):
        run_graph(package)
    live = check_stores(stores, root, tmp_path / "home", monkeypatch)
    assert live.version == "1"
