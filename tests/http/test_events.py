"""Law 5: the same event twice is once."""

from pathlib import Path
from typing import Any

import pytest
from tests.serving import Api, in_process
from tests.tasks import Glyphs, alike, field, inline_of, problem, scores, with_ids

ADAPTATIONS = "/v1/models/glyphs/adaptations"


@pytest.fixture
def path(api: Api, glyphs: Glyphs, name: str) -> str:
    """The path of an adaptation with one example of each of two characters: e0 and e1."""
    made = api.put(f"{ADAPTATIONS}/{name}", json={"support": with_ids(glyphs.support(glyphs.names[:2]))})
    assert made.status_code == 201
    return f"{ADAPTATIONS}/{name}"


def click(glyphs: Glyphs, event_id: str = "click", at: int = 2) -> dict[str, Any]:
    return {**glyphs.support(glyphs.names[at : at + 1])[0], "event_id": event_id}


def test_an_event_sent_twice_gets_the_first_result_and_changes_nothing(api: Api, glyphs: Glyphs, path: str) -> None:
    first = api.post(f"{path}/examples", json={"examples": [click(glyphs)]}).json()
    later = api.post(f"{path}/examples", json={"examples": [click(glyphs, "another")]}).json()
    before = api.dump()
    again = api.post(f"{path}/examples", json={"examples": [click(glyphs)]}).json()
    assert api.dump() == before
    assert again["results"] == [{**first["results"][0], "repeated": True}]
    assert again["results"][0]["revision"] == first["revision"] < later["revision"] == again["revision"]
    assert again["labels"] == later["labels"]


def test_an_event_posted_by_many_at_once_happens_once(api: Api, glyphs: Glyphs, path: str) -> None:
    answers = api.together([("POST", f"{path}/examples", {"examples": [click(glyphs)]})] * 20)
    assert [answer.status_code for answer in answers] == [200] * 20
    results = [answer.json()["results"][0] for answer in answers]
    assert sorted(result["repeated"] for result in results) == [False] + [True] * 19
    assert len({(result["example_id"], result["revision"]) for result in results}) == 1
    assert len(api.get(path).json()["examples"]) == 3


def test_an_event_posted_to_two_servers_at_once_happens_once(tmp_path: Path, glyphs: Glyphs) -> None:
    path = f"{ADAPTATIONS}/alice"
    with in_process(tmp_path) as one, in_process(tmp_path) as other:
        assert one.put(path, json={"support": glyphs.support(glyphs.names[:2])}).status_code == 201
        results = []
        for round_ in range(5):
            body = {"examples": [click(glyphs, f"click-{round_}", 2 + round_)]}
            posted = [server.submit("POST", f"{path}/examples", json=body) for server in (one, other)]
            answers = [future.result(30) for future in posted]
            assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
            results.append(sorted(answer.json()["results"][0]["repeated"] for answer in answers))
        assert results == [[False, True]] * 5
        assert len(one.get(path).json()["examples"]) == 7
        queries = glyphs.queries(glyphs.names)
        stored = [scores(server.predict(inputs=queries, adaptation="alice")) for server in (one, other)]
        inline = scores(one.predict(inputs=queries, support=glyphs.support(glyphs.names[:7])))
        assert all(alike(answer, inline) for answer in stored)


def test_an_event_id_of_another_change_is_a_conflict(api: Api, glyphs: Glyphs, path: str) -> None:
    assert api.post(f"{path}/examples", json={"examples": [click(glyphs)]}).status_code == 200
    before = api.dump()
    others = [
        click(glyphs, at=3),
        {**click(glyphs), "label": "another"},
        {"example_id": "e0", "label": glyphs.names[2], "event_id": "click"},
    ]
    for change in others:
        body = {"examples": [click(glyphs, "fresh"), change]}
        refused = problem(api.post(f"{path}/examples", json=body), 409, "event-conflict")
        assert field(refused) == "examples[1].event_id"
    refused = problem(api.delete(f"{path}/examples/e0", params={"event_id": "click"}), 409, "event-conflict")
    assert field(refused) == "event_id"
    assert api.dump() == before


def test_a_call_may_hold_events_that_are_known_beside_new_ones(api: Api, glyphs: Glyphs, path: str) -> None:
    first = api.post(f"{path}/examples", json={"examples": [click(glyphs)]}).json()["results"][0]
    body = {"examples": [click(glyphs, "new", 3), click(glyphs), click(glyphs, "newer", 4)]}
    answer = api.post(f"{path}/examples", json=body).json()
    assert [result["repeated"] for result in answer["results"]] == [False, True, False]
    assert answer["results"][1]["example_id"] == first["example_id"]
    assert set(answer["labels"]) == set(glyphs.names[:5])
    assert all(count["examples"] == 1 for count in answer["labels"].values())


def test_an_event_twice_in_a_call_is_refused(api: Api, glyphs: Glyphs, path: str) -> None:
    before = api.dump()
    refused = api.post(f"{path}/examples", json={"examples": [click(glyphs), click(glyphs)]})
    assert field(problem(refused, 422, "request-invalid")) == "examples[1].event_id"
    assert api.dump() == before


def test_a_deletion_with_an_event_may_be_repeated(api: Api, path: str) -> None:
    first = api.delete(f"{path}/examples/e0", params={"event_id": "undo"})
    again = api.delete(f"{path}/examples/e0", params={"event_id": "undo"})
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json()["results"] == [{**first.json()["results"][0], "repeated": True}]
    assert first.json()["revision"] == again.json()["revision"]
    problem(api.delete(f"{path}/examples/e0"), 404, "example-not-found")


def test_many_changes_of_one_adaptation_at_once_are_all_made(api: Api, glyphs: Glyphs, path: str) -> None:
    asked = [
        ("POST", f"{path}/examples", {"examples": [click(glyphs, f"click-{number}", 2 + number % 6)]})
        for number in range(30)
    ]
    answers = api.together(asked)
    assert [answer.status_code for answer in answers] == [200] * 30
    assert len({answer.json()["revision"] for answer in answers}) == 30
    assert len(api.get(path).json()["examples"]) == 32
    support = [*glyphs.support(glyphs.names[:2]), *(body["examples"][0] for _, _, body in asked)]
    queries = glyphs.queries(glyphs.names)
    inline = scores(api.predict(inputs=queries, support=inline_of(support)))
    assert alike(scores(api.predict(inputs=queries, adaptation=path.rpartition("/")[2])), inline)


def test_a_retry_with_its_old_precondition_still_gets_the_first_result(api: Api, glyphs: Glyphs, path: str) -> None:
    headers = {"If-Match": api.get(path).headers["ETag"]}
    first = api.post(f"{path}/examples", json={"examples": [click(glyphs)]}, headers=headers)
    again = api.post(f"{path}/examples", json={"examples": [click(glyphs)]}, headers=headers)
    assert [first.status_code, again.status_code] == [200, 200]
    assert again.json()["results"] == [{**first.json()["results"][0], "repeated": True}]
    other = api.post(f"{path}/examples", json={"examples": [click(glyphs, "another")]}, headers=headers)
    assert other.status_code == 412
