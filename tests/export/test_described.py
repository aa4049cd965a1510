"""Every conditioning goes the whole way: train, evaluate, calibrate, export through the gate, load, answer by task."""

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from tests.data import write_synthetic_adult, write_synthetic_omniglot
from tests.models.test_known_tasks import config_of

from handful_export.card import card
from handful_export.closeness import Report
from handful_export.described import known_descriptors
from handful_export.described_gate import DescribedGate
from handful_export.described_materials import described_material
from handful_export.described_writer import export_described
from handful_export.errors import GateRefused, SpecInvalid
from handful_export.runner import TorchRunner
from handful_export.spec import ExportSpec
from handful_models.datasets import calibrate
from handful_models.learner import Descriptor
from handful_models.multitask import ConditioningName, MultiTask
from handful_models.runs import Run, write_json
from handful_models.task_evaluation import measure_known
from handful_models.training import load_trained, train
from handful_service.bundle.bundle import Bundle
from handful_service.checking import check
from handful_service.task import Arrays

IMAGE = {"kind": "image", "polarity": "auto", "contrast": "stretch", "alpha": "refuse", "aspect": "pad",
         "resize": "area", "max_pixels": 1_000_000}  # fmt: skip

CASES = [*(("alphabets", name) for name in get_args(ConditioningName)), ("adult", "independent"), ("adult", "mmoe")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_adult(write_synthetic_omniglot(tmp_path_factory.mktemp("known")))


def spec_of(name: str, **more: object) -> ExportSpec:
    return ExportSpec.model_validate(
        {
            "name": name,
            "version": 1,
            "description": "For tests.",
            "inputs": {"x": IMAGE if name == "alphabets" else {"kind": "record"}},
            "card": {"data": "none", "licence": "none", "use": "tests"},
            **more,
        }
    )


def trained(folder: Path, data: Path, name: str, conditioning: str) -> tuple[Run, MultiTask]:
    run, config = Run(folder), config_of(name, conditioning, steps=6)
    train(config, run.folder, data)
    learner = load_trained(run)
    assert isinstance(learner, MultiTask)
    measure_known(run, data)
    write_json(run.calibration, calibrate(config, [learner], data, seed=0))
    return run, learner


@pytest.mark.parametrize(("name", "conditioning"), CASES)
def test_every_conditioning_goes_the_whole_way(tmp_path: Path, data: Path, conditioning: str, name: str) -> None:
    run, learner = trained(tmp_path / "run", data, name, conditioning)
    spec = spec_of(name)
    material = described_material(run, learner, data, card(spec, run))
    folder, report = export_described(learner, tmp_path / "bundles", spec=spec, material=material)
    assert report.figures["parity of predict"] < 1e-4
    assert report.figures["rows of predict alone"] < 1e-5
    bundle = Bundle.open(folder)
    assert [task["id"] for task in bundle.tasks] == [reader.id for reader in learner.readers]
    assert bundle.manifest.state_bytes < 4096
    found = asyncio.run(check(folder))  # answers the golden requests from their raw inputs
    assert found["ok"]
    assert found["accepts"] == ["task"]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Run, MultiTask]:
    return trained(tmp_path_factory.mktemp("film"), data, "adult", "film")


def test_the_tasks_tell_their_outputs_and_what_was_measured(
    tmp_path: Path, data: Path, film: tuple[Run, MultiTask]
) -> None:
    run, learner = film
    notes = json.loads(run.notes.read_text())
    notes["income"]["advice"] = "Go on sharing."
    write_json(run.notes, notes)
    spec = spec_of("adult", base="hours")
    folder, _ = export_described(
        learner, tmp_path, spec=spec, material=described_material(run, learner, data, card(spec, run))
    )  # fmt: skip
    bundle = Bundle.open(folder)
    income, hours, occupation = bundle.tasks
    assert income["output"]["labels"] == ["at most 50K", "above 50K"]
    assert income["columns"] == [0, 2]
    assert income["advice"] == "Go on sharing."
    assert 0 < income["evaluation"]["AUC"] <= 1
    assert hours["output"]["kind"] == "number"
    assert hours["output"]["calibration"]["quantile"][0][0] > 0
    assert occupation["output"]["labels"] == ["Craft-repair", "Exec-managerial", "Sales"]
    assert bundle.manifest.accepts == ("base", "task")
    assert "| occupation | accuracy |" in bundle.card
    assert "income" in {each["task"] for each in json.loads(bundle.files["assets/evaluation.json"])["tasks"]}


def test_a_golden_request_is_what_torch_says(tmp_path: Path, data: Path, film: tuple[Run, MultiTask]) -> None:
    run, learner = film
    material = described_material(run, learner, data, "")
    folder, _ = export_described(learner, tmp_path, spec=spec_of("adult"), material=material)
    requests = Bundle.open(folder).golden_requests()
    assert [request["task"]["id"] for request in requests] == ["income", "hours", "occupation"]
    raw = material.requests[1]
    y = learner.predict(
        learner.encode({"x": torch.from_numpy(raw.query_inputs["x"])}),
        learner.describe("id", {"index": torch.tensor([1, 1])}),
    )
    for row, answer in zip(y[:, 0].tolist(), requests[1]["answers"], strict=True):
        assert answer["value"] == pytest.approx(row[0], rel=1e-5)
        assert answer["interval"][0] < row[0] < answer["interval"][1]


def gate(learner: MultiTask, inputs: Arrays, descriptors: Mapping[Descriptor, Arrays]) -> Report:
    torch_ = TorchRunner(learner)
    return DescribedGate(torch_, torch_, learner.readers, inputs, descriptors).run()


def test_a_model_that_does_not_look_at_the_task_is_refused(data: Path, film: tuple[Run, MultiTask]) -> None:
    run, learner = film
    material = described_material(run, learner, data, "")
    descriptors = known_descriptors(learner, material)
    assert gate(learner, material.inputs, descriptors).figures["answers of other tasks differ by at least"] > 0
    blind = load_trained(run)
    assert isinstance(blind, MultiTask)
    with torch.no_grad():
        for name, value in [*blind.named_parameters(), *blind.named_buffers()]:
            if name.startswith(("head", "bias", "trunk.times", "trunk.plus", "scale", "bound", "offset")):
                value.copy_(value[:1].expand_as(value).clone())
    with pytest.raises(GateRefused, match="answers of other tasks"):
        gate(blind, material.inputs, descriptors)


@pytest.mark.parametrize(
    ("more", "words"),
    [({"base": "nothing"}, "no task 'nothing'"), ({"output": {"labels": "open"}}, "every task has its own"),
     ({"limits": {"examples": 5}}, "exactly where the learner takes support sets")],
)  # fmt: skip
def test_a_spec_that_does_not_fit_is_refused(
    tmp_path: Path, data: Path, film: tuple[Run, MultiTask], more: dict[str, object], words: str
) -> None:
    run, learner = film
    with pytest.raises(SpecInvalid, match=words):
        export_described(
            learner, tmp_path, spec=spec_of("adult", **more), material=described_material(run, learner, data, "")
        )  # fmt: skip


def test_metadata_that_mean_another_state_than_their_id_are_refused(
    tmp_path: Path, data: Path, film: tuple[Run, MultiTask]
) -> None:
    run, learner = film
    describing = _Described(learner.readers, learner.encoder.fields, learner.settings)
    describing.load_state_dict(learner.state_dict())
    places = np.arange(3, dtype=np.float32)[:, None]
    record = {"fields": [{"name": "place", "kind": "number"}]}
    material = dataclasses.replace(
        described_material(run, learner, data, ""),
        descriptors={"metadata": {"record": record, "beside_id": True}},
        described={"metadata": {"metadata": places}},
    )
    folder, report = export_described(describing, tmp_path, spec=spec_of("adult"), material=material)
    assert report.figures["id and metadata of one task"] < 1e-5
    assert asyncio.run(check(folder))["ok"]
    wrong = dataclasses.replace(material, described={"metadata": {"metadata": places[::-1].copy()}})
    with pytest.raises(GateRefused, match="id and metadata of one task"):
        gate(describing.eval(), material.inputs, known_descriptors(describing, wrong))


class _Described(MultiTask):
    """Tasks whose metadata is their place, beside an id that does not matter."""

    descriptors = ("id", "metadata")
    beside_id = True

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.readers = tuple(
            dataclasses.replace(reader, metadata={"place": place}) for place, reader in enumerate(self.readers)
        )

    def describe(self, kind: str, descriptor: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if kind == "metadata":
            index = (descriptor["metadata"][:, 0] + 0 * descriptor["index"]).round().long().clamp(0, 2)
            return super().describe("id", {"index": index})
        return super().describe("id", descriptor)
