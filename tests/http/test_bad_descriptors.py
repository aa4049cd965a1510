"""Tasks that are described badly, texts and records that cannot be read: each is refused with its place."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving import Api
from tests.tasks import field, problem

from .bad_requests import JSON
from .described import NAMES, NUMBERS, RECORDS, TEXTS, described, predictions, same, wanted
from .test_fuzz import VALUES, is_fine

GOOD = {"venue": "u", "year": 1}
OF_PAPERS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"task": {"id": "page"}}, 404, "task-not-found", "task.id"),
    ({"task": {"ids": ["pages", "wages"]}}, 404, "task-not-found", "task.ids[1]"),
    ({"task": {"metadata": GOOD}}, 422, "not-accepted", "task.metadata"),
    ({"task": {"text": "how long"}}, 422, "not-accepted", "task.text"),
    ({"task": {"id": "pages", "text": "how long"}}, 422, "request-invalid", "task"),
    ({"task": {"id": "pages", "ids": ["good"]}}, 422, "request-invalid", "task"),
    ({"task": {"metadata": GOOD, "text": "x"}}, 422, "request-invalid", "task"),
    ({"task": {"ids": []}}, 422, "request-invalid", "task.ids"),
    ({"task": {}}, 422, "request-invalid", "task"),
    ({"task": {"id": "pages", "metadata": ["u"]}}, 422, "request-invalid", "task.metadata"),
    ({"task": {"id": "pages", "metadata": {}}}, 422, "input-invalid", "task.metadata.venue"),
    ({"task": {"id": "pages", "metadata": {**GOOD, "city": 1}}}, 422, "input-invalid", "task.metadata"),
    ({"task": {"id": "pages", "metadata": {"venue": 1}}}, 422, "input-invalid", "task.metadata.venue"),
    ({"task": {"id": "pages", "metadata": {**GOOD, "year": 51}}}, 422, "input-invalid", "task.metadata.year"),
    ({"task": {"id": "pages", "metadata": {**GOOD, "year": "1"}}}, 422, "input-invalid", "task.metadata.year"),
    ({"task": {"ids": ["pages"]}, "support": NUMBERS}, 422, "request-invalid", "support"),
    ({"task": {"id": "pages"}, "adaptation": "alice"}, 422, "request-invalid", "adaptation"),
    ({"task": {"id": "good"}, "support": NUMBERS}, 422, "not-accepted", "task.id"),
    ({"task": {"id": "keys"}, "support": NUMBERS}, 422, "not-accepted", "task.id"),
    ({"task": {"id": "pages"}, "support": [{**NUMBERS[0], "label": "long"}]}, 422, "request-invalid",
     "support[0].label"),
    ({"task": {"id": "pages"}, "support": NUMBERS * 4}, 422, "support-set-invalid", "support"),
    ({"task": {"id": "pages"}, "options": {"top": 1}}, 422, "not-accepted", "options.top"),
    ({"task": {"id": "pages"}, "options": {"scores": False}}, 422, "not-accepted", "options.scores"),
    ({"task": {"ids": ["good", "pages"]}, "options": {"top": 1}}, 422, "not-accepted", "options.top"),
    ({"task": {"id": "keys"}, "options": {"confidence": 0.9}}, 422, "not-accepted", "options.confidence"),
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with described(tmp_path_factory.mktemp("described")) as running:
        yield running


@pytest.mark.parametrize(("body", "status", "slug", "place"), OF_PAPERS, ids=[str(case[0])[:60] for case in OF_PAPERS])
def test_a_task_that_is_described_badly_is_refused_with_its_place(
    tiny: Api, body: dict[str, Any], status: int, slug: str, place: str
) -> None:
    refused = problem(tiny.predict("papers", inputs=RECORDS, **body), status, slug)
    assert field(refused) == place
    assert same(predictions(tiny.predict("papers", inputs=RECORDS, task={"id": "keys"})), wanted("keys"))
    if "options" not in body:
        in_row = problem(tiny.predict("papers", rows=[{"input": RECORDS[0], **body}]), status, slug)
        assert field(in_row) == f"rows[0].{place}"


@pytest.mark.parametrize(
    ("model", "body", "slug", "place"),
    [
        ("words", {"inputs": [""]}, "input-invalid", "inputs[0]"),
        ("words", {"inputs": ["pages", " "]}, "input-invalid", "inputs[1]"),
        ("words", {"inputs": [7]}, "input-invalid", "inputs[0]"),
        ("whole", {"inputs": ["x" * 61]}, "input-invalid", "inputs[0]"),
        ("whole", {"inputs": ["is it is it is it is it"]}, "input-invalid", "inputs[0]"),
        ("words", {"inputs": TEXTS, "task": {"text": ""}}, "input-invalid", "task.text"),
        ("whole", {"inputs": TEXTS[:1], "task": {"text": "y" * 61}}, "input-invalid", "task.text"),
        ("whole", {"inputs": TEXTS[:1], "task": {"text": "is it good is"}}, "input-invalid", "task.text"),
        ("words", {"inputs": TEXTS, "task": {"text": 7}}, "request-invalid", "task.text"),
        ("words", {"inputs": TEXTS, "task": {"id": "north", "metadata": {"task": "north"}}}, "not-accepted",
         "task.metadata"),
        ("words", {"inputs": TEXTS, "task": {"metadata": {"task": "north", "tilt": 2}}}, "input-invalid",
         "task.metadata.tilt"),
        ("words", {"inputs": TEXTS, "task": {"id": "north"}, "support": [{"input": "", "label": "ham"}]},
         "input-invalid", "support[0].input"),
        ("words", {"inputs": TEXTS, "task": {"id": "north"}, "support": [{"input": "it", "label": "egg"}]},
         "label-unknown", "support[0].label"),
        ("words", {"inputs": TEXTS, "task": {"text": "north"}, "support": NAMES[:1] * 6}, "support-set-invalid",
         "support"),
        ("open", {"inputs": TEXTS, "task": {"text": "north"}}, "not-accepted", "task"),
        ("open", {"inputs": TEXTS, "task": {"id": "north"}, "support": [{"input": "it", "label": x} for x in "abc"]},
         "support-set-invalid", "support"),
        ("papers", {"inputs": [{"age": 1, "wage": 1}]}, "input-invalid", "inputs[0]"),
        ("papers", {"inputs": [{"age": 1}, {}]}, "input-invalid", "inputs[1].age"),
        ("papers", {"inputs": [[1, 2, 3]]}, "input-invalid", "inputs[0]"),
        ("alone", {"inputs": RECORDS}, "not-accepted", "support"),
        ("alone", {"inputs": RECORDS, "support": NUMBERS}, "not-accepted", "support"),
        ("alone", {"inputs": RECORDS, "task": {"id": "pages"}, "support": NUMBERS}, "not-accepted", "support"),
        ("alone", {"inputs": RECORDS, "adaptation": "alice"}, "not-accepted", "adaptation"),
        ("strict", {"inputs": RECORDS, "support": NUMBERS}, "not-accepted", "support"),
        ("strict", {"inputs": RECORDS}, "not-accepted", "support"),
    ],
)  # fmt: skip
def test_inputs_and_ways_that_a_model_does_not_take_are_refused(
    tiny: Api, model: str, body: dict[str, Any], slug: str, place: str
) -> None:
    refused = problem(tiny.predict(model, **body), 422, slug)
    assert field(refused) == place
    assert refused["errors"][0].get("allowed") or "should" in refused["errors"][0]["detail"]


PLACES = st.sampled_from(["id", "ids", "metadata", "text", "metadata.venue", "metadata.year", "metadata.task", "input"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["papers", "words", "open"]), st.dictionaries(PLACES, VALUES, max_size=3), st.booleans())
def test_anything_as_a_descriptor_or_an_input_is_answered_or_a_problem(
    tiny: Api, model: str, values: dict[str, Any], learns: bool
) -> None:
    metadata = {key.partition(".")[2]: value for key, value in values.items() if key.startswith("metadata.")}
    task = {key: value for key, value in values.items() if "." not in key and key != "input"}
    task |= {"metadata": metadata} if metadata else {}
    inputs = [values["input"]] if "input" in values else (RECORDS if model == "papers" else TEXTS)
    body: dict[str, Any] = {"inputs": inputs, "task": task}
    body |= {"support": NUMBERS if model == "papers" else NAMES} if learns else {}
    assert is_fine(tiny.post_json(f"/v1/models/{model}/predict", body))
    put = {"support": body.get("support", []), "task": task}
    assert is_fine(tiny.request("PUT", f"/v1/models/{model}/adaptations/any", content=json.dumps(put), headers=JSON))
    assert same(predictions(tiny.predict("papers", inputs=RECORDS, task={"id": "keys"})), wanted("keys"))
