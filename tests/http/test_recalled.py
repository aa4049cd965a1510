"""Support sets that come again, to the byte: they are not even read, and answered as if they had been."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving import Api, in_process
from tests.tasks import alike, scores
from tests.tiny import Tiny, build

from handful_service.auth import append_key
from handful_service.predictor.predicting import Predictor

OPEN, OTHER = Tiny(), Tiny(version=2)
PATH = "/v1/models/tiny/predict"
SUPPORT = [
    {"input": [1.0, 0, 0, 0], "label": "a"},
    {"input": [0, 1.0, 0, 0.5], "label": "b"},
    {"input": [0, 0, 1.0, 0], "label": "c"},
]
INPUTS = [[0.5, 0.25, 0.0, 0.0], [0.0, 0.5, 0.5, 0.25]]


@pytest.fixture
def api(tmp_path: Path, form: str) -> Iterator[Api]:
    build(tmp_path / "bundles", OPEN)
    with in_process(tmp_path, tmp_path / "bundles") as api:
        yield api


@pytest.fixture
def recalled(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each support set was recalled."""
    told: list[bool] = []
    real = Predictor.recalled

    def noted(self: Predictor, *args: Any) -> Any:
        found = real(self, *args)
        told.append(found is not None)
        return found

    monkeypatch.setattr(Predictor, "recalled", noted)
    return told


def ask(api: Api, content: str | bytes, **more: Any) -> Any:
    return api.post(PATH, content=content, headers={"content-type": "application/json"}, **more)


def body(inputs: Any, support: Any = SUPPORT, **more: Any) -> str:
    return json.dumps({"inputs": inputs, "support": support, **more})


def refused(answer: Any, *statuses: int) -> dict[str, Any]:
    """The problem document of a refused call, without what is of one request only."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return {name: value for name, value in answer.json().items() if name != "request_id"}


def wanted(inputs: Any, support: Any = SUPPORT) -> list[dict[str, float]]:
    return OPEN.scores([(example["input"], example["label"]) for example in support], np.array(inputs))


def test_a_support_set_that_comes_again_is_recalled_whatever_the_inputs(api: Api, recalled: list[bool]) -> None:
    first = ask(api, body(INPUTS))
    assert recalled == [False]
    again, other = ask(api, body(INPUTS)), ask(api, body([[9.0, 0, 0, 1]]))
    assert recalled == [False, True, True]
    assert again.json() == first.json()
    assert first.json()["predictions"][0]["used"] == "support"
    assert alike(scores(first), wanted(INPUTS))
    assert alike(scores(other), wanted([[9.0, 0, 0, 1]]))


def test_what_differs_in_a_byte_is_read_and_what_contradicts_it_is_answered_by_itself(
    api: Api, recalled: list[bool]
) -> None:
    ask(api, body(INPUTS))
    swapped = [{**one, "label": label} for one, label in zip(SUPPORT, "bca", strict=True)]
    for support in (swapped, SUPPORT[::-1], SUPPORT[:2], [{**SUPPORT[0], "weight": 1.0}, *SUPPORT[1:]]):
        for _ in range(2):
            assert alike(scores(ask(api, body(INPUTS, support))), wanted(INPUTS, support))
    assert alike(scores(ask(api, body(INPUTS).replace(", ", ","))), wanted(INPUTS))
    assert recalled == [False] + [False, True] * 4 + [False]


def test_a_call_with_options_or_a_version_is_read_as_always_and_answered_alike(api: Api, recalled: list[bool]) -> None:
    first = ask(api, body(INPUTS)).json()
    for more in ({"options": {}}, {"version": 1}, {"options": {"top": 3}}):
        assert ask(api, body(INPUTS, **more)).json()["predictions"] == first["predictions"]
    rows = {"rows": [{"input": row, "support": SUPPORT} for row in INPUTS]}
    assert alike(scores(ask(api, json.dumps(rows))), wanted(INPUTS))
    assert recalled == [False]


def test_bad_inputs_beside_a_known_support_set_are_refused_as_beside_a_new_one(api: Api, recalled: list[bool]) -> None:
    ask(api, body(INPUTS))
    for inputs in ([], [[1.0]], [["x", 0, 0, 0]], [[1.0, 0, 0, 0], None], "abc", [[1e39, 0, 0, 0]], [[3e38] * 4]):
        known, fresh = ask(api, body(inputs)), ask(api, body(inputs, [{**SUPPORT[0], "weight": 1.0}, *SUPPORT[1:]]))
        assert refused(known, 400, 422) == refused(fresh, 400, 422)
    assert alike(scores(ask(api, body(INPUTS))), wanted(INPUTS))
    assert recalled[-1]


def test_a_support_set_that_is_not_valid_is_never_recalled(api: Api, recalled: list[bool]) -> None:
    for support in ([{"input": [1.0], "label": "a"}], [{"label": "a"}], [{**SUPPORT[0], "label": 7}], {}, "x", [1]):
        first, second = [refused(ask(api, body(INPUTS, support)), 400, 422) for _ in range(2)]
        assert first == second
    assert not any(recalled)


def test_no_support_set_is_the_base_each_time(api: Api, recalled: list[bool]) -> None:
    for support in ([], [], None, None):
        refused(ask(api, body(INPUTS, support)), 422)
    assert not any(recalled)


def test_another_tenant_and_another_version_learn_by_themselves(
    tmp_path: Path, form: str, recalled: list[bool]
) -> None:
    for tiny in (OPEN, OTHER):
        build(tmp_path / "bundles", tiny)
    secrets = [append_key(tmp_path / "keys", tenant, tenant, "predict") for tenant in ("ann", "bob")]
    with in_process(tmp_path, tmp_path / "bundles", keys=tmp_path / "keys") as api:

        def predict(secret: str, **more: Any) -> None:
            headers = {"content-type": "application/json", "authorization": f"Bearer {secret}"}
            answer = api.post(PATH, content=body(INPUTS, **more), headers=headers)
            assert alike(scores(answer), wanted(INPUTS))

        for secret in (*secrets, *secrets):
            predict(secret)
        assert recalled == [False, False, True, True]
        known = api.service.predictor._known
        before = len(known)
        predict(secrets[0], version=1)
        assert len(known) == before + 1
