"""What a bundle must be before it is trusted."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import broken
from tests.broken import Broken
from tests.tiny import CALIBRATION, Tiny, build, manifest, npz, rewrite

from handful_service.bundle.bundle import Bundle
from handful_service.bundle.manifest import parse_manifest
from handful_service.bundle.repository import open_repository
from handful_service.checking import check
from handful_service.errors import BundleInvalid, HandfulError

VARIANTS = [
    Tiny(),
    Tiny(labels=("ham", "spam")),
    Tiny(statistics=False),
    Tiny(encode=False),
    Tiny(members=3, calibration=CALIBRATION, norm=10),
    Tiny(encode=False, statistics=False, labels=("a", "b", "c"), weights="real"),
]
AT_OPENING = {**broken.GRAPHS, **broken.MANIFESTS, **broken.FILES}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def refusal(call: Callable[[], object]) -> str | None:
    """The place that a refusal names; None where there is none."""
    try:
        call()
    except BundleInvalid as error:
        return str(error.field)
    return None


@pytest.mark.parametrize("tiny", VARIANTS)
def test_a_good_bundle_passes_whatever_its_parts(tmp_path: Path, tiny: Tiny) -> None:
    result = asyncio.run(check(build(tmp_path, tiny)))
    assert (result["ok"], result["name"], result["version"]) == (True, "tiny", 1)


def test_the_digest_is_that_of_the_manifest_so_any_changed_file_changes_it(tmp_path: Path) -> None:
    folder = build(tmp_path)
    before = Bundle.open(folder).digest
    assert before == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    rewrite(folder, {"card.md": b"# Another"})
    assert Bundle.open(folder).digest != before


@pytest.mark.parametrize("case", AT_OPENING.values(), ids=AT_OPENING.keys())
def test_a_broken_bundle_is_refused_with_the_place_before_anything_of_it_runs(tmp_path: Path, case: Broken) -> None:
    folder = build(tmp_path)
    case.change(folder)
    with pytest.raises(case.error) as refused:
        Bundle.open(folder)
    assert type(refused.value) is case.error
    assert case.field in (refused.value.field or "")


@pytest.mark.parametrize("case", broken.RUNS.values(), ids=broken.RUNS.keys())
def test_a_bundle_that_does_not_do_what_it_says_is_refused_with_the_place(tmp_path: Path, case: Broken) -> None:
    folder = build(tmp_path)
    case.change(folder)
    assert Bundle.open(folder).name == "tiny"
    with pytest.raises(case.error) as refused:
        asyncio.run(check(folder))
    assert type(refused.value) is case.error
    assert case.field in (refused.value.field or "")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_in_the_golden_arrays_is_refused_and_not_loaded(tmp_path: Path) -> None:
    folder, trace = build(tmp_path), tmp_path / "trace"
    rewrite(folder, {"golden.npz": npz({"encode.in.x": np.array([Touch(trace)], object)})})
    with pytest.raises(BundleInvalid, match=r"^golden\.npz: is not an npz file of plain arrays"):
        Bundle.open(folder).golden()
    assert not trace.exists()


def test_a_link_that_stays_inside_is_no_harm(tmp_path: Path) -> None:
    folder = build(tmp_path)
    (folder / "assets").mkdir()
    (folder / "assets" / "card").symlink_to(folder / "card.md")
    assert Bundle.open(folder).card == "# Tiny"


def test_what_was_checked_is_what_runs_though_the_file_changes_afterwards(tmp_path: Path) -> None:
    folder = build(tmp_path)
    bundle = Bundle.open(folder)
    before = bundle.graph("encode")
    (folder / "encode.onnx").write_bytes(b"other")
    assert bundle.graph("encode") == before


def test_a_path_that_is_no_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid, match="no folder"):
        Bundle.open(tmp_path / "nothing")


@given(st.binary(max_size=200))
def test_any_bytes_as_a_manifest_are_refused(content: bytes) -> None:
    with pytest.raises(BundleInvalid, match=r"manifest\.json"):
        parse_manifest(content)


@settings(max_examples=300)
@given(st.data(), JSON)
def test_any_json_in_any_place_of_a_manifest_is_taken_or_refused(data: st.DataObject, found: Any) -> None:
    document = manifest(Tiny(calibration=CALIBRATION))
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not (isinstance(place[key], dict) and place[key]) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = found
    place_of = refusal(lambda: parse_manifest(json.dumps(document).encode()))
    assert place_of is None or place_of.startswith("manifest.json")


@settings(max_examples=30)
@given(st.sampled_from(["tasks.json", "golden.npz", "golden_requests.json"]), st.binary(max_size=50) | JSON)
def test_any_content_of_any_file_is_taken_or_refused(name: str, content: Any) -> None:
    with TemporaryDirectory() as root:
        folder = build(Path(root))
        rewrite(folder, {name: content if isinstance(content, bytes) else json.dumps(content).encode()})
        place = refusal(lambda: asyncio.run(check(folder)))
    assert name in place if place else name == "tasks.json"


def test_a_repository_holds_all_versions_and_their_labels(tmp_path: Path) -> None:
    build(tmp_path, Tiny(version=2))
    build(tmp_path, Tiny(version=10))
    build(tmp_path, Tiny(name="other"))
    (tmp_path / "tiny" / "labels.json").write_text('{"stable": 2}', encoding="utf-8")
    (tmp_path / "tiny" / ".3-half-written").mkdir()
    found = open_repository(tmp_path)
    assert {name: sorted(model.bundles) for name, model in found.items()} == {"tiny": [2, 10], "other": [1]}
    assert (found["tiny"].labels, found["other"].labels) == ({"stable": 2}, {})


@pytest.mark.parametrize("labels", ['{"stable": 9}', '{"Stable!": 1}', '{"stable": "1"}', "[1]", "{", "[" * 100_000])
def test_a_label_of_no_version_is_refused(tmp_path: Path, labels: str) -> None:
    build(tmp_path)
    (tmp_path / "tiny" / "labels.json").write_text(labels, encoding="utf-8")
    with pytest.raises(BundleInvalid, match=r"labels\.json"):
        open_repository(tmp_path)


def test_a_bundle_in_a_folder_of_another_name_or_version_is_refused(tmp_path: Path) -> None:
    build(tmp_path).rename(tmp_path / "tiny" / "2")
    with pytest.raises(BundleInvalid, match="holds tiny version 1"):
        open_repository(tmp_path)


def test_a_refusal_in_a_repository_names_the_bundle_and_keeps_its_kind(tmp_path: Path) -> None:
    folder = build(tmp_path)
    broken.GRAPHS["a random operator"].change(folder)
    with pytest.raises(HandfulError, match=r"tiny/1: encode\.onnx: operator 'RandomNormal' is random") as refused:
        open_repository(tmp_path)
    assert type(refused.value) is broken.GRAPHS["a random operator"].error


def test_bundles_that_are_opened_beside_each_other_are_those_of_one_after_the_other(tmp_path: Path) -> None:
    for name in "abcdef":
        build(tmp_path, Tiny(name=name))
        build(tmp_path, Tiny(name=name, version=2))
    with ThreadPoolExecutor(4) as workers:
        together = open_repository(tmp_path, workers)
    assert together == open_repository(tmp_path)
    for place in ("b/2", "e/1"):
        broken.FILES["a missing card"].change(tmp_path / place)
    with ThreadPoolExecutor(4) as workers, pytest.raises(BundleInvalid, match=r"b/2: card\.md: missing"):
        open_repository(tmp_path, workers)


@pytest.mark.parametrize("inside", [None, "tiny"])
def test_an_empty_repository_is_refused(tmp_path: Path, inside: str | None) -> None:
    (tmp_path / (inside or "")).mkdir(exist_ok=True)
    with pytest.raises(BundleInvalid, match="holds no"):
        open_repository(tmp_path)
    with pytest.raises(BundleInvalid, match="no folder"):
        open_repository(tmp_path / "missing")
