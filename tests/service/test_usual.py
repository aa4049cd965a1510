"""What is read in one go is what the wire model reads."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handful_service.errors import HandfulError
from handful_service.predictor.models import Usual
from handful_service.predictor.refs import Ask, BySupport
from handful_service.routes.asking import USUAL, asks_of, options_of
from handful_service.routes.bodies import parsed
from handful_service.routes.usual import support_in, usual_ask
from handful_service.schemas import PredictRequest

MOST = 3

ROWS = st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(), max_size=3), max_size=4)
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just([]), st.just({"id": "a"}), st.just("alice")
)
BODIES = st.fixed_dictionaries(
    {"inputs": ROWS | st.lists(ANYTHING, max_size=2) | st.lists(st.lists(ANYTHING, max_size=2), max_size=2)},
    optional={
        "adaptation": st.sampled_from(["alice", "a\n", "", "ä", None, 1]),
        "task": st.sampled_from(
            [{"id": "a"}, {"id": "a\n"}, {"id": None}, {"ids": ["a"]}, {}, None, {"id": "a", "text": "b"}]
        ),
        "support": st.sampled_from([None, []]),
        "partial": st.booleans(),
        "version": st.sampled_from([None, 1]),
        "options": st.sampled_from([{}, {"top": 1}]),
    },
)


def usual_ask_of(content: bytes, usual: Usual = "numbers", known: tuple[bytes, ...] = ()) -> Ask | None:
    """What is read, where some support sets are known."""
    return usual_ask(content, usual, MOST, lambda ask, support: ask if support in known else None)


def by_the_wire_model(content: bytes) -> Ask | None:
    """The one ask of a call without options or a version."""
    try:
        request = parsed(PredictRequest, content)
        (ask,) = asks_of(request, MOST)
    except HandfulError:
        return None
    assert request.version is None
    assert options_of(request.options, partial=request.partial) == USUAL
    return ask


@given(BODIES)
@example({"inputs": [[1, 2.5, -(2**70)]]})
@example({"inputs": [[1.0]], "adaptation": "alice"})
@example({"inputs": [[1.0], [2]], "task": {"id": "a"}})
def test_a_usual_call_asks_what_the_wire_model_says(body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    usual = usual_ask_of(content)
    if usual is None:
        return
    wanted = by_the_wire_model(content)
    assert wanted is not None
    assert [[float(value) for value in row] for row in wanted.inputs] == usual.inputs
    assert all(type(value) is float for row in usual.inputs for value in row)
    assert (usual.fields, usual.task) == (wanted.fields, wanted.task)


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        (b'{"inputs": [[1, 2.5, -0]]}', True),
        (b'{"inputs": [[1]], "adaptation": null, "task": null}', True),
        (b'{"inputs": [[1]], "inputs": [[2]]}', True),
        (b'{"inputs": [[true]]}', False),
        (b'{"inputs": [[null]]}', False),
        (b'{"inputs": [["1"]]}', False),
        (b'{"inputs": [[1e400]]}', False),
        (b'{"inputs": [[NaN]]}', False),
        (b'{"inputs": [[1]]} {}', False),
        (b'{"inputs": [1]}', False),
        (b'{"inputs": []}', False),
        (b'{"inputs": null}', False),
        (b'{"inputs": [[1], [1], [1], [1]]}', False),
        (b'{"inputs": [[1]], "adaptation": "a", "task": {"id": "b"}}', False),
        (b'{"inputs": [[1]], "adaptation": "\xff"}', False),
        (b'{"inputs": [[1]], "adaptation": "a\\n"}', False),
        (b'{"inputs": [[1]], "version": 1}', False),
        (b'{"inputs": [[1]], "support": []}', False),
        (b'{"inputs": [[1]], "support": null}', False),
        (b'{"inputs": [[1]], "options": {}}', False),
        (b'{"inputs": ' + b"[" * 5000, False),
        (b"\xef\xbb\xbf{}", False),
        (b"", False),
    ],
)
def test_what_is_usual(content: bytes, taken: bool) -> None:
    assert (usual_ask_of(content) is not None) == taken
    if taken:
        assert by_the_wire_model(content) is not None


def test_of_keys_that_stand_twice_the_last_counts_in_both() -> None:
    content = b'{"inputs": [[1]], "inputs": [[2]], "adaptation": "a", "adaptation": "b"}'
    usual, wanted = usual_ask_of(content), by_the_wire_model(content)
    assert usual is not None
    assert wanted is not None
    assert (usual.inputs, usual.task) == (wanted.inputs, wanted.task)


STRINGS = st.lists(st.text(max_size=4), max_size=4) | st.lists(ANYTHING, max_size=2)


@given(STRINGS, st.sampled_from([{}, {"adaptation": "a"}, {"task": {"id": "a"}}, {"options": {}}]), st.booleans())
def test_strings_are_what_the_wire_model_says(inputs: list[Any], more: dict[str, Any], ascii_only: bool) -> None:
    content = json.dumps({"inputs": inputs, **more}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    usual = usual_ask_of(content, "strings")
    if usual is None:
        return
    wanted = by_the_wire_model(content)
    assert wanted is not None
    assert (usual.inputs, usual.fields, usual.task) == (wanted.inputs, wanted.fields, wanted.task)
    assert not usual.floats


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        (b'{"inputs": ["a", "\\u00e4\\n", ""]}', True),
        (b'{"inputs": ["\\ud800"]}', False),
        (b'{"inputs": ["\xed\xa0\x80"]}', False),
        (b'{"inputs": ["\xff"]}', False),
        (b'{"inputs": ["a\n"]}', False),
        (b'{"inputs": [1]}', False),
        (b'{"inputs": [["a"]]}', False),
        (b'{"inputs": "a"}', False),
        (b'{"inputs": []}', False),
    ],
)
def test_which_strings_are_usual(content: bytes, taken: bool) -> None:
    assert (usual_ask_of(content, "strings") is not None) == taken


SUPPORT = b'[ {"input": [1.0], "label": "a"},{"input": [2.0], "label": "b"}]'


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        (b'{"inputs": [[1]], "support": %b}', True),
        (b'{"support":%b ,"inputs": [[1]]}', True),
        (b'{"support": [], "inputs": [[1]], "support": %b}', True),
        (b'{"support": %b, "inputs": [[1]], "support": []}', False),
        (b'{"inputs": [[1]], "support": %b, "adaptation": "a"}', False),
        (b'{"inputs": [[1]], "support": %b, "task": {"id": "a"}}', False),
        (b'{"inputs": [[1]], "support": %b, "options": {}}', False),
        (b'{"inputs": [], "support": %b}', False),
        (b'{"inputs": [[1], [1], [1], [1]], "support": %b}', False),
        (b'{"inputs": [[1]], "support": %b', False),
        (b'{"inputs": [[1]], "rows": [{"input": [1], "support": %b}]}', False),
    ],
)
def test_a_support_set_is_known_by_its_bytes(content: bytes, taken: bool) -> None:
    body = content % SUPPORT
    assert (usual_ask_of(body, known=(SUPPORT,)) is not None) == taken
    assert usual_ask_of(body) is None
    if taken:
        assert support_in(body) == SUPPORT
        wanted = by_the_wire_model(body)
        assert wanted is not None
        assert isinstance(wanted.task, BySupport)
        assert len(wanted.task.examples) == 2
        assert usual_ask_of(body, known=(SUPPORT.replace(b" ", b""), SUPPORT[:-1], b"")) is None


@pytest.mark.parametrize(
    "inputs", ["[NaN]", "[[1, Infinity]]", "[-Infinity]", '["\\ud83d\\ude00"]', "[1e999]", "[" * 150 + "]" * 150]
)
def test_whatever_the_wire_model_lets_through_beside_a_support_set_is_no_error(inputs: str) -> None:
    content = b'{"inputs": %b, "support": %b}' % (inputs.encode(), SUPPORT)
    parsed(PredictRequest, content)
    assert support_in(content) in (None, SUPPORT)
    for usual in ("numbers", "strings"):
        usual_ask_of(content, usual, known=(SUPPORT,))
