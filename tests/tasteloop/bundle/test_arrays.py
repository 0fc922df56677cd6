"""A bundle's arrays: what safetensors writes is read, and any other bytes are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tasteloop.bundle.arrays import mapped_arrays
from tasteloop.errors import TasteloopError

HEADERS = (
    b"",
    b"\xff" * 8,
    (2**40).to_bytes(8, "little") + b"{}",
    *(
        len(text).to_bytes(8, "little") + text
        for text in (
            b"[]",
            b'{"a": 1}',
            b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}',
            b'{"a": {"dtype": "F32", "shape": [0], "data_offsets": [-8, -8]}}',
            b'{"a": {"dtype": "X", "shape": [0], "data_offsets": [0, 0]}}',
            b"[" * 9000,
        )
    ),
)


@pytest.mark.parametrize("content", HEADERS)
def test_a_safetensors_header_that_lies_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(TasteloopError, match=r"a\.safetensors is not a whole"):
        mapped_arrays(tmp_path / "a.safetensors")


NUMBERS = st.integers(-9, 99) | st.integers(-(2**70), 2**70)
HEADER = st.dictionaries(
    st.text(max_size=3),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F64", "I64", "BF16", 1]),
            "shape": st.lists(NUMBERS, max_size=3) | NUMBERS,
            "data_offsets": st.lists(NUMBERS, min_size=1, max_size=3),
        }
    ),
    max_size=2,
).map(lambda header: json.dumps(header).encode())


@pytest.mark.fuzz
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.binary(max_size=64)
    | HEADER.map(lambda text: len(text).to_bytes(8, "little") + text + bytes(80))
)
def test_any_bytes_are_arrays_within_the_file_or_refused_by_name(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    try:
        arrays = mapped_arrays(path)
    except TasteloopError as error:
        assert "a.safetensors is not a whole safetensors file" in str(error)
    else:
        assert sum(array.nbytes for array in arrays.values()) <= len(content) * max(len(arrays), 1)


def test_what_safetensors_writes_is_read(tmp_path: Path) -> None:
    save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, tmp_path / "a.safetensors")
    assert mapped_arrays(tmp_path / "a.safetensors")["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
