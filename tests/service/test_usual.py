"""What is read in one go is what the wire model reads."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handful_service.errors import HandfulError
from handful_service.predictor.refs import Ask
from handful_service.routes.asking import USUAL, asks_of, options_of
from handful_service.routes.bodies import parsed
from handful_service.routes.usual import usual_ask
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
    usual = usual_ask(content, MOST)
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
        (b'{"inputs": [[1]], "options": {}}', False),
        (b'{"inputs": ' + b"[" * 5000, False),
        (b"\xef\xbb\xbf{}", False),
        (b"", False),
    ],
)
def test_what_is_usual(content: bytes, taken: bool) -> None:
    assert (usual_ask(content, MOST) is not None) == taken
    if taken:
        assert by_the_wire_model(content) is not None


def test_of_keys_that_stand_twice_the_last_counts_in_both() -> None:
    content = b'{"inputs": [[1]], "inputs": [[2]], "adaptation": "a", "adaptation": "b"}'
    usual, wanted = usual_ask(content, MOST), by_the_wire_model(content)
    assert usual is not None
    assert wanted is not None
    assert (usual.inputs, usual.task) == (wanted.inputs, wanted.task)
