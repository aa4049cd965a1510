import pytest
from tests.serving import Api
from tests.tasks import Glyphs, field, labels, problem, with_ids

ADAPTATIONS = "/v1/models/glyphs/adaptations"


def test_put_creates_then_replaces(api: Api, glyphs: Glyphs, name: str) -> None:
    one, other = glyphs.support(glyphs.names[:2], (0, 1)), glyphs.support(glyphs.names[2:5])
    made = api.put(f"{ADAPTATIONS}/{name}", json={"support": one})
    assert made.status_code == 201
    body = made.json()
    assert made.headers["etag"] == f'"{body["revision"]}"'
    assert (body["model"], body["version"], body["id"]) == ("glyphs", 1, name)
    assert body["labels"] == {label: {"examples": 2, "weight": 2.0} for label in glyphs.names[:2]}
    assert [result["action"] for result in body["results"]] == ["added"] * 4
    assert len({result["example_id"] for result in body["results"]}) == 4
    replaced = api.put(f"{ADAPTATIONS}/{name}", json={"support": other})
    assert replaced.status_code == 200
    assert replaced.json()["revision"] > body["revision"]
    assert set(replaced.json()["labels"]) == set(glyphs.names[2:5])
    read = labels(api.predict(inputs=glyphs.queries(glyphs.names[:2]), adaptation=name))
    assert set(read) <= set(glyphs.names[2:5])


def test_get_tells_the_examples_in_event_order_without_their_inputs(api: Api, glyphs: Glyphs, name: str) -> None:
    support = with_ids(glyphs.support(glyphs.names[:2]))
    support[0]["source"] = "a click"
    made = api.put(f"{ADAPTATIONS}/{name}", json={"support": support})
    body = {"examples": [{**glyphs.support(glyphs.names[2:3])[0], "example_id": "late"}]}
    added = api.post(f"{ADAPTATIONS}/{name}/examples", json=body)
    found = api.get(f"{ADAPTATIONS}/{name}")
    assert found.headers["etag"] == added.headers["etag"] != made.headers["etag"]
    document = found.json()
    assert document["revision"] == added.json()["revision"]
    assert [(item["example_id"], item["label"]) for item in document["examples"]] == [
        ("e0", glyphs.names[0]),
        ("e1", glyphs.names[1]),
        ("late", glyphs.names[2]),
    ]
    assert [item["source"] for item in document["examples"]] == ["a click", None, None]
    assert all("input" not in item for item in document["examples"])
    assert document["labels"] == added.json()["labels"]
    assert document["created_at"] < document["updated_at"]


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE example", "DELETE"])
def test_a_change_is_made_only_at_the_expected_revision(api: Api, glyphs: Glyphs, name: str, method: str) -> None:
    path, support = f"{ADAPTATIONS}/{name}", with_ids(glyphs.support(glyphs.names[:2]))
    first = api.put(path, json={"support": support}).headers["etag"]
    second = api.put(path, json={"support": support}).headers["etag"]
    calls = {
        "PUT": ("PUT", path, {"support": support}),
        "POST": ("POST", f"{path}/examples", {"examples": glyphs.support(glyphs.names[2:3])}),
        "DELETE example": ("DELETE", f"{path}/examples/e0", None),
        "DELETE": ("DELETE", path, None),
    }
    verb, place, body = calls[method]
    before = api.dump()
    for stale in (first, '"999999999"'):
        refused = problem(api.request(verb, place, json=body, headers={"If-Match": stale}), 412, "precondition-failed")
        assert field(refused) == "If-Match"
    assert field(problem(api.request(verb, place, json=body, headers={"If-None-Match": "*"}), 412,
                         "precondition-failed")) == "If-None-Match"  # fmt: skip
    assert api.dump() == before
    assert api.request(verb, place, json=body, headers={"If-Match": second}).status_code in (200, 204)


def test_if_none_match_creates_and_if_match_star_replaces(api: Api, glyphs: Glyphs, name: str) -> None:
    path, body = f"{ADAPTATIONS}/{name}", {"support": glyphs.support(glyphs.names[:2])}
    problem(api.put(path, json=body, headers={"If-Match": "*"}), 412, "precondition-failed")
    assert api.get(path).status_code == 404
    assert api.put(path, json=body, headers={"If-None-Match": "*"}).status_code == 201
    assert api.put(path, json=body, headers={"If-Match": "*"}).status_code == 200


def test_lists_are_paged_by_id(api: Api, glyphs: Glyphs, name: str) -> None:
    support = glyphs.support(glyphs.names[:2])
    names = [f"{name}.{letter}" for letter in "bacZ~"]
    for each in names:
        assert api.put(f"{ADAPTATIONS}/{each}", json={"support": support}).status_code == 201
    seen, after = [], f"{name}."
    while after:
        page = api.get(ADAPTATIONS, params={"limit": 2, "after": after}).json()
        assert len(page["adaptations"]) <= 2
        seen += page["adaptations"]
        after = page["next"]
        if seen[-1]["id"] not in names:
            break
    mine = [item for item in seen if item["id"] in names]
    assert [item["id"] for item in mine] == sorted(names)
    assert all((item["examples"], item["labels"]) == (2, glyphs.names[:2]) for item in mine)


def test_the_last_page_says_that_it_is_the_last(api: Api, glyphs: Glyphs, name: str) -> None:
    last = f"zzz-{name}"
    assert api.put(f"{ADAPTATIONS}/{last}", json={"support": glyphs.support(glyphs.names[:1])}).status_code == 201
    everything = api.get(ADAPTATIONS, params={"limit": 1000}).json()
    assert everything["next"] is None
    assert everything["adaptations"][-1]["id"] == last
    exact = api.get(ADAPTATIONS, params={"limit": len(everything["adaptations"])}).json()
    assert exact["next"] is None
    assert api.get(ADAPTATIONS, params={"after": last}).json() == {"adaptations": [], "next": None}


def test_what_is_deleted_is_gone_with_all_its_data(api: Api, glyphs: Glyphs, name: str) -> None:
    path = f"{ADAPTATIONS}/{name}"
    assert api.put(path, json={"support": with_ids(glyphs.support(glyphs.names[:2]))}).status_code == 201
    body = {"examples": [{**glyphs.support(glyphs.names[2:3])[0], "event_id": "click"}]}
    assert api.post(f"{path}/examples", json=body).status_code == 200
    assert f"'{name}'" in api.dump()
    gone = api.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert f"'{name}'" not in api.dump()
    problem(api.get(path), 404, "adaptation-not-found")
    problem(api.delete(path), 404, "adaptation-not-found")
    problem(api.post(f"{path}/examples", json=body), 404, "adaptation-not-found")
    problem(api.delete(f"{path}/examples/e0"), 404, "adaptation-not-found")
    problem(api.predict(inputs=glyphs.queries(glyphs.names[:1]), adaptation=name), 404, "adaptation-not-found")


def test_a_revision_is_never_used_again_after_deletion(api: Api, glyphs: Glyphs, name: str) -> None:
    path, revisions = f"{ADAPTATIONS}/{name}", []
    for place in range(3):
        chosen = glyphs.names[2 * place : 2 * place + 2]
        made = api.put(path, json={"support": glyphs.support(chosen)})
        assert made.status_code == 201
        revisions.append(made.json()["revision"])
        assert labels(api.predict(inputs=glyphs.queries(chosen), adaptation=name)) == chosen, "no stale state"
        assert api.delete(path).status_code == 204
    assert revisions == sorted(set(revisions))


def test_an_example_is_corrected_by_its_id_and_relabelled_without_its_input(
    api: Api, glyphs: Glyphs, name: str
) -> None:
    path, (one, other) = f"{ADAPTATIONS}/{name}", glyphs.names[:2]
    support = with_ids(glyphs.support([one, other]))
    assert api.put(path, json={"support": support}).status_code == 201
    swap = [{"example_id": "e0", "label": other}, {"example_id": "e1", "label": one}]
    swapped = api.post(f"{path}/examples", json={"examples": swap})
    assert [result["action"] for result in swapped.json()["results"]] == ["replaced", "replaced"]
    assert labels(api.predict(inputs=[support[0]["input"], support[1]["input"]], adaptation=name)) == [other, one]
    inputs = [{"example_id": f"e{place}", "input": support[1 - place]["input"], "label": (other, one)[place]}
              for place in (0, 1)]  # fmt: skip
    assert api.post(f"{path}/examples", json={"examples": inputs}).status_code == 200
    assert labels(api.predict(inputs=[support[0]["input"], support[1]["input"]], adaptation=name)) == [one, other]
    examples = api.get(path).json()["examples"]
    assert [(item["example_id"], item["label"]) for item in examples] == [("e0", other), ("e1", one)]


def test_a_new_example_needs_an_input_and_an_unknown_one_cannot_be_deleted(api: Api, glyphs: Glyphs, name: str) -> None:
    path = f"{ADAPTATIONS}/{name}"
    assert api.put(path, json={"support": with_ids(glyphs.support(glyphs.names[:2]))}).status_code == 201
    before = api.dump()
    no_input = api.post(f"{path}/examples", json={"examples": [{"example_id": "new", "label": "a"}]})
    assert field(problem(no_input, 422, "request-invalid")) == "examples[0].input"
    assert field(problem(api.delete(f"{path}/examples/new"), 404, "example-not-found")) == "example_id"
    twice = [{"example_id": "e0", "label": "a"}, {"example_id": "e0", "label": "b"}]
    refused = problem(api.post(f"{path}/examples", json={"examples": twice}), 422, "request-invalid")
    assert field(refused) == "examples[1].example_id"
    assert api.dump() == before
