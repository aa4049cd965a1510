import re
import shutil
from pathlib import Path

import httpx
import pytest
from tests.serving import BUNDLES, Api, in_process
from tests.tasks import Glyphs, problem

from handful_service.app import create_app
from handful_service.settings import Settings

ADAPTATIONS = "/v1/models/glyphs/adaptations"


def test_ready_names_the_digests_of_its_bundles(api: Api) -> None:
    ready = api.get("/health/ready").json()
    assert ready["status"] == "ready"
    assert ready["bundles"]["glyphs/1"] == api.get("/v1/models/glyphs").json()["newest"]["digest"]
    assert api.get("/health/live").json() == {"status": "live"}


async def _ask_before_it_is_ready(folder: Path) -> list[httpx.Response]:
    app = create_app(Settings(bundles=BUNDLES, store=f"sqlite:///{folder / 'handful.db'}"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://handful") as client:
        calls = ["/health/live", "/metrics", "/openapi.json", "/health/ready", "/v1/models", f"{ADAPTATIONS}/alice"]
        answers = [await client.get(path) for path in calls]
        answers.append(await client.put(f"{ADAPTATIONS}/alice", json={"support": [{"input": "x", "label": "a"}]}))
        return answers


def test_before_it_is_ready_it_lives_and_refuses_work(api: Api, tmp_path: Path) -> None:
    answers = api.run(_ask_before_it_is_ready(tmp_path))
    assert [answer.status_code for answer in answers[:3]] == [200, 200, 200]
    for answer in answers[3:]:
        problem(answer, 503, "not-ready")
        assert answer.headers["retry-after"] == "1"


def test_a_bundle_that_differs_from_its_digest_never_becomes_ready(tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    shutil.copytree(BUNDLES, root)
    card = root / "glyphs" / "1" / "card.md"
    card.write_bytes(card.read_bytes()[:-1])
    with pytest.raises(Exception, match=r"card\.md"), in_process(tmp_path, root):
        pass


def test_a_full_server_refuses_work_but_not_its_health_checks(tmp_path: Path, glyphs: Glyphs) -> None:
    body = {"inputs": glyphs.queries(glyphs.names), "adaptation": "alice", "options": {"min_revision": 1}}
    with in_process(tmp_path, max_in_flight=1) as api:
        waiting = api.submit("POST", "/v1/models/glyphs/predict", json=body, headers={"X-Deadline-Ms": "2000"})
        while "requests_in_flight 2" not in api.get("/metrics").text:  # the one that waits, and this one
            assert not waiting.done()
        refused = api.get("/v1/models")
        problem(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert api.get("/health/ready").status_code == api.get("/health/live").status_code == 200
        assert waiting.result(30).status_code == 504
        assert api.get("/v1/models").status_code == 200


def test_metrics_count_requests_by_route_and_name_no_adaptation_and_no_invented_method(
    api: Api, glyphs: Glyphs, name: str
) -> None:
    assert api.put(f"{ADAPTATIONS}/{name}", json={"support": glyphs.support(glyphs.names[:2])}).status_code == 201
    assert api.predict(inputs=glyphs.queries(glyphs.names), adaptation=name).status_code == 200
    assert api.request("LOCK", f"{ADAPTATIONS}/{name}").status_code == 405
    assert api.get(f"/nothing/{name}").status_code == 404
    answer = api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert (
        'handful_requests_total{method="PUT",route="/v1/models/{model}/adaptations/{id}",status="201"}' in answer.text
    )
    assert 'route="/v1/models/{model}/predict",status="200"' in answer.text
    assert 'handful_requests_total{method="any",route="unmatched",status="404"}' in answer.text
    assert float(re.findall(r'handful_states_cached{model="glyphs",version="1"} (.*)', answer.text)[0]) >= 1
    assert name not in answer.text
    assert "LOCK" not in answer.text
    names = set(re.findall(r'[{,]([a-z_]+)="', answer.text))
    assert names == {"method", "route", "status", "model", "version", "digest", "graph", "le"}


@pytest.mark.parametrize(("sent", "kept"), [("click-17", True), ("a b", False), ("x" * 129, False), (None, False)])
def test_a_request_id_comes_back_and_is_made_where_it_is_missing_or_odd(api: Api, sent: str | None, kept: bool) -> None:
    for path in ("/v1/models", "/nothing"):
        answer = api.get(path, headers={} if sent is None else {"X-Request-Id": sent})
        given = answer.headers["x-request-id"]
        assert (given == sent) is kept
        assert re.fullmatch(r"[A-Za-z0-9._~:+/=-]{1,128}", given)
