"""Fine-tuning by several processes: it is what one does, and a lost one changes nothing.

Real torchrun and gloo on the processor. Dropout is off: each process draws masks of its own, so
with it runs are alike in distribution only.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tasteloop import storage
from tasteloop.encoder.settings import TrainingSettings
from tasteloop.encoder.training import finetune
from tasteloop.encoder.worker import CHECKPOINTS, MODEL, SNAPSHOTS
from tasteloop.files import read_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
NAME = "interests+sentiment"


def settings(encoder: Path, **given: object) -> TrainingSettings:
    return TrainingSettings(
        encoder=str(encoder),
        epochs=3,
        patience=9,
        batch_size=16,
        learning_rate=1e-3,
        frozen_layers=0,
        dropout=0.0,
        encoder_dropout=0.0,
        precision="fp32",
        checkpoint_seconds=0,
        intent_texts=0,
    ).model_copy(update=given)


@contextlib.contextmanager
def torchrun(
    place: str,
    asked: TrainingSettings,
    *options: str,
    out: object = subprocess.PIPE,
    **environment: str,
) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *options,
        "-m",
        "tasteloop.encoder.worker",
    ]
    command += ["--place", place, "--settings", asked.model_dump_json()]
    told = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**told, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        stdout=out,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()  # it ends its workers
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


TOGETHER = ("--standalone", "--nproc-per-node=2")


def finished(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said[-4000:]
    return said


def losses(work: Path) -> dict[str, list[float]]:
    """The curves as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(work / NAME / "tensorboard"))
    events.Reload()
    return {tag: [s.value for s in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def weights(model: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    files = ("model.safetensors", "heads.safetensors")
    return {
        name: value for f in files for name, value in load_file(model / "models" / NAME / f).items()
    }


@pytest.mark.parametrize("frozen", [-1, 1])
def test_two_processes_learn_what_one_does(
    tiny_encoder: Path, tiny_snapshots: Path, tmp_path: Path, frozen: int
) -> None:
    """The same global batches: every loss within 1e-5 of the other's, every weight within 1e-4
    after three epochs.

    Only the order of sums differs. Measured: 2e-7 and 7e-7.
    """
    asked = settings(tiny_encoder, frozen_layers=frozen, checkpoint_seconds=1e9)
    finetune(tiny_snapshots, asked, tmp_path / "alone", tmp_path / "work")
    place = tmp_path / "company"
    storage.send(tiny_snapshots, str(place / SNAPSHOTS))
    with torchrun(str(place), asked, *TOGETHER) as process:
        finished(process)
    one, two = losses(tmp_path / "work"), losses(place / CHECKPOINTS)
    assert one.keys() == two.keys() >= {"loss/interests", "loss/sentiment", "validation/interests"}
    for tag, curve in one.items():
        np.testing.assert_allclose(two[tag], curve, rtol=1e-5, err_msg=tag)
        assert np.ptp(curve) > 0.03 or tag.startswith("validation"), (
            "a curve that does not move would prove nothing"
        )
    ours = weights(place / MODEL)
    for name, value in weights(tmp_path / "alone").items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-4, err_msg=name)


def rank(of: int, number: int) -> int | None:
    """The process id of torchrun's worker with this rank."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == of and f"RANK={number}".encode() in (entry / "environ").read_bytes().split(
                b"\0"
            ):
                return int(entry.name)
    return None


def when(condition: Callable[[], object], *processes: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        for process in processes:
            assert process.poll() is None, (process.communicate()[0] or "")[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def midway(place: Path) -> bool:
    """A checkpoint of the second epoch is there, whole: under its own name, and in a store the
    pointer names it.
    """
    for found in place.glob(f"{CHECKPOINTS}/{NAME}/[!.]*/state.json"):
        with contextlib.suppress(Exception):
            pointer = found.parents[1] / "current.json"
            # a store's folders have such names
            in_place = not re.fullmatch("[0-9a-f]{32}", found.parent.name)
            if read_json(found)["epoch"] >= 1 and (
                in_place or read_json(pointer)["folder"] == found.parent.name
            ):
                return True
    return False


@pytest.fixture(scope="module")
def undisturbed(
    tiny_encoder: Path, tiny_snapshots: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    place = tmp_path_factory.mktemp("undisturbed")
    storage.send(tiny_snapshots, str(place / SNAPSHOTS))
    with torchrun(str(place), settings(tiny_encoder, epochs=4), *TOGETHER) as process:
        assert "resumed" not in finished(process)
    return weights(place / MODEL)


@pytest.mark.parametrize(("lost", "scheme"), [(1, ""), (0, ""), (1, "file://")])
def test_a_lost_worker_changes_nothing(
    tiny_encoder: Path,
    tiny_snapshots: Path,
    tmp_path: Path,
    undisturbed: dict[str, np.ndarray],
    lost: int,
    scheme: str,
) -> None:
    """Killed by SIGKILL in the second of four epochs: torchrun starts both again, at the last
    checkpoint.

    The weights in the end are the undisturbed run's, bit for bit.
    """
    place = f"{scheme}{tmp_path}/place"
    storage.send(tiny_snapshots, f"{place}/{SNAPSHOTS}")
    asked = settings(tiny_encoder, epochs=4)
    with torchrun(place, asked, *TOGETHER, "--max-restarts=1", "--monitor-interval=0.1") as process:
        when(lambda: midway(tmp_path / "place"), process)
        victim = rank(process.pid, lost)
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        said = finished(process)
    assert "resumed from epoch" in said, said[-4000:]
    assert "exitcode: -9" in said, said[-4000:]
    assert storage.fetch(f"{place}/{MODEL}", tmp_path / "model")
    found = weights(tmp_path / "model")
    for name, value in undisturbed.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_lost_node_changes_nothing(
    tiny_encoder: Path, tiny_snapshots: Path, tmp_path: Path, undisturbed: dict[str, np.ndarray]
) -> None:
    """Two torchruns that meet as Trainer tells them to (PET_*); one is killed with its worker.

    The test begins them again once all have ended, at most three times. One that comes back while
    the other still lives can meet that one's rendezvous and wait for it without end
    (docs/cluster.md).
    """
    place = str(tmp_path / "place")
    storage.send(tiny_snapshots, f"{place}/{SNAPSHOTS}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    with contextlib.ExitStack() as stack:

        def start(node: int) -> subprocess.Popen[str]:
            pet = {
                "NNODES": "2",
                "NPROC_PER_NODE": "1",
                "NODE_RANK": str(node),
                "MASTER_ADDR": "127.0.0.1",
            }
            told = {f"PET_{name}": value for name, value in {**pet, "MASTER_PORT": port}.items()}
            out = stack.enter_context(logs[node].open("a"))
            asked = settings(tiny_encoder, epochs=4)
            return stack.enter_context(torchrun(place, asked, "--max-restarts=0", out=out, **told))

        nodes = [start(0), start(1)]
        when(lambda: midway(tmp_path / "place"), *nodes)
        victim = rank(nodes[1].pid, 1)
        assert victim is not None
        for lost in (nodes[1].pid, victim):
            os.kill(lost, signal.SIGKILL)
        begun, deadline = 0, time.monotonic() + 240
        while any(node.poll() != 0 for node in nodes):
            if all(node.poll() is not None for node in nodes):
                nodes, begun = [start(0), start(1)], begun + 2
            said = "".join(log.read_text()[-3000:] for log in logs)
            assert begun <= 6 and time.monotonic() < deadline, said
            time.sleep(0.2)
    assert begun >= 2, "the other's torchrun has to end, too"
    assert "resumed from epoch" in logs[0].read_text()
    for name, value in undisturbed.items():
        np.testing.assert_array_equal(weights(Path(place, MODEL))[name], value, err_msg=name)
