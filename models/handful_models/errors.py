"""What can go wrong in training and evaluation, for a person to mend."""

from collections.abc import Sequence
from pathlib import Path


class ModelError(Exception):
    """The root of this package's errors; its text says what to change."""


class DataMissing(ModelError):
    """A data file is not where it is looked for."""

    def __init__(self, path: Path, what_to_do: str | None = None) -> None:
        advice = what_to_do or f"set HANDFUL_DATA to the folder that holds {path.parent.name}/"
        super().__init__(f"no file {path}: {advice}")
        self.path = path


class DataDamaged(ModelError):
    """A data file whose bytes are not the published ones."""

    def __init__(self, path: Path, found: str, expected: str) -> None:
        super().__init__(f"{path}: its SHA-256 is {found}, expected {expected}: fetch the file again")
        self.path = path


class DataUnknown(ModelError):
    """A name that no data set, split or method has."""

    def __init__(self, what: str, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no {what} {name!r}; known: {', '.join(known)}")


class ConfigInvalid(ModelError):
    """A setting of a config is unknown or out of range."""


class RunConflict(ModelError):
    """A run directory holds another run than the one asked for."""


class RunUnfinished(ModelError):
    """A run directory without weights."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} has no weights yet: go on with `handful train`")
        self.folder = folder


class TrainingDiverged(ModelError):
    """The loss is no longer a number."""

    def __init__(self, step: int, rate: float) -> None:
        super().__init__(
            f"the loss is not finite at step {step} (learning rate {rate:.3g}); "
            "the last good checkpoint is kept: lower optimizer.rate and start again in a new run directory"
        )


class NotLearned(ModelError):
    """A model that does not learn even a few examples by heart."""

    def __init__(self, examples: int, loss: float, wanted: float, steps: int) -> None:
        super().__init__(
            f"the loss on {examples} examples is still {loss:.3g} after {steps} steps (wanted: {wanted:g}): "
            "look for a fault in the model or the data before a longer run, or raise optimizer.rate"
        )
        self.loss = loss
