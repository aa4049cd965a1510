"""Arrays as the bytes that the store keeps."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from handful_service.packing import pack, unpack
from handful_service.task import Arrays

NUMBERS = st.one_of(
    [
        arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0), elements=elements)
        for dtype, elements in (
            (np.float32, st.floats(width=32)),
            (np.float64, st.floats()),
            (np.int64, st.integers(-(2**63), 2**63 - 1)),
        )
    ]
)


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(
        (array.dtype, array.shape, array.tobytes()) == (other[name].dtype, other[name].shape, other[name].tobytes())
        for name, array in one.items()
    )


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), NUMBERS, min_size=1))
def test_what_is_packed_is_unpacked(given_arrays: Arrays) -> None:
    names = {name: array for name, array in given_arrays.items() if name != "__metadata__"}
    assert same(unpack(pack(names)), names)


def test_parts_of_other_arrays_are_packed_as_they_look() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    parts = {"row": whole[1], "columns": whole[:, 1::2], "turned": whole.T}
    assert same(unpack(pack(parts)), parts)


def test_what_earlier_servers_kept_is_read() -> None:
    file, kept = io.BytesIO(), {"weight": np.ones((2, 3), np.float32), "sum": np.zeros((), np.float64)}
    np.savez(file, **kept)  # type: ignore[arg-type]
    assert same(unpack(file.getvalue()), kept)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04", b"\xff" * 40, pack({"a": np.ones(3)})[:-1]])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(Exception, match=r"."):
        unpack(content)
