"""Small affine jitter of drawings, and quarter rotations that make new classes."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .config import AugmentConfig

SIDE = 28
SOURCE_SIDE = 56
"""Drawings are kept at twice the side: averaged two by two they equal area averaging to 28, and jitter stays sharp."""


def jittered(images: Tensor, turns: np.ndarray, config: AugmentConfig, generator: np.random.Generator) -> Tensor:
    """Drawings under a random rotation, scale and shift each, on top of their class's quarter turns.

    Args:
        images: uint8 `[n, 56, 56]`, high ink.
        turns: int64 `[n]`, quarter turns in 0..3.
        config: The bounds of the jitter.
        generator: The source of randomness.

    Returns:
        float32 `[n, 1, 28, 28]` in 0..1.
    """
    n = len(images)
    angle = np.radians(generator.uniform(-config.degrees, config.degrees, n)) + turns * (math.pi / 2)
    scale = 1 + generator.uniform(-config.scale, config.scale, n)
    shift = generator.uniform(-config.pixels, config.pixels, (n, 2)) * (2 / SIDE)
    theta = np.empty((n, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = np.cos(angle) / scale, -np.sin(angle) / scale
    theta[:, 1, 0], theta[:, 1, 1] = np.sin(angle) / scale, np.cos(angle) / scale
    theta[:, :, 2] = shift
    grid = F.affine_grid(torch.from_numpy(theta), [n, 1, SOURCE_SIDE, SOURCE_SIDE], align_corners=False)
    source = images.unsqueeze(1).float() / 255
    return F.avg_pool2d(F.grid_sample(source, grid, align_corners=False), 2)
