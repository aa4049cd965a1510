"""Models that predict numbers: support sets, adaptations and answers, held against numpy."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.serving import Api, in_process
from tests.tasks import field, problem
from tests.tiny import Tiny
from tests.tiny import build as build_classes
from tests.tiny_number import INTERVALS, TinyNumber, build

SUMS = TinyNumber(name="sums", members=2, calibration=INTERVALS)
WHOLE = TinyNumber(name="whole", statistics=False, base=False)
REAL = TinyNumber(name="real", weights="real", calibration=INTERVALS)
CLASSES = Tiny(name="classes")
ROWS = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.5], [0.5, 0.0, 1.0, 0.0]]
NUMBERS = [3.25, -1.0e-3, 1.0e5]
QUERIES = [[0.9, 0.1, 0.0, 0.0], [0.0, 0.4, 0.3, 0.5]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    for tiny in (SUMS, WHOLE, REAL):
        build(folder, tiny)
    build_classes(folder, CLASSES)
    return folder


@pytest.fixture(scope="module")
def tiny(form: str, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with in_process(tmp_path_factory.mktemp("store"), bundles) as running:
        yield running


def examples(*labelled: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"input": ROWS[row], "label": label, "example_id": f"e{row}"} for row, label in labelled]


def inline(*labelled: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"input": ROWS[row], "label": label} for row, label in labelled]


def numbers(response: httpx.Response) -> list[tuple[float, float, float]]:
    assert response.status_code == 200, response.text
    found = response.json()["predictions"]
    assert all(set(item) <= {"kind", "value", "interval", "used", "adaptation", "revision"} for item in found)
    assert {item["kind"] for item in found} == {"number"}
    return [(item["value"], *item["interval"]) for item in found]


def known(
    model: TinyNumber, *labelled: tuple[int, float], confidence: float = 0.95
) -> list[tuple[float, float, float]]:
    return model.answers([(ROWS[row], label) for row, label in labelled], np.array(QUERIES), confidence)


def close(one: list[tuple[float, float, float]], other: list[tuple[float, float, float]]) -> bool:
    return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=1e-5, atol=1e-5)


ALL = tuple(enumerate(NUMBERS))


@pytest.mark.parametrize("model", [SUMS, WHOLE])
def test_inline_stored_and_restarted_answer_as_numpy_does(bundles: Path, tmp_path: Path, model: TinyNumber) -> None:
    path, want = f"/v1/models/{model.name}/adaptations/alice", known(model, *ALL)
    with in_process(tmp_path, bundles) as api:
        assert close(numbers(api.predict(model.name, inputs=QUERIES, support=inline(*ALL))), want)
        assert api.put(path, json={"support": examples(*ALL)}).status_code == 201
        answer = api.predict(model.name, inputs=QUERIES, adaptation="alice")
        assert close(numbers(answer), want)
        assert {item["used"] for item in answer.json()["predictions"]} == {"personal"}
    with in_process(tmp_path, bundles) as restarted:
        assert close(numbers(restarted.predict(model.name, inputs=QUERIES, adaptation="alice")), want)
        found = restarted.get(path).json()
        assert [item["label"] for item in found["examples"]] == NUMBERS
        assert found["labels"] == {}
        item = restarted.get(f"/v1/models/{model.name}/adaptations").json()["adaptations"][0]
        assert (item["labels"], item["examples"]) == ([], 3)


@pytest.mark.parametrize("confidence", [0.1, 0.5, 0.7, 0.9, 0.95, 0.999])
def test_the_interval_is_that_of_the_confidence_and_the_shots(tiny: Api, confidence: float) -> None:
    for labelled in (ALL[:1], ALL):
        answer = tiny.predict("sums", inputs=QUERIES, support=inline(*labelled), options={"confidence": confidence})
        assert close(numbers(answer), known(SUMS, *labelled, confidence=confidence))


def test_the_base_is_the_empty_support_set_where_there_is_one(tiny: Api, name: str) -> None:
    base = tiny.predict("sums", inputs=QUERIES)
    missing = tiny.predict("sums", inputs=QUERIES, adaptation=name, options={"on_missing": "base"})
    empty = tiny.predict("sums", inputs=QUERIES, support=[])
    for answer in (base, missing, empty):
        assert close(numbers(answer), known(SUMS))
        assert {item["used"] for item in answer.json()["predictions"]} == {"base"}
    problem(tiny.predict("whole", inputs=QUERIES), 422, "not-accepted")
    problem(tiny.predict("whole", inputs=QUERIES, support=[]), 422, "support-set-invalid")


@pytest.mark.parametrize("model", [SUMS, WHOLE])
def test_changes_answer_as_the_examples_that_are_left(tiny: Api, name: str, model: TinyNumber) -> None:
    path = f"/v1/models/{model.name}/adaptations/{name}"

    def read() -> list[tuple[float, float, float]]:
        return numbers(tiny.predict(model.name, inputs=QUERIES, adaptation=name))

    made = tiny.post(f"{path}/examples", json={"examples": examples(*ALL[:1])})
    assert (made.status_code, made.json()["labels"], made.json()["examples"]) == (200, {}, 1)
    assert tiny.post(f"{path}/examples", json={"examples": examples(*ALL[1:])}).json()["examples"] == 3
    assert close(read(), known(model, *ALL))
    relabel = {"examples": [{"example_id": "e2", "label": -8}]}
    assert tiny.post(f"{path}/examples", json=relabel).json()["results"][0]["action"] == "replaced"
    assert close(read(), known(model, *ALL[:2], (2, -8.0)))
    move = {"examples": [{"example_id": "e2", "input": ROWS[0], "label": -8}]}
    assert tiny.post(f"{path}/examples", json=move).status_code == 200
    assert close(read(), known(model, *ALL[:2], (0, -8.0)))
    assert tiny.delete(f"{path}/examples/e1").json()["examples"] == 2
    assert close(read(), known(model, ALL[0], (0, -8.0)))
    for example_id in ("e0", "e2"):
        assert tiny.delete(f"{path}/examples/{example_id}").status_code == 200
    empty = tiny.predict(model.name, inputs=QUERIES, adaptation=name)
    if model.base:
        assert close(numbers(empty), known(model)), "nothing is left to know"
    else:
        assert field(problem(empty, 409, "task-conflict")) == "adaptation"


def test_an_event_happens_once_and_another_number_is_another_change(tiny: Api, name: str) -> None:
    path = f"/v1/models/sums/adaptations/{name}/examples"
    change = {**inline(ALL[0])[0], "event_id": "click"}
    first = tiny.post(path, json={"examples": [change]}).json()
    again = tiny.post(path, json={"examples": [{**change, "label": NUMBERS[0]}]}).json()
    assert again["results"] == [{**first["results"][0], "repeated": True}]
    assert (again["examples"], again["revision"]) == (1, first["revision"])
    other = tiny.post(path, json={"examples": [{**change, "label": math.nextafter(NUMBERS[0], 9)}]})
    problem(other, 409, "event-conflict")


@pytest.mark.parametrize("number", [0.1, -0.0, 5e-324, 1 / 3, 3.4e38, 12345678901234567, -7])
def test_a_number_is_given_back_as_it_came(tiny: Api, name: str, number: float) -> None:
    path = f"/v1/models/sums/adaptations/{name}"
    assert tiny.put(path, json={"support": [{"input": [0, 0, 0, 0], "label": number}]}).status_code == 201
    (found,) = tiny.get(path).json()["examples"]
    assert repr(found["label"]) == repr(float(number))


@pytest.mark.parametrize(
    ("model", "label", "slug"),
    [
        ("sums", "3.5", "request-invalid"), ("sums", True, "request-invalid"), ("sums", None, "request-invalid"),
        ("sums", [1], "request-invalid"), ("sums", float("nan"), "request-invalid"),
        ("sums", float("-inf"), "request-invalid"), ("sums", 10**400, "request-invalid"),
        ("sums", 1e39, "support-set-invalid"), ("classes", 3.5, "request-invalid"), ("classes", 3, "request-invalid"),
        ("classes", False, "request-invalid"),
    ],
)  # fmt: skip
def test_a_label_of_the_wrong_kind_is_refused_with_what_to_send(
    tiny: Api, name: str, model: str, label: Any, slug: str
) -> None:
    path = f"/v1/models/{model}/adaptations/{name}"
    good = {"input": ROWS[0], "label": 1.0 if model == "sums" else "a"}
    wrong, before = [good, {"input": ROWS[1], "label": label}], tiny.dump()
    for answer, place in (
        (tiny.post_json(f"/v1/models/{model}/predict", {"inputs": QUERIES, "support": wrong}), "support[1].label"),
        (tiny.request("PUT", path, content=json.dumps({"support": wrong}),
                      headers={"Content-Type": "application/json"}), "support[1].label"),
        (tiny.post_json(f"{path}/examples", {"examples": wrong}), "examples[1].label"),
    ):  # fmt: skip
        if (model, slug, place) == ("classes", "request-invalid", "examples[1].label"):
            assert answer.status_code in (404, 422)
            continue
        refused = problem(answer, 422, slug)
        assert field(refused) == place
        assert refused["errors"][0]["allowed"]
    assert tiny.dump() == before


def test_numbers_so_large_that_the_state_is_not_finite_are_refused(tiny: Api) -> None:
    huge = [{"input": [1e30, 0, 0, 0], "label": 1e30}]
    problem(tiny.predict("sums", inputs=QUERIES, support=huge), 422, "support-set-invalid")


@pytest.mark.parametrize(("options", "place"), [({"top": 1}, "options.top"), ({"scores": False}, "options.scores")])
def test_options_of_scores_are_refused(tiny: Api, options: dict[str, Any], place: str) -> None:
    refused = problem(tiny.predict("sums", inputs=QUERIES, options=options), 422, "not-accepted")
    assert field(refused) == place
    assert close(numbers(tiny.predict("sums", inputs=QUERIES, options={"scores": True})), known(SUMS))


def test_real_weights_count_towards_the_slopes_and_the_shots(tiny: Api) -> None:
    heavy = [{"input": ROWS[0], "label": 2.0, "weight": 3.0}]
    twice = [{"input": ROWS[0], "label": 2.0}] * 3
    one, other = (numbers(tiny.predict("real", inputs=QUERIES, support=support)) for support in (heavy, twice))
    assert close(one, other)
    assert close(one, REAL.answers([(ROWS[0], 2.0)] * 3, np.array(QUERIES)))


@pytest.mark.parametrize("model", [SUMS, WHOLE])
def test_many_number_tasks_in_one_call_answer_as_if_alone(tiny: Api, model: TinyNumber) -> None:
    rng = np.random.default_rng(5)
    tasks = [[(int(rng.integers(3)), float(rng.normal())) for _ in range(rng.integers(1, 9))] for _ in range(60)]
    rows = [{"input": QUERIES[place % 2], "support": inline(*task)} for place, task in enumerate(tasks)]
    together = numbers(tiny.predict(model.name, rows=rows))
    assert close(together, [known(model, *task)[place % 2] for place, task in enumerate(tasks)])


def test_a_row_whose_label_is_of_the_wrong_kind_fails_alone(tiny: Api) -> None:
    rows = [{"input": QUERIES[0], "support": [{"input": ROWS[0], "label": label}]} for label in (1.0, "one")]
    good, bad = tiny.predict("sums", rows=rows, partial=True).json()["predictions"]
    assert good["kind"] == "number"
    assert field(bad["problem"]) == "rows[1].support[0].label"


def test_a_model_tells_that_it_predicts_numbers(tiny: Api) -> None:
    newest = tiny.get("/v1/models/sums").json()["newest"]
    assert newest["output"] == {"kind": "number", "members": 2}
    assert newest["limits"] == {"examples": 40}
    assert newest["accepts"] == ["base", "support"]


def test_an_adaptation_of_a_version_of_the_other_kind_is_a_conflict(tmp_path: Path) -> None:
    build(tmp_path / "bundles", TinyNumber(name="both", version=1))
    build_classes(tmp_path / "bundles", Tiny(name="both", version=2))
    with in_process(tmp_path, tmp_path / "bundles") as api:
        for version, label in ((1, 2.5), (2, "a")):
            path = f"/v1/models/both/adaptations/of-{version}"
            body = {"version": version, "support": [{"input": ROWS[0], "label": label}]}
            assert api.put(path, json=body).status_code == 201
            assert api.get(path).json()["examples"][0]["label"] == label
            ask: dict[str, Any] = {"inputs": QUERIES, "adaptation": f"of-{version}"}
            assert api.predict("both", **ask, version=version).status_code == 200
            refused = problem(api.predict("both", **ask, version=3 - version), 409, "task-conflict")
            assert field(refused) == "version"
