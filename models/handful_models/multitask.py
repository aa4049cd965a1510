"""Many known tasks on one conditioned trunk, each with a head and labels of its own.

Caruana, "Multitask Learning" (1997): f(y | x, z), where z names the task.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from .conditioning import INDEX, Addition, Concatenation, Conditioning, Film, Independent, Shared, form_of
from .errors import ConfigInvalid
from .learner import DescribedLearner, Descriptor, Law, Options, Reader, Target, Tensors
from .mixtures import CrossStitch, MixtureOfExperts
from .record_encoder import RecordEncoder, RecordField

ConditioningName = Literal[
    "independent", "multi-head", "concatenation", "addition", "film", "mmoe", "cross-stitch"
]  # fmt: skip
Surgery = Literal["none", "pcgrad", "mgda", "aligned-mtl"]

RECORD = "record"
"""The features of a record where the trunk encodes nothing of it."""

LOG_VARIANCE = 15.0
"""Of a number in its own units, at most, above and below 0."""

UNBOUNDED = 1.0e30


class MultiTaskOptions(Options):
    """The trunk, how tasks reach it, and how their losses meet."""

    conditioning: ConditioningName
    filters: int = Field(32, ge=4, le=512, description="Of each convolution, where inputs are pictures.")
    hidden: tuple[int, ...] = Field((128,), min_length=1, description="Widths of the layers on records but the last.")
    width: int = Field(64, ge=2, le=1024, description="Of the last layer: features of a row.")
    beside: int = Field(16, ge=1, le=512, description="Of `concatenation`: width of a task's vector.")
    experts: int = Field(4, ge=2, le=32, description="Of `mmoe`.")
    columns: int = Field(2, ge=2, le=64, description="Of `cross-stitch`.")
    bins: int = Field(0, ge=0, le=128, description="Quantiles that numbers of a record are placed between.")
    embedding: int = Field(0, ge=0, le=128, description="Width of a category's embedding; 0: one-hot.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Of the features before the heads.")
    weighting: Literal["fixed", "uncertainty"] = "fixed"
    weights: dict[str, float] = Field({}, description="Of losses by task id; 1 if not given.")
    priorities: dict[str, int] = Field(
        {}, description="By task id, 0 if not given: a task's gradient never works against one of a higher priority."
    )
    surgery: Surgery = Field("none", description="What joins the gradients of the shared parameters.")

    @model_validator(mode="after")
    def _one_way_of_joining(self) -> "MultiTaskOptions":
        if any(not weight > 0 for weight in self.weights.values()):
            raise ValueError("weights: above 0")
        if self.priorities and self.surgery != "none":
            raise ValueError("priorities: only with surgery = 'none'")
        return self


class MultiTask(DescribedLearner):
    """Features of a conditioned trunk, and a head for each task, gathered by the row's index.

    φ is the index and what the conditioning adds. The heads are padded to the widest; a padded column is always 0.
    """

    options = MultiTaskOptions
    targets = ("class", "number")
    labels = ("open", "fixed")
    encodes = False
    invariant: tuple[Law, ...] = ()
    descriptors: tuple[Descriptor, ...] = ("id",)
    scale: Tensor
    bound: Tensor
    offset: Tensor

    def __init__(self, readers: Sequence[Reader], fields: Sequence[RecordField], options: MultiTaskOptions) -> None:
        super().__init__()
        self.readers = tuple(readers)
        self.settings = options
        self.ways = max(reader.columns[1] for reader in readers)
        self.encoder: nn.Module = nn.Identity()
        if fields:
            self.encoder = RecordEncoder(fields, bins=options.bins, embedding=options.embedding)
        inputs = self.encoder.width if isinstance(self.encoder, RecordEncoder) else None
        self.trunk = make_conditioning(options, inputs, len(readers))
        width = self.trunk.width
        self.head = nn.Parameter(torch.randn(len(readers), width, self.ways) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(readers), self.ways))
        self.register_buffer("scale", torch.stack([_own_columns(reader, self.ways) for reader in readers]))
        self.register_buffer("bound", torch.stack([_bounds(reader, self.ways) for reader in readers]))
        self.register_buffer("offset", torch.zeros(len(readers), self.ways))
        if options.weighting == "uncertainty":
            self.log_variances = nn.Parameter(torch.zeros(len(readers)))

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: Any
    ) -> "MultiTask":
        """See `Learner`: not without tasks.

        Raises:
            ConfigInvalid: always; `datasets.build` makes it, from the tasks of the data set.
        """
        raise ConfigInvalid("learner.method: multi-task is for data sets of known tasks")

    def fit_units(self, task: int, mean: float, deviation: float) -> None:
        """Learn the numbers of a task in units of `deviation`, from `mean`; answers stay in the caller's units."""
        first = self.readers[task].columns[0]
        self.scale[task, first], self.offset[task, first] = deviation, mean
        self.offset[task, first + 1] = 2 * torch.log(torch.tensor(deviation)).item()

    def unit(self, task: int) -> float:
        """The unit in which a task's numbers are learned."""
        return float(self.scale[task, self.readers[task].columns[0]])

    def describe(self, kind: Descriptor, descriptor: Tensors) -> dict[str, Tensor]:
        """See `DescribedLearner`: the index `task [batch, 1]`, and the tensors of the conditioning."""
        index = descriptor["index"]
        return {INDEX: index.unsqueeze(-1), **self.trunk.state(index)}

    def encode(self, inputs: Tensors) -> dict[str, Tensor]:
        """What of the trunk no task touches, by name; the inputs where that is nothing."""
        found = self.trunk.encode(self.encoder(inputs["x"]))
        # An exported graph cannot give a tensor under the name of one that it takes.
        return {RECORD: found["x"]} if "x" in found and isinstance(self.encoder, RecordEncoder) else found

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """The columns `[row, 1, columns]` of each row's task, for features and states `[row, …]`."""
        given = {"x": features[RECORD]} if RECORD in features else features
        found, index = self.trunk(given, state), state[INDEX][:, 0]
        found = F.dropout(found, self.settings.dropout, self.training)
        columns = (found.unsqueeze(1) @ self.head[index]).squeeze(1) + self.bias[index]
        bound = self.bound[index]
        columns = torch.maximum(torch.minimum(columns, bound), -bound)
        return (columns * self.scale[index] + self.offset[index]).unsqueeze(1)

    def own_parameters(self) -> list[nn.Parameter]:
        """The trained parameters that not every task uses."""
        shared = {id(value) for value in self.trunk.shared()}
        return [value for value in self.parameters() if id(value) not in shared]


def make_conditioning(options: MultiTaskOptions, inputs: int | None, tasks: int) -> Conditioning:
    """The trunk that options name, for pictures (`inputs` is None) or vectors, and so many tasks."""
    name = options.conditioning
    beside = options.beside if name == "concatenation" else 0
    form = form_of(inputs, filters=options.filters, hidden=options.hidden, width=options.width, beside=beside)
    if name == "independent":
        return Independent(form, tasks)
    if name == "multi-head":
        return Shared(form)
    if name == "concatenation":
        return Concatenation(form, tasks, beside)
    if name == "addition":
        return Addition(form, tasks)
    if name == "film":
        return Film(form, tasks)
    if name == "mmoe":
        return MixtureOfExperts(form, tasks, options.experts)
    return CrossStitch(form, tasks, options.columns)


def _own_columns(reader: Reader, columns: int) -> Tensor:
    """1 for the columns that a task reads, 0 for the others."""
    place = torch.arange(columns)
    return ((place >= reader.columns[0]) & (place < reader.columns[1])).float()


def _bounds(reader: Reader, columns: int) -> Tensor:
    """How far from 0 a column may be: a log-variance no further than what float32 can raise to a variance."""
    found = torch.full((columns,), UNBOUNDED)
    if reader.kind == "number":
        found[reader.columns[0] + 1] = LOG_VARIANCE
    return found
