"""The training loop. Randomness comes from (seed, step), so a resumed run goes on exactly where it stopped."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from .config import EpisodeConfig, KnownTasksConfig, OmniglotConfig, OptimizerConfig, RotatingConfig, TrainConfig
from .datasets import Material, Score, Step, build, fresh, open_material
from .drawings import ImageEpisodes
from .ensemble import joined
from .errors import ConfigInvalid, RunConflict, RunUnfinished, TrainingDiverged
from .learner import Learner
from .multitask import MultiTask
from .rates import rate_factor
from .rotating import rotating_support_loss
from .runs import Log, Run, draw_curves, load, save, write_json
from .task_data import keep_tasks, read_multitask
from .tasks import Episodes, EpisodeShape, TaskSource

LOG_EVERY = 50

Backward = Step


def load_trained(run: Run) -> Learner:
    """The learner that a finished run ended with, ready to predict.

    Raises:
        RunUnfinished: the run has no weights yet.
    """
    if (members := run.read_members()) is not None:
        return joined([load_trained(Run(folder)) for folder in members]).eval()
    config = run.read_config()
    learner = read_multitask(run) if isinstance(config.data, KnownTasksConfig) else build(config)
    if not run.weights.exists():
        raise RunUnfinished(run.folder)
    learner.load_state_dict(load(run.weights))
    return learner.eval()


def make_ensemble(members: Sequence[Path], folder: Path) -> None:
    """A run directory of finished runs whose predictions are averaged.

    Raises:
        RunUnfinished: a member has no weights yet.
        RunConflict: the folder holds a run.
        ConfigInvalid: the members' data sets or encoders differ.
    """
    run, first = Run(folder), Run(members[0]).read_config()
    for member in members:
        config = Run(member).read_config()
        if (config.data.set, config.encoder) != (first.data.set, first.encoder):
            raise ConfigInvalid(f"{member} has another data set or encoder than {members[0]}")
    joined([load_trained(Run(member)) for member in members])
    if run.config.exists() and run.read_members() is None:
        raise RunConflict(f"{folder} holds a run; choose another --run")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(run.members, [str(member) for member in members])
    write_json(run.config, first.model_copy(update={"name": folder.name}).model_dump(mode="json"))


def table_of(bundle: Path) -> dict[str, Any]:
    """The calibration table in a bundle's manifest.

    Raises:
        ConfigInvalid: there is none.
    """
    try:
        table: dict[str, Any] | None = json.loads((bundle / "manifest.json").read_bytes())["output"]["calibration"]
    except (OSError, KeyError, ValueError) as error:
        raise ConfigInvalid(f"{bundle} is no bundle: {error}") from error
    if table is None:
        raise ConfigInvalid(f"{bundle} has no calibration")
    return table


def check_calibration(runs: Sequence[Run], takers: Sequence[Run]) -> None:
    """Whether runs may calibrate themselves together, and others.

    Raises:
        ConfigInvalid: the runs differ by more than their seeds, a member of an ensemble trained on the selection
            tasks, or a taker is another kind of learner.
    """
    first, *others = runs
    mine = first.read_config()
    for other in others:
        config = other.read_config()
        if config.model_copy(update={"seed": mine.seed, "name": mine.name}) != mine:
            raise ConfigInvalid(f"{other.folder} differs from {first.folder} by more than its seed")
    for folder in [folder for run in runs for folder in run.read_members() or []]:
        trained_on = Run(folder).read_config().data
        if isinstance(trained_on, OmniglotConfig) and trained_on.train != "selection-train":
            raise ConfigInvalid(f"{folder} trained on the selection characters, which cannot calibrate it")
    for taker in takers:
        config = taker.read_config()
        if (mine.data.set, mine.learner) != (config.data.set, config.learner):
            raise ConfigInvalid(f"{taker.folder} is another kind of learner than {first.folder}")


@dataclass
class _State:
    """What changes during training, and what a checkpoint keeps."""

    learner: Learner
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    step: int = 0
    best: float = -float("inf")
    best_step: int = 0
    seconds: float = 0.0

    def checkpoint(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(), "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict(),
            "step": self.step, "best": self.best, "best_step": self.best_step, "seconds": self.seconds,
        }  # fmt: skip

    def restore(self, checkpoint: dict[str, Any]) -> None:
        for name in ("learner", "average", "optimizer", "scheduler"):
            getattr(self, name).load_state_dict(checkpoint[name])
        for name in ("step", "best", "best_step", "seconds"):
            setattr(self, name, checkpoint[name])


def train(config: TrainConfig, folder: Path, data: Path) -> None:
    """Train, or go on with, the run in `folder`.

    The folder ends with the averaged weights of the best look at the selection tasks, or of the last step
    where the config names none.

    Raises:
        ModelError: data missing, another run in the folder, or a loss that is not finite.
    """
    run = Run(folder)
    run.open(config)
    state = fresh_state(config, data)
    if run.checkpoint.exists():
        state.restore(load(run.checkpoint))
    log = Log(run.log, from_step=state.step)
    if isinstance(state.learner, MultiTask):
        keep_tasks(run, state.learner)
    material = open_material(config, data, state.learner, losses=run.task_losses)
    backward, look = backward_of(config, material), material.look
    schedule, losses, started = config.schedule, [], time.monotonic() - state.seconds

    for step in _steps(state, config):
        losses.append(update(state, config.optimizer, backward, step))
        state.step, state.seconds = step, time.monotonic() - started
        last = step == config.optimizer.steps
        score = look(_averaged(state)) if look and (step % schedule.evaluate_every == 0 or last) else None
        if score is not None and score.mean > state.best:
            state.best, state.best_step = score.mean, step
            save(run.weights, _finished(state, material).state_dict())
        if score is not None or step % LOG_EVERY == 0 or last:
            log.append(_line(state, losses, score))
            losses = []
        stop = look is not None and step - state.best_step >= schedule.patience * schedule.evaluate_every
        if step % schedule.checkpoint_every == 0 or last or stop:
            save(run.checkpoint, state.checkpoint())
            draw_curves(run.log, run.curves)
        if stop:
            break

    if look is None:
        save(run.weights, _finished(state, material).state_dict())
    write_json(run.result, _result(state, selected=look is not None))


def fresh_state(config: TrainConfig, data: Path) -> _State:
    """A learner, its optimizer, schedule and average, before the first step."""
    learner = fresh(config, data).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    settings = config.optimizer
    optimizer = _optimizer(learner, settings)
    return _State(
        learner,
        AveragedModel(learner, multi_avg_fn=_average(settings.ema_decay), use_buffers=True),
        optimizer,
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, settings)),
    )


def _optimizer(learner: nn.Module, settings: OptimizerConfig) -> torch.optim.Optimizer:
    trained = [value for value in learner.parameters() if value.requires_grad] or [nn.Parameter(torch.zeros(1))]
    if settings.kind == "sgd":
        return torch.optim.SGD(trained, lr=settings.rate, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(trained, lr=settings.rate, betas=settings.betas, weight_decay=settings.weight_decay)


def _average(decay: float) -> Callable[..., None]:
    average: Callable[..., None] = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's stub
    return average


def _steps(state: _State, config: TrainConfig) -> Iterator[int]:
    numbers = range(state.step + 1, config.optimizer.steps + 1)
    yield from tqdm(numbers, initial=state.step, total=config.optimizer.steps, mininterval=5, desc=config.name)


def backward_of(config: TrainConfig, material: Material) -> Backward:
    """What a step of training does: on tasks, or on sets of classes whose images take turns as the support."""
    episodes = config.episodes
    if material.step is not None:
        return material.step
    if isinstance(episodes, RotatingConfig):
        if material.images is None:
            raise TypeError("a config with rotating supports has no images")
        return _rotating(config, episodes, material.images)
    if material.source is None:
        raise TypeError("a config of episodes has no tasks")
    return on_tasks(material.source, shape_of(episodes), config.seed)


def shape_of(episodes: EpisodeConfig) -> EpisodeShape:
    """The sizes of a step's tasks."""
    return EpisodeShape(episodes.tasks, episodes.way, episodes.shot, episodes.query)


def on_tasks(source: TaskSource, shape: EpisodeShape, seed: int) -> Backward:
    """Steps on tasks that are drawn anew for each."""

    def backward(learner: Learner, step: int) -> float:
        return learner.backward(source.draw(np.random.default_rng([seed, step]), shape))

    return backward


def on_the_same(episodes: Episodes) -> Backward:
    """Steps on the same tasks again and again."""
    return lambda learner, step: learner.backward(episodes)


def _rotating(config: TrainConfig, episodes: RotatingConfig, source: ImageEpisodes) -> Backward:
    bfloat16 = config.optimizer.precision == "bfloat16"

    def backward(learner: Learner, step: int) -> float:
        x = source.draw_classes(np.random.default_rng([config.seed, step]), episodes.way, episodes.images)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            features = learner.encode({"x": x})["features"]
        loss = rotating_support_loss(learner, features.float().reshape(episodes.way, episodes.images, -1))
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        return loss.item()

    return backward


def update(state: _State, settings: OptimizerConfig, backward: Backward, step: int) -> float:
    """One step of training; the loss before it.

    Raises:
        TrainingDiverged: the loss is not finite; nothing is changed then.
    """
    state.learner.train()
    torch.manual_seed(step)  # for what a method draws itself
    state.optimizer.zero_grad()
    loss = backward(state.learner, step)
    if not np.isfinite(loss):
        raise TrainingDiverged(step, float(state.optimizer.param_groups[0]["lr"]))
    clip_grad_norm_(state.learner.parameters(), settings.clip_norm)
    state.optimizer.step()
    state.scheduler.step()
    state.average.update_parameters(state.learner)
    return loss


def _averaged(state: _State) -> Learner:
    learner = state.average.module
    assert isinstance(learner, Learner)  # noqa: S101 (for the type checker: AveragedModel's module is untyped)
    return learner


def _finished(state: _State, material: Material) -> Learner:
    learner = _averaged(state)
    if material.finish:
        material.finish(learner.eval())
    return learner


def _line(state: _State, losses: list[float], score: Score | None) -> dict[str, object]:
    return {
        "step": state.step,
        "rate": f"{state.optimizer.param_groups[0]['lr']:.6g}",
        "loss": f"{np.mean(losses):.6g}",
        "selection": f"{score.mean:.5f}" if score else "",
        "selection_interval": f"{score.interval:.5f}" if score and score.interval else "",
        "seconds": f"{state.seconds:.1f}",
    }


def _result(state: _State, *, selected: bool) -> dict[str, object]:
    best = {"best_step": state.best_step, "selection": state.best} if selected else {}
    trained = sum(value.numel() for value in state.learner.parameters() if value.requires_grad)
    return {"steps": state.step, "minutes": round(state.seconds / 60, 2), "trained": trained,
            "threads": torch.get_num_threads(), **best}  # fmt: skip
