"""Episodes: tasks drawn from classes, each with a support set and a query set."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Episode:
    """One N-way K-shot task as indices into `[class, image]`.

    Attributes:
        classes: int64 `[way]`.
        support: int64 `[way, shot]`, images of each class.
        query: int64 `[way, query]`, other images of each class.
    """

    classes: NDArray[np.int64]
    support: NDArray[np.int64]
    query: NDArray[np.int64]


def draw_episode(
    generator: np.random.Generator,
    *,
    classes: NDArray[np.int64],
    images: int,
    way: int,
    shot: int,
    query: int,
) -> Episode:
    """An episode of `way` of the given classes, each of which has `images` images.

    Raises:
        ValueError: there are fewer classes than ways, or fewer images than shots and queries.
    """
    if way > len(classes) or shot + query > images:
        raise ValueError(
            f"{way}-way {shot}-shot with {query} queries needs {way} classes of {shot + query} images; "
            f"there are {len(classes)} classes of {images}"
        )
    chosen = generator.choice(classes, way, replace=False)
    order = np.argsort(generator.random((way, images)), axis=1)
    return Episode(chosen, order[:, :shot], order[:, shot : shot + query])
