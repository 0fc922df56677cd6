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
from graph import LAUNCHER, MOUNT, check, compiled, environment, execute, local, sources, threads
from stores import stores

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    with stores(tmp_path_factory.mktemp("stores"), "127.0.0.1", (free(), free())) as running:
        yield running


def free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_the_training_graph_runs_in_containers_that_share_no_disk(
    images, places, tmp_path, monkeypatch
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
            Mount(f"{MOUNT}/cache/sources", str(sources()), type="bind", read_only=True),
        ],
        environment={**environment(places, root), **threads(), "TASTELOOP_PSEUDONYM_KEY": "0" * 64},
    )
    package = compiled(tmp_path / "training.yaml", images["steps"], places.tracking)
    with local(runner, root):
        execute(package)
    live = check(places, root, tmp_path / "home", monkeypatch)
    assert live.version == "1"
