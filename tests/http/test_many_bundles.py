"""A server of many bundles: all are checked, beside each other, and one that is not valid is named."""

from pathlib import Path

import numpy as np
import pytest
from tests.broken import RUNS, edit_requests
from tests.serving import in_process
from tests.tasks import alike, scores
from tests.tiny import Tiny, build

from handful_service.errors import BundleInvalid

NAMES = [f"m{number:02d}" for number in range(12)]
QUERY = [0.5, 0.25, 0.0, 0.0]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    for place, name in enumerate(NAMES):
        build(tmp_path / "bundles", Tiny(name=name, labels=(name, "other"), members=1 + place % 3))
    return tmp_path / "bundles"


def test_each_of_many_bundles_answers_for_itself(tmp_path: Path, many: Path) -> None:
    with in_process(tmp_path, many) as api:
        assert set(api.get("/health/ready").json()["bundles"]) == {f"{name}/1" for name in NAMES}
        support = [{"input": [1, 0, 0, 0], "label": "other"}]
        calls = [("POST", f"/v1/models/{name}/predict", {"inputs": [QUERY], "support": support}) for name in NAMES]
        for place, answer in enumerate(api.together(calls)):
            tiny = Tiny(labels=(NAMES[place], "other"), members=1 + place % 3)
            assert alike(scores(answer), tiny.scores([([1, 0, 0, 0], "other")], np.array([QUERY])))


def test_the_first_bundle_with_a_wrong_golden_request_is_named(tmp_path: Path, many: Path) -> None:
    edit_requests(many / "m03" / "1", lambda found: found[0]["answers"][0]["scores"].update(other=0.77))
    edit_requests(many / "m09" / "1", lambda found: found[0]["answers"][0].update(scores={"z": 1.0}))
    with (
        pytest.raises(BundleInvalid, match=r"m03/1: golden_requests\.json\[0\]: a score differs"),
        in_process(tmp_path, many),
    ):
        raise AssertionError("a server with a wrong bundle was ready")


def test_a_bundle_with_a_wrong_golden_vector_is_named(tmp_path: Path, many: Path) -> None:
    RUNS["another golden output"].change(many / "m05" / "1")
    with pytest.raises(BundleInvalid, match=r"m05/1: golden\.npz: y: 3 is 3, got 1"), in_process(tmp_path, many):
        raise AssertionError("a server with a wrong bundle was ready")
