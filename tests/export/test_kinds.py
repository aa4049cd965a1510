"""Bundles of other kinds than few-shot classes: numbers, fixed labels, known tasks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.conftest import INPUT, WAYS, TensorEncoder
from torch import nn

from handful_export.errors import GateRefused, SpecInvalid
from handful_export.golden import RawEpisode
from handful_export.known import KnownTasks
from handful_export.sample import TaskSample
from handful_export.spec import ExportSpec
from handful_export.writer import Material, export_bundle
from handful_models.anil import Anil, HeadOptions
from handful_models.learner import Options, Target, Tensors
from handful_models.maml import MAML, NetworkOptions
from handful_models.prototypes import Prototypes
from handful_service.bundle.bundle import Bundle
from handful_service.checking import check_in_child

LABELS = ("ham", "spam", "ads")
NUMBERS: dict[str, object] = {"output": {}, "limits": {"examples": 30}, "margin": 0.05}
FIXED: dict[str, object] = {
    "output": {"labels": LABELS},
    "limits": {"shots": 10, "examples": 30},
    "margin": None,
}


class Plain(nn.Module):
    """The inputs themselves, on which a head can fit a linear function without any training."""

    width = INPUT

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def changed(spec: ExportSpec, **parts: object) -> ExportSpec:
    return ExportSpec.model_validate({**spec.model_dump(), **parts})


def anil(target: Target, *, fixed: bool = False) -> Anil:
    torch.manual_seed(1)
    encoder = TensorEncoder() if target == "class" else Plain()
    sizes = {"ways": len(LABELS) if fixed else WAYS, "examples": 30, "target": target, "fixed": fixed}
    options = HeadOptions(steps=3) if target == "class" else HeadOptions(steps=20, rate=0.3, scale=2)
    learner = Anil.make(encoder, **sizes, options=options)
    with torch.no_grad():
        learner.row += 0.3 * torch.randn_like(learner.row)
    return learner.eval()


def maml() -> MAML:
    torch.manual_seed(2)
    options: Options = NetworkOptions(network="mlp", inputs=INPUT, hidden=(8, 8), input_scale=2, rate=0.05, steps=5)
    return MAML.make(TensorEncoder(), ways=1, examples=30, target="number", fixed=False, options=options).eval()


@pytest.fixture(scope="module")
def numbers() -> TaskSample:
    """Linear functions."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(10, 40, INPUT)).astype(np.float32)
    slopes = generator.normal(size=(10, INPUT, 1)).astype(np.float32)
    return TaskSample({"x": x}, 3 + x @ slopes)


@pytest.fixture(scope="module")
def mails() -> TaskSample:
    """Three classes that mean the same in every task, and lie a little elsewhere in each."""
    generator = np.random.default_rng(1)
    y = generator.integers(0, len(LABELS), (10, 40))
    centres = generator.normal(0, 3, (len(LABELS), INPUT)) + generator.normal(0, 0.3, (10, 1, INPUT))
    x = centres[np.arange(10)[:, None], y] + generator.normal(0, 0.3, (10, 40, INPUT))
    return TaskSample({"x": x.astype(np.float32)}, y)


def episode(sample: TaskSample, *, support: int, task: str | None = None) -> RawEpisode:
    x, y = sample.x["x"][0], sample.y[0]
    labels = [LABELS[int(value)] if sample.y.ndim == 2 else float(value[0]) for value in y[:support]]
    return RawEpisode(
        list(zip([row.tolist() for row in x[:support]], labels, strict=True)),
        [row.tolist() for row in x[-3:]],
        {"x": x[:support]},
        {"x": x[-3:]},
        task,
    )


def check(folder: Path) -> Bundle:
    """Opened, and all golden files answered as the service answers."""
    report = check_in_child(folder, seconds=90, memory_bytes=2**33)
    assert report["ok"], report
    return Bundle.open(folder)


@pytest.mark.parametrize("make", [lambda: anil("number"), maml], ids=["a head", "a network on raw inputs"])
def test_a_learner_of_numbers_is_served(make: object, root: Path, spec: ExportSpec, numbers: TaskSample) -> None:
    learner = make()  # type: ignore[operator]
    episodes = [episode(numbers, support=5), episode(numbers, support=0)]
    table = {"shots": [1, 5], "confidence": [0.9, 0.95], "quantile": [[1.5, 2.5], [1.2, 2.0]]}
    material = Material(numbers, episodes, "# numbers\n", table)
    folder, report = export_bundle(learner, root, spec=changed(spec, **NUMBERS), material=material)
    manifest = check(folder).manifest
    assert manifest.output.kind == "number"
    assert manifest.limits.ways is None
    assert manifest.accepts == ("base", "support")
    assert manifest.invariant == ("order",)
    assert ("encode" in manifest.graphs) == isinstance(learner, Anil)
    assert report.figures["true labels over shuffled"] >= 0.05
    assert "parity of the empty support set" in report.figures
    first, base = json.loads((folder / "golden_requests.json").read_text())
    value, (low, high) = first["answers"][0]["value"], first["answers"][0]["interval"]
    deviation = float(torch.exp(0.5 * learner.log_variance).item()) * learner.unit
    assert (high - low) / 2 == pytest.approx(2.0 * deviation, rel=1e-4)
    assert (high + low) / 2 == pytest.approx(value)
    assert "support" not in base


def test_fixed_labels_answer_without_examples_too(root: Path, spec: ExportSpec, mails: TaskSample) -> None:
    episodes = [episode(mails, support=6), episode(mails, support=0)]
    material = Material(mails, episodes, "# mails\n")
    folder, report = export_bundle(anil("class", fixed=True), root, spec=changed(spec, **FIXED), material=material)
    manifest = check(folder).manifest
    assert manifest.fixed_labels == LABELS
    assert manifest.base == "empty-support"
    assert "slots of the labels" not in report.figures
    answers = [request["answers"][0] for request in json.loads((folder / "golden_requests.json").read_text())]
    assert all(tuple(answer["scores"]) == LABELS for answer in answers)


def known_tasks(learner: Anil, mails: TaskSample) -> KnownTasks:
    """One state for each of three users."""
    with torch.no_grad():
        features = {n: v.reshape(3, 20, -1) for n, v in learner.encode(
            {"x": torch.from_numpy(mails.x["x"][:3, :20].reshape(60, -1))}
        ).items()}  # fmt: skip
        state = learner.state(features, torch.from_numpy(mails.y[:3, :20]), torch.ones(3, 20))
    entries = [{"id": f"user-{number}", "shots": 5.0} for number in range(3)]
    return KnownTasks(entries, {name: value.numpy() for name, value in state.items()})


@pytest.mark.parametrize("learns", [True, False], ids=["beside support sets", "alone"])
def test_known_tasks_are_served_by_their_ids(learns: bool, root: Path, spec: ExportSpec, mails: TaskSample) -> None:
    learner = anil("class", fixed=True)
    known = known_tasks(learner, mails)
    material = Material(mails, [episode(mails, support=0, task="user-1")], "# users\n", known=known)
    limits = {"shots": 10, "examples": 30} if learns else {}
    folder, report = export_bundle(learner, root, spec=changed(spec, **{**FIXED, "limits": limits}), material=material)
    bundle = check(folder)
    assert bundle.manifest.accepts == (("base", "task", "support") if learns else ("task",))
    assert list(bundle.known_tasks) == ["user-0", "user-1", "user-2"]
    assert report.figures["states of known tasks"] == 0
    assert ("adapt" in bundle.manifest.graphs) == learns


class TwinsOfNumbers(Anil):
    """Forgets what the numbers are: every label is the same to it."""

    def step(self, features: Tensors, y: torch.Tensor, weight: torch.Tensor, state: Tensors) -> Tensors:
        return super().step(features, 0 * y, weight, state)


def test_a_learner_that_does_not_hear_its_numbers_is_refused(root: Path, spec: ExportSpec, numbers: TaskSample) -> None:
    torch.manual_seed(1)
    sizes = {"ways": 1, "examples": 30, "target": "number", "fixed": False}
    learner = TwinsOfNumbers.make(TensorEncoder(), **sizes, options=HeadOptions(steps=3)).eval()
    torch.nn.init.normal_(learner.row)
    material = Material(numbers, [episode(numbers, support=5)], "# numbers\n")
    with pytest.raises(GateRefused, match="sensitivity to swapping two labels"):
        export_bundle(learner, root, spec=changed(spec, **NUMBERS), material=material)


class Recency(Prototypes):
    """Says that the order of the support set matters, and later examples do count for more."""

    invariant = ("labels",)

    def summarise(self, features: Tensors, y: torch.Tensor, weight: torch.Tensor) -> Tensors:
        return super().summarise(features, y, weight * (1 + torch.cumsum(weight, 1)))


def test_the_spread_over_orders_is_written_down_where_the_order_matters(
    learner: Prototypes, root: Path, spec: ExportSpec, material: Material
) -> None:
    folder, report = export_bundle(
        Recency(learner.encoder, ways=WAYS).eval(), root, spec=changed(spec, margin=None), material=material
    )
    assert report.figures["spread over orders"] > 0
    assert "order of the support set" not in report.figures
    assert Bundle.open(folder).manifest.invariant == ("labels",)


@pytest.mark.parametrize(
    ("target", "parts", "what"),
    [
        ("number", FIXED, "output.labels"),
        ("class", NUMBERS, "output.labels"),
        ("number", {**NUMBERS, "limits": {"shots": 3, "examples": 30}}, "limits.shots"),
        ("class", {"limits": {"examples": 30}}, "limits.shots"),
        ("class", {"limits": {}}, "limits.examples"),
    ],
)
def test_a_config_that_does_not_suit_the_learner_is_refused(
    target: Target, parts: dict[str, object], what: str, root: Path, spec: ExportSpec, numbers: TaskSample
) -> None:
    with pytest.raises(SpecInvalid, match=what):
        export_bundle(anil(target), root, spec=changed(spec, **parts), material=Material(numbers, [], ""))
