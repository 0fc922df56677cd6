"""The labels benchmark: titles that say their label are told, and nothing about an item is told by
itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.labels import main, measure, rankers


def test_titles_that_say_their_label() -> None:
    """Labels are corners of the space and titles near theirs: all but the prior rank them first."""
    label = np.arange(60) % 3
    truth = np.eye(3, dtype=np.float32)[label]
    titles = truth + 0.1 * np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    rows = {
        row["method"]: row
        for row in measure(rankers(titles, np.eye(3, dtype=np.float32), truth), truth)
    }
    assert {name for name, row in rows.items() if row["map"]["value"] > 0.99} == set(rows) - {
        "prior"
    }
    assert rows["prior"]["map"]["value"] < 0.9
    assert rows["prior"]["map_minus_prior"]["value"] == 0


def test_an_items_own_labels_change_nothing_for_it() -> None:
    rng = np.random.default_rng(0)
    titles, names = rng.standard_normal((40, 4)), rng.standard_normal((3, 4))
    truth = (rng.random((40, 3)) < 0.4).astype(np.float32)
    other = truth.copy()
    other[7] = 1 - other[7]
    for name, scores in rankers(titles, names, truth).items():
        assert np.allclose(scores[7], rankers(titles, names, other)[name][7], atol=1e-6), name


def test_the_command_prints_a_row_a_method(
    tiny_dataset: Path, tiny_encoder: Path, capsys: Any
) -> None:
    main(["--items", str(tiny_dataset / "items.parquet"), "--encoder", str(tiny_encoder), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {row["method"] for row in rows} == {
        "prior",
        "zero-shot",
        "zero-shot and prior",
        "ridge",
        "neighbours",
    }
    assert all(row["map"]["n"] == 40 for row in rows)
