"""Bundles that know tasks by their ids: what is taken, and what is refused with its place."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.broken import edit_golden, edit_graph, edit_requests
from tests.tiny import CALIBRATION, Tiny, rewrite
from tests.tiny import build as build_plain
from tests.tiny_number import TinyNumber
from tests.tiny_tasks import PRICES, TinyTasks, build, edit_tasks

from handful_service.bundle.bundle import Bundle
from handful_service.checking import check
from handful_service.errors import BundleInvalid

HAM = {"mine": [([1, 0, 0, 0], "ham"), ([0, 1, 0, 0], "spam")]}
OPEN, FIXED = TinyTasks(), TinyTasks(Tiny(labels=("ham", "spam")), supports={**HAM, "yours": HAM["mine"]})
NUMBERS = TinyTasks(TinyNumber(), supports=PRICES)


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("tasks", [OPEN, FIXED, NUMBERS], ids=["open", "fixed", "numbers"])
def test_a_good_bundle_passes_with_support_sets_and_without(tmp_path: Path, tasks: TinyTasks, learns: bool) -> None:
    result = asyncio.run(check(build(tmp_path, TinyTasks(tasks.tiny, learns, tasks.supports))))
    assert (result["ok"], result["tasks"]) == (True, len(tasks.supports))
    assert ("adapt" in result["graphs"]) == learns
    assert "task" in result["accepts"]


@pytest.mark.parametrize(
    ("tasks", "edit", "field"),
    [
        (OPEN, lambda found: found[1].update(id="greek"), "tasks.json[1].id"),
        (OPEN, lambda found: found[1].update(id="no id"), "tasks.json[1].id"),
        (OPEN, lambda found: found[0].update(id=7), "tasks.json[0].id"),
        (OPEN, lambda found: found[0].update(metadata={}), "tasks.json[0].metadata"),
        (OPEN, lambda found: found[0].pop("shots") and None, "tasks.json[0].shots"),
        (OPEN, lambda found: found[0].update(shots=-1), "tasks.json[0].shots"),
        (OPEN, lambda found: found[0].update(shots="1"), "tasks.json[0].shots"),
        (OPEN, lambda found: found[0].update(shots=float("nan")), "tasks.json"),
        (OPEN, lambda found: found[0].update(evaluation={"accuracy": float("inf")}), "tasks.json"),
        (OPEN, lambda found: found[0].update(evaluation=[1]), "tasks.json[0].evaluation"),
        (OPEN, lambda found: found[0].update(description="x" * 501), "tasks.json[0].description"),
        (OPEN, lambda found: found[1].pop("labels") and None, "tasks.json[1].labels"),
        (OPEN, lambda found: found[1].update(labels=[]), "tasks.json[1].labels"),
        (OPEN, lambda found: found[1].update(labels=["a", "a"]), "tasks.json[1].labels"),
        (OPEN, lambda found: found[1].update(labels=["e\u0301"]), "tasks.json[1].labels"),
        (OPEN, lambda found: found[1].update(labels=[""]), "tasks.json[1].labels[0]"),
        (OPEN, lambda found: found[1].update(labels=[f"{n}" for n in range(9)]), "tasks.json[1].labels"),
        (OPEN, lambda found: [], "tasks.json"),
        (OPEN, lambda found: found[0], "tasks.json"),
        (FIXED, lambda found: found[1].update(labels=["spam", "ham"]), "tasks.json[1].labels"),
        (NUMBERS, lambda found: found[0].update(labels=["a"]), "tasks.json[0].labels"),
    ],
)
def test_tasks_that_do_not_fit_are_refused_at_opening(
    tmp_path: Path, tasks: TinyTasks, edit: Callable[[list[Any]], Any], field: str
) -> None:
    folder = build(tmp_path, tasks)
    edit_tasks(folder, edit)
    with pytest.raises(BundleInvalid) as refused:
        Bundle.open(folder)
    assert refused.value.field == field


def test_fixed_labels_may_be_repeated_by_a_task(tmp_path: Path) -> None:
    folder = build(tmp_path, FIXED)
    edit_tasks(folder, lambda found: found[1].update(labels=["ham", "spam"]))
    assert Bundle.open(folder).known_tasks["yours"].labels.slots == ("ham", "spam")


@pytest.mark.parametrize(
    ("tasks", "edit", "words"),
    [
        (OPEN, lambda parts: parts.update(accepts=["support"]), "describe.id is given exactly where"),
        (OPEN, lambda parts: parts["graphs"].pop("describe.id"), "describe.id is given exactly where"),
        (OPEN, lambda parts: parts.update(format="1.0"), "known tasks came with 1.1"),
        (OPEN, lambda parts: parts.update(support=None), "support: given exactly where"),
        (OPEN, lambda parts: parts["limits"].pop("examples"), "limits.examples: given exactly where"),
        (OPEN, lambda parts: parts["limits"].pop("shots"), "limits.shots: given exactly where"),
        (OPEN, lambda parts: parts["limits"].pop("ways"), "limits.ways: given exactly where"),
        (TinyTasks(learns=False), lambda parts: parts["limits"].update(shots=3), "limits.shots: given exactly where"),
        (TinyTasks(learns=False), lambda parts: parts["limits"].update(examples=3), "limits.examples"),
        (TinyTasks(learns=False), lambda parts: parts.update(invariant=["order"]), "invariant and statistics"),
        (TinyTasks(learns=False), lambda parts: parts.update(support={"kind": "class"}), "support: given exactly"),
        (
            TinyTasks(learns=False),
            lambda parts: parts["graphs"].update(adapt=parts["graphs"]["predict"]),
            "adapt is there, though",
        ),
    ],
)
def test_parts_that_do_not_fit_known_tasks_are_refused(
    tmp_path: Path, tasks: TinyTasks, edit: Callable[[dict[str, Any]], object], words: str
) -> None:
    folder = build(tmp_path, tasks)
    rewrite(folder, {}, edit)
    with pytest.raises(BundleInvalid) as refused:
        Bundle.open(folder)
    assert words in str(refused.value)


def _shorter(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:2], tensor.name))


def _not_finite(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        array[2] = np.inf
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


THREE = TinyTasks(supports={**OPEN.supports, "third": OPEN.supports["latin"]})


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda folder: edit_graph(folder, "describe.id", _shorter), "describe.id.onnx", "cannot describe the tasks"),
        (lambda folder: edit_graph(folder, "describe.id", _not_finite), "describe.id.onnx", "not finite"),
        (lambda folder: edit_golden(folder, **{"describe.id.in.index": None}), "golden.npz", "missing"),
        (lambda folder: edit_golden(folder, **{"describe.id.out.present": np.ones((3, 8), np.float32)}),
         "describe.id.onnx", "differs"),
        (lambda folder: edit_requests(folder, lambda found: found[0]["task"].update(id="latin")),
         "golden_requests.json[0]", "answered with the labels"),
        (lambda folder: edit_requests(folder, lambda found: found[0]["task"].update(id="klingon")),
         "golden_requests.json[0]", "no task 'klingon'"),
        (lambda folder: edit_requests(folder, lambda found: found[0].update(task="greek")),
         "golden_requests.json[0]", "cannot be read"),
        (lambda folder: edit_requests(folder, lambda found: found[0].update(support=found[-1]["support"])),
         "golden_requests.json[0]", "learns nothing beside a task"),
    ],
)  # fmt: skip
def test_a_bundle_that_does_not_know_its_tasks_is_refused(
    tmp_path: Path, change: Callable[[Path], object], field: str, words: str
) -> None:
    folder = build(tmp_path, THREE)
    change(folder)
    assert Bundle.open(folder).known_tasks.keys() == THREE.supports.keys()
    with pytest.raises(BundleInvalid) as refused:
        asyncio.run(check(folder))
    assert refused.value.field == field
    assert words in str(refused.value)


def test_the_shots_of_a_task_choose_the_cell_of_its_calibration(tmp_path: Path) -> None:
    folder = build(
        tmp_path, TinyTasks(Tiny(calibration=CALIBRATION), supports={"latin": OPEN.supports["latin"], **HAM})
    )
    asyncio.run(check(folder))
    edit_tasks(folder, lambda found: found[0].update(shots=3))  # of temperature 2
    with pytest.raises(BundleInvalid, match=r"golden_requests\.json\[0\]: a score differs"):
        asyncio.run(check(folder))


def test_the_tasks_of_a_bundle_that_takes_none_are_only_shown(tmp_path: Path) -> None:
    folder = build_plain(tmp_path)
    rewrite(folder, {"tasks.json": b'[{"id": "greek", "anything": [1]}]'})
    bundle = Bundle.open(folder)
    assert bundle.tasks == [{"id": "greek", "anything": [1]}]
    assert bundle.known_tasks == {}
