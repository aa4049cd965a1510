"""The hot path and the router give the same answers and the same problems, to the byte but for the request id."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.serving import Api, Form, in_process
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
EVERY = [*bad_requests.BODIES, *bad_requests.LIMITS, *bad_pictures.PICTURES, *bad_calls.PATHS, *bad_calls.HEADERS]
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
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Api]]:
    """The app in both forms, each with the same adaptation."""
    before = Form.hot
    try:
        Form.hot = True
        with in_process(tmp_path_factory.mktemp("hot"), max_body_bytes=MAX_BODY_BYTES) as hot:
            Form.hot = False
            with in_process(tmp_path_factory.mktemp("routed"), max_body_bytes=MAX_BODY_BYTES) as routed:
                for api in (hot, routed):
                    assert api.put(ALICE, json={"support": with_ids(SUPPORT)}).status_code == 201
                yield hot, routed
    finally:
        Form.hot = before


def told(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """All that an answer says, with the request id that was sent taken out."""
    return answer.status_code, dict(answer.headers), answer.content


def asked(both: tuple[Api, Api], method: str, path: str, content: bytes, headers: dict[str, str]) -> None:
    known = {"X-Request-Id": "same", **headers}
    hot, routed = (told(api.request(method, path, content=content, headers=known)) for api in both)
    assert hot == routed


@pytest.mark.parametrize("bad", EVERY, ids=[bad.what for bad in EVERY])
def test_a_bad_request_gets_the_same_problem(both: tuple[Api, Api], bad: Bad) -> None:
    if "X-Request-Id" not in bad.headers:
        asked(both, bad.method, bad.path, bad.content, {**JSON, **bad.headers})


@pytest.mark.parametrize("path", ODD_PATHS)
def test_a_path_that_is_nearly_that_of_predict_is_answered_alike(both: tuple[Api, Api], path: str) -> None:
    asked(both, "POST", path, Bad("", 0, "", None, GOOD).content, JSON)


@pytest.mark.parametrize("body", GOOD_BODIES)
def test_a_good_request_gets_the_same_answer_which_is_just_what_the_documented_model_writes(
    both: tuple[Api, Api], body: dict[str, Any]
) -> None:
    asked(both, "POST", PREDICT, Bad("", 0, "", None, body).content, JSON)
    content = both[0].predict(**body).content
    assert (
        PredictAnswer.model_validate_json(content, strict=True).model_dump_json(exclude_none=True).encode() == content
    )


def test_the_metrics_of_both_count_the_same_route(both: tuple[Api, Api]) -> None:
    for api in both:
        assert api.predict(**GOOD).status_code == 200
        text = api.get("/metrics").text
        assert 'handful_requests_total{method="POST",route="/v1/models/{model}/predict",status="200"}' in text
