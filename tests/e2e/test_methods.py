"""Every method, from training to an answer, by one table: train, evaluate, calibrate, export, serve, predict."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.data import write_synthetic_jester, write_synthetic_omniglot
from tests.serving import Api, in_process
from tests.tasks import Glyphs, with_ids

from handful_export.cli import export
from handful_export.evaluating import evaluate
from handful_models import jester
from handful_models.cli import calibrate, train
from handful_models.evaluation import Protocol
from handful_models.learner import DescribedLearner
from handful_models.methods import METHODS, method_class

TOLERANCE = 1e-5
NAME = "tiny"


@dataclass(frozen=True)
class Case:
    """A method on a data set, with settings that make it small.

    Attributes:
        encoder: The section of the config.
        options: The method's own settings.
        more: Further lines at the top of `[learner]`.
    """

    method: str
    data: str
    encoder: str
    options: str = ""
    ways: int = 20
    examples: int = 40

    def __str__(self) -> str:
        return f"{self.method}-{self.data}"


CONV = 'kind = "conv4"\nwidth = 8'
MLP = 'kind = "mlp"\nhidden = [16]\nwidth = 8'
RAW = 'kind = "raw"'
EMBEDDING = 'kind = "embedding"\nwidth = 8'
SMALL_NETWORK = 'network = "conv"\nfilters = 4\nsteps = 2'
SMALL_MLP = 'network = "mlp"\nhidden = [8, 8]\nsteps = 2'

CASES = [
    *(Case(method, "omniglot", CONV) for method in (
        "prototypes", "matching", "relation", "ridge", "logistic", "probe", "context", "hypernetwork",
        "transformer", "neural-process", "anil", "meta-sgd",
    )),
    *(Case("bayes", data, encoder, "dims = 8", ways=ways) for data, encoder, ways in (
        ("omniglot", CONV, 20), ("sinusoids", MLP, 1), ("jester", EMBEDDING, 2)
    )),
    Case("ensemble", "omniglot", CONV, 'members = 2\nmethod = "context"'),
    Case("lstm", "omniglot", CONV, ways=8, examples=12),
    Case("snail", "omniglot", CONV, ways=8, examples=12),
    *(Case(method, "omniglot", RAW, SMALL_NETWORK, ways=8) for method in ("maml", "reptile", "meta-sgd-network")),
    *(Case(method, "sinusoids", MLP) for method in (
        "context", "hypernetwork", "transformer", "neural-process"
    )),
    Case("anil", "sinusoids", MLP, "rate = 0.02"),
    *(Case(method, "sinusoids", MLP, examples=12) for method in ("lstm", "snail")),
    *(Case(method, "sinusoids", RAW, SMALL_MLP) for method in ("maml", "reptile")),
    *(Case(method, "jester", EMBEDDING, ways=2) for method in ("context", "transformer", "anil")),
]  # fmt: skip

TRAIN = """
name = "{name}"
[data]
{data}
[encoder]
{encoder}
[learner]
method = "{method}"
ways = {ways}
examples = {examples}
[learner.options]
{options}
[episodes]
tasks = 3
way = {way}
shot = {shot}
query = 3
[optimizer]
steps = 3
rate = 1e-2
warmup_steps = 0
[schedule]
checkpoint_every = 3
episodes = 5
way = 5
"""
DATA = {
    "omniglot": 'set = "omniglot"\ntrain = "selection-train"\nselect = "selection"',
    "sinusoids": 'set = "sinusoids"',
    "jester": 'set = "jester"',
}
EXPORT = """
name = "{name}"
version = 1
description = "For tests."
margin = -1e9
[inputs.x]
{inputs}
[output]
{labels}
[limits]
{shots}
examples = {examples}
[card]
data = "none"
licence = "none"
use = "tests"
"""
IMAGE = """
kind = "image"
polarity = "auto"
contrast = "stretch"
alpha = "refuse"
aspect = "pad"
resize = "area"
max_pixels = 1000000
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_jester(write_synthetic_omniglot(tmp_path_factory.mktemp("data")))


def write_configs(case: Case, folder: Path) -> None:
    classes = case.data == "omniglot"
    way, shot = ("[2, 5]", "[1, 2]") if classes else ("[1, 1]", "[1, 5]")
    (folder / "train.toml").write_text(
        TRAIN.format(
            name=NAME, data=DATA[case.data], encoder=case.encoder, method=case.method, ways=case.ways,
            examples=case.examples, options=case.options, way=way, shot=shot,
        )
    )  # fmt: skip
    labels = {"omniglot": 'labels = "open"', "sinusoids": "", "jester": 'labels = ["dislike", "like"]'}[case.data]
    (folder / "export.toml").write_text(
        EXPORT.format(
            name=NAME, inputs=IMAGE if classes else 'kind = "tensor"', labels=labels,
            shots="" if case.data == "sinusoids" else f"shots = {case.examples}", examples=case.examples,
        )
    )  # fmt: skip


def task_of(case: Case, glyphs: Glyphs) -> tuple[list[dict[str, Any]], list[Any]]:
    """A support set and queries, as clients send them."""
    if case.data == "omniglot":
        return glyphs.support(glyphs.names[:5]), glyphs.queries(glyphs.names[:5])
    if case.data == "jester":
        labels = ["like", "dislike", "like", "like"]
        return [{"input": [joke], "label": label} for joke, label in enumerate(labels)], [[50], [99]]
    return [{"input": [x], "label": 2 * x} for x in (-1.5, 0.5, 1.0, 2.5)], [[0.0], [3.0]]


def answers(response: httpx.Response) -> list[list[float]]:
    """The numbers of each prediction: scores by label, or value and interval."""
    assert response.status_code == 200, response.text
    return [
        [prediction["scores"][label] for label in sorted(prediction["scores"])]
        if prediction["kind"] == "class"
        else [prediction["value"], *prediction["interval"]]
        for prediction in response.json()["predictions"]
    ]


def check_answers(api: Api, case: Case, support: list[dict[str, Any]], queries: list[Any]) -> None:
    """Inline = stored = after adding and unlearning an example; rows of two tasks answer as if alone."""
    inline = answers(api.predict(NAME, inputs=queries, support=support))
    path = f"/v1/models/{NAME}/adaptations/alice"
    assert api.put(path, json={"support": with_ids(support)}).status_code == 201
    assert alike(answers(api.predict(NAME, inputs=queries, adaptation="alice")), inline)
    more = {**support[0], "input": queries[-1], "example_id": "more"}
    assert api.post(f"{path}/examples", json={"examples": [more]}).status_code == 200
    moved = answers(api.predict(NAME, inputs=queries, adaptation="alice"))
    assert not alike(moved, inline)
    rows = [{"input": queries[0], "adaptation": "alice"}, {"input": queries[0], "support": support}]
    assert alike(answers(api.predict(NAME, rows=rows)), [moved[0], inline[0]])
    assert api.delete(f"{path}/examples/more").status_code == 200
    assert alike(answers(api.predict(NAME, inputs=queries, adaptation="alice")), inline)
    if case.data != "omniglot":
        assert len(answers(api.predict(NAME, inputs=queries))) == len(queries)  # the base model


def alike(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> bool:
    return all(one == pytest.approx(two, abs=TOLERANCE, rel=TOLERANCE) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_method_goes_the_whole_way(
    case: Case, data: Path, tmp_path: Path, glyphs: Glyphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jester, "DIGESTS", {})
    monkeypatch.setattr("handful_models.evaluation.PUBLISHED", (Protocol(5, 1, query=5, episodes=5),))
    monkeypatch.setattr("handful_models.sinusoids.TEST_TASKS", 20)
    write_configs(case, tmp_path)
    run, bundles = str(tmp_path / "run"), tmp_path / "bundles"
    where = ["--data", str(data)]
    assert train([str(tmp_path / "train.toml"), "--run", run, *where]) == 0
    page = tmp_path / "page.md"
    assert (
        evaluate([run, "--split", "selection", "--markdown", str(page), *where]) == 0
        if case.data == "omniglot"
        else True
    )
    assert export([str(tmp_path / "export.toml"), "--run", run, "--out", str(bundles), *where]) == 0
    with in_process(tmp_path, bundles=bundles) as api:
        check_answers(api, case, *task_of(case, glyphs))


def test_every_method_is_in_the_table() -> None:
    described = {name for name in METHODS if issubclass(method_class(name), DescribedLearner)}
    assert {case.method for case in CASES} == set(METHODS) - described  # those have tables of their own


def test_evaluation_of_a_run_writes_its_table(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful_models.evaluation.PUBLISHED", (Protocol(5, 1, query=5, episodes=30),))
    write_configs(Case("ridge", "omniglot", CONV), tmp_path)
    run = tmp_path / "run"
    assert train([str(tmp_path / "train.toml"), "--run", str(run), "--data", str(data)]) == 0
    assert calibrate([str(run), "--data", str(data)]) == 0
    page = tmp_path / "page.md"
    assert evaluate([str(run), "--data", str(data), "--split", "evaluation", "--markdown", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "| 5-way 1-shot |" in text
    assert "Expected calibration error" in text
    assert (run / "episodes.csv").read_text(encoding="utf-8").count("\n") == 31
