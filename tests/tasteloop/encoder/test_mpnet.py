"""MPNet, which adds a learned bias for the distance of two tokens, reads as transformers reads
it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tasteloop.datasets.fetch import cached, fetch
from tasteloop.encoder.batches import load_tokenizer, pad, tokenize
from tasteloop.encoder.model import TasteModel, load, load_encoder, save
from tasteloop.runtime import engines
from tasteloop.runtime.export import to_onnx

TEXTS = ["a scary film that keeps me up at night", "cowboys", "gunslingers and cowboys " * 40]


@pytest.fixture(scope="module")
def mpnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers, 32 wide, with random weights, those of the distances too."""
    from transformers import MPNetConfig, MPNetModel

    torch.manual_seed(0)
    config = MPNetConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("mpnet")
    MPNetModel(config).save_pretrained(folder)
    return folder


def batch() -> tuple[Tensor, Tensor]:
    """Texts of 3, 40 and 150 tokens: distances beyond the last bucket, which begins at 128."""
    rng = np.random.default_rng(0)
    return pad([[0, *rng.integers(3, 60, n).tolist(), 2] for n in (1, 38, 148)])


def read_by_transformers(directory: Path, ids: Tensor, mask: Tensor) -> Tensor:
    """The means over real tokens [n, width] of the model that transformers itself runs."""
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(directory).eval()
    with torch.inference_mode():
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask.unsqueeze(-1)
    return (hidden * weights).sum(1) / weights.sum(1)


@pytest.mark.parametrize("frozen", [-1, 0, 2])
def test_mpnet_reads_as_transformers_does(mpnet: Path, frozen: int) -> None:
    model = TasteModel(load_encoder(mpnet), {"interests": 2}, frozen).eval()

    with torch.inference_mode():
        pooled = model(*batch())

    torch.testing.assert_close(pooled, read_by_transformers(mpnet, *batch()), rtol=0, atol=1e-5)


def test_the_bias_of_distances_trains_unless_frozen_layers_read_it(mpnet: Path) -> None:
    trained = {}
    for frozen in (-1, 0, 2):
        model = TasteModel(load_encoder(mpnet), {"interests": 2}, frozen)
        model(*batch()).sum().backward()
        bias = model.encoder.encoder.relative_attention_bias.weight
        trained[frozen] = bias.requires_grad and bool(bias.grad.abs().sum() > 0)

    assert trained == {-1: True, 0: True, 2: False}


def test_a_saved_mpnet_reads_the_same_as_onnx_and_openvino(mpnet: Path, tmp_path: Path) -> None:
    model = TasteModel(load_encoder(mpnet), {"interests": 2}).eval()
    save(model, tmp_path)
    to_onnx(tmp_path)
    ids, mask = batch()

    with torch.inference_mode():
        pooled = load(tmp_path)(ids, mask).numpy()
        assert np.array_equal(pooled, model(ids, mask).numpy())

    for name in (engines.ONNX_FP32, engines.OPENVINO_FP32):
        engine = engines.load(name, tmp_path, 1)
        for length in (2, 40, 150):  # of which none is that of the export
            read = engine(ids[:, :length].numpy(), mask[:, :length].numpy())
            with torch.inference_mode():
                expected = model(ids[:, :length], mask[:, :length]).numpy()
            assert np.abs(read - expected).max() < 1e-4, (name, length)


@pytest.mark.slow
def test_all_mpnet_base_v2_reads_as_transformers_does() -> None:
    if not cached("mpnet"):
        pytest.skip("mpnet (400 MB) is not in the cache: `tasteloop data fetch mpnet`")
    directory = fetch("mpnet")
    ids, mask = pad(tokenize(load_tokenizer(directory), TEXTS, 128))

    with torch.inference_mode():
        pooled = TasteModel(load_encoder(directory), {}).eval()(ids, mask)

    assert pooled.shape == (3, 768)
    torch.testing.assert_close(
        pooled, read_by_transformers(directory, ids, mask), rtol=0, atol=1e-5
    )
