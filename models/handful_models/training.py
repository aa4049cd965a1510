"""The training loop. Randomness comes from (seed, step), so a resumed run goes on exactly where it stopped."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from . import omniglot
from .augment import SOURCE_SIDE, jittered
from .config import OptimizerConfig, TrainConfig
from .errors import ConfigInvalid, RunUnfinished, TrainingDiverged
from .evaluation import Accuracy, Protocol, evaluate
from .learner import Learner
from .methods import build, rotating_support_loss
from .runs import Log, Run, draw_curves, load, save, write_json

LOG_EVERY = 50


def load_trained(run: Run) -> Learner:
    """The learner that a finished run ended with, ready to predict.

    Raises:
        RunUnfinished: the run has no weights yet.
    """
    config = run.read_config()
    learner = build(config.learner, seed=config.seed)
    if not run.weights.exists():
        raise RunUnfinished(run.folder)
    learner.load_state_dict(load(run.weights))
    return learner.eval()


def load_trunk(learner: Learner, run: Run) -> None:
    """Let a learner begin with the encoder of a finished run.

    Raises:
        RunUnfinished: the run has no weights yet.
        ConfigInvalid: its encoder has another form.
    """
    if not run.weights.exists():
        raise RunUnfinished(run.folder)
    trunk = {name: value for name, value in load(run.weights).items() if name.startswith("encoder.")}
    own = {name: value.shape for name, value in learner.state_dict().items() if name.startswith("encoder.")}
    if own != {name: value.shape for name, value in trunk.items()}:
        raise ConfigInvalid(f"learner.trunk: the encoder of {run.folder} has another form than this learner's")
    learner.load_state_dict(trunk, strict=False)


@dataclass
class _State:
    """What changes during training, and what a checkpoint keeps."""

    learner: Learner
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    step: int = 0
    best: float = -1.0
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

    The folder ends with the averaged weights of the best look at the selection classes, or of the last step
    where the config names none.

    Raises:
        ModelError: data missing, another run in the folder, or a loss that is not finite.
    """
    run = Run(folder)
    run.open(config)
    state = _fresh_state(config)
    if run.checkpoint.exists():
        state.restore(load(run.checkpoint))
    log = Log(run.log, from_step=state.step)
    drawings = _drawings(omniglot.load(data, config.data.train))
    selection = omniglot.load(data, config.data.select) if config.data.select else None
    schedule, losses, started = config.schedule, [], time.monotonic() - state.seconds

    for step in _steps(state, config):
        losses.append(_update(state, drawings, config, step))
        state.step, state.seconds = step, time.monotonic() - started
        last = step == config.optimizer.steps
        look = selection is not None and (step % schedule.evaluate_every == 0 or last)
        accuracy = _look(state, selection, config) if look and selection else None
        if accuracy is not None and accuracy.mean > state.best:
            state.best, state.best_step = accuracy.mean, step
            save(run.weights, _averaged(state).state_dict())
        if accuracy is not None or step % LOG_EVERY == 0 or last:
            log.append(_line(state, losses, accuracy))
            losses = []
        stop = selection is not None and step - state.best_step >= schedule.patience * schedule.evaluate_every
        if step % schedule.checkpoint_every == 0 or last or stop:
            save(run.checkpoint, state.checkpoint())
            draw_curves(run.log, run.curves)
        if stop:
            break

    if selection is None:
        save(run.weights, _averaged(state).state_dict())
    write_json(run.result, _result(state, selected=selection is not None))


def _fresh_state(config: TrainConfig) -> _State:
    learner = build(config.learner, seed=config.seed)
    if config.learner.trunk is not None:
        load_trunk(learner, Run(config.learner.trunk))
    learner = learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    settings = config.optimizer
    optimizer = torch.optim.AdamW(learner.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    return _State(
        learner,
        AveragedModel(learner, multi_avg_fn=_average(settings.ema_decay), use_buffers=True),
        optimizer,
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, settings)),
    )


def _average(decay: float) -> Callable[..., None]:
    average: Callable[..., None] = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's stub
    return average


def rate_factor(step: int, settings: OptimizerConfig) -> float:
    """The learning rate at a step (from 0) as a fraction of `rate`: linear warm-up, then a cosine to 0."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _drawings(characters: omniglot.Characters) -> Tensor:
    """uint8 `[character, 20, 56, 56]`, high ink, area-averaged from the raw bits."""
    flat = characters.bits.reshape(-1, *characters.bits.shape[2:]) * np.uint8(255)
    side = (SOURCE_SIDE, SOURCE_SIDE)
    small = [np.asarray(Image.fromarray(bits).resize(side, Image.Resampling.BOX)) for bits in flat]
    return torch.from_numpy(np.stack(small).reshape(*characters.bits.shape[:2], *side))


def _steps(state: _State, config: TrainConfig) -> Iterator[int]:
    numbers = range(state.step + 1, config.optimizer.steps + 1)
    yield from tqdm(numbers, initial=state.step, total=config.optimizer.steps, mininterval=5, desc=config.name)


def _update(state: _State, drawings: Tensor, config: TrainConfig, step: int) -> float:
    generator = np.random.default_rng([config.seed, step])
    way, images = config.episodes.way, config.episodes.images
    classes = generator.choice(len(drawings) * omniglot.ROTATIONS, way, replace=False)
    chosen = np.argsort(generator.random((way, omniglot.DRAWERS)), axis=1)[:, :images]
    source = drawings[classes[:, None] // omniglot.ROTATIONS, chosen].flatten(0, 1)
    turns = np.repeat(classes % omniglot.ROTATIONS, images)
    x = jittered(source, turns, config.augment, generator)

    state.learner.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=config.optimizer.precision == "bfloat16"):
        features = state.learner.encode({"x": x})["features"]
    loss = rotating_support_loss(state.learner, features.float().reshape(way, images, -1))
    if not torch.isfinite(loss):
        raise TrainingDiverged(step, float(state.scheduler.get_last_lr()[0]))
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
    clip_grad_norm_(state.learner.parameters(), config.optimizer.clip_norm)
    state.optimizer.step()
    state.scheduler.step()
    state.average.update_parameters(state.learner)
    return loss.item()


def _averaged(state: _State) -> Learner:
    learner = state.average.module
    assert isinstance(learner, Learner)  # noqa: S101 (for the type checker: AveragedModel's module is untyped)
    return learner


def _look(state: _State, selection: omniglot.Characters, config: TrainConfig) -> Accuracy:
    protocol = Protocol(way=20, shot=1, query=5, episodes=config.schedule.episodes)
    return evaluate(_averaged(state), selection, [protocol], seed=config.seed)[0]


def _line(state: _State, losses: list[float], accuracy: Accuracy | None) -> dict[str, object]:
    return {
        "step": state.step,
        "rate": f"{state.scheduler.get_last_lr()[0]:.6g}",
        "loss": f"{np.mean(losses):.6g}",
        "selection_accuracy": f"{accuracy.mean:.5f}" if accuracy else "",
        "selection_interval": f"{accuracy.interval:.5f}" if accuracy else "",
        "seconds": f"{state.seconds:.1f}",
    }


def _result(state: _State, *, selected: bool) -> dict[str, object]:
    best = {"best_step": state.best_step, "selection_accuracy": state.best} if selected else {}
    return {"steps": state.step, "minutes": round(state.seconds / 60, 1), **best}
