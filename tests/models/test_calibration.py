"""A table that several runs share: of one seed alone it would depend on how sharp that run happens to be."""

from pathlib import Path

import pytest
from torch import Tensor, nn

from handful_models import omniglot
from handful_models.calibration import calibrate
from handful_models.cli import calibrate as command
from handful_models.config import Conv4Config, TrainConfig
from handful_models.prototypes import Prototypes
from handful_models.training import train


class Sharp(nn.Module):
    """Features whose distances are so many times as large."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x.flatten(1)


def temperature(characters: omniglot.Characters, *factors: float) -> float:
    table = calibrate([Prototypes(Sharp(factor), ways=5) for factor in factors], characters, seed=0, episodes=20)
    rows = table["temperature"]
    assert isinstance(rows, list)
    return float(rows[-1][0])  # of 5-way 1-shot


def test_the_table_of_several_learners_lies_between_those_of_each(synthetic: Path) -> None:
    characters = omniglot.load(synthetic, "selection")
    calm, sharp = temperature(characters, 1.0), temperature(characters, 3.0)
    assert calm < temperature(characters, 1.0, 3.0) < sharp
    assert temperature(characters, 1.0, 1.0) == pytest.approx(calm)


def test_runs_of_several_seeds_get_one_table_and_other_runs_are_refused(
    synthetic: Path, tmp_path: Path, tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("handful_models.calibration.WAYS", (2,))
    monkeypatch.setattr("handful_models.calibration.SHOTS", (1,))
    where = ["--data", str(synthetic)]
    short = tiny_config.model_copy(update={"optimizer": tiny_config.optimizer.model_copy(update={"steps": 2})})
    other_seed = short.model_copy(update={"seed": 4})
    other_width = short.model_copy(update={"encoder": Conv4Config(width=16)})
    for name, config in (("one", short), ("other", other_seed), ("wider", other_width)):
        train(config, tmp_path / name, synthetic)
    one, other, wider = (str(tmp_path / name) for name in ("one", "other", "wider"))
    assert command([one, *where]) == 0
    alone = (tmp_path / "one" / "calibration.json").read_text(encoding="utf-8")
    assert command([one, other, *where]) == 0
    shared = (tmp_path / "one" / "calibration.json").read_text(encoding="utf-8")
    assert shared == (tmp_path / "other" / "calibration.json").read_text(encoding="utf-8") != alone
    capsys.readouterr()
    assert command([one, wider, *where]) != 0
    assert "wider differs from" in capsys.readouterr().err
    assert (tmp_path / "one" / "calibration.json").read_text(encoding="utf-8") == shared
    assert not (tmp_path / "wider" / "calibration.json").exists()
