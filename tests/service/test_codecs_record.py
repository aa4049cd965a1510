"""Records: objects of typed fields become arrays, and what does not fit is refused with its place."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests import tiny_readers
from tests.tiny_readers import TinyReaders

from handful_service.bundle.manifest import parse_manifest
from handful_service.bundle.records import RecordOptions
from handful_service.codecs.decode import decode_rows
from handful_service.codecs.record import decode_record
from handful_service.errors import InputInvalid

AGE = {"name": "age", "kind": "number", "minimum": 0, "maximum": 120}
SECTOR = {"name": "sector", "kind": "category", "categories": ["a", "b", "\u00e9"], "unseen": "refuse", "default": "b"}
CITY = {"name": "city", "kind": "category", "categories": ["x", "y"], "unseen": "other"}
HOURS = {"name": "hours-per-week", "kind": "number", "default": 40}
FIELDS = RecordOptions.model_validate({"fields": [AGE, SECTOR, CITY, HOURS]})
GOOD = {"age": 31, "city": "y"}


def decode(record: Any) -> tuple[list[float], tuple[str, ...]]:
    array, folded = decode_record(record, FIELDS, field="inputs[2]")
    assert array.dtype == np.float32
    return array.tolist(), folded


def test_a_record_is_its_numbers_and_the_places_of_its_categories_with_defaults() -> None:
    assert decode(GOOD) == ([31, 1, 1, 40], ())
    assert decode({"city": "x", "hours-per-week": 0.5, "sector": "a", "age": 0}) == ([0, 0, 0, 0.5], ())
    assert decode({**GOOD, "sector": "e\u0301"})[0][1] == 2, "categories are compared in NFC"


@given(st.text(max_size=20))
def test_an_unseen_category_is_folded_where_that_is_declared_and_told(name: str) -> None:
    seen = name in ("x", "y")
    assert decode({**GOOD, "city": name})[1] == (() if seen else ("city",))
    assert decode({**GOOD, "city": name})[0][2] == ("x", "y", name).index(name)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_only_numbers_in_the_range_are_taken(value: float) -> None:
    if 0 <= value <= 120:
        assert decode({**GOOD, "age": value})[0][0] == np.float32(value)
    else:
        with pytest.raises(InputInvalid):
            decode({**GOOD, "age": value})


@pytest.mark.parametrize(
    ("record", "place", "found", "allowed"),
    [
        ([31], "inputs[2]", "is a list", "an object of the fields ['age', 'sector', 'city', 'hours-per-week']"),
        ("age", "inputs[2]", "is a string", "an object"),
        (None, "inputs[2]", "is null", "an object"),
        ({"city": "y"}, "inputs[2].age", "missing", "a number from 0 up to 120"),
        ({"age": 31}, "inputs[2].city", "missing", "a string"),
        ({**GOOD, "wage": 1}, "inputs[2]", "unknown field 'wage'", "'age'"),
        ({**GOOD, "age": "31"}, "inputs[2].age", "is a string", "a number from 0 up to 120"),
        ({**GOOD, "age": True}, "inputs[2].age", "is true or false", "a number"),
        ({**GOOD, "age": None}, "inputs[2].age", "is null", "a number"),
        ({**GOOD, "age": 121}, "inputs[2].age", "is 121", "up to 120"),
        ({**GOOD, "age": -1}, "inputs[2].age", "is -1", "from 0"),
        ({**GOOD, "hours-per-week": 1e39}, "inputs[2].hours-per-week", "is 1e+39", "a number"),
        ({**GOOD, "hours-per-week": 10**400}, "inputs[2].hours-per-week", "is 1000", "a number"),
        ({**GOOD, "sector": "z"}, "inputs[2].sector", "is 'z'", "one of ['a', 'b', '\u00e9']"),
        ({**GOOD, "sector": "\u0301" * 10**6}, "inputs[2].sector", "is '", "one of"),
        ({**GOOD, "sector": 1}, "inputs[2].sector", "is a number", "one of"),
        ({**GOOD, "city": 1}, "inputs[2].city", "is a number", "a string"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(record: Any, place: str, found: str, allowed: str) -> None:
    with pytest.raises(InputInvalid) as refused:
        decode(record)
    assert refused.value.field == place
    assert found in refused.value.detail
    assert len(refused.value.detail) < 200
    assert allowed in (refused.value.allowed or "")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([], "at least 1"),
        ([AGE, AGE], "there twice"),
        ([{**AGE, "name": "a.b"}], "pattern"),
        ([{**AGE, "minimum": 130}], "above the maximum"),
        ([{**AGE, "default": 121}], "out of the range"),
        ([{**AGE, "default": "one"}], "number"),
        ([{**AGE, "maximum": 1e39}], "less than or equal"),
        ([{**SECTOR, "default": "z"}], "is no category"),
        ([{**SECTOR, "categories": ["a", "a"]}], "there twice"),
        ([{**SECTOR, "categories": ["e\u0301"]}], "NFC"),
        ([{**SECTOR, "categories": []}], "at least 1"),
        ([{**SECTOR, "unseen": "guess"}], "refuse"),
        ([{**SECTOR, "kind": "date"}], "kind"),
    ],
)
def test_fields_that_contradict_themselves_are_refused(fields: list[Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RecordOptions.model_validate({"fields": fields})


def test_folded_fields_of_one_tensor_among_several_are_named_with_it() -> None:
    record = {"dtype": "float32", "axes": [1], "kind": "record", "record": {"fields": [CITY]}}
    vector = {"dtype": "float32", "axes": [2]}
    parts = {**tiny_readers.manifest(TinyReaders()), "inputs": {"who": record, "x": {**vector, "kind": "tensor"}}}
    parts["features"] = {"who": {"dtype": "float32", "axes": [1]}, "x": vector}
    rows = [{"who": {"city": "x"}, "x": [1, 2]}, {"who": {"city": "z"}, "x": [3, 4]}]
    found = decode_rows(rows, ["inputs[0]", "inputs[1]"], parse_manifest(json.dumps(parts).encode()))
    assert found.folded == ((), ("who.city",))
    assert found.arrays["who"].tolist() == [[0], [2]]
