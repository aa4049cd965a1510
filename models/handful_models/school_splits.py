"""Which of the 139 schools train, and which are held out; no data is needed to know."""

import numpy as np

from .errors import DataUnknown

SCHOOLS = 139
HELD_OUT = 28
SELECTION = 20
SPLITS = 30
PARTS = ("train", "fit", "selection", "report")

_SEED = 1989


def numbers(split: int, part: str) -> list[int]:
    """The schools of a part of a split, by their numbers.

    Args:
        split: 0..29.
        part: `report`: 28 schools; `train`: the other 111; `selection`: 20 of those; `fit`: the 91 besides.

    Raises:
        DataUnknown: no such split or part.
    """
    if split not in range(SPLITS):
        raise DataUnknown("split", str(split), [f"0 to {SPLITS - 1}"])
    if part not in PARTS:
        raise DataUnknown("part", part, PARTS)
    order = np.random.default_rng([_SEED, split]).permutation(SCHOOLS)
    held, kept = order[:HELD_OUT], order[HELD_OUT:]
    chosen = {"report": held, "train": kept, "selection": kept[:SELECTION], "fit": kept[SELECTION:]}[part]
    return sorted(chosen.tolist())
