import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving import Api, in_process
from tests.tasks import Glyphs, alike, field, labels, problem, scores

ADAPTATIONS = "/v1/models/glyphs/adaptations"


def put(api: Api, name: str, support: list[dict[str, Any]], **body: Any) -> int:
    """The revision of an adaptation made of a support set."""
    response = api.put(f"{ADAPTATIONS}/{name}", json={"support": support, **body})
    assert response.status_code in (200, 201), response.text
    return int(response.json()["revision"])


def test_one_drawing_of_each_of_five_characters_is_enough_to_read_the_others(api: Api, glyphs: Glyphs) -> None:
    right = total = 0
    for seed in range(3):
        chosen = [str(name) for name in np.random.default_rng(seed).choice(glyphs.names, 5, replace=False)]
        queries = glyphs.queries(chosen, range(1, 5))
        read = labels(api.predict(inputs=queries, support=glyphs.support(chosen)))
        truth = [name for name in chosen for _ in range(4)]
        right += sum(map(str.__eq__, read, truth))
        total += len(truth)
    assert right / total > 0.9


def test_an_answer_names_the_model_the_version_and_what_was_used(api: Api, glyphs: Glyphs, name: str) -> None:
    chosen = glyphs.names[:3]
    revision = put(api, name, glyphs.support(chosen))
    answer = api.predict(inputs=glyphs.queries(chosen[:1]), adaptation=name).json()
    (prediction,) = answer["predictions"]
    assert (answer["model"], answer["version"]) == ("glyphs", 1)
    assert (prediction["used"], prediction["adaptation"], prediction["revision"]) == ("personal", name, revision)
    assert prediction["kind"] == "class"
    assert prediction["score"] == max(prediction["scores"].values()) == prediction["scores"][prediction["label"]]
    assert sum(prediction["scores"].values()) == pytest.approx(1)
    assert prediction["label"] in prediction["set"]
    assert prediction["abstained"] == (len(prediction["set"]) != 1)


def test_inline_stored_seen_by_another_worker_and_restarted_answer_alike(tmp_path: Path, glyphs: Glyphs) -> None:
    chosen = glyphs.names[:5]
    support, queries = glyphs.support(chosen, (0, 1)), glyphs.queries(chosen)
    with in_process(tmp_path) as one, in_process(tmp_path) as other:
        inline = scores(one.predict(inputs=queries, support=support))
        put(one, "alice", support)
        assert alike(scores(one.predict(inputs=queries, adaptation="alice")), inline)
        assert alike(scores(other.predict(inputs=queries, adaptation="alice")), inline)
        put(other, "alice", support[:4])
        assert labels(one.predict(inputs=queries[:1], adaptation="alice")) == [chosen[0]]
        assert len(scores(one.predict(inputs=queries, adaptation="alice"))[0]) == 2, "a write of another worker is seen"
        put(other, "alice", support)
    with in_process(tmp_path) as restarted:
        assert alike(scores(restarted.predict(inputs=queries, adaptation="alice")), inline)


def test_rows_of_adaptations_and_support_sets_each_get_the_answer_of_their_own_task(
    api: Api, glyphs: Glyphs, name: str
) -> None:
    stored, inline = glyphs.support(glyphs.names[:4]), glyphs.support(glyphs.names[4:9], (0, 1))
    put(api, name, stored)
    queries = glyphs.queries(glyphs.names)
    rows = [
        {"input": query, "adaptation": name} if place % 2 else {"input": query, "support": inline}
        for place, query in enumerate(queries)
    ]
    together = scores(api.predict(rows=rows))
    by_name = scores(api.predict(inputs=queries, adaptation=name))
    by_support = scores(api.predict(inputs=queries, support=inline))
    assert alike(together, [(by_name if place % 2 else by_support)[place] for place in range(len(queries))])


def test_with_partial_each_row_fails_alone_and_without_it_the_call_fails(api: Api, glyphs: Glyphs) -> None:
    support = glyphs.support(glyphs.names[:2])
    good = {"input": glyphs.queries(glyphs.names)[0], "support": support}
    many = [{**support[0], "label": f"label {number}"} for number in range(65)]
    rows = [
        good,
        {"input": "no picture", "support": support},
        {"input": good["input"], "adaptation": "nobody"},
        {"input": good["input"], "support": many},
        good,
    ]
    answer = api.predict(rows=rows, partial=True)
    assert answer.status_code == 200
    predictions = answer.json()["predictions"]
    assert predictions[0]["label"] == predictions[4]["label"] == glyphs.names[0]
    refused = [prediction["problem"] for prediction in predictions[1:4]]
    assert [item["status"] for item in refused] == [422, 404, 422]
    assert [field(item) for item in refused] == ["rows[1].input", "rows[2].adaptation", "rows[3].support"]
    assert field(problem(api.predict(rows=rows[:2]), 422, "input-invalid")) == "rows[1].input"


def test_scores_are_given_from_the_highest_as_many_as_asked_for_or_not_at_all(api: Api, glyphs: Glyphs) -> None:
    chosen = glyphs.names[:6]
    task: dict[str, Any] = {"inputs": glyphs.queries(chosen), "support": glyphs.support(chosen)}
    whole = scores(api.predict(**task))
    for best, every in zip(scores(api.predict(**task, options={"top": 2})), whole, strict=True):
        assert list(every.values()) == sorted(every.values(), reverse=True)
        assert alike([best], [dict(list(every.items())[:2])])
    for prediction in api.predict(**task, options={"scores": False}).json()["predictions"]:
        assert "scores" not in prediction
        assert prediction["label"] in chosen


def test_a_higher_confidence_never_gives_a_smaller_set(api: Api, glyphs: Glyphs) -> None:
    task: dict[str, Any] = {"inputs": glyphs.queries(glyphs.names), "support": glyphs.support(glyphs.names)}
    sets = []
    for confidence in (0.5, 0.8, 0.9, 0.95, 0.99, 0.995, 0.9999):
        answer = api.predict(**task, options={"confidence": confidence}).json()
        sets.append([set(prediction["set"]) for prediction in answer["predictions"]])
    for lower, higher in pairwise(sets):
        assert all(small <= large for small, large in zip(lower, higher, strict=True))
    assert sets[0] != sets[-1]
    assert all(all_labels == set(glyphs.names) for all_labels in sets[-1]), "beyond the calibration only all are sure"


def test_a_missing_adaptation_is_an_error_and_the_base_is_refused_where_there_is_none(api: Api, glyphs: Glyphs) -> None:
    ask: dict[str, Any] = {"inputs": glyphs.queries(glyphs.names[:1]), "adaptation": "nobody"}
    assert field(problem(api.predict(**ask), 404, "adaptation-not-found")) == "adaptation"
    refused = problem(api.predict(**ask, options={"on_missing": "base"}), 422, "not-accepted")
    assert field(refused) == "options.on_missing"


def test_an_adaptation_without_examples_is_a_conflict_where_labels_are_open(
    api: Api, glyphs: Glyphs, name: str
) -> None:
    put(api, name, [{**glyphs.support(glyphs.names[:1])[0], "example_id": "only"}])
    assert api.delete(f"{ADAPTATIONS}/{name}/examples/only").status_code == 200
    answer = api.predict(inputs=glyphs.queries(glyphs.names[:1]), adaptation=name)
    assert field(problem(answer, 409, "task-conflict")) == "adaptation"


def test_min_revision_waits_for_a_write(api: Api, glyphs: Glyphs, name: str) -> None:
    first = put(api, name, glyphs.support(glyphs.names[:2]))
    queries = glyphs.queries(glyphs.names[2:3])
    body = {"inputs": queries, "adaptation": name, "options": {"min_revision": first + 1, "scores": False}}
    waiting = api.submit("POST", "/v1/models/glyphs/predict", json=body)
    while "requests_in_flight 2" not in api.get("/metrics").text:  # the one that waits, and this one
        assert not waiting.done()
    second = put(api, name, glyphs.support(glyphs.names[:3]))
    (prediction,) = waiting.result(30).json()["predictions"]
    assert prediction["revision"] == second > first
    assert prediction["label"] == glyphs.names[2]


def test_a_min_revision_that_never_comes_ends_at_the_deadline(api: Api, glyphs: Glyphs, name: str) -> None:
    revision = put(api, name, glyphs.support(glyphs.names[:2]))
    body = {
        "inputs": glyphs.queries(glyphs.names[:1]),
        "adaptation": name,
        "options": {"min_revision": revision + 1_000_000},
    }
    started = time.monotonic()
    answer = api.post("/v1/models/glyphs/predict", json=body, headers={"X-Deadline-Ms": "200"})
    assert field(problem(answer, 504, "deadline-exceeded")) == "X-Deadline-Ms"
    assert 0.2 <= time.monotonic() - started < 5


def test_the_order_of_the_answers_is_that_of_the_inputs(api: Api, glyphs: Glyphs) -> None:
    support, queries = glyphs.support(glyphs.names, (0, 1, 2)), glyphs.queries(glyphs.names, (3, 4))
    forward = scores(api.predict(inputs=queries, support=support))
    assert alike(scores(api.predict(inputs=queries[::-1], support=support)), forward[::-1])
    assert not alike(forward, forward[::-1])
