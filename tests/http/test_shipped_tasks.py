"""The shipped bundles of known tasks: their examples answer, mixed rows answer as alone, bad input is refused."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving import BUNDLES, Api
from tests.tasks import field, problem

from .described import close, predictions

EXAMPLES = Path("examples")
MODELS = ("adult", "alphabets", "papers", "schools")
PAGES = (Path("docs/http-api.md"), Path("docs/multi-task.md"))
CURL = re.compile(r"/models/(\w+)/predict.*?-d @(examples/\S+\.json)")


def body(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / name).read_bytes())
    return found


def ask(api: Api, name: str) -> list[dict[str, Any]]:
    return predictions(api.predict(name.partition("/")[0], **body(name)))


SCHOOL, PAPER, PERSON, DRAWING = (
    body(name)["inputs"][0] for name in ("schools/known.json", "papers/unseen.json", "adult/all.json",
                                         "alphabets/known.json")
)  # fmt: skip
FIVE = body("schools/five-pupils.json")["support"]
TEN = body("papers/ten-papers.json")["support"]
NEW = {"venue": "icml", "year": 2026}


def lines() -> list[tuple[str, str]]:
    """Model and file of every curl line of the pages that asks a shipped bundle of known tasks."""
    text = "\n".join(page.read_text(encoding="utf-8").replace("\\\n", "") for page in PAGES)
    return sorted({found for found in CURL.findall(text) if found[0] in MODELS})


def test_every_example_stands_in_a_curl_line() -> None:
    files = {str(path) for model in MODELS for path in (EXAMPLES / model).glob("*.json")}
    assert {file for _, file in lines()} == files
    assert all(Path(file).parent.name == model for model, file in lines())


@pytest.mark.parametrize(("model", "file"), lines(), ids=lambda value: value)
def test_the_curl_lines_answer(api: Api, model: str, file: str) -> None:
    found = predictions(api.post(f"/v1/models/{model}/predict", json=json.loads(Path(file).read_bytes())))
    assert found
    assert not any("problem" in each for each in found)


def test_a_school_that_training_never_saw_learns_from_five_pupils(api: Api) -> None:
    described, after = ask(api, "schools/unseen.json"), ask(api, "schools/five-pupils.json")
    assert [each["used"] for each in (*described, *after)] == ["task", "task", "support", "support"]
    assert after[0]["value"] > described[0]["value"], "its pupils do better than such a school's usually do"
    known = predictions(api.predict("schools", inputs=[SCHOOL], task={"id": "any-school"}))
    nothing = predictions(api.predict("schools", inputs=[SCHOOL], task={"metadata": {}}))
    assert close(nothing[0]["value"], known[0]["value"]), "a record of defaults is no school in particular"


def test_ten_papers_of_a_new_venue_year_move_its_pages(api: Api) -> None:
    request = body("papers/ten-papers.json")
    alone = predictions(api.predict("papers", inputs=request["inputs"], task=request["task"]))[0]
    after = ask(api, "papers/ten-papers.json")[0]
    mean = sum(example["label"] for example in request["support"]) / 10
    assert abs(after["value"] - mean) < abs(alone["value"] - mean)
    assert after["interval"][1] - after["interval"][0] < alone["interval"][1] - alone["interval"][0]


def test_several_tasks_of_one_paper_answer_in_their_order_as_each_alone(api: Api) -> None:
    request = body("papers/several.json")
    ids = request["task"]["ids"]
    together = ask(api, "papers/several.json")
    assert [each["task"] for each in together] == ids
    assert [each["kind"] for each in together] == ["number", "number", "class", "labels"]
    for name, found in zip(ids, together, strict=True):
        task = {"id": name, "metadata": request["task"]["metadata"]}
        assert close(predictions(api.predict("papers", inputs=request["inputs"], task=task))[0], found)


def requests_of(model: str) -> list[dict[str, Any]]:
    """The golden requests, one input each."""
    found = json.loads((BUNDLES / model / "1" / "golden_requests.json").read_bytes())
    return [
        {"input": value, "task": request["task"], **({"support": request["support"]} if "support" in request else {})}
        for request in found
        for value in request["inputs"]
    ]


ROWS = {model: requests_of(model) for model in MODELS}
ALONE: dict[tuple[str, int], dict[str, Any]] = {}


def alone(api: Api, model: str, place: int) -> dict[str, Any]:
    if (model, place) not in ALONE:
        ALONE[model, place] = predictions(api.predict(model, rows=[ROWS[model][place]]))[0]
    return ALONE[model, place]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_rows_of_any_tasks_answer_as_each_alone(api: Api, data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(MODELS))
    places = data.draw(st.lists(st.integers(0, len(ROWS[model]) - 1), min_size=1, max_size=12))
    found = predictions(api.predict(model, rows=[ROWS[model][place] for place in places]))
    assert len(found) == len(places)
    for place, each in zip(places, found, strict=True):
        assert same(each, alone(api, model, place))


def same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two predictions agree; labels of nearly the same score may change places."""
    order = [dict(sorted(each.get("scores", {}).items())) for each in (found, wanted)]
    numbers = [[each["value"], *each["interval"]] if each["kind"] == "number" else [] for each in (found, wanted)]
    return (found["kind"], found["used"]) == (wanted["kind"], wanted["used"]) and all(
        close(one, other) for one, other in (order, numbers)
    )


BAD: list[tuple[str, dict[str, Any], int, str, str]] = [
    # An id that there is not: the nearest ones are told, see below.
    ("alphabets", {"task": {"id": "greeek"}}, 404, "task-not-found", "task.id"),
    ("papers", {"task": {"ids": ["pages", "keyword"]}}, 404, "task-not-found", "task.ids[1]"),
    # Metadata with a field missing, one too many, of another type, out of range, of an unknown category.
    ("papers", {"task": {"id": "pages", "metadata": {"venue": "acl"}}}, 422, "input-invalid", "task.metadata.year"),
    ("papers", {"task": {"id": "pages", "metadata": {**NEW, "city": "Wien"}}}, 422, "input-invalid", "task.metadata"),
    ("papers", {"task": {"id": "pages", "metadata": {**NEW, "year": "2026"}}}, 422, "input-invalid",
     "task.metadata.year"),
    ("papers", {"task": {"id": "pages", "metadata": {**NEW, "year": 1066}}}, 422, "input-invalid",
     "task.metadata.year"),
    ("papers", {"task": {"id": "pages", "metadata": {**NEW, "venue": None}}}, 422, "input-invalid",
     "task.metadata.venue"),
    ("schools", {"task": {"metadata": {"free_meals": 101}}}, 422, "input-invalid", "task.metadata.free_meals"),
    ("schools", {"task": {"metadata": {"sexes": "none"}}}, 422, "input-invalid", "task.metadata.sexes"),
    ("schools", {"task": {"metadata": {"sexes": 1}}}, 422, "input-invalid", "task.metadata.sexes"),
    ("schools", {"inputs": [{**SCHOOL, "sex": "unknown"}], "task": {"id": "school-1"}}, 422, "input-invalid",
     "inputs[0].sex"),
    ("schools", {"inputs": [{"sex": "girl"}], "task": {"id": "school-1"}}, 422, "input-invalid", "inputs[0].year"),
    ("adult", {"inputs": [{**PERSON, "age": "old"}], "task": {"id": "income"}}, 422, "input-invalid", "inputs[0].age"),
    # Metadata where the model takes none, or not so; a text where it takes none.
    ("alphabets", {"task": {"id": "greek", "metadata": {}}}, 422, "not-accepted", "task.metadata"),
    ("papers", {"task": {"metadata": NEW}}, 422, "not-accepted", "task.metadata"),
    ("schools", {"task": {"id": "school-1", "metadata": {}}}, 422, "not-accepted", "task.metadata"),
    ("papers", {"task": {"text": "how many pages"}}, 422, "not-accepted", "task.text"),
    # Texts without a word, and what is no text.
    ("papers", {"inputs": [""], "task": {"id": "pages"}}, 422, "input-invalid", "inputs[0]"),
    ("papers", {"inputs": [PAPER, " \n"], "task": {"id": "pages"}}, 422, "input-invalid", "inputs[1]"),
    ("papers", {"inputs": [{"title": "x"}], "task": {"id": "pages"}}, 422, "input-invalid", "inputs[0]"),
    ("papers", {"task": {"id": "pages", "metadata": NEW}, "support": [{"input": "", "label": 9}]}, 422,
     "input-invalid", "support[0].input"),
    # Options that do not fit the kind of the task's answers.
    ("papers", {"task": {"id": "pages"}, "options": {"top": 3}}, 422, "not-accepted", "options.top"),
    ("papers", {"task": {"id": "keywords"}, "options": {"confidence": 0.9}}, 422, "not-accepted",
     "options.confidence"),
    ("papers", {"task": {"ids": ["accept", "rating"]}, "options": {"top": 1}}, 422, "not-accepted", "options.top"),
    ("adult", {"task": {"id": "hours"}, "options": {"scores": False}}, 422, "not-accepted", "options.scores"),
    # Support sets of another kind, too large, or where nothing is learned.
    ("papers", {"task": {"id": "accept"}, "support": TEN}, 422, "not-accepted", "task.id"),
    ("papers", {"task": {"id": "keywords"}, "support": TEN}, 422, "not-accepted", "task.id"),
    ("papers", {"task": {"id": "pages"}, "support": [{**TEN[0], "label": "nine"}]}, 422, "request-invalid",
     "support[0].label"),
    ("papers", {"task": {"id": "pages"}, "support": TEN * 11}, 422, "support-set-invalid", "support"),
    ("papers", {"task": {"ids": ["pages"]}, "support": TEN}, 422, "request-invalid", "support"),
    ("schools", {"task": {"metadata": {}}, "support": FIVE * 41}, 422, "support-set-invalid", "support"),
    ("adult", {"task": {"id": "hours"}, "support": [{"input": PERSON, "label": 40}]}, 422, "not-accepted", "support"),
    ("papers", {}, 422, "not-accepted", "support"),
]  # fmt: skip
INPUTS = {"adult": [PERSON], "alphabets": [DRAWING], "papers": [PAPER], "schools": [SCHOOL]}


@pytest.mark.parametrize(("model", "more", "status", "slug", "place"), BAD, ids=[f"{c[0]} {c[1]}"[:70] for c in BAD])
def test_bad_input_is_refused_with_its_place(
    api: Api, model: str, more: dict[str, Any], status: int, slug: str, place: str
) -> None:
    refused = problem(api.predict(model, **{"inputs": INPUTS[model], **more}), status, slug)
    assert field(refused) == place


def test_the_nearest_ids_are_told(api: Api) -> None:
    refused = problem(api.predict("alphabets", inputs=[DRAWING], task={"id": "greeek"}), 404, "task-not-found")
    assert "greek" in json.dumps(refused["errors"])


@pytest.mark.parametrize(
    ("model", "more", "folded"),
    [
        ("papers", {"task": {"id": "pages", "metadata": {"venue": "nowhere", "year": 2020}}}, ["task.metadata.venue"]),
        ("schools", {"task": {"metadata": {"denomination": "quaker"}}}, ["task.metadata.denomination"]),
        ("schools", {"inputs": [{**SCHOOL, "ethnic_group": "12"}], "task": {"id": "school-1"}}, ["ethnic_group"]),
        ("adult", {"inputs": [{**PERSON, "native_country": "Wonderland"}], "task": {"id": "income"}},
         ["native_country"]),
    ],
)  # fmt: skip
def test_a_category_that_is_folded_is_told(api: Api, model: str, more: dict[str, Any], folded: list[str]) -> None:
    answer: httpx.Response = api.predict(model, **{"inputs": INPUTS[model], **more})
    assert predictions(answer)[0]["folded"] == folded


def test_a_longer_text_than_the_model_reads_is_cut(api: Api) -> None:
    long = PAPER + " and again" * 4000
    assert len(long) > 20_000
    cut = predictions(api.predict("papers", inputs=[long, long[:20_000]], task={"id": "pages"}))
    assert cut[0]["value"] == cut[1]["value"]


@pytest.mark.parametrize("model", MODELS)
def test_states_of_known_tasks_are_small(api: Api, model: str) -> None:
    assert api.get(f"/v1/models/{model}").json()["newest"]["state_bytes"] <= 32 * 1024
