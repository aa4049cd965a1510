"""MAML in production: all weights adapt inside the request, in a process that has no torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data import write_synthetic_omniglot
from tests.e2e.test_methods import NAME, RAW, Case, write_configs
from tests.serving import process
from tests.tasks import Glyphs, scores

from handful_export.cli import export
from handful_models.cli import train
from handful_models.learner import Learner
from handful_models.runs import Run
from handful_models.training import load_trained
from handful_service.bundle.manifest import parse_manifest
from handful_service.codecs.decode import decode_inputs

CASE = Case("maml", "omniglot", RAW, 'network = "conv"\nfilters = 6\nsteps = 3\nrate = 0.2', ways=8)


def by_torch(learner: Learner, support: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The scores `[query, way]` that the learner itself gives after adapting to one example of each way."""
    with torch.no_grad():
        ways = len(support)
        state = learner.state({"x": torch.from_numpy(support)[None]}, torch.arange(ways)[None], torch.ones(1, ways))
        rows = {name: value.expand(len(queries), *value.shape[1:]) for name, value in state.items()}
        logits = learner.predict({"x": torch.from_numpy(queries)}, rows)
    return np.asarray(logits[:, 0, :ways].double().softmax(-1))


def test_a_process_without_torch_adapts_as_torch_does(
    tmp_path: Path, glyphs: Glyphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_synthetic_omniglot(tmp_path / "data")
    write_configs(CASE, tmp_path)
    run, bundles = tmp_path / "run", tmp_path / "bundles"
    assert train([str(tmp_path / "train.toml"), "--run", str(run), "--data", str(data)]) == 0
    arguments = [str(tmp_path / "export.toml"), "--run", str(run), "--out", str(bundles), "--data", str(data)]
    assert export(arguments) == 0

    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "torch.py").write_text("raise ImportError('there is no torch here')\n")
    monkeypatch.setenv("PYTHONPATH", str(stub))
    found = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, check=False)
    assert b"there is no torch here" in found.stderr

    names = glyphs.names[:5]
    support, queries = glyphs.support(names), glyphs.queries(names)
    with process(tmp_path, bundles=bundles) as served:
        response = served.request("POST", f"/v1/models/{NAME}/predict", json={"inputs": queries, "support": support})
        answered = np.array([[row[name] for name in names] for row in scores(response)])
    manifest = parse_manifest((bundles / NAME / "1" / "manifest.json").read_bytes())
    pictures = [*(example["input"] for example in support), *queries]
    arrays = decode_inputs(pictures, [f"inputs[{place}]" for place in range(10)], manifest)["x"]
    learner = load_trained(Run(run))
    expected = by_torch(learner, arrays[:5], arrays[5:])
    np.testing.assert_allclose(answered, expected, atol=1e-4)
    learner.get_parameter("log_rates.head").data.fill_(-30.0)  # without steps of the head the answers are others
    assert np.abs(by_torch(learner, arrays[:5], arrays[5:]) - expected).max() > 1e-3
