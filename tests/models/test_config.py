from pathlib import Path

import pytest

from handful_models.config import read_config
from handful_models.errors import ConfigInvalid

CONFIGS = sorted(Path("models/configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_committed_configs_are_valid(path: Path) -> None:
    assert read_config(path).name == path.stem


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("[optimizer]\nsteps = 5\nspeed = 1", r"optimizer\.speed"),
        ("[optimizer]\nsteps = 0", r"optimizer\.steps.*greater than or equal to 1"),
        ("[optimizer]\nsteps = 5\n[episodes]\nway = 100", r"episodes\.way: at most learner\.ways = 64, got 100"),
        ("[optimizer]\nsteps = 5\n[augment]\ndegrees = 45", r"augment\.degrees"),
        ("[optimizer", "not TOML"),
    ],
)
def test_what_is_wrong_is_named(change: str, message: str, tmp_path: Path) -> None:
    start = 'name = "x"\n[data]\nset = "omniglot"\ntrain = "background"\n[learner]\nmethod = "prototypes"\n'
    path = tmp_path / "config.toml"
    path.write_text(start + change)
    with pytest.raises(ConfigInvalid, match=message):
        read_config(path)


def test_selecting_on_classes_that_are_trained_on_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        'name = "x"\n[data]\nset = "omniglot"\ntrain = "background"\nselect = "selection"\n'
        '[learner]\nmethod = "prototypes"\n[optimizer]\nsteps = 5\n'
    )
    with pytest.raises(ConfigInvalid, match="are part of"):
        read_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="No such file"):
        read_config(tmp_path / "none.toml")
