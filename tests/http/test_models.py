import json
from pathlib import Path

import pytest
from tests.serving import BUNDLES, Api, in_process
from tests.tasks import field, problem

MANIFEST = json.loads((BUNDLES / "glyphs" / "1" / "manifest.json").read_bytes())


def test_every_shipped_model_is_listed(api: Api) -> None:
    found = api.get("/v1/models").json()["models"]
    assert [model["name"] for model in found] == sorted(folder.name for folder in BUNDLES.iterdir() if folder.is_dir())
    assert found == [api.get(f"/v1/models/{model['name']}").json() for model in found]


def test_a_model_tells_what_its_bundle_declares(api: Api) -> None:
    newest = api.get("/v1/models/glyphs").json()["newest"]
    limits = {name: value for name, value in MANIFEST["limits"].items() if value is not None}
    assert newest["limits"] == limits
    assert newest["accepts"] == MANIFEST["accepts"]
    assert newest["output"]["labels"] == MANIFEST["output"]["labels"]
    assert newest["invariant"] == MANIFEST["invariant"]
    assert newest["state_bytes"] == MANIFEST["state_bytes"]
    assert newest["inputs"]["x"]["kind"] == "image"
    assert newest["card"] == (BUNDLES / "glyphs" / "1" / "card.md").read_text(encoding="utf-8")
    assert "calibration" not in newest["output"]


def test_versions_are_told_with_their_labels(two_versions: Path, tmp_path: Path) -> None:
    with in_process(tmp_path, two_versions) as api:
        model = api.get("/v1/models/glyphs").json()
        assert (model["versions"], model["labels"]) == ([1, 2], {"stable": 1})
        assert model["newest"]["version"] == 2
        versions = api.get("/v1/models/glyphs/versions").json()["versions"]
        assert [(item["version"], item["labels"]) for item in versions] == [(1, ["stable"]), (2, [])]
        assert versions[0]["digest"] != versions[1]["digest"]
        ready = api.get("/health/ready").json()["bundles"]
        assert ready == {f"glyphs/{item['version']}": item["digest"] for item in versions}


def test_known_tasks_are_listed(api: Api) -> None:
    assert api.get("/v1/models/glyphs/tasks").json() == {"model": "glyphs", "version": 1, "tasks": []}


@pytest.mark.parametrize("path", ["", "/versions", "/tasks", "/adaptations", "/adaptations/alice"])
def test_an_unknown_model_is_told_with_those_there_are(api: Api, path: str) -> None:
    refused = problem(api.get(f"/v1/models/letters{path}"), 404, "model-not-found")
    assert field(refused) == "model"
    assert "glyphs" in refused["errors"][0]["allowed"]
