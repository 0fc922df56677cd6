"""The decoder benchmark: a causal model is causal, the other is not, and the command measures each
method.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.quality.decoder import METHODS, Measured, Reader, Size, main, summarise
from tasteloop.encoder.batches import pad

SIZE = Size(layers=2, width=32, heads=2, vocabulary=50, longest=16)
TEXT, CHANGED = [2, 7, 8, 9, 3], [2, 7, 8, 11, 3]  # the token at 3 differs


@pytest.fixture
def threads() -> Iterator[None]:
    """The command computes on one thread; the tests after it get theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def reader(name: str) -> Reader:
    torch.manual_seed(0)
    return Reader(METHODS[name], SIZE, 4).eval()


def states(model: Reader, ids: list[int]) -> Tensor:
    """The last layer's state of each token, [t, width]."""
    token_ids, mask = pad([ids])
    with torch.inference_mode():
        return model.states(model.lower(token_ids, mask), mask)[0]


def pooled(model: Reader, *texts: list[int]) -> Tensor:
    token_ids, mask = pad(texts)
    with torch.inference_mode():
        return model.upper(model.lower(token_ids, mask), mask)


@pytest.mark.parametrize("name", METHODS)
def test_a_later_token_moves_an_earlier_state_in_the_bidirectional_model_alone(name: str) -> None:
    model = reader(name)

    moved = (states(model, TEXT) - states(model, CHANGED)).abs().amax(1)

    assert (moved[3:] > 1e-3).all(), "the changed token, and the one that reads it"
    assert (moved[:3] > 1e-4).all() if name == "bidirectional" else (moved[:3] == 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_padding_changes_no_vector(name: str) -> None:
    model = reader(name)

    alone, beside = pooled(model, TEXT)[0], pooled(model, TEXT, [*TEXT, *TEXT])[0]

    torch.testing.assert_close(alone, beside, rtol=0, atol=1e-5)


def test_the_last_token_is_pooled_where_it_is_asked_for_and_the_mean_elsewhere() -> None:
    last, mean = reader("causal, last"), reader("causal")

    torch.testing.assert_close(pooled(last, TEXT)[0], states(last, TEXT)[-1])
    torch.testing.assert_close(pooled(mean, TEXT)[0], states(mean, TEXT).mean(0))


def test_differences_are_paired_by_seed() -> None:
    quality = {("bidirectional", 0): 0.5, ("bidirectional", 1): 0.7}
    quality |= {("causal", 0): 0.4, ("causal", 1): 0.8}
    runs = [Measured(name, seed, 1, value, 1.0, 1.0) for (name, seed), value in quality.items()]

    bidirectional, causal = summarise(runs)

    assert bidirectional["difference"] == {"mean": 0, "low": 0, "high": 0}
    assert causal["quality"] == pytest.approx({"mean": 0.6, "low": 0.4, "high": 0.8})
    assert causal["difference"] == pytest.approx({"mean": 0, "low": -0.1, "high": 0.1})


@pytest.mark.usefixtures("threads")
def test_the_command_trains_each_method_and_prints_what_it_measured(
    tiny_snapshots: Path, tiny_encoder: Path, capsys: Any
) -> None:
    small = "--layers 1 --width 32 --heads 2 --epochs 1 --snapshots-an-epoch 8 --batch-size 8"

    main(
        ["--snapshots", str(tiny_snapshots), "--encoder", str(tiny_encoder)]
        + ["--seeds", "0", "--json", *small.split()]
    )

    measured = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in measured["methods"]] == [*METHODS]
    for row in measured["methods"]:
        assert 0 < row["quality"]["mean"] < 1
        assert row["training_speed"]["mean"] > 0
        assert row["reading_speed"]["mean"] > 0
    assert 0 < measured["shares"] < 1
    qualities = [row["quality"]["mean"] for row in measured["methods"]]
    assert np.unique(qualities).size > 1, "they are different models"
