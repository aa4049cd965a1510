"""Bundles of format 1.2: what is taken, what contradicts itself, and what the load refuses."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import tiny_readers, tiny_words
from tests.broken import edit_golden, edit_requests
from tests.tiny import Tiny, rewrite
from tests.tiny import build as build_plain
from tests.tiny_readers import TinyReaders
from tests.tiny_tasks import TinyTasks, edit_tasks
from tests.tiny_tasks import build as build_tasks
from tests.tiny_words import TinyWords

from handful_service.bundle.bundle import Bundle
from handful_service.bundle.tasks import COMPARED, find_task
from handful_service.checking import check
from handful_service.errors import BundleInvalid, TaskNotFound


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("base", [True, False])
def test_a_good_bundle_of_readers_passes(tmp_path: Path, learns: bool, base: bool) -> None:
    result = asyncio.run(check(tiny_readers.build(tmp_path, TinyReaders(learns=learns, base=base))))
    assert (result["ok"], result["tasks"]) == (True, 5)
    assert set(result["graphs"]) == {"describe.id", "describe.metadata", "predict"} | ({"adapt"} if learns else set())
    assert result["descriptors"]["metadata"]["beside_id"] is True


@pytest.mark.parametrize("truncate", [True, False])
def test_a_good_bundle_of_texts_passes(tmp_path: Path, truncate: bool) -> None:
    result = asyncio.run(check(tiny_words.build(tmp_path, TinyWords(truncate=truncate))))
    assert (result["ok"], result["accepts"]) == (True, ["base", "task", "support", "task+support"])


@pytest.mark.parametrize(
    ("build", "edit", "words"),
    [
        (tiny_readers, lambda parts: parts.update(format="1.1"), "came with 1.2"),
        (tiny_words, lambda parts: parts.update(format="1.1"), "came with 1.2"),
        (tiny_readers, lambda parts: parts["graphs"].pop("describe.metadata"), "describe.metadata is given exactly"),
        (tiny_words, lambda parts: parts["graphs"].pop("describe.text"), "describe.text is given exactly where"),
        (tiny_words, lambda parts: parts.update(descriptors=None), "describe.metadata is given exactly where"),
        (tiny_words, lambda parts: parts.update(descriptors={}), "holds no descriptor"),
        (tiny_words, lambda parts: parts["digests"].pop("assets/tokenizer.json"), "no digest of assets/tokenizer.json"),
        (tiny_words, lambda parts: parts["inputs"]["x"].update(dtype="float32"), "a text is int64"),
        (tiny_words, lambda parts: parts["inputs"]["x"].update(axes=[2, 3]), "a text is int64"),
        (tiny_words, lambda parts: parts["inputs"]["x"].update(text=None), "`text` options belong"),
        (tiny_words, lambda parts: parts["inputs"]["x"].update(kind="tensor"), "`text` options belong"),
        (tiny_readers, lambda parts: parts["inputs"]["x"].update(dtype="int64"), "a record is float32"),
        (tiny_readers, lambda parts: parts["inputs"]["x"].update(axes=[4]), "with the axes [3]"),
        (tiny_readers, lambda parts: parts["inputs"]["x"].update(record=None), "`record` options belong"),
        (tiny_readers, lambda parts: parts["descriptors"]["metadata"].update(beside_id=False), "only metadata beside"),
        (tiny_readers, lambda parts: parts.update(accepts=["task", "base", "support"]), "has to be told the task"),
        (tiny_readers, lambda parts: parts.update(base=None), "base: given exactly where"),
        (tiny_readers, lambda parts: parts.update(base="empty-support"), "so the base is a task, too"),
        (tiny_readers, lambda parts: parts.update(support={"kind": "class"}), "limits.shots: given exactly where"),
        (tiny_readers, lambda parts: parts["limits"].update(ways=3), "limits.ways: given exactly where"),
        (tiny_readers, lambda parts: parts["state"]["task"].update(axes=[2]), "state_bytes"),
        (tiny_readers, lambda parts: parts.update(output={"kind": "labels", "labels": ["a"]}), "not of kind labels"),
        (tiny_readers, lambda parts: parts["output"].update(columns=0), "greater than or equal to 1"),
        (tiny_words, lambda parts: parts.update(statistics={"prior_bias": {"dtype": "float32", "axes": [2]}}),
         "also that of another tensor of adapt"),
        (tiny_words, lambda parts: parts.update(accepts=["base", "support"]), "descriptors: of tasks, of which"),
    ],
)  # fmt: skip
def test_parts_that_contradict_each_other_are_refused(
    tmp_path: Path, build: Any, edit: Callable[[dict[str, Any]], object], words: str
) -> None:
    folder = build.build(tmp_path)
    rewrite(folder, {}, edit)
    with pytest.raises(BundleInvalid) as refused:
        Bundle.open(folder)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda found: found[0].pop("output") and None, "tasks.json[0].output"),
        (lambda found: found[0].pop("columns") and None, "tasks.json[0].columns"),
        (lambda found: found[0].update(columns=[0, 3]), "tasks.json[0].columns"),
        (lambda found: found[2].update(columns=[5, 8]), "tasks.json[2].columns"),
        (lambda found: found[2].update(columns=[-1, 2]), "tasks.json[2].columns[0]"),
        (lambda found: found[0]["output"].update(kind="task", columns=2), "tasks.json[0].output"),
        (lambda found: found[0]["output"].update(members=3), "tasks.json[0].output.members"),
        (lambda found: found[1]["output"].update(labels="open"), "tasks.json[1].output.labels"),
        (lambda found: found[1]["output"].update(labels=["yes", "yes"]), "tasks.json[1].output.labels"),
        (lambda found: found[2]["output"].update(labels=["e\u0301", "a", "b"]), "tasks.json[2].output.labels"),
        (lambda found: found[2]["output"]["calibration"].update(threshold=[0.5]), "tasks.json[2].output.labels"),
        (lambda found: found[2]["output"]["calibration"].update(temperature=0),
         "tasks.json[2].output.labels.calibration.temperature"),
        (lambda found: found[1].update(labels=["yes", "no"]), "tasks.json[1].labels"),
        (lambda found: found[1].update(text="good"), "tasks.json[1].text"),
        (lambda found: found[1].update(advice="x" * 2001), "tasks.json[1].advice"),
        (lambda found: found[1].update(gain=1), "tasks.json[1].gain"),
        (lambda found: found[0].update(id="sheets"), "manifest.json.base.task"),
        (lambda found: found[1].update(id="pages") or found[0].update(id="good"), "manifest.json.base.task"),
    ],
)  # fmt: skip
def test_tasks_that_do_not_fit_are_refused(tmp_path: Path, edit: Callable[[list[Any]], Any], field: str) -> None:
    folder = tiny_readers.build(tmp_path)
    edit_tasks(folder, lambda found: edit(found) and None)
    with pytest.raises(BundleInvalid) as refused:
        Bundle.open(folder)
    assert refused.value.field == field


def test_members_may_be_repeated_by_a_task(tmp_path: Path) -> None:
    folder = tiny_readers.build(tmp_path)
    edit_tasks(folder, lambda found: found[0]["output"].update(members=2))
    assert Bundle.open(folder).known_tasks["pages"].columns == (0, 2)


@pytest.mark.parametrize("key", ["metadata", "text", "output", "columns", "advice"])
def test_what_came_with_1_2_is_refused_of_tasks_of_1_1(tmp_path: Path, key: str) -> None:
    folder = build_tasks(tmp_path, TinyTasks())
    given = {"metadata": {}, "text": "x", "output": {"kind": "number"}, "columns": [0, 1], "advice": "x"}[key]
    edit_tasks(folder, lambda found: found[0].update({key: given}))
    with pytest.raises(BundleInvalid) as refused:
        Bundle.open(folder)
    assert refused.value.field == f"tasks.json[0].{key}"


@pytest.mark.parametrize(
    ("build", "change", "field", "words"),
    [
        (tiny_readers, lambda folder: edit_tasks(folder, lambda found: found[0]["metadata"].update(year=3)),
         "tasks.json[0].metadata", "differs from that of the id"),
        (tiny_readers, lambda folder: edit_tasks(folder, lambda found: found[0]["metadata"].update(year=99)),
         "tasks.json[0].metadata.year", "is 99"),
        (tiny_readers, lambda folder: edit_tasks(folder, lambda found: found[0].update(metadata={})),
         "tasks.json[0].metadata.venue", "missing"),
        (tiny_words, lambda folder: edit_tasks(folder, lambda found: found[1].update(text="how north")),
         "tasks.json[1].text", "differs from that of the id"),
        (tiny_words, lambda folder: edit_tasks(folder, lambda found: found[1].update(text=" ")),
         "tasks.json[1].text", "is empty"),
        (tiny_words, lambda folder: rewrite(folder, {"assets/tokenizer.json": b"{}"}), "assets/tokenizer.json",
         "is no tokenizer"),
        (tiny_readers, lambda folder: edit_golden(folder, **{"adapt.in.prior_task": None}), "golden.npz",
         "adapt.in.prior_task missing"),
        (tiny_readers,
         lambda folder: edit_golden(folder, **{"describe.metadata.out.shift": np.zeros((5, 2), np.float32)}),
         "describe.metadata.onnx", "differs"),
        (tiny_readers, lambda folder: edit_requests(folder, lambda found: found[5]["task"]["metadata"].update(year=1)),
         "golden_requests.json[5]", ""),
        (tiny_readers, lambda folder: edit_requests(folder, lambda found: found[2]["answers"][0].update(kind="class")),
         "golden_requests.json[2]", "another kind"),
        (tiny_readers,
         lambda folder: edit_requests(folder, lambda found: found[2]["answers"][0]["scores"].update(east=9)),
         "golden_requests.json[2]", "a score differs"),
        (tiny_readers, lambda folder: edit_requests(folder, lambda found: found[0]["task"].update(name="x")),
         "golden_requests.json[0]", "cannot be read"),
        (tiny_words, lambda folder: edit_requests(folder, lambda found: found[5]["task"].update(text="north")),
         "golden_requests.json[5]", "a score differs"),
    ],
)  # fmt: skip
def test_what_the_load_finds_is_refused_with_its_place(
    tmp_path: Path, build: Any, change: Callable[[Path], object], field: str, words: str
) -> None:
    folder = build.build(tmp_path)
    change(folder)
    with pytest.raises(BundleInvalid) as refused:
        asyncio.run(check(folder))
    assert refused.value.field == field
    assert words in str(refused.value)


def test_a_state_may_hold_an_index_without_axes(tmp_path: Path) -> None:
    takes, gives = Bundle.open(tiny_readers.build(tmp_path)).signatures["adapt"]
    assert takes.tensors["prior_task"].axes == gives.tensors["task"].axes == ("batch",)
    assert takes.tensors["prior_task"].dtype == "int64"


def test_earlier_formats_know_no_prior(tmp_path: Path) -> None:
    opened = Bundle.open(build_plain(tmp_path, Tiny()))
    assert not opened.manifest.takes_prior
    assert "prior_prototypes" not in opened.signatures["adapt"][0].tensors


def test_an_unknown_id_is_told_the_nearest_or_of_very_many_the_first(tmp_path: Path) -> None:
    known = Bundle.open(tiny_readers.build(tmp_path)).known_tasks
    with pytest.raises(TaskNotFound) as near:
        find_task(known, "PAGE", "task.id")
    assert str(near.value.allowed).startswith("one of ['pages'], and 4 more")
    many = {f"task-{place}": known["pages"] for place in range(COMPARED + 1)}
    with pytest.raises(TaskNotFound) as first:
        find_task(many, "task-1000000", "task.id")
    assert str(first.value.allowed).startswith("one of ['task-0', 'task-1',")
