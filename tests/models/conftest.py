from pathlib import Path

import pytest
from tests.data import write_synthetic_omniglot

from handful_models.config import TrainConfig


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_omniglot(tmp_path_factory.mktemp("data"))


@pytest.fixture
def tiny_config() -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "name": "tiny",
            "seed": 3,
            "data": {"set": "omniglot", "train": "selection-train", "select": "selection"},
            "encoder": {"kind": "conv4", "width": 8},
            "learner": {"method": "prototypes", "ways": 20},
            "episodes": {"kind": "rotating", "way": 10, "images": 3},
            "optimizer": {"steps": 12, "warmup_steps": 2, "ema_decay": 0.5},
            "schedule": {"checkpoint_every": 4, "evaluate_every": 6, "episodes": 10},
        }
    )
