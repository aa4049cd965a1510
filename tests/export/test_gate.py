from pathlib import Path

import pytest
import torch
from torch import Tensor

from handful_export.errors import GateRefused
from handful_export.spec import ExportSpec
from handful_export.writer import Material, export_bundle
from handful_models.learner import Tensors
from handful_models.prototypes import Prototypes
from handful_service.errors import BundleInvalid, GraphRefused


class IgnoresLabels(Prototypes):
    """Deals the examples out to the ways in turn, whatever their labels."""

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        dealt = torch.cumsum(weight, 1).long().remainder(self.ways)
        return super().summarise(features, dealt, weight)


class NormalisesOverTheBatch(Prototypes):
    """Batch statistics at prediction: every row moves every other."""

    def encode(self, inputs: Tensors) -> Tensors:
        features = super().encode(inputs)["features"]
        return {"features": (features - features.mean(0)) / (features.std(0, correction=0) + 1e-3)}


class CountsPadding(Prototypes):
    """Forgets the weights."""

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        return super().summarise(features, y, torch.ones_like(weight))


class DependsOnOrder(Prototypes):
    """Trusts the first example most, though the config declares that order does not matter."""

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        return super().summarise(features, y, weight / torch.cumsum(torch.ones_like(weight), 1))


class FreezesTheSupportAxis(Prototypes):
    """A Python loop over the support set."""

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        ways = torch.arange(self.ways)
        sums = torch.zeros(len(y), self.ways, features["features"].shape[-1])
        for place in range(y.shape[1]):
            mine = (y[:, place, None] == ways).float() * weight[:, place, None]
            sums = sums + mine.unsqueeze(-1) * features["features"][:, place, None]
        return {"sums": sums, "counts": super().summarise(features, y, weight)["counts"]}


class CutsOffExamples(Prototypes):
    """Looks at the first 39 examples only, of the 40 that the limits allow."""

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        early = (torch.cumsum(torch.ones_like(weight), 1) < 40).to(weight.dtype)
        return super().summarise(features, y, weight * early)


class IsRandom(Prototypes):
    """Noise at prediction."""

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        found = super().predict(features, state)
        return found + torch.randn_like(found)


class GivesNoNumber(Prototypes):
    """0/0 for ways without examples: NaN in torch and in ONNX alike, which is no agreement."""

    def adapt(self, statistics: Tensors) -> Tensors:
        counts = statistics["counts"]
        return {"prototypes": statistics["sums"] / counts.unsqueeze(-1), "present": (counts > 0).float()}


def export(kind: type[Prototypes], learner: Prototypes, root: Path, spec: ExportSpec, material: Material) -> None:
    export_bundle(kind(learner.encoder, ways=learner.ways).eval(), root, spec=spec, material=material)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (IgnoresLabels, "sensitivity to swapping two labels"),
        (NormalisesOverTheBatch, "rows of encode"),
        (CountsPadding, "padding"),
        (CutsOffExamples, "the largest support set"),
        (DependsOnOrder, "order of the support set"),
        (GivesNoNumber, "parity of adapt"),
    ],
)
def test_a_broken_learner_is_refused_by_the_check_made_for_it(
    kind: type[Prototypes], check: str, learner: Prototypes, root: Path, spec: ExportSpec, material: Material
) -> None:
    with pytest.raises(GateRefused, match=check):
        export(kind, learner, root, spec, material)
    assert not list(root.iterdir())


def test_a_frozen_support_axis_is_refused_and_named(
    learner: Prototypes, root: Path, spec: ExportSpec, material: Material
) -> None:
    with pytest.raises(GraphRefused, match=r"summarise\.onnx: input features_s: has the axes"):
        export(FreezesTheSupportAxis, learner, root, spec, material)


def test_a_random_op_is_refused(learner: Prototypes, root: Path, spec: ExportSpec, material: Material) -> None:
    with pytest.raises(BundleInvalid, match="random"):
        export(IsRandom, learner, root, spec, material)


def test_a_learner_that_learned_nothing_does_not_reach_the_margin(
    learner: Prototypes, root: Path, spec: ExportSpec, material: Material
) -> None:
    with pytest.raises(GateRefused, match=r"true labels over shuffled: the margin is .* needed is 0\.99"):
        export(Prototypes, learner, root, spec.model_copy(update={"margin": 0.99}), material)
