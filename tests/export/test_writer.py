import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.export.conftest import INPUT, WAYS, WIDTH

from handful_export.closeness import Report
from handful_export.errors import SpecInvalid, VersionExists
from handful_export.spec import ExportSpec, read_spec
from handful_export.writer import GATE_REPORT, Material, export_bundle, set_label
from handful_models.matching import Matching
from handful_models.prototypes import Prototypes
from handful_service.bundle.bundle import Bundle
from handful_service.checking import check_in_child

Published = tuple[Path, Report]


@pytest.fixture(scope="module")
def published(
    learner: Prototypes, tmp_path_factory: pytest.TempPathFactory, spec: ExportSpec, material: Material
) -> Published:
    return export_bundle(learner, tmp_path_factory.mktemp("bundles"), spec=spec, material=material)


def test_a_bundle_that_passed_the_gate_is_served_as_it_is(published: Published) -> None:
    folder, report = published
    assert folder.parts[-2:] == ("tiny", "1")
    bundle = Bundle.open(folder)
    assert bundle.manifest.state_bytes == 4 * (WAYS * WIDTH + WAYS)
    assert bundle.manifest.inputs["x"].axes == (INPUT,)
    assert check_in_child(folder, seconds=60, memory_bytes=2**33)["ok"]
    assert json.loads((folder / GATE_REPORT).read_text()) == report.figures
    assert {
        "parity of encode",
        "parity of predict",
        "padding",
        "rows of predict apart",
        "sensitivity to dropping an example",
        "order of the support set",
        "slots of the labels",
        "true labels over shuffled",
    } <= report.figures.keys()


def test_the_graphs_hold_no_trace_of_the_machine_that_made_them(published: Published) -> None:
    folder, _ = published
    for path in folder.glob("*.onnx"):
        content = path.read_bytes()
        assert b".py" not in content
        assert b"File " not in content
        onnx.checker.check_model(onnx.load_from_string(content))


def test_a_published_version_never_changes(
    published: Published, learner: Prototypes, spec: ExportSpec, material: Material
) -> None:
    folder, _ = published
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(VersionExists, match="raise `version`"):
        export_bundle(learner, folder.parents[1], spec=spec, material=material)
    assert (folder / "manifest.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_the_same_learner_gives_the_same_bundle(
    published: Published, learner: Prototypes, root: Path, spec: ExportSpec, material: Material
) -> None:
    first, _ = published
    second, _ = export_bundle(learner, root, spec=spec, material=material)
    for name in ("encode.onnx", "summarise.onnx", "adapt.onnx", "predict.onnx", "golden_requests.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_golden_vectors_are_the_learners_own_answers(published: Published, learner: Prototypes) -> None:
    import torch

    folder, _ = published
    golden = Bundle.open(folder).golden()
    with torch.no_grad():
        features = learner.encode({"x": torch.from_numpy(golden["encode"].inputs["x"])})["features"]
    np.testing.assert_allclose(golden["encode"].outputs["features"], features.numpy(), rtol=1e-6)


def test_limits_beyond_what_a_state_holds_are_refused(
    learner: Prototypes, root: Path, spec: ExportSpec, material: Material
) -> None:
    small = Matching(learner.encoder, ways=WAYS, examples=39).eval()
    with pytest.raises(SpecInvalid, match=r"limits\.examples: at most 39, which a state holds, got 40"):
        export_bundle(small, root, spec=spec, material=material)
    assert not root.exists()


def test_a_label_of_a_version_is_set_beside_the_others(root: Path) -> None:
    (root / "tiny").mkdir(parents=True)
    set_label(root, "tiny", "stable", 1)
    set_label(root, "tiny", "canary", 2)
    assert json.loads((root / "tiny" / "labels.json").read_text()) == {"stable": 1, "canary": 2}


@pytest.mark.parametrize("path", sorted(Path("export/configs").glob("*.toml")), ids=lambda path: path.stem)
def test_the_committed_configs_are_valid(path: Path) -> None:
    assert read_spec(path).name == path.stem


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(Path("export/configs/glyphs.toml").read_text() + "\n[extra]\na = 1\n")
    with pytest.raises(SpecInvalid, match="extra"):
        read_spec(path)
