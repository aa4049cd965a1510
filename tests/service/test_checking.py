"""`handful check`: a bundle looked at in a child process."""

import json
import multiprocessing
from pathlib import Path

import pytest
from tests import broken
from tests.tiny import Tiny, build

from handful_service import cli
from handful_service.checking import check_in_child

GIB = 2**30


def test_a_good_bundle_ends_with_0_and_tells_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build(tmp_path, Tiny(labels=("ham", "spam")))
    assert cli.check([str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["name"], found["accepts"]) == (True, "tiny", ["base", "support"])
    assert set(found["graphs"]) == {"encode", "summarise", "adapt", "predict"}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (broken.FILES["a changed byte"], "card.md: the sha256 is"),
        (broken.GRAPHS["external data"], "encode.onnx: tensor 'matrix' has external data"),
        (broken.RUNS["a graph that fails"], "encode.onnx: cannot run its golden inputs"),
    ],
)
def test_a_broken_bundle_ends_with_1_and_a_line_that_names_the_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: broken.Broken, words: str
) -> None:
    folder = build(tmp_path)
    case.change(folder)
    assert cli.check([str(folder)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err


def test_a_bundle_that_never_ends_fails_and_leaves_no_process(tmp_path: Path) -> None:
    folder = build(tmp_path)
    broken.forever(2**62)(folder)
    found = check_in_child(folder, seconds=4, memory_bytes=4 * GIB)
    assert found["ok"] is False
    assert found["problem"]["detail"] == "the check did not end within 4 s"
    assert multiprocessing.active_children() == []


def test_the_same_bundle_with_fewer_turns_ends_within_that_time(tmp_path: Path) -> None:
    folder = build(tmp_path)
    broken.forever(3)(folder)
    assert check_in_child(folder, seconds=60, memory_bytes=4 * GIB)["ok"] is True


def test_a_bundle_that_eats_memory_fails(tmp_path: Path) -> None:
    folder = build(tmp_path)
    broken.hungry(folder)
    found = check_in_child(folder, seconds=60, memory_bytes=4 * GIB)
    assert found["ok"] is False
    assert "encode.onnx: cannot run its golden inputs" in found["problem"]["detail"]


def test_a_child_that_dies_fails_its_bundle_and_nothing_else(tmp_path: Path) -> None:
    found = check_in_child(build(tmp_path), seconds=60, memory_bytes=1)
    assert found["ok"] is False
    assert "1 bytes of memory" in found["problem"]["detail"]
    assert multiprocessing.active_children() == []


def test_a_path_that_is_no_bundle_is_refused_by_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.inspect([str(tmp_path / "nothing")]) == 1
    assert "is no folder" in json.loads(capsys.readouterr().out)["problem"]["detail"]
