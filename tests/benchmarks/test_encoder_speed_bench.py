"""The speed of profiles' encoders: a row a profile, each with two speeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.encoder_speed import main


def test_each_profile_has_two_speeds(
    tiny_snapshots: Path, tiny_encoder: Path, tmp_path: Path, capsys: Any
) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        f"base: smoke\ntraining: {{encoder: {tiny_encoder}, frozen_layers: 1, batch_size: 4}}\n"
    )
    threads = torch.get_num_threads()

    try:
        main(
            ["--snapshots", str(tiny_snapshots), "--profiles", str(profile), str(profile)]
            + ["--batches", "2"]
        )
    finally:
        torch.set_num_threads(threads)

    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == ["mine", "mine"]
    assert all(float(cell) > 0 for row in rows for cell in row[1:])
