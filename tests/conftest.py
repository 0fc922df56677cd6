"""Tiny but real: an encoder, behaviour with a pattern in it, and the bundle trained on them. Each
is made once per test run and read by all its processes.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

from tests.support.shared import make_once
from tests.support.tiny import make_dataset, make_encoder

settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fuzz", parent=settings.get_profile("any machine"), max_examples=20_000)
settings.load_profile("any machine")  # `make fuzz` asks for the other with --hypothesis-profile


@pytest.fixture(scope="session")
def quick_graphs() -> Iterator[None]:
    """Compile kfp graphs in a fraction of the time.

    Each setter of a kfp task asks `inspect.stack` for the name of its caller. Under pytest's many
    frames that takes a second, nearly all of it for source lines that kfp does not look at.
    """
    from kfp.dsl import pipeline_task

    def stack_without_source() -> list[inspect.FrameInfo]:
        return inspect.getouterframes(sys._getframe(1), context=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_task, "inspect", SimpleNamespace(stack=stack_without_source))
        yield


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT, 32 wide, with random weights and a word-piece vocabulary."""
    return make_once(tmp_path_factory, "encoder", make_encoder)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set directory of 60 users with two tastes each."""
    return make_once(tmp_path_factory, "dataset", make_dataset)


@pytest.fixture(scope="session")
def tiny_snapshots(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tasteloop.behaviour.prepare import prepare
    from tasteloop.behaviour.snapshots import PrepareSettings

    def make(folder: Path) -> None:
        prepare(tiny_dataset, PrepareSettings(horizon=5, stride=5), folder / "snapshots")

    return make_once(tmp_path_factory, "prepared", make) / "snapshots"


@pytest.fixture(scope="session")
def tiny_model(
    tiny_encoder: Path, tiny_snapshots: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from tasteloop.encoder.settings import TrainingSettings
    from tasteloop.encoder.training import finetune

    settings = TrainingSettings(
        encoder=str(tiny_encoder),
        epochs=2,
        frozen_layers=0,
        learning_rate=1e-3,
        batch_size=16,
        intent_texts=600,
        tensorboard=False,
    )

    def make(folder: Path) -> None:
        finetune(tiny_snapshots, settings, folder / "model", folder / "work")

    return make_once(tmp_path_factory, "trained", make) / "model"


@pytest.fixture(scope="session")
def tiny_bundle(
    tiny_model: Path, tiny_snapshots: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A sealed bundle that answers for all three models."""
    from tasteloop.recommender.fitting import RecommenderSettings
    from tasteloop.runtime.assemble import fit_recommender

    def make(folder: Path) -> None:
        fit_recommender(tiny_model, tiny_snapshots, RecommenderSettings(), folder / "bundle")

    bundle = make_once(tmp_path_factory, "bundled", make) / "bundle"
    assert json.loads((bundle / "golden.json").read_text())["questions"]
    return bundle
