"""Data for tests: a synthetic stand-in in Omniglot's format, and the rule for tests that need the real one."""

import os
from pathlib import Path

import numpy as np
import pytest

DATA = Path(os.environ.get("HANDFUL_DATA", "../shared/data"))


def real_data() -> Path:
    """The folder with the real data; the test is skipped without it, unless HANDFUL_REQUIRE_DATA is set."""
    if not (DATA / "omniglot").is_dir():
        reason = f"no real data in {DATA}: set HANDFUL_DATA to the folder that holds omniglot/"
        if os.environ.get("HANDFUL_REQUIRE_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return DATA


def write_synthetic_omniglot(folder: Path, *, seed: int = 0) -> Path:
    """Strokes that differ by character, in the files and keys of the real set.

    There are 24 characters of selection-train, 24 of selection and 24 of evaluation, in 6 alphabets of 12.
    """
    generator = np.random.default_rng(seed)
    characters, drawers = 72, 20
    bits = np.stack([_drawings(generator, drawers) for _ in range(characters)]).reshape(-1, 105, 105)
    small = (bits[:, :105, :105].reshape(-1, 105, 105)).astype(np.float64)
    small = np.stack([_averaged(image) for image in small])
    role = np.repeat([0, 1, 2], characters // 3)
    place = folder / "omniglot"
    place.mkdir(parents=True)
    labels = {
        "label": np.repeat(np.arange(characters), drawers).astype(np.int16),
        "drawer": np.tile(np.arange(1, drawers + 1), characters).astype(np.uint8),
        "class_char_id": np.arange(1, characters + 1, dtype=np.int16),
        "class_alphabet": np.repeat(np.arange(6), 12).astype(np.uint8),
        "class_official": (role == 2).astype(np.uint8),
        "class_vinyals": np.where(role == 1, 1, 0).astype(np.uint8),
    }
    np.savez(place / "omniglot_public_28.npz", images=small, **labels)
    packed = np.packbits(bits.reshape(len(bits), -1), axis=1)
    np.savez(place / "omniglot_public_105_bits.npz", bits=packed, **labels)
    return folder


def _drawings(generator: np.random.Generator, drawers: int) -> np.ndarray:
    """Three strokes of one character, shaken by each drawer."""
    ends = generator.uniform(20, 85, (3, 2, 2))
    images = np.zeros((drawers, 105, 105), np.uint8)
    for image in images:
        for start, end in ends + generator.normal(0, 2, ends.shape):
            points = np.linspace(start, end, 160).round().astype(int).clip(1, 103)
            for shift in (-1, 0, 1):
                image[points[:, 0] + shift, points[:, 1]] = 1
    return images


def _averaged(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    ink = Image.fromarray((image * 255).astype(np.uint8))
    return np.asarray(ink.resize((28, 28), Image.Resampling.BOX))


def write_synthetic_jester(folder: Path, *, users: int = 80, seed: int = 0) -> Path:
    """People of two tastes that are opposites, in the file and keys of the real set; each rated 36 to 100 jokes."""
    generator = np.random.default_rng(seed)
    taste = generator.choice([-1, 1], (users, 1)) * np.where(np.arange(100) % 2, 1, -1)
    ratings = np.clip(400 * taste + generator.normal(0, 300, (users, 100)), -995, 990).astype(np.int16)
    count = generator.integers(36, 101, (users, 1))
    ratings[np.argsort(generator.random((users, 100)), axis=1) >= count] = -32768
    place = folder / "jester"
    place.mkdir(parents=True)
    np.savez(place / "jester_users_public.npz", rating_x100=ratings, user_row=np.arange(users, dtype=np.int16))
    return folder


def write_synthetic_parkinsons(folder: Path, *, patients: int = 12, seed: int = 0) -> Path:
    """Patients who get worse in a straight line, in the file and columns of the real set.

    Each has 12 test days of 4 recordings. The rows are shuffled, as nothing promises their order.
    """
    import pyarrow as pa
    from pyarrow import parquet

    from handful_models.parkinsons import INPUTS

    generator = np.random.default_rng(seed)
    subject = np.repeat(np.arange(1, patients + 1), 48)
    time = np.tile(np.repeat(7.0 * np.arange(12), 4), patients) + generator.uniform(0.1, 0.2, len(subject))
    level, slope = generator.uniform(10, 40, patients)[subject - 1], generator.uniform(-0.1, 0.1, patients)[subject - 1]
    table = {name: generator.uniform(0.1, 1, len(subject)) for name in INPUTS}
    table |= {"subject": subject, "test_time": time, "age": 50 + subject, "sex": subject % 2}
    table |= {"total_UPDRS": level + slope * time, "motor_UPDRS": 0.7 * level + slope * time}
    order = generator.permutation(len(subject))
    place = folder / "parkinsons_telemonitoring"
    place.mkdir(parents=True)
    shuffled = pa.table({name: column[order] for name, column in table.items()})
    parquet.write_table(shuffled, place / "parkinsons_updrs.parquet")
    return folder


def write_synthetic_adult(folder: Path, *, rows: int = 400, seed: int = 0) -> Path:
    """People whose income, hours and occupation hang on age and education, in the file and columns of the real set."""
    import pyarrow as pa
    from pyarrow import parquet

    generator = np.random.default_rng(seed)
    names = {
        "workclass": ["?", "Private", "State-gov"], "education": ["10th", "Bachelors", "Masters"],
        "marital_status": ["Divorced", "Never-married"], "relationship": ["Husband", "Unmarried", "Wife"],
        "race": ["Other", "White"], "sex": ["Female", "Male"], "native_country": ["?", "Cuba", "United-States"],
    }  # fmt: skip
    table: dict[str, object] = {name: generator.choice(values, rows) for name, values in names.items()}
    age, school = generator.integers(17, 80, rows), generator.integers(1, 17, rows)
    skill = (age - 48) / 20 + (school - 8) / 5 + generator.normal(0, 0.3, rows)
    jobs = np.array(["Craft-repair", "Exec-managerial", "Sales"])[np.digitize(skill, (-0.5, 0.5))]
    table |= {
        "age": age, "education_num": school, "fnlwgt": generator.integers(12000, 90000, rows),
        "capital_gain": generator.choice([0, 0, 0, 2174], rows), "capital_loss": np.zeros(rows, np.int64),
        "occupation": np.where(generator.random(rows) < 0.1, "?", jobs), "income": (skill > 0).astype(np.int64),
        "hours_per_week": np.clip(40 + 8 * skill, 1, 99).astype(np.int64),
        "split": np.where(np.arange(rows) < 0.75 * rows, "train", "test"),
    }  # fmt: skip
    place = folder / "uci_adult"
    place.mkdir(parents=True)
    parquet.write_table(pa.table(table), place / "adult.parquet")
    return folder
