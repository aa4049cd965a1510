"""Tensors in JSON."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.tiny import Tiny, manifest

from handful_service.bundle.manifest import InputSpec, Manifest
from handful_service.codecs.decode import decode_inputs
from handful_service.codecs.tensor import decode_tensors
from handful_service.errors import HandfulError, InputInvalid

FLOATS = InputSpec(dtype="float32", axes=(2, 3), kind="tensor")
INTEGERS = InputSpec(dtype="int64", axes=(2,), kind="tensor")
NUMBER = InputSpec(dtype="float32", axes=(), kind="tensor")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "b64"]) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
FINITE = hnp.arrays(np.float32, (2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def decode(value: Any, spec: InputSpec = FLOATS, norm: float | None = None) -> np.ndarray:
    return decode_tensors([value], spec, norm=norm, fields=["inputs[0]"])[0]


def outcome(value: Any, spec: InputSpec) -> np.ndarray | HandfulError:
    try:
        return decode(value, spec, norm=10.0)
    except HandfulError as error:
        return error


def b64(array: np.ndarray, **other: Any) -> dict[str, Any]:
    text = base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "b64": text} | other


@given(FINITE)
def test_both_forms_give_the_same_array_back(array: np.ndarray) -> None:
    for form in (array.tolist(), b64(array), json.loads(json.dumps(array.tolist()))):
        found = decode(form)
        assert (found.dtype, found.shape) == (np.float32, (2, 3))
        np.testing.assert_array_equal(found, array)


@given(hnp.arrays(np.int64, 2))
def test_integers_of_the_whole_range_come_back_exactly(array: np.ndarray) -> None:
    for form in (array.tolist(), b64(array)):
        np.testing.assert_array_equal(decode(form, INTEGERS), array)


def test_a_number_is_a_tensor_without_axes() -> None:
    assert decode(7, NUMBER) == np.float32(7)


def test_the_result_may_be_written_to_though_base64_gives_read_only_memory() -> None:
    assert decode(b64(np.zeros((2, 3), np.float32))).flags.writeable


ROW = [1.0, 2.0, 3.0]
REFUSED = {
    "a string": "1",
    "nothing": None,
    "true": True,
    "a ragged list": [ROW, [1.0]],
    "a ragged depth": [ROW, [ROW]],
    "strings inside": [["1", "2", "3"], ROW],
    "a null inside": [ROW, [1.0, None, 3.0]],
    "only true and false inside": [[True, False, True]] * 2,
    "true among numbers": [ROW, [1.0, True, 3.0]],
    "an object inside": [ROW, [1.0, {}, 3.0]],
    "not a number": [ROW, [1.0, float("nan"), 3.0]],
    "an infinity": [ROW, [1.0, float("-inf"), 3.0]],
    "1e999": json.loads("[[1, 2, 3], [1, 1e999, 3]]"),
    "beyond float32": [ROW, [1.0, 1e39, 3.0]],
    "a huge integer": [[1, 2, 3], [1, 10**400, 3]],
    "too few rows": [ROW],
    "too many axes": [[ROW, ROW]],
    "nothing in a list": [],
    "a very deep list": json.loads("[" * 150 + "]" * 150),
    "a key too few": {"dtype": "float32", "shape": [2, 3]},
    "a key too many": b64(np.zeros((2, 3), np.float32), order="C"),
    "another dtype": b64(np.zeros((2, 3), np.float64)),
    "a dtype that is a list": b64(np.zeros((2, 3), np.float32), dtype=["float32"]),
    "bytes missing": b64(np.zeros((2, 2), np.float32), shape=[2, 3]),
    "a negative size": b64(np.zeros((2, 3), np.float32), shape=[-2, -3]),
    "a size that is true": b64(np.zeros((1, 3), np.float32), shape=[True, 3]),
    "a hundred axes": b64(np.zeros(1, np.float32), shape=[1] * 100),
    "sizes that overflow": b64(np.zeros(0, np.float32), shape=[0] + [2**31 - 1] * 3),
    "a shape of another model": b64(np.zeros(6, np.float32)),
    "no base64": b64(np.zeros((2, 3), np.float32), b64="???"),
    "base64 that is no string": b64(np.zeros((2, 3), np.float32), b64=[1]),
    "base64 beyond ASCII": b64(np.zeros((2, 3), np.float32), b64="ä"),
    "not a number in bytes": b64(np.full((2, 3), np.nan, np.float32)),
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_tensor_of_the_model_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(InputInvalid) as refused:
        decode(value)
    assert str(refused.value.field).startswith("inputs[0]")
    assert refused.value.allowed


@pytest.mark.parametrize("value", [[1.5, 2], [2**63, 0], [1e300, 1], b64(np.zeros(2, np.float32))])
def test_fractions_and_numbers_too_large_are_no_integers(value: Any) -> None:
    with pytest.raises(InputInvalid):
        decode(value, INTEGERS)


@given(FINITE, st.floats(1e-3, 1e38))
def test_a_norm_beyond_the_bound_is_refused_and_only_that(array: np.ndarray, norm: float) -> None:
    found = float(np.linalg.norm(array.astype(np.float64)))
    if found <= norm:
        np.testing.assert_array_equal(decode(array.tolist(), norm=norm), array)
    else:
        with pytest.raises(InputInvalid, match="norm") as refused:
            decode(array.tolist(), norm=norm)
        assert f"{norm:.6g}" in str(refused.value.allowed)


@given(JSON, st.sampled_from([FLOATS, INTEGERS, NUMBER]))
def test_any_json_is_an_array_of_the_declared_shape_or_refused(value: Any, spec: InputSpec) -> None:
    found = outcome(value, spec)
    if isinstance(found, HandfulError):
        assert str(found.field).startswith("inputs[0]")
    else:
        assert (found.dtype, found.shape) == (np.dtype(spec.dtype), spec.shape)
        assert np.isfinite(found).all()


@given(st.text(max_size=10) | st.integers() | st.lists(st.integers(-3, 2**40), max_size=70), st.text(max_size=20))
def test_any_shape_and_text_of_the_bytes_form_is_refused_or_fits(shape: Any, text: str) -> None:
    found = outcome({"dtype": "float32", "shape": shape, "b64": text}, FLOATS)
    assert str(found.field).startswith("inputs[0]") if isinstance(found, HandfulError) else found.shape == (2, 3)


def two_inputs() -> Manifest:
    parts = manifest(Tiny())
    parts["inputs"]["age"] = {"dtype": "float32", "axes": [], "kind": "tensor"}
    return Manifest.model_validate(parts)


def test_a_model_of_several_inputs_takes_an_object_of_them() -> None:
    rows = [{"x": [1, 2, 3, 4], "age": 7}, {"x": [0, 0, 0, 0], "age": 8}]
    found = decode_inputs(rows, ["inputs[0]", "inputs[1]"], two_inputs())
    np.testing.assert_array_equal(found["age"], [7, 8])
    assert found["x"].shape == (2, 4)
    assert {name: len(array) for name, array in decode_inputs([], [], two_inputs()).items()} == {"x": 0, "age": 0}


@pytest.mark.parametrize("value", [[1, 2, 3, 4], {"x": [1, 2, 3, 4]}, {"x": [1, 2, 3, 4], "age": 1, "z": 0}, None])
def test_an_object_with_other_keys_is_refused_and_a_bad_part_is_named(value: Any) -> None:
    with pytest.raises(InputInvalid, match=r"^inputs\[0\]: is not an object"):
        decode_inputs([value], ["inputs[0]"], two_inputs())
    with pytest.raises(InputInvalid, match=r"^inputs\[0\]\.age: "):
        decode_inputs([{"x": [1, 2, 3, 4], "age": "7"}], ["inputs[0]"], two_inputs())


@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6) | st.integers(-9, 9) | st.booleans() | st.none(), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_rows_of_floats_alone_and_rows_of_anything_are_read_alike(rows: list[list[Any]]) -> None:
    spec = InputSpec(dtype="float32", axes=(3,), kind="tensor")
    fields = [f"inputs[{place}]" for place in range(len(rows))]

    def read(values: list[Any]) -> Any:
        try:
            return decode_tensors(values, spec, norm=None, fields=fields[: len(values)]).tolist()
        except InputInvalid as error:
            return error.field

    alone = [read([row])[0] if isinstance(read([row]), list) else None for row in rows]
    together = read(rows)
    if None in alone:
        assert together == fields[alone.index(None)]
    else:
        assert together == alone == np.array(rows, np.float32).tolist()


@example([[0, 0, -(2**63) - 1], [1.0, 1.0, 1.0]])
@example([[0, 0, 2**70]])
@given(st.lists(st.lists(st.integers(-(2**70), 2**70) | st.floats(-1e30, 1e30), min_size=3, max_size=3), min_size=1))
def test_numbers_of_any_size_are_read_as_floats(rows: list[list[float]]) -> None:
    spec = InputSpec(kind="tensor", dtype="float32", axes=(3,))
    fields = [f"inputs[{place}]" for place in range(len(rows))]
    np.testing.assert_allclose(
        decode_tensors(rows, spec, norm=None, fields=fields), np.array(rows, np.float64), rtol=1e-6, atol=1e-37
    )


@pytest.mark.parametrize("row", [[0, 0, 10**400], [0.0, 1.5, 10**400]])
def test_an_integer_that_no_float_holds_is_refused(row: list[float]) -> None:
    spec = InputSpec(kind="tensor", dtype="float32", axes=(3,))
    with pytest.raises(InputInvalid, match="too large"):
        decode_tensors([row], spec, norm=None, fields=["x"])


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=3), min_size=1))
@pytest.mark.parametrize("norm", [None, 1e6])
def test_rows_that_are_surely_floats_are_read_alike_though_less_is_looked_at(
    norm: float | None, rows: list[list[float]]
) -> None:
    spec = InputSpec(kind="tensor", dtype="float32", axes=(3,))
    fields = [f"inputs[{place}]" for place in range(len(rows))]
    usual, packed = (_outcome(rows, spec, fields, norm, floats) for floats in (False, True))
    if isinstance(usual, np.ndarray):
        assert isinstance(packed, np.ndarray)
        assert (packed.dtype, packed.shape) == (usual.dtype, usual.shape)
        np.testing.assert_allclose(packed, usual, rtol=1e-7)
    else:
        assert packed == usual


def _outcome(rows: list[list[float]], spec: InputSpec, fields: list[str], norm: float | None, floats: bool) -> Any:
    try:
        return decode_tensors(rows, spec, norm=norm, fields=fields, floats=floats)
    except HandfulError as error:
        return type(error), error.field, error.detail, error.allowed
