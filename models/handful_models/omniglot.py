"""Omniglot: handwritten characters of 50 alphabets, each drawn by 20 people.

Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program induction" (2015).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import digests
from .errors import DataUnknown

DRAWERS = 20
ROTATIONS = 4
FILES = ("omniglot_public_28.npz", "omniglot_public_105_bits.npz")
DIGESTS = {
    "omniglot_public_28.npz": "e4eca00055549c080ecf05dcbf99f87b836ed5a191f4477238967f09c791f9dd",
    "omniglot_public_105_bits.npz": "d9a6078961aa6003b2fbf430eb74870835ca0d8a15bdc261ef0f015e713e92ee",
}

_OFFICIAL_BACKGROUND = 0
_VINYALS_TRAIN, _VINYALS_VALIDATION = 0, 1

SPLITS = {
    "selection-train": "background characters that are Vinyals-train (792)",
    "selection": "background characters that are Vinyals-validation (172)",
    "background": "all background characters (964)",
    "evaluation": "public evaluation characters (236)",
}


@dataclass(frozen=True, slots=True)
class Characters:
    """The drawings of some characters, with high ink.

    Attributes:
        small: uint8 `[character, 20, 28, 28]`, area-averaged.
        bits: uint8 `[character, 20, 105, 105]`, 1 for ink: the raw form.
        alphabet: int64 `[character]`.
        character_id: int64 `[character]`, Omniglot's own number.
    """

    small: NDArray[np.uint8]
    bits: NDArray[np.uint8]
    alphabet: NDArray[np.int64]
    character_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.small)


def load(folder: Path, split: str) -> Characters:
    """The characters of a split.

    Args:
        folder: The data folder, which holds `omniglot/`.
        split: A key of `SPLITS`.

    Raises:
        DataMissing: a file is not there.
        DataDamaged: a file has another digest.
        DataUnknown: no such split.
    """
    if split not in SPLITS:
        raise DataUnknown("split", split, sorted(SPLITS))
    paths = [digests.check(folder / "omniglot" / name, DIGESTS) for name in FILES]
    with np.load(paths[0], allow_pickle=False) as small, np.load(paths[1], allow_pickle=False) as large:
        chosen = _chosen(split, small["class_official"], small["class_vinyals"])
        order = _rows(small["label"], small["drawer"], chosen)
        bits = np.unpackbits(large["bits"][order.ravel()], axis=1)[:, : 105 * 105]
        return Characters(
            small=small["images"][order.ravel()].reshape(len(chosen), DRAWERS, 28, 28),
            bits=bits.reshape(len(chosen), DRAWERS, 105, 105),
            alphabet=small["class_alphabet"][chosen].astype(np.int64),
            character_id=small["class_char_id"][chosen].astype(np.int64),
        )


def _chosen(split: str, official: NDArray[np.uint8], vinyals: NDArray[np.uint8]) -> NDArray[np.int64]:
    background = official == _OFFICIAL_BACKGROUND
    masks = {
        "selection-train": background & (vinyals == _VINYALS_TRAIN),
        "selection": background & (vinyals == _VINYALS_VALIDATION),
        "background": background,
        "evaluation": ~background,
    }
    return np.flatnonzero(masks[split])


def _rows(label: NDArray[np.int16], drawer: NDArray[np.uint8], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.lexsort((drawer, label))
    return order.reshape(-1, DRAWERS)[chosen]


def rotated(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Quarter rotations as new classes: `[4 * character, drawing, side, side]`, class `4 c + k` turned `k` times."""
    turns = [np.rot90(images, turn, axes=(2, 3)) for turn in range(ROTATIONS)]
    return np.stack(turns, axis=1).reshape(-1, *images.shape[1:])
