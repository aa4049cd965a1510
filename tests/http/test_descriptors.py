"""Tasks that are described by ids, metadata and texts, over HTTP, held against numpy."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import tiny_readers, tiny_words
from tests.serving import Api
from tests.tasks import alike, field, problem, scores

from handful_service.answers import ModelAnswer, PredictAnswer, TaskList

from .described import (
    IDS,
    NAMES,
    NUMBERS,
    OPEN,
    RECORDS,
    TEXTS,
    VENUE,
    WORDS,
    close,
    described,
    predictions,
    same,
    wanted,
)


@pytest.fixture(scope="module")
def tiny(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with described(tmp_path_factory.mktemp("described")) as running:
        yield running


@pytest.mark.parametrize("task", IDS)
def test_each_task_reads_columns_of_its_own_in_the_kind_of_its_own(tiny: Api, task: str) -> None:
    for _ in range(2):  # described, and out of the cache
        found = predictions(tiny.predict("papers", inputs=RECORDS, task={"id": task}))
        assert same(found, wanted(task))
        assert [(item["used"], item["task"]) for item in found] == [("task", task)] * len(RECORDS)


def test_metadata_beside_an_id_say_of_what_it_is_asked(tiny: Api) -> None:
    for metadata in (VENUE, {"venue": "u"}, {"venue": "v", "year": 0}):
        found = predictions(tiny.predict("papers", inputs=RECORDS, task={"id": "keys", "metadata": metadata}))
        assert same(found, wanted("keys", metadata))


def test_several_tasks_of_one_input_answer_in_order_and_are_encoded_once(tiny: Api) -> None:
    found = predictions(tiny.predict("papers", inputs=RECORDS, task={"ids": ["rating", "good", "pages", "good"]}))
    by_task = [wanted(task) for task in ("rating", "good", "pages", "good")]
    assert same(found, [answer for row in zip(*by_task, strict=True) for answer in row])
    assert [item["task"] for item in found[:4]] == ["rating", "good", "pages", "good"]
    rows = [{"input": RECORDS[0], "task": {"ids": ["keys", "good"], "metadata": VENUE}}, {"input": RECORDS[1]}]
    mixed = predictions(tiny.predict("papers", rows=rows))
    assert same(mixed, [wanted("keys", VENUE)[0], wanted("good", VENUE)[0], wanted("pages")[1]])
    batches = _encoded(tiny, "words")
    texts = predictions(tiny.predict("words", inputs=TEXTS, task={"ids": list(tiny_words.TASKS)}))
    assert len(texts) == len(TEXTS) * len(tiny_words.TASKS)
    assert _encoded(tiny, "words") - batches == len(TEXTS)


def _encoded(api: Api, model: str) -> float:
    """Rows that the encoder of a model has seen."""
    lines = api.get("/metrics").text.splitlines()
    of_encoder = [line for line in lines if "rows" in line and f'model="{model}"' in line and 'graph="encode"' in line]
    (total,) = [line for line in of_encoder if "_sum" in line]
    return float(total.split()[-1])


def test_a_text_and_metadata_that_mean_an_id_answer_as_it_does(tiny: Api) -> None:
    for task, text in tiny_words.TASKS.items():
        by_id = scores(tiny.predict("words", inputs=TEXTS, task={"id": task}))
        assert alike(by_id, WORDS.scores({"id": task}))
        assert alike(by_id, scores(tiny.predict("words", inputs=TEXTS, task={"text": text})))
        assert alike(by_id, scores(tiny.predict("words", inputs=TEXTS, task={"metadata": {"task": task}})))


@pytest.mark.parametrize(
    "task", [{"text": "how good is it"}, {"metadata": {"task": "pages", "tilt": -0.5}}, {"text": "north " * 9}]
)
def test_a_task_that_training_never_saw_answers_as_numpy_does(tiny: Api, task: dict[str, Any]) -> None:
    answer = tiny.predict("words", inputs=TEXTS, task=task)
    assert alike(scores(answer), WORDS.scores(task))
    assert [(item["used"], "task" in item) for item in predictions(answer)] == [("task", False)] * len(TEXTS)


def test_folded_categories_are_told_with_their_place(tiny: Api) -> None:
    rows = [
        {"input": {"age": 1, "sector": "mines"}, "task": {"id": "good", "metadata": {"venue": "w"}}},
        {"input": {"age": 1, "sector": "b"}, "task": {"id": "good", "metadata": {"venue": "u"}}},
        {
            "input": {"age": 1},
            "task": {"id": "pages"},
            "support": [{"input": {"age": 1}, "label": 1}, {"input": {"age": 1, "sector": "?"}, "label": 1}],
        },
    ]
    found = predictions(tiny.predict("papers", rows=rows))
    assert [item.get("folded") for item in found] == [
        ["sector", "task.metadata.venue"], None, ["rows[2].support[1].input.sector"]
    ]  # fmt: skip
    (unseen,) = predictions(tiny.predict("words", inputs=TEXTS[:1], task={"metadata": {"task": "?"}}))
    assert unseen["folded"] == ["task.metadata.task"]


def test_a_support_set_starts_from_the_task_beside_it(tiny: Api) -> None:
    for metadata in (None, VENUE):
        task = {"id": "pages", **({"metadata": metadata} if metadata else {})}
        found = predictions(tiny.predict("papers", inputs=RECORDS, task=task, support=NUMBERS))
        assert same(found, wanted("pages", metadata, tiny_readers.SUPPORT))
        assert [(item["used"], item["task"]) for item in found] == [("support", "pages")] * len(RECORDS)
    for given_task in ({"id": "north"}, {"text": "is it good"}, {"metadata": {"task": "new", "tilt": 1}}):
        answer = tiny.predict("words", inputs=TEXTS, task=given_task, support=NAMES)
        assert alike(scores(answer), WORDS.scores(given_task, support=tiny_words.SUPPORT))


def test_a_support_set_alone_starts_from_the_base(tiny: Api) -> None:
    found = predictions(tiny.predict("papers", inputs=RECORDS, support=NUMBERS))
    assert same(found, wanted("pages", None, tiny_readers.SUPPORT))
    answer = tiny.predict("words", inputs=TEXTS, support=NAMES)
    assert alike(scores(answer), WORDS.scores({"id": "south"}, support=tiny_words.SUPPORT))


def test_open_labels_stand_beside_those_of_the_task_that_learning_starts_from(tiny: Api, name: str) -> None:
    support = [("pages", "spam"), ("keys", "egg"), ("good", "egg")]
    examples = [{"input": text, "label": label} for text, label in support]
    for task in ({"id": "north"}, {"text": "which keys"}, {"metadata": {"task": "new"}}):
        learned = OPEN.scores(task, support=support)
        assert set(learned[0]) == {"spam", "egg"} | ({"ham"} if "id" in task else set())
        assert alike(scores(tiny.predict("open", inputs=TEXTS, task=task, support=examples)), learned)
        body = {"support": examples, "task": task}
        assert tiny.put(f"/v1/models/open/adaptations/{name}", json=body).status_code in (200, 201)
        assert alike(scores(tiny.predict("open", inputs=TEXTS, adaptation=name)), learned)
    assert alike(scores(tiny.predict("open", inputs=TEXTS, task={"id": "pages"})), OPEN.scores({"id": "pages"}))


def test_rows_of_one_task_fail_each_alone(tiny: Api) -> None:
    task = {"id": "pages", "metadata": VENUE}
    rows = [{"input": record, "task": task} for record in (RECORDS[0], {"age": 999}, RECORDS[1], {"age": "x"})]
    first, second, third, fourth = tiny.predict("papers", rows=rows, partial=True).json()["predictions"]
    assert same([first, third], wanted("pages", VENUE)[:2])
    assert [field(item["problem"]) for item in (second, fourth)] == ["rows[1].input.age", "rows[3].input.age"]
    assert field(problem(tiny.predict("papers", rows=rows), 422, "input-invalid")) == "rows[1].input.age"


def test_an_empty_support_set_is_none(tiny: Api) -> None:
    for body, used in (({}, "base"), ({"support": []}, "base"), ({"support": [], "task": {"id": "pages"}}, "task")):
        found = predictions(tiny.predict("papers", inputs=RECORDS, **body))
        assert same(found, wanted("pages"))
        assert {(item["used"], item["task"]) for item in found} == {(used, "pages")}


def test_confidence_and_scores_are_those_of_the_reader(tiny: Api) -> None:
    (number,) = predictions(
        tiny.predict("papers", inputs=RECORDS[:1], task={"id": "pages"}, options={"confidence": 0.9})
    )
    (plain,) = wanted("pages")[:1]
    half, whole = (number["interval"][1] - number["value"]), (plain["interval"][1] - plain["value"])
    assert half == pytest.approx(whole / 2, rel=1e-4), "the quantiles of 0.9 and 0.95 are 1 and 2"
    (sure,) = predictions(tiny.predict("papers", inputs=RECORDS[:1], task={"id": "good"}, options={"confidence": 0.95}))
    assert set(sure["set"]) == {"yes", "no"}
    assert sure["abstained"]
    (top,) = predictions(tiny.predict("papers", inputs=RECORDS[:1], task={"id": "keys"}, options={"top": 1}))
    assert close(top["scores"], dict([*wanted("keys")[0]["scores"].items()][:1]))
    (none,) = predictions(tiny.predict("papers", inputs=RECORDS[:1], task={"id": "keys"}, options={"scores": False}))
    assert "scores" not in none
    assert none["labels"] == wanted("keys")[0]["labels"]


row = st.one_of(
    st.fixed_dictionaries({"task": st.fixed_dictionaries({"id": st.sampled_from(IDS)})}),
    st.fixed_dictionaries(
        {
            "task": st.fixed_dictionaries(
                {
                    "id": st.sampled_from(IDS),
                    "metadata": st.fixed_dictionaries(
                        {"venue": st.sampled_from("uvwxyz")}, optional={"year": st.integers(0, 50)}
                    ),
                }
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "task": st.fixed_dictionaries({"id": st.sampled_from(["pages", "rating"])}),
            "support": st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=4),
        }
    ),
    st.fixed_dictionaries({"support": st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=4)}),
    st.just({}),
)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(RECORDS), row), min_size=2, max_size=12))
def test_rows_of_many_tasks_answer_as_each_alone(tiny: Api, rows: list[tuple[Any, dict[str, Any]]]) -> None:
    together = predictions(tiny.predict("papers", rows=[{"input": record, **task} for record, task in rows]))
    for got, (record, task) in zip(together, rows, strict=True):
        (alone,) = predictions(tiny.predict("papers", inputs=[record], **task))
        got_parts, alone_parts = ({k: v for k, v in item.items() if k != "folded"} for item in (got, alone))
        assert got_parts.keys() == alone_parts.keys()
        assert all(_same_part(got_parts[key], alone_parts[key]) for key in alone_parts)


def _same_part(got: Any, alone: Any) -> bool:
    return close(got, alone) if isinstance(alone, dict | float) else got == alone or close(got, alone)


def test_a_row_of_several_tasks_that_fails_alone_fails_for_each_of_them(tiny: Api) -> None:
    rows = [
        {"input": RECORDS[0], "task": {"ids": ["pages", "good"]}},
        {"input": {"age": -1}, "task": {"ids": ["pages", "good", "keys"]}},
        {"input": RECORDS[0], "task": {"id": "keys"}},
    ]
    found = tiny.predict("papers", rows=rows, partial=True).json()["predictions"]
    assert [item.get("task") for item in found] == ["pages", "good", None, None, None, "keys"]
    assert {field(item["problem"]) for item in found[2:5]} == {"rows[1].input.age"}


def test_answers_are_what_the_openapi_document_says(tiny: Api) -> None:
    answer = tiny.predict("papers", inputs=[{"age": 1, "sector": "?"}], task={"ids": IDS, "metadata": {"venue": "u"}})
    read = PredictAnswer.model_validate(answer.json())
    assert [item.model_dump(exclude_none=True) for item in read.predictions] == [
        {**item, "interval": tuple(item["interval"])} if "interval" in item else item for item in predictions(answer)
    ]
    for model in ("papers", "words"):
        TaskList.model_validate(tiny.get(f"/v1/models/{model}/tasks").json())
        ModelAnswer.model_validate(tiny.get(f"/v1/models/{model}").json())
    schemas = tiny.get("/openapi.json").json()["components"]["schemas"]
    kinds = schemas["PredictAnswer"]["properties"]["predictions"]["items"]["anyOf"][0]["discriminator"]["mapping"]
    assert kinds.keys() == {"class", "labels", "number"}
    assert {
        "RecordOptions",
        "MetadataDescriptor",
        "TextDescriptor",
        "TaskAnswer",
        "TaskName",
        "OneTask",
    } <= schemas.keys()


def test_more_answers_than_a_call_may_have_are_refused(tiny: Api) -> None:
    refused = problem(tiny.predict("papers", inputs=RECORDS * 10, task={"ids": IDS * 2}), 413, "too-large")
    assert (field(refused), refused["errors"][0]["allowed"]) == ("inputs", "at most 200")


def test_the_known_tasks_are_listed_with_what_describes_them(tiny: Api) -> None:
    found = tiny.get("/v1/models/papers/tasks").json()
    assert [(task["id"], task["kind"], task.get("labels")) for task in found["tasks"]] == [
        ("pages", "number", None), ("good", "class", ["yes", "no"]), ("keys", "labels", ["north", "south", "east"]),
        ("plain-keys", "labels", ["up", "down"]), ("rating", "number", None),
    ]  # fmt: skip
    assert found["tasks"][0] == {
        "id": "pages", "kind": "number", "shots": 1, "description": "How long it is.", "evaluation": {"r2": 0.25},
        "advice": "Share more.", "metadata": {"venue": "v", "year": 2},
    }  # fmt: skip
    metadata = found["descriptors"]["metadata"]
    assert metadata["beside_id"] is True
    assert metadata["record"]["fields"] == tiny_readers.METADATA
    assert "text" not in found["descriptors"]
    newest = tiny.get("/v1/models/words").json()["newest"]
    assert newest["descriptors"]["text"] == {"text": {"max_characters": 60, "truncate": True}, "tokens": 3}
    assert newest["descriptors"]["metadata"]["beside_id"] is False
    assert newest["inputs"]["x"]["text"] == {"max_characters": 60, "truncate": True}
