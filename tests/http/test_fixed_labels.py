"""Models other than the shipped one: fixed labels with a base, real weights, no statistics, fewer ways."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.serving import Api, in_process
from tests.tasks import alike, field, problem, scores
from tests.tiny import Tiny, build

SUMS = Tiny(name="sums", labels=("ham", "spam", "news"), weights="real", norm=100.0)
WHOLE = Tiny(name="whole", labels=("ham", "spam", "news"), statistics=False, encode=False)
NARROW, WIDE = Tiny(name="open", open_ways=3), Tiny(name="open", version=2, open_ways=8)
ROWS = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.5], [0.5, 0.0, 1.0, 0.0]]
QUERIES = [[0.9, 0.1, 0.0, 0.0], [0.0, 0.4, 0.3, 0.5]]


@pytest.fixture(scope="module")
def tiny(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("tiny")
    for bundle in (SUMS, WHOLE, NARROW, WIDE):
        build(folder / "bundles", bundle)
    with in_process(folder, folder / "bundles") as running:
        yield running


def examples(*labelled: tuple[int, str], **more: Any) -> list[dict[str, Any]]:
    return [{"input": ROWS[row], "label": label, "example_id": f"e{row}", **more} for row, label in labelled]


@pytest.mark.parametrize("model", [SUMS, WHOLE])
def test_examples_make_an_adaptation_where_labels_are_fixed(tiny: Api, name: str, model: Tiny) -> None:
    path = f"/v1/models/{model.name}/adaptations/{name}"
    base = scores(tiny.predict(model.name, inputs=QUERIES))
    missing = tiny.predict(model.name, inputs=QUERIES, adaptation=name, options={"on_missing": "base"})
    assert alike(scores(missing), base)
    assert {prediction["used"] for prediction in missing.json()["predictions"]} == {"base"}
    made = tiny.post(f"{path}/examples", json={"examples": examples((0, "ham"), (1, "news"))})
    assert made.status_code == 200
    assert made.json()["labels"] == {label: {"examples": 1, "weight": 1.0} for label in ("ham", "news")}
    personal = tiny.predict(model.name, inputs=QUERIES, adaptation=name)
    expected = model.scores([(ROWS[0], "ham"), (ROWS[1], "news")], np.array(QUERIES))
    assert alike(scores(personal), expected)
    assert not alike(scores(personal), base)
    assert {prediction["used"] for prediction in personal.json()["predictions"]} == {"personal"}
    for example_id in ("e0", "e1"):
        assert tiny.delete(f"{path}/examples/{example_id}").status_code == 200
    assert alike(scores(tiny.predict(model.name, inputs=QUERIES, adaptation=name)), base), "nothing is left to know"


@pytest.mark.parametrize("model", [SUMS, WHOLE])
def test_changes_of_any_learner_answer_as_the_examples_that_are_left(tiny: Api, name: str, model: Tiny) -> None:
    path = f"/v1/models/{model.name}/adaptations/{name}"
    assert tiny.put(path, json={"support": examples((0, "spam"), (1, "news"))}).status_code == 201
    assert tiny.post(f"{path}/examples", json={"examples": examples((2, "ham"))}).status_code == 200
    relabel = {"examples": [{"example_id": "e0", "label": "ham"}]}
    assert tiny.post(f"{path}/examples", json=relabel).status_code == 200
    assert tiny.delete(f"{path}/examples/e1").status_code == 200
    expected = model.scores([(ROWS[0], "ham"), (ROWS[2], "ham")], np.array(QUERIES))
    assert alike(scores(tiny.predict(model.name, inputs=QUERIES, adaptation=name)), expected)


def test_no_task_or_an_empty_support_set_is_the_base(tiny: Api) -> None:
    base = tiny.predict("sums", inputs=QUERIES)
    empty = tiny.predict("sums", inputs=QUERIES, support=[])
    rows = tiny.predict("sums", rows=[{"input": query} for query in QUERIES])
    assert alike(scores(base), SUMS.scores([], np.array(QUERIES)))
    assert alike(scores(base), scores(empty))
    assert alike(scores(base), scores(rows))
    assert {item["used"] for answer in (base, empty, rows) for item in answer.json()["predictions"]} == {"base"}


def test_a_label_outside_the_list_is_refused_with_the_list(tiny: Api, name: str) -> None:
    path, wrong = f"/v1/models/sums/adaptations/{name}", examples((0, "ham"), (1, "Spam"))
    inline = [{"input": item["input"], "label": item["label"]} for item in wrong]
    before = tiny.dump()
    for answer, place in (
        (tiny.put(path, json={"support": wrong}), "support[1].label"),
        (tiny.post(f"{path}/examples", json={"examples": wrong}), "examples[1].label"),
        (tiny.predict("sums", inputs=QUERIES, support=inline), "support[1].label"),
    ):
        refused = problem(answer, 422, "label-unknown")
        assert field(refused) == place
        assert refused["errors"][0]["allowed"] == "one of ['ham', 'spam', 'news']"
    assert tiny.dump() == before


def test_an_example_of_weight_two_counts_as_two_examples(tiny: Api, name: str) -> None:
    path = f"/v1/models/sums/adaptations/{name}"
    heavy = [*examples((0, "ham"), weight=2), *examples((1, "ham"), (2, "news"))]
    twice = [{"input": ROWS[row], "label": label} for row, label in ((0, "ham"), (0, "ham"), (1, "ham"), (2, "news"))]
    assert tiny.put(path, json={"support": heavy}).json()["labels"]["ham"] == {"examples": 2, "weight": 3.0}
    stored = scores(tiny.predict("sums", inputs=QUERIES, adaptation=name))
    assert alike(stored, scores(tiny.predict("sums", inputs=QUERIES, support=twice)))


@pytest.mark.parametrize(
    ("model", "weight"), [("sums", 0), ("sums", -1), ("sums", 1e7), ("whole", 0), ("whole", 2), ("whole", 0.5)]
)
def test_a_weight_that_the_model_does_not_take_is_refused(tiny: Api, model: str, weight: float) -> None:
    body = {"inputs": QUERIES, "support": [{"input": ROWS[0], "label": "ham", "weight": weight}]}
    refused = problem(tiny.post(f"/v1/models/{model}/predict", json=body), 422, "support-set-invalid")
    assert field(refused) == "support[0].weight"
    assert refused["errors"][0]["allowed"]


@pytest.mark.parametrize(
    "value",
    [
        "text", None, True, {}, [], [1, 2, 3], [1, 2, 3, "4"], [[1, 2, 3, 4]], [1, 2, [3], 4], [1, 2, 3, None],
        float("nan"), [1, 2, 3, float("nan")], [1, 2, 3, float("inf")], [1e39, 0, 0, 0], [10**400, 0, 0, 0],
        [99, 99, 99, 99], {"dtype": "float32", "shape": [1] * 65, "b64": "AAAAAA=="},
        {"dtype": "float32", "shape": [4], "b64": "AAAA"},
        {"dtype": "float32", "shape": [4], "b64": "AADAfwAAAAAAAAAAAAAAAA=="},
        {"dtype": "float64", "shape": [4], "b64": ""}, {"dtype": [], "shape": {}, "b64": 0},
        {"dtype": "float32", "shape": [2**30, 2**30, 2**30], "b64": ""},
    ],
)  # fmt: skip
def test_what_is_no_tensor_of_the_declared_shape_is_refused(tiny: Api, value: Any) -> None:
    answer = tiny.post_json("/v1/models/sums/predict", {"inputs": [ROWS[0], value]})
    refused = problem(answer, 422, "input-invalid")
    assert str(field(refused)).startswith("inputs[1]")
    assert refused["errors"][0]["allowed"]


def test_bytes_are_read_as_little_endian_numbers(tiny: Api) -> None:
    packed = {"dtype": "float32", "shape": [4], "b64": "AAAAQAAAAAAAAAAAAACAPw=="}
    assert alike(
        scores(tiny.predict("sums", inputs=[packed], support=[{"input": ROWS[0], "label": "ham"}])),
        scores(tiny.predict("sums", inputs=[[2.0, 0, 0, 1]], support=[{"input": ROWS[0], "label": "ham"}])),
    )


def test_more_labels_than_another_version_has_ways_are_a_conflict_there(tiny: Api, name: str) -> None:
    path = f"/v1/models/open/adaptations/{name}"
    many = [{"input": ROWS[0], "label": f"label {number}", "example_id": f"e{number}"} for number in range(4)]
    assert tiny.put(path, json={"support": many}).json()["version"] == 2
    before = tiny.dump()
    refused = problem(tiny.predict("open", inputs=QUERIES, adaptation=name, version=1), 409, "task-conflict")
    assert (field(refused), refused["errors"][0]["allowed"]) == ("version", "at most 3 ways")
    assert tiny.dump() == before
    assert tiny.delete(f"{path}/examples/e1", params={"version": 1}).status_code == 200
    narrow, wide = (scores(tiny.predict("open", inputs=QUERIES, adaptation=name, version=v)) for v in (1, 2))
    assert alike(narrow, wide)
