"""A learner whose tasks are described by metadata or a text, and whose support sets start from what they describe."""

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handful_export.described import DescribedMaterial, RawTask
from handful_export.described_writer import export_described
from handful_export.errors import GateRefused, SpecInvalid
from handful_export.spec import ExportSpec
from handful_models.learner import DescribedLearner, Descriptor, Law, Reader, Target, Tensors
from handful_service.bundle.bundle import Bundle
from handful_service.checking import check

WIDTH = 4
SCHOOLS = {"small": (1.0, 0.0), "large": (5.0, 1.0), "old": (3.0, 1.0)}
FIELDS = [{"name": "size", "kind": "number"}, {"name": "church", "kind": "number"}]


class Offset(DescribedLearner):
    """A number: a linear function of the input and of the school's metadata, shifted by what its pupils left over."""

    descriptors: tuple[Descriptor, ...] = ("id", "metadata")
    invariant: tuple[Law, ...] = ("order",)
    learns = True
    target: Target = "number"
    ways = 1

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.readers = tuple(
            Reader(name, "number", (0, 2), shots=9, metadata={"size": size, "church": church})
            for name, (size, church) in SCHOOLS.items()
        )
        self.register_buffer("records", torch.tensor(list(SCHOOLS.values())))
        self.slope, self.level = nn.Linear(WIDTH, 1), nn.Linear(2, 1)

    @classmethod
    def make(cls, encoder: nn.Module, **settings: Any) -> "Offset":
        return cls()

    def encode(self, inputs: Tensors) -> dict[str, Tensor]:
        return dict(inputs)

    def describe(self, kind: Descriptor, descriptor: Tensors) -> dict[str, Tensor]:
        record = descriptor["metadata"] if kind == "metadata" else self.get_buffer("records")[descriptor["index"]]
        return {"level": self.level(record)}

    def adapted(self, prior: Tensors, features: Tensors, y: Tensor, weight: Tensor) -> dict[str, Tensor]:
        left = torch.where(weight > 0, (y - self.slope(features["x"]))[..., 0] - prior["level"], 0.0)
        return {"level": prior["level"] + (left.sum(1) / (weight.sum(1) + 1)).unsqueeze(-1)}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        mean = self.slope(features["x"]) + state["level"]
        return torch.cat([mean, torch.zeros_like(mean)], -1).unsqueeze(-2)


def material() -> DescribedMaterial:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(40, WIDTH)).astype(np.float32)
    records = np.array(list(SCHOOLS.values()), np.float32)
    unseen = RawTask(
        "small", {"metadata": {"size": 2.5, "church": 0}}, "metadata",
        {"metadata": np.array([[2.5, 0]], np.float32)}, [x[0].tolist()], {"x": x[:1]},
    )  # fmt: skip
    by_id = dataclasses.replace(unseen, task={"id": "large"}, kind="id", descriptor={"index": np.array([1])})
    both = dataclasses.replace(
        unseen, support=[(x[3].tolist(), 7.5), (x[4].tolist(), 1.25)], support_inputs={"x": x[3:5]}
    )
    return DescribedMaterial(
        inputs={"x": x},
        requests=[unseen, by_id, both],
        card="# schools\n",
        descriptors={"metadata": {"record": {"fields": FIELDS}, "beside_id": False}},
        described={"metadata": {"metadata": records}},
        calibrations={"": {"shots": [0.0], "confidence": [0.5, 0.95], "quantile": [[0.7, 2.1]]}},
        y=draw.normal(5, 2, (40, 1)).astype(np.float32),
    )


def spec(**more: Any) -> ExportSpec:
    return ExportSpec.model_validate(
        {"name": "schools", "version": 1, "description": "For tests.", "inputs": {"x": {"kind": "tensor"}},
         "limits": {"examples": 20}, "base": "small", "card": {"data": "none", "licence": "none", "use": "tests"},
         **more}
    )  # fmt: skip


def test_a_support_set_starts_from_the_described_task(tmp_path: Path) -> None:
    folder, report = export_described(Offset(), tmp_path, spec=spec(), material=material())
    assert {"parity of adapt", "padding", "rows of adapt apart", "id and metadata of one task"} <= report.figures.keys()
    bundle = Bundle.open(folder)
    assert bundle.manifest.accepts == ("base", "task", "task+support", "support")
    assert bundle.manifest.output.kind == "number"
    assert bundle.tasks[1]["metadata"] == {"size": 5.0, "church": 1.0}
    assert "output" not in bundle.tasks[0]
    values = [request["answers"][0]["value"] for request in bundle.golden_requests()]
    assert len({round(value, 4) for value in values}) == 3
    assert asyncio.run(check(folder))["ok"]


def test_the_interval_is_that_of_the_bundles_calibration(tmp_path: Path) -> None:
    folder, _ = export_described(Offset(), tmp_path, spec=spec(), material=material())
    answer = json.loads((folder / "golden_requests.json").read_text())[0]["answers"][0]
    assert answer["interval"][1] - answer["value"] == pytest.approx(2.1)


class Deaf(Offset):
    """It does not look at its support set."""

    def adapted(self, prior: Tensors, features: Tensors, y: Tensor, weight: Tensor) -> dict[str, Tensor]:
        return {"level": prior["level"] + 0 * weight.sum(1, keepdim=True)}


class Loose(Offset):
    """Absent examples count."""

    def adapted(self, prior: Tensors, features: Tensors, y: Tensor, weight: Tensor) -> dict[str, Tensor]:
        return {"level": prior["level"] + y.mean(1) + 0 * weight.sum(1, keepdim=True)}


class Blind(Offset):
    """Every record is the same to it; the ids differ."""

    def __init__(self) -> None:
        super().__init__()
        self.readers = tuple(dataclasses.replace(reader, metadata={}) for reader in self.readers)

    def describe(self, kind: Descriptor, descriptor: Tensors) -> dict[str, Tensor]:
        if kind == "metadata":
            return super().describe(kind, {"metadata": 0 * descriptor["metadata"]})
        return super().describe(kind, descriptor)


@pytest.mark.parametrize(
    ("kind", "words"), [(Deaf, "dropping an example"), (Loose, "padding"), (Blind, "answers of other metadata")]
)
def test_a_learner_that_reads_its_support_set_wrongly_is_refused(
    tmp_path: Path, kind: type[Offset], words: str
) -> None:
    with pytest.raises(GateRefused, match=words):
        export_described(kind(), tmp_path, spec=spec(), material=material())


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"described": {}}, "there are none to export it with"), ({"y": None}, "no labels for them")],
)
def test_material_that_lacks_something_is_refused(tmp_path: Path, changes: Mapping[str, Any], words: str) -> None:
    with pytest.raises(SpecInvalid, match=words):
        export_described(Offset(), tmp_path, spec=spec(), material=dataclasses.replace(material(), **changes))


def test_tasks_of_several_kinds_are_not_described_by_metadata_alone(tmp_path: Path) -> None:
    learner = Offset()
    learner.readers = (*learner.readers[:2], Reader("kinds", "class", (0, 2), ("a", "b"), 3))
    with pytest.raises(SpecInvalid, match="need tasks that all have the same output"):
        export_described(learner, tmp_path, spec=spec(), material=material())
