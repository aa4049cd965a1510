"""Laws 2 and 4: what the order of a support set, unlearning and relabelling do to answers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving import Api
from tests.tasks import Glyphs, Scores, alike, inline_of, scores, with_ids

ADAPTATIONS = "/v1/models/glyphs/adaptations"


def put(api: Api, name: str, support: list[dict[str, Any]]) -> None:
    assert api.put(f"{ADAPTATIONS}/{name}", json={"support": support}).status_code in (200, 201)


def post(api: Api, name: str, *examples: dict[str, Any]) -> None:
    response = api.post(f"{ADAPTATIONS}/{name}/examples", json={"examples": list(examples)})
    assert response.status_code == 200, response.text


def unlearn(api: Api, name: str, example_id: str) -> None:
    response = api.delete(f"{ADAPTATIONS}/{name}/examples/{example_id}")
    assert response.status_code == 200, response.text


def read(api: Api, glyphs: Glyphs, name: str) -> list[Scores]:
    return scores(api.predict(inputs=glyphs.queries(glyphs.names), adaptation=name))


@given(st.permutations(range(12)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_support_set_does_not_matter(api: Api, glyphs: Glyphs, order: list[int]) -> None:
    support, queries = glyphs.support(glyphs.names[:6], (0, 1)), glyphs.queries(glyphs.names)
    shuffled = [support[place] for place in order]
    one, other = api.predict(inputs=queries, support=support), api.predict(inputs=queries, support=shuffled)
    assert alike(scores(one), scores(other))


@given(st.permutations(range(6)))
@settings(max_examples=15, deadline=None)
def test_what_the_labels_are_called_does_not_matter(api: Api, glyphs: Glyphs, order: list[int]) -> None:
    support, queries = glyphs.support(glyphs.names[:6], (0, 1)), glyphs.queries(glyphs.names)
    renamed = {name: glyphs.names[place] for name, place in zip(glyphs.names, order, strict=False)}
    one = scores(api.predict(inputs=queries, support=support))
    other = scores(api.predict(inputs=queries, support=[{**item, "label": renamed[item["label"]]} for item in support]))
    assert alike([{renamed[label]: score for label, score in item.items()} for item in one], other)


def test_adding_the_first_example_of_a_label_and_deleting_it_again_changes_nothing(
    api: Api, glyphs: Glyphs, name: str
) -> None:
    support = with_ids(glyphs.support(glyphs.names[:4], (0, 1)))
    put(api, name, support)
    never = read(api, glyphs, name)
    post(api, name, {**glyphs.support(glyphs.names[5:6])[0], "example_id": "new"})
    assert glyphs.names[5] in read(api, glyphs, name)[0]
    unlearn(api, name, "new")
    assert alike(read(api, glyphs, name), never)


def test_deleting_the_first_example_of_the_first_label_is_as_if_it_had_never_been(
    api: Api, glyphs: Glyphs, name: str
) -> None:
    support = with_ids(glyphs.support(glyphs.names[:3]))
    put(api, name, support)
    unlearn(api, name, "e0")
    put(api, f"{name}-never", support[1:])
    assert alike(read(api, glyphs, name), read(api, glyphs, f"{name}-never"))
    back = glyphs.support(glyphs.names[:1], (1,))[0]
    post(api, name, back)
    post(api, f"{name}-never", back)
    assert alike(read(api, glyphs, name), read(api, glyphs, f"{name}-never"))
    assert glyphs.names[0] in read(api, glyphs, name)[0]


def test_relabelling_is_as_if_the_right_label_had_been_given(api: Api, glyphs: Glyphs, name: str) -> None:
    support = with_ids(glyphs.support(glyphs.names[:4], (0, 1)))
    wrong = [{**support[0], "label": "a label of its own"}, {**support[1], "label": glyphs.names[3]}, *support[2:]]
    put(api, name, wrong)
    before = read(api, glyphs, name)
    post(api, name, *({"example_id": f"e{place}", "label": glyphs.names[0]} for place in (0, 1)))
    put(api, f"{name}-never", support)
    assert alike(read(api, glyphs, name), read(api, glyphs, f"{name}-never"))
    assert not alike(read(api, glyphs, name), before)


@pytest.mark.parametrize("seed", range(3))
def test_after_any_change_the_answer_is_that_of_the_examples_that_are_left(
    api: Api, glyphs: Glyphs, name: str, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    left = {item["example_id"]: item for item in with_ids(glyphs.support(glyphs.names[:3], (0, 1)))}
    put(api, name, list(left.values()))
    for step in range(16):
        action = generator.choice(["add", "add", "delete", "relabel", "replace input"])
        known, label = str(generator.choice([*left])), str(generator.choice(glyphs.names[:5]))
        drawing = glyphs.drawings[str(generator.choice(glyphs.names))][generator.integers(4)]
        if action == "add":
            left[f"new-{step}"] = {"input": drawing, "label": label, "example_id": f"new-{step}"}
            post(api, name, left[f"new-{step}"])
        elif action == "relabel":
            left[known] = {**left[known], "label": label}
            post(api, name, {"example_id": known, "label": label})
        elif action == "replace input":
            left[known] = {**left[known], "input": drawing, "label": label}
            post(api, name, left[known])
        elif len(left) > 1:
            del left[known]
            unlearn(api, name, known)
        inline = scores(api.predict(inputs=glyphs.queries(glyphs.names), support=inline_of([*left.values()])))
        assert alike(read(api, glyphs, name), inline), (step, action)
