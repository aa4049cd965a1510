"""Versions of a model: how they are named, and an adaptation that outlives the version it was made with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving import Api, in_process
from tests.tasks import Glyphs, alike, field, inline_of, problem, scores, with_ids

ADAPTATIONS = "/v1/models/glyphs/adaptations"


@pytest.fixture(scope="module")
def versions(form: str, two_versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with in_process(tmp_path_factory.mktemp("versions"), two_versions) as running:
        yield running


@pytest.fixture(scope="module")
def features_only(form: str, two_versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with in_process(tmp_path_factory.mktemp("features"), two_versions, retention="features") as running:
        yield running


@pytest.mark.parametrize(("version", "used"), [(None, 2), (1, 1), (2, 2), ("stable", 1)])
def test_a_version_is_named_by_number_or_label_and_the_newest_is_the_default(
    versions: Api, glyphs: Glyphs, name: str, version: int | str | None, used: int
) -> None:
    support = glyphs.support(glyphs.names[:2])
    named = {} if version is None else {"version": version}
    assert versions.predict(inputs=glyphs.queries(glyphs.names), support=support, **named).json()["version"] == used
    path = f"{ADAPTATIONS}/{name}"
    assert versions.put(path, json={"support": with_ids(support), **named}).json()["version"] == used
    posted = versions.post(f"{path}/examples", json={"examples": glyphs.support(glyphs.names[2:3]), **named})
    assert posted.json()["version"] == used
    assert versions.delete(f"{path}/examples/e0", params=named).json()["version"] == used
    assert versions.get("/v1/models/glyphs/tasks", params=named).json()["version"] == used


@pytest.mark.parametrize("version", [3, "latest", "1", 10**20])
def test_an_unknown_version_is_told_with_those_there_are(versions: Api, glyphs: Glyphs, version: int | str) -> None:
    support = glyphs.support(glyphs.names[:2])
    body = {"inputs": glyphs.queries(glyphs.names), "support": support, "version": version}
    refused = problem(versions.post("/v1/models/glyphs/predict", json=body), 404, "model-not-found")
    assert field(refused) == "version"
    assert refused["errors"][0]["allowed"] == "one of [1, 2, 'stable']"
    put = versions.put(f"{ADAPTATIONS}/nobody", json={"support": support, "version": version})
    assert field(problem(put, 404, "model-not-found")) == "version"
    assert versions.get(f"{ADAPTATIONS}/nobody").status_code == 404


def test_an_adaptation_made_with_one_version_answers_and_learns_with_another(
    versions: Api, glyphs: Glyphs, name: str
) -> None:
    path, queries = f"{ADAPTATIONS}/{name}", glyphs.queries(glyphs.names)
    support = with_ids(glyphs.support(glyphs.names[:4], (0, 1)))
    assert versions.put(path, json={"support": support, "version": 1}).status_code == 201
    inline = scores(versions.predict(inputs=queries, support=inline_of(support), version=2))
    for version in (2, 1, 2):
        assert alike(scores(versions.predict(inputs=queries, adaptation=name, version=version)), inline)
    more = {**glyphs.support(glyphs.names[4:5])[0], "example_id": "more"}
    assert versions.post(f"{path}/examples", json={"examples": [more], "version": 2}).status_code == 200
    relabel = {"example_id": "e0", "label": glyphs.names[5]}
    assert versions.post(f"{path}/examples", json={"examples": [relabel], "version": 1}).status_code == 200
    now = [{**support[0], "label": glyphs.names[5]}, *support[1:], more]
    inline = scores(versions.predict(inputs=queries, support=inline_of(now), version=2))
    for version in (1, 2):
        assert alike(scores(versions.predict(inputs=queries, adaptation=name, version=version)), inline)


def test_with_features_alone_no_input_is_stored_and_its_own_version_works(
    features_only: Api, glyphs: Glyphs, name: str
) -> None:
    path, queries = f"{ADAPTATIONS}/{name}", glyphs.queries(glyphs.names)
    support = with_ids(glyphs.support(glyphs.names[:4]))
    assert features_only.put(path, json={"support": support, "version": 1}).status_code == 201
    assert not any(item["input"].encode().hex().upper() in features_only.dump() for item in support)
    relabel = {"example_id": "e0", "label": glyphs.names[5]}
    body = {"examples": [relabel, glyphs.support(glyphs.names[6:7])[0]], "version": 1}
    assert features_only.post(f"{path}/examples", json=body).status_code == 200
    assert features_only.delete(f"{path}/examples/e1", params={"version": 1}).status_code == 200
    now = [{**support[0], "label": glyphs.names[5]}, *support[2:], *glyphs.support(glyphs.names[6:7])]
    stored = scores(features_only.predict(inputs=queries, adaptation=name, version=1))
    assert alike(stored, scores(features_only.predict(inputs=queries, support=inline_of(now), version=1)))


def test_with_features_alone_another_version_is_a_conflict_until_a_new_put(
    features_only: Api, glyphs: Glyphs, name: str
) -> None:
    path, queries = f"{ADAPTATIONS}/{name}", glyphs.queries(glyphs.names)
    support = with_ids(glyphs.support(glyphs.names[:4]))
    assert features_only.put(path, json={"support": support, "version": 1}).status_code == 201
    before = features_only.dump()
    more = {"examples": glyphs.support(glyphs.names[5:6]), "version": 2}
    for answer in (
        features_only.predict(inputs=queries, adaptation=name, version=2),
        features_only.post(f"{path}/examples", json=more),
        features_only.delete(f"{path}/examples/e0", params={"version": 2}),
    ):
        refused = problem(answer, 409, "task-conflict")
        assert field(refused) == "version"
        assert "PUT" in refused["errors"][0]["allowed"]
    assert features_only.dump() == before
    assert features_only.put(path, json={"support": support, "version": 2}).status_code == 200
    assert features_only.predict(inputs=queries, adaptation=name, version=2).status_code == 200


def test_stored_inputs_are_found_by_the_search_that_finds_none_with_features_alone(
    versions: Api, glyphs: Glyphs, name: str
) -> None:
    support = glyphs.support(glyphs.names[:1])
    assert versions.put(f"{ADAPTATIONS}/{name}", json={"support": support}).status_code == 201
    assert support[0]["input"].encode().hex().upper() in versions.dump()
