"""Schools and papers go the whole way: train, calibrate, export through the gate, and answer from raw inputs."""

import asyncio
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from tests.data import real_data
from tokenizers import Tokenizer

from handful_export.card import card
from handful_export.described_materials import described_material
from handful_export.described_papers import LONG
from handful_export.described_writer import export_described
from handful_export.spec import ExportSpec, read_spec
from handful_models import papers
from handful_models.config import TrainConfig, changed, read_config
from handful_models.datasets import calibrate
from handful_models.errors import ConfigInvalid
from handful_models.learner import DescribedLearner
from handful_models.runs import Run, write_json
from handful_models.training import load_trained, train
from handful_service.bundle.bundle import Bundle
from handful_service.checking import check
from handful_service.errors import BundleInvalid

SCHOOLS = read_config(Path("models/configs/schools-described-bayes.toml"))
PAPERS = read_config(Path("models/configs/papers-mixed.toml"))
TEXT = "network task graph text bandit proof robot image speech kernel policy sample tree token prior bound"
WORDS = TEXT.split()
TOPICS = ("vision", "theory", "language")


@pytest.fixture(autouse=True)
def _synthetic_papers_may_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papers, "DIGESTS", {})


def write_synthetic_papers(folder: Path, *, rows: int = 900) -> Path:
    """`papers.parquet` of made-up papers: words tell the key words, venue and year the pages."""
    generator = np.random.default_rng(0)
    found = []
    for place in range(rows):
        venue, year = [("acl", 2015), ("acl", 2016), ("icml", 2016), ("iclr", 2017)][place % 4]
        topic = int(generator.integers(len(TOPICS)))
        words = [*generator.choice(WORDS, 8), *[WORDS[topic]] * 3]
        is_iclr = venue == "iclr"
        found.append({
            "venue": venue, "year": year, "title": f"Paper {place} on {words[0]}", "abstract": " ".join(words),
            "status": ["Poster", "Reject"][place // 4 % 2], "keywords": [TOPICS[topic]] if place % 2 else [],
            "n_pages": None if is_iclr else int(8 + year - 2015 + generator.integers(4)),
            "rating_mean": float(generator.normal(5, 1)) if is_iclr else float("nan"),
        })  # fmt: skip
    (folder / "papers").mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(found), folder / "papers" / papers.FILE)
    return folder


def exported(config: TrainConfig, spec: ExportSpec, folder: Path, data: Path) -> tuple[Path, DescribedLearner]:
    run = Run(folder / "run")
    train(config, run.folder, data)
    learner = load_trained(run)
    assert isinstance(learner, DescribedLearner)
    if spec.name == "papers":
        write_json(run.calibration, calibrate(config, [learner], data, seed=0))
    material = described_material(run, learner, data, card(spec, run))
    bundle, report = export_described(learner, folder / "bundles", spec=spec, material=material)
    assert report.figures["answers of other metadata differ by"] > 1e-3
    return bundle, learner


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a small model of made-up papers."""
    folder = tmp_path_factory.mktemp("papers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(papers, "DIGESTS", {})
        data = write_synthetic_papers(folder / "data")
        small = {
            "encoder.vocabulary": str(folder / "words"), "encoder.pieces": 256, "encoder.tokens": 24, "encoder.size": 8,
            "learner.options.keywords": len(TOPICS), "learner.options.hidden": 8, "optimizer.steps": 4,
            "episodes.query": 16, "schedule.evaluate_every": 2, "schedule.checkpoint_every": 4,
        }  # fmt: skip
        spec = read_spec(Path("export/configs/papers.toml"))
        return exported(changed(PAPERS, small), spec, folder, data)[0]


def test_schools_are_told_by_id_by_metadata_and_by_their_pupils(tmp_path: Path) -> None:
    config = changed(SCHOOLS, {"optimizer.steps": 3, "episodes.tasks": 4})
    folder, learner = exported(config, read_spec(Path("export/configs/schools.toml")), tmp_path, real_data())
    found = asyncio.run(check(folder))
    assert found["ok"]
    assert found["accepts"] == ["base", "task", "task+support", "support"]
    bundle = Bundle.open(folder)
    assert [task["id"] for task in bundle.tasks] == [reader.id for reader in learner.readers]
    assert bundle.manifest.state_bytes < 4096
    by_id, by_record, after_five = (bundle.golden_requests()[place] for place in (0, 2, 6))
    assert by_id["task"] == {"id": "any-school"}
    assert by_record["task"] == after_five["task"]
    assert len(after_five["support"]) == 5
    values = [request["answers"][0]["value"] for request in (by_id, by_record, after_five)]
    assert len({round(value, 3) for value in values}) == 3


def test_schools_have_no_table_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="intervals of schools"):
        calibrate(SCHOOLS, [None], tmp_path, seed=0)  # type: ignore[list-item]


def test_texts_become_the_tokens_that_training_saw(texts: Path) -> None:
    assert asyncio.run(check(texts))["ok"]
    bundle = Bundle.open(texts)
    requests = bundle.golden_requests()
    assert {request["task"]["id"] for request in requests} == {"pages", "rating", "accept", "keywords"}
    assert all(isinstance(text, str) for request in requests for text in request["inputs"])
    assert LONG in requests[0]["inputs"], "one is longer than what the model reads"
    assert any("venue" in request["task"].get("metadata", {}) for request in requests)


def test_another_tokenizer_does_not_pass_the_golden_requests(texts: Path) -> None:
    path, manifest = texts / "assets/tokenizer.json", texts / "manifest.json"
    kept = {each: each.read_bytes() for each in (path, manifest)}
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.normalizer = None
    try:
        path.write_text(tokenizer.to_str(), encoding="utf-8")
        parts = json.loads(manifest.read_bytes())
        parts["digests"]["assets/tokenizer.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(parts), encoding="utf-8")
        with pytest.raises(BundleInvalid, match="golden_requests"):
            asyncio.run(check(texts))
    finally:
        for each, content in kept.items():
            each.write_bytes(content)


def test_intervals_of_pages_have_a_cell_for_support_sets_and_one_for_none(texts: Path) -> None:
    pages, rating, accept, keywords = Bundle.open(texts).tasks
    table = pages["output"]["calibration"]
    assert table["shots"][0] == 0
    assert table["shots"][-1] == pages["shots"] > 100
    assert table["quantile"][0] == table["quantile"][-1]
    assert 10 in table["shots"]
    assert rating["output"]["calibration"]["shots"] == [rating["shots"]]
    assert accept["output"]["calibration"]["temperature"][0][0] > 0
    assert len(set(keywords["output"]["calibration"]["threshold"])) == 1
    assert "does not change it" in keywords["description"]
