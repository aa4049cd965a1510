"""The protocol, the hot path and the router give the same answers and problems, to the byte but for the request id."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from tests.serving import Api, Form, FormName, in_process
from tests.tasks import with_ids

from handful_service.answers import PredictAnswer

from . import bad_calls, bad_pictures, bad_requests
from .bad_requests import ALICE, GOOD, JSON, MAX_BODY_BYTES, PREDICT, SUPPORT, Bad

ONE = {"input": GOOD["inputs"][0]}
GOOD_BODIES: list[dict[str, Any]] = [
    GOOD,
    {"inputs": GOOD["inputs"], "adaptation": "alice"},
    {"inputs": GOOD["inputs"] * 3, "adaptation": "alice", "options": {"confidence": 0.995, "top": 1}},
    {"inputs": GOOD["inputs"], "adaptation": "alice", "options": {"scores": False}},
    {
        "rows": [{**ONE, "adaptation": who} for who in ("alice", "nobody")] + [{**ONE, "support": SUPPORT}],
        "partial": True,
    },
    {"rows": [{**ONE, "adaptation": "alice"}], "partial": True, "version": 1},
]
EVERY_BAD = [*bad_requests.BODIES, *bad_requests.LIMITS, *bad_pictures.PICTURES, *bad_calls.PATHS, *bad_calls.HEADERS]
ODD_PATHS = [
    f"{PREDICT}/",
    f"{PREDICT}?version=1",
    f"/v1/models/{'a' * 65}/predict",
    "/v1/models//predict",
    "/v1/models/glyphs/predict%0A",
    "/v1/models/gl%2Fyphs/predict",
    "//v1/models/glyphs/predict",
]


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Api]]:
    """The app in all forms, each with the same adaptation; the router first."""
    before = Form.name
    with ExitStack() as stack:
        found = []
        names: tuple[FormName, ...] = ("routed", "hot", "wire")
        for name in names:
            Form.name = name
            folder = tmp_path_factory.mktemp(name)
            api = stack.enter_context(in_process(folder, max_body_bytes=MAX_BODY_BYTES))
            assert api.put(ALICE, json={"support": with_ids(SUPPORT)}).status_code == 201
            found.append(api)
        Form.name = before
        yield found


def told(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """All that an answer says, but for the date, which only real connections have."""
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    return answer.status_code, headers, answer.content


def asked(every: list[Api], method: str, path: str, content: bytes, headers: dict[str, str]) -> None:
    known = {"X-Request-Id": "same", **headers}

    routed, *others = (told(api.request(method, path, content=content, headers=known)) for api in every)
    assert others == [routed] * len(others)


@pytest.mark.parametrize("bad", EVERY_BAD, ids=[bad.what for bad in EVERY_BAD])
def test_a_bad_request_gets_the_same_problem(every: list[Api], bad: Bad) -> None:
    if "X-Request-Id" not in bad.headers:
        asked(every, bad.method, bad.path, bad.content, {**JSON, **bad.headers})


@pytest.mark.parametrize("path", ODD_PATHS)
def test_a_path_that_is_nearly_that_of_predict_is_answered_alike(every: list[Api], path: str) -> None:
    asked(every, "POST", path, Bad("", 0, "", None, GOOD).content, JSON)


@pytest.mark.parametrize("body", GOOD_BODIES)
def test_a_good_request_gets_the_same_answer_which_is_just_what_the_documented_model_writes(
    every: list[Api], body: dict[str, Any]
) -> None:
    asked(every, "POST", PREDICT, Bad("", 0, "", None, body).content, JSON)
    content = every[0].predict(**body).content
    assert (
        PredictAnswer.model_validate_json(content, strict=True).model_dump_json(exclude_none=True).encode() == content
    )


def test_the_metrics_of_all_count_the_same_route(every: list[Api]) -> None:
    for api in every:
        assert api.predict(**GOOD).status_code == 200
        text = api.get("/metrics").text
        assert 'handful_requests_total{method="POST",route="/v1/models/{model}/predict",status="200"}' in text
