"""Omniglot as training sees it: episodes of jittered drawings, or of what a frozen trunk gives for them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import omniglot
from .augment import SOURCE_SIDE, jittered
from .config import AugmentConfig
from .runs import load, save
from .tasks import Episodes, EpisodeShape, Examples
from .trunk import Trunk

ENCODED_AT_ONCE = 1024


def drawings(characters: omniglot.Characters) -> Tensor:
    """uint8 `[character, 20, 56, 56]`, high ink, area-averaged from the raw bits."""
    flat = characters.bits.reshape(-1, *characters.bits.shape[2:]) * np.uint8(255)
    side = (SOURCE_SIDE, SOURCE_SIDE)
    small = [np.asarray(Image.fromarray(bits).resize(side, Image.Resampling.BOX)) for bits in flat]
    return torch.from_numpy(np.stack(small).reshape(*characters.bits.shape[:2], *side))


def chosen_classes(characters: int, classes: int | None, seed: int) -> np.ndarray:
    """Which of `4 * characters` classes train: all, or some at random; class `4 c + k` is `c` turned `k` times.

    No more than the characters are drawn from upright ones, so that a few classes are not turns of even fewer.
    """
    everything = np.arange(characters * omniglot.ROTATIONS)
    if classes is None or classes >= len(everything):
        return everything
    pool = everything[:: omniglot.ROTATIONS] if classes <= characters else everything
    return np.sort(np.random.default_rng([seed, classes]).choice(pool, classes, replace=False))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A batch of few-shot tasks as indices.

    Attributes:
        classes: int64 `[task, way]`, places in the list of training classes.
        images: int64 `[task, way, shot + query]`.
        shot: How many of the images of a class are its support.
    """

    classes: np.ndarray
    images: np.ndarray
    shot: int


def draw_tasks(generator: np.random.Generator, shape: EpisodeShape, classes: int) -> Drawn:
    """Tasks of one way and shot, drawn between the bounds of the shape."""
    low, high = shape.way
    way = min(int(generator.integers(low, high + 1)), classes)
    shot = int(generator.integers(shape.shot[0], shape.shot[1] + 1))
    chosen = np.stack([generator.choice(classes, way, replace=False) for _ in range(shape.tasks)])
    order = np.argsort(generator.random((shape.tasks, way, omniglot.DRAWERS)), axis=-1)
    return Drawn(chosen, order[..., : shot + shape.query], shot)


def labelled(x: Tensor, shot: int) -> Episodes:
    """Episodes of `x [task, way, shot + query, *input]`: the first `shot` of each class are the support."""
    tasks, way = x.shape[:2]

    def part(values: Tensor) -> Examples:
        each = values.shape[2]
        y = torch.arange(way).repeat_interleave(each).expand(tasks, -1)
        return Examples({"x": values.flatten(1, 2)}, y, torch.ones(y.shape))

    return Episodes(part(x[:, :, :shot]), part(x[:, :, shot:]))


class ImageEpisodes:
    """Few-shot tasks of jittered drawings.

    Args:
        images: uint8 `[character, 20, 56, 56]`.
        classes: Which of the characters' quarter turns are classes.
        augment: Bounds of the jitter.
    """

    def __init__(self, images: Tensor, classes: np.ndarray, augment: AugmentConfig) -> None:
        self._images = images
        self._classes = classes
        self._augment = augment

    def draw(self, generator: np.random.Generator, shape: EpisodeShape) -> Episodes:
        """See `TaskSource`."""
        drawn = draw_tasks(generator, shape, len(self._classes))
        classes = self._classes[drawn.classes]
        source = self._images[classes[..., None] // omniglot.ROTATIONS, drawn.images]
        turns = np.broadcast_to(classes[..., None] % omniglot.ROTATIONS, drawn.images.shape)
        x = jittered(source.flatten(0, 2), turns.reshape(-1), self._augment, generator)
        return labelled(x.reshape(*drawn.images.shape, *x.shape[1:]), drawn.shot)

    def draw_classes(self, generator: np.random.Generator, way: int, images: int) -> Tensor:
        """Jittered drawings `[way * images, 1, 28, 28]` of one set of classes, class after class."""
        chosen = self._classes[generator.choice(len(self._classes), way, replace=False)]
        drawers = np.argsort(generator.random((way, omniglot.DRAWERS)), axis=1)[:, :images]
        source = self._images[chosen[:, None] // omniglot.ROTATIONS, drawers].flatten(0, 1)
        return jittered(source, np.repeat(chosen % omniglot.ROTATIONS, images), self._augment, generator)


class FeatureEpisodes:
    """Few-shot tasks of what a frozen trunk gives, each drawing as it is or jittered, at random.

    Args:
        features: float32 `[version, class, 20, width]`.
        classes: Which of the classes are drawn from.
    """

    def __init__(self, features: Tensor, classes: np.ndarray) -> None:
        self._features = features
        self._classes = classes

    def draw(self, generator: np.random.Generator, shape: EpisodeShape) -> Episodes:
        """See `TaskSource`."""
        drawn = draw_tasks(generator, shape, len(self._classes))
        version = generator.integers(len(self._features), size=drawn.images.shape)
        x = self._features[version, self._classes[drawn.classes][..., None], drawn.images]
        return labelled(x, drawn.shot)


@torch.no_grad()
def encoded(trunk: Trunk, images: Tensor, augment: AugmentConfig, *, versions: int, cache: Path) -> Tensor:
    """What a trunk gives for every drawing and turn: float32 `[1 + versions, class, 20, width]`.

    The first version is the drawing as it is, the others are jittered. Kept in the folder `cache`, by the digest of
    everything that it depends on.
    """
    name = _digest(trunk, images, augment, versions)
    path = cache / f"{name}.pt"
    if path.exists():
        kept: Tensor = load(path)["features"]
        return kept
    still = AugmentConfig(degrees=0, pixels=0, scale=0)
    found = torch.stack(
        [
            _encoded_once(trunk.eval(), images, still if version == 0 else augment, version)
            for version in range(1 + versions)
        ]
    )
    cache.mkdir(parents=True, exist_ok=True)
    save(path, {"features": found})
    return found


def _encoded_once(trunk: Trunk, images: Tensor, augment: AugmentConfig, seed: int) -> Tensor:
    generator = np.random.default_rng(seed)
    parts = [
        trunk.frozen(jittered(part, np.full(len(part), turn), augment, generator))
        for turn in range(omniglot.ROTATIONS)
        for part in torch.split(images.flatten(0, 1), ENCODED_AT_ONCE)
    ]
    flat = torch.cat(parts).reshape(omniglot.ROTATIONS, *images.shape[:2], -1)
    return flat.transpose(0, 1).flatten(0, 1)


def _digest(trunk: Trunk, images: Tensor, augment: AugmentConfig, versions: int) -> str:
    hasher = hashlib.sha256(f"{augment.model_dump_json()} {versions} {tuple(images.shape)}".encode())
    hasher.update(images.numpy().tobytes())
    for value in trunk.state_dict().values():
        hasher.update(value.contiguous().numpy().tobytes())
    return hasher.hexdigest()[:32]
