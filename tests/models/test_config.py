from pathlib import Path

import pytest

from handful_models.config import TrainConfig, changed, read_config
from handful_models.datasets import build
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
        (
            '[optimizer]\nsteps = 5\n[episodes]\nkind = "rotating"\nway = 100',
            r"episodes\.way: at most learner\.ways = 64, got 100",
        ),
        ("[optimizer]\nsteps = 5\n[episodes]\nway = [5, 100]", r"episodes\.way: at most learner\.ways = 64, got 100"),
        ("[optimizer]\nsteps = 5\n[episodes]\nway = [5, 2]", r"way: least and most, from 1 on, got \[5, 2\]"),
        ("[optimizer]\nsteps = 5\n[episodes]\nshot = [0, 5]", r"episodes\.shot: at least 1 of each character, got 0"),
        ("[optimizer]\nsteps = 5\n[episodes]\nshot = [1, 5]\nquery = 16", r"at most 20 drawings together, got 21"),
        ('[optimizer]\nsteps = 5\nprecision = "bfloat16"', r"optimizer\.precision: bfloat16 is for"),
        ("[optimizer]\nsteps = 5\n[search.ranges]\n'optimizer.rate' = [1.0, 0.1]", r"two rising numbers above 0"),
        (
            "[optimizer]\nsteps = 5\n[search.ranges]\n'optimizer.rate' = [0.1, 1.0]\n"
            "[search.choices]\n'optimizer.rate' = [0.2]",
            r"search\.choices\.optimizer\.rate: one value or more, and not among",
        ),
        ("[learner.options]\nheat = 3\n[optimizer]\nsteps = 5", r"learner: .*options\.heat: Extra inputs"),
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


def test_an_unknown_method_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('name = "x"\n[data]\nset = "sinusoids"\n[learner]\nmethod = "magic"\n[optimizer]\nsteps = 5\n')
    with pytest.raises(ConfigInvalid, match=r"no method 'magic'; known: anil, bayes"):
        read_config(path)


def test_a_setting_can_be_changed_by_its_dotted_name(tmp_path: Path) -> None:
    path = CONFIGS[0]
    found = read_config(path, ["seed=7", "optimizer.rate=0.5", "name=other-name"])
    assert (found.seed, found.optimizer.rate, found.name) == (7, 0.5, "other-name")
    with pytest.raises(ConfigInvalid, match=r"optimizer\.speed"):
        read_config(path, ["optimizer.speed=1"])
    with pytest.raises(ConfigInvalid, match="write it as"):
        read_config(path, ["seed"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["encoder.kind=raw"], "is for methods that adapt a whole network: prototypes"),
        (["learner.method=maml"], "'raw' for maml"),
        (["encoder.kind=embedding"], "is not for the inputs of data.set = 'omniglot'"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(changes: list[str], message: str) -> None:
    start = {"name": "x", "data": {"set": "omniglot", "train": "background"}, "optimizer": {"steps": 5}}
    config = TrainConfig.model_validate({**start, "learner": {"method": "prototypes"}})
    for change in changes:
        name, _, value = change.partition("=")
        config = changed(config, {"encoder": {"kind": value}} if name == "encoder.kind" else {name: value})
    with pytest.raises(ConfigInvalid, match=message):
        build(config)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="No such file"):
        read_config(tmp_path / "none.toml")
