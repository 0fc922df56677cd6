"""How much a compressed file may hold: a few kilobytes can become gigabytes, and whoever reads them
finds out too late.

The bound is a ratio, because a size would refuse somebody's honest ten gigabytes. Tables and texts
shrink to a tenth or a thirtieth, the most repetitive logs to a hundredth. DEFLATE itself ends at a
thousandth, which only made-up content reaches. Whoever has such a file for good reason decompresses
it with a tool of their own, and gives the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tasteloop.errors import TasteloopError

MOST_EXPANSION = 100  # times the compressed size
FREE_BYTES = 64 << 20  # that are never too much, however small the file was
_PIECE = 1 << 20


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def most_bytes(packed: int) -> int:
    """How many bytes a file of `packed` bytes may hold."""
    return max(FREE_BYTES, MOST_EXPANSION * packed)


def read_bounded(stream: Readable, packed: int, name: str) -> Iterator[bytes]:
    """The content of a decompressing stream, piece by piece.

    Args:
        packed: size of the compressed file or member; `name`: what an error calls it.

    Raises:
        TasteloopError: it holds more than `most_bytes`; no more than that has been decompressed
            then.
    """
    most, size = most_bytes(packed), 0
    while piece := stream.read(_PIECE):
        size += len(piece)
        if size > most:
            raise too_large(name, packed)
        yield piece


def too_large(name: str, packed: int) -> TasteloopError:
    return TasteloopError(
        f"{name} ({packed:,} bytes) holds more than {most_bytes(packed):,} bytes, {MOST_EXPANSION} times its size: a "
        "decompression bomb? If it is meant to be so, decompress it and give the result"
    )
