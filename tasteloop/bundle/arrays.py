"""The arrays of a bundle as mapped memory."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# bytes that say which arrays a safetensors file has; an encoder's has 20 kB
_MAX_HEADER_BYTES = 2**20


def mapped_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file as read-only views of the mapped file.

    They are read when they are touched, and processes that serve the same bundle share the memory;
    the library's own `load_file` gives every process a copy.

    Raises:
        TasteloopError: its header is not what safetensors writes, or names bytes that are not
            there.
    """
    import numpy as np

    kinds: dict[str, type[np.generic]] = {
        "F32": np.float32,
        "F64": np.float64,
        "I32": np.int32,
        "I64": np.int64,
    }
    out = {}
    try:
        with path.open("rb") as stream:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        start = 8 + int.from_bytes(data[:8], "little")
        if start > 8 + _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {start - 8} bytes, more than {_MAX_HEADER_BYTES}")
        for name, about in json.loads(data[8:start]).items():
            if name != "__metadata__":
                begin, end = about["data_offsets"]
                kind = kinds[about["dtype"]]
                count = (end - begin) // np.dtype(kind).itemsize
                if not 0 <= begin <= end:
                    raise ValueError(f"{name} from byte {begin} to {end}")
                out[name] = np.frombuffer(data, kind, count, start + begin).reshape(about["shape"])
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise TasteloopError(
            f"{path} is not a whole safetensors file: {error}; restore it or train again"
        ) from None
    return out
