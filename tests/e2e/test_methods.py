"""Every method, from training to an answer, by one table: train, evaluate, export, serve, predict."""

from pathlib import Path

import pytest
from tests.data import write_synthetic_omniglot
from tests.serving import in_process
from tests.tasks import Glyphs, alike, scores, with_ids

from handful_export.cli import export
from handful_models.cli import evaluate, train
from handful_models.evaluation import Protocol
from handful_models.methods import METHODS

TRAIN = """
name = "tiny"
[data]
set = "omniglot"
train = "selection-train"
[learner]
method = "{method}"
width = 8
ways = 20
examples = 40
[episodes]
way = 8
images = 3
[optimizer]
steps = 3
[schedule]
checkpoint_every = 3
"""
EXPORT = """
name = "glyphs"
version = 1
description = "For tests."
margin = -1.0
[inputs.x]
kind = "image"
polarity = "auto"
contrast = "stretch"
alpha = "refuse"
aspect = "pad"
resize = "area"
max_pixels = 1000000
[output]
labels = "open"
[limits]
shots = 40
examples = 40
[card]
data = "none"
licence = "none"
use = "tests"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_omniglot(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_goes_the_whole_way(method: str, data: Path, tmp_path: Path, glyphs: Glyphs) -> None:
    (tmp_path / "train.toml").write_text(TRAIN.format(method=method))
    (tmp_path / "export.toml").write_text(EXPORT)
    run, bundles = str(tmp_path / "run"), tmp_path / "bundles"
    assert train([str(tmp_path / "train.toml"), "--run", run, "--data", str(data)]) == 0
    exported = [str(tmp_path / "export.toml"), "--run", run, "--out", str(bundles), "--data", str(data)]
    assert export(exported) == 0
    with in_process(tmp_path, bundles=bundles) as api:
        support, queries = glyphs.support(glyphs.names[:5]), glyphs.queries(glyphs.names[:5])
        inline = scores(api.predict(inputs=queries, support=support))
        path = "/v1/models/glyphs/adaptations/alice"
        assert api.put(path, json={"support": with_ids(support)}).status_code == 201
        assert alike(scores(api.predict(inputs=queries, adaptation="alice")), inline)
        more = {**glyphs.support(glyphs.names[5:6])[0], "example_id": "more"}
        assert api.post(f"{path}/examples", json={"examples": [more]}).status_code == 200
        assert api.delete(f"{path}/examples/more").status_code == 200
        assert alike(scores(api.predict(inputs=queries, adaptation="alice")), inline)


def test_evaluation_of_a_run_writes_its_table(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful_models.evaluation.PUBLISHED", (Protocol(5, 1, query=5, episodes=30),))
    (tmp_path / "train.toml").write_text(TRAIN.format(method="ridge"))
    run = tmp_path / "run"
    assert train([str(tmp_path / "train.toml"), "--run", str(run), "--data", str(data)]) == 0
    page = tmp_path / "page.md"
    assert evaluate([str(run), "--data", str(data), "--split", "selection", "--markdown", str(page)]) == 0
    assert "| 5-way 1-shot |" in page.read_text(encoding="utf-8")
    assert (run / "episodes.csv").read_text(encoding="utf-8").count("\n") == 31
