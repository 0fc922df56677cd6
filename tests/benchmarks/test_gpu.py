"""The GPU benchmark runs whole on a processor: its first run on a GPU is not its first run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tiny_form_measures_everything_and_writes_a_table_and_json(tmp_path: Path) -> None:
    command = ["bash", "benchmarks/gpu.sh", "--tiny", "--out", str(tmp_path / "gpu.json")]

    ended = subprocess.run(
        command,
        cwd=HOUSE,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    measured = {row["what"]: row for row in report["finetuning"]}
    assert set(measured) == {
        "steps, fp32",
        "steps, bf16",
        "steps, bf16, torch.compile",
        "steps, bf16, DDP by torchrun",
        "the pipeline's steps",
        "the pipeline's training",
    }
    for name, row in measured.items():
        # to compile for a processor needs a C++ compiler, which not every machine has, and of so
        # few texts the start may take longer than the steps
        if "error" in row and name in ("steps, bf16, torch.compile", "the pipeline's steps"):
            continue
        assert row.get("texts_per_second", 0) > 0 and row["tflops"] > 0, row
        assert f"| {name} |" in ended.stdout
    assert all(rate > 0 for rate in report["encoding"]["texts_per_second"].values())
    assert report["encoding"]["distance_from_fp32"] < 1e-3
    assert report["serving"]["answers_per_second"] > 0 and report["serving"]["failures"] == 0
