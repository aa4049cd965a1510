"""What every method of learning offers, whatever its family."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from .errors import ConfigInvalid

if TYPE_CHECKING:
    from .tasks import Episodes

Tensors = Mapping[str, Tensor]
"""Named tensors: the inputs, features, statistics or state of a batch."""

Target = Literal["class", "number"]
Law = Literal["order", "labels"]
Labels = Literal["open", "fixed"]
Descriptor = Literal["id", "metadata", "text"]
Kind = Literal["class", "labels", "number"]


class Options(BaseModel):
    """The settings of one method, in the section `[learner.options]` of a config; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Learner(nn.Module, ABC):
    """A model trained across tasks: features of an input, a state of a task, predictions from both.

    Every method is pure and batched. `batch` runs over inputs, `task` over support sets, `example` over the
    examples of one support set. `weight` is float32 `[task, example]`, 0 for an absent example (padding)
    and 1 for a present one. `y` has no meaning where the weight is 0; elsewhere it is, by `target`:

    - `class`: int64 `[task, example]`, a way in `0..ways-1`;
    - `number`: float32 `[task, example, 1]`, in the caller's units.

    A learner is one of the kinds below: its state comes from statistics that add up, from the examples at once, or
    from the examples by a number of equal steps.

    Attributes:
        options: The type of the method's own settings.
        targets: What the method can predict.
        labels: Which labels the method can have. Open: the support set names them, so a way without examples is
            never answered. Fixed: they mean the same in every task, so every way may be answered, and an empty
            support set gives the base model.
        encodes: Whether the method stands on an encoder; else a network of its own stands on the raw input.
        target: What this learner predicts.
        fixed: Whether this learner's labels are fixed.
        invariant: What does not change an answer: the `order` of the support set; the `labels`, that is, which
            way stands for which label.
        ways: Ways that a task state holds; a task with fewer leaves the others absent. 1 for numbers.
        examples: Examples that a state can hold, where it holds them; None: any number.
    """

    options: ClassVar[type[Options]] = Options
    targets: ClassVar[tuple[Target, ...]] = ("class",)
    labels: ClassVar[tuple[Labels, ...]] = ("open",)
    encodes: ClassVar[bool] = True
    invariant: tuple[Law, ...] = ("order", "labels")
    target: Target = "class"
    fixed: bool = False
    ways: int
    examples: int | None = None

    @classmethod
    @abstractmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: Any
    ) -> "Learner":
        """A learner with fresh weights on an encoder.

        Args:
            encoder: Gives features `[batch, width]` of an input `x [batch, *input]`, and states its `width`.
            ways: Ways that a state holds; not used for numbers.
            examples: Examples that a state holds, by methods whose state holds them or whose graph depends on it.
            target: What to predict.
            fixed: Whether labels are fixed.
            options: The method's own settings, of the type `cls.options`.

        Raises:
            ConfigInvalid: the method cannot predict that, or not with such labels.
        """

    @classmethod
    def require(cls, target: Target, *, fixed: bool) -> None:
        """Refuse what the method cannot do: see `make`."""
        if target not in cls.targets:
            raise ConfigInvalid(f"{cls.__name__} predicts {' or '.join(cls.targets)}, not {target}")
        labels: Labels = "fixed" if fixed else "open"
        if target == "class" and labels not in cls.labels:
            raise ConfigInvalid(f"{cls.__name__} takes {' or '.join(cls.labels)} labels, not {labels} ones")

    @abstractmethod
    def encode(self, inputs: Tensors) -> Tensors:
        """Features of shape `[batch, *feature]` of inputs of shape `[batch, *input]`."""

    @abstractmethod
    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """The task state φ, of shape `[task, *state]`, of support sets with features `[task, example, *feature]`."""

    @abstractmethod
    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """Logits `[..., member, way]`, or mean and log-variance `[..., member, 2]` of a number.

        The leading axes of `features` and `state` broadcast.
        """

    def loss(self, episodes: "Episodes") -> Tensor:
        """What training lowers, a scalar: the negative log-likelihood of the queries, unless a method has its own."""
        from .tasks import episode_loss  # noqa: PLC0415 (it is defined on learners)

        return episode_loss(self, episodes)

    def backward(self, episodes: "Episodes") -> float:
        """Gradients added to `grad` of the parameters, for the optimizer to follow; the loss, for people."""
        loss = self.loss(episodes)
        if loss.requires_grad:  # a method such as a linear probe has nothing to train
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        return loss.item()


class AdditiveLearner(Learner):
    """A learner whose state depends on the support set through statistics that add up over examples."""

    @abstractmethod
    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """Statistics `[task, *statistic]`, additive over examples, of features `[task, example, *feature]`."""

    @abstractmethod
    def adapt(self, statistics: Tensors) -> Tensors:
        """The task state φ, of shape `[task, *state]`, of the statistics of its support set."""

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See `Learner`."""
        return self.adapt(self.summarise(features, y, weight))


class IterativeLearner(Learner):
    """A learner whose state comes from equal steps on the support set, such as steps of gradient descent.

    The export makes one graph of `step` and runs it in a loop of `steps` turns inside `adapt.onnx`.

    Attributes:
        steps: Turns of the loop, a constant of the bundle.
    """

    steps: int

    @abstractmethod
    def begin(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """The state before the first step, float32 `[task, *state]`."""

    @abstractmethod
    def step(self, features: Tensors, y: Tensor, weight: Tensor, state: Tensors) -> Tensors:
        """The state after one more step: the names and shapes of `state`."""

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See `Learner`."""
        state = self.begin(features, y, weight)
        for _ in range(self.steps):
            state = self.step(features, y, weight, state)
        return state


@dataclass(frozen=True, slots=True)
class Reader:
    """A task that a model knows without examples, and how its columns of an answer are read.

    Attributes:
        id: What a request names it by.
        kind: `class`: one of the labels, by softmax; `labels`: any of them, by sigmoids; `number`: mean and
            log-variance.
        columns: The first column, and the one past the last.
        labels: One for each column; none for numbers.
        shots: Training examples, of the rarest label where there are labels.
        metadata: The record that means the same task, if any.
        text: The words that mean the same task, if any.
        description: One line for people.
    """

    id: str
    kind: Kind
    columns: tuple[int, int]
    labels: tuple[str, ...] = ()
    shots: float = 0.0
    metadata: Mapping[str, str | float] = field(default_factory=dict)
    text: str | None = None
    description: str | None = None


class DescribedLearner(Learner):
    """A learner that knows tasks by what describes them: an id, a record of metadata, or a text.

    `predict` gives the columns of all readers, `[..., member, columns]`; each task reads its own.

    Attributes:
        readers: The known tasks, by index.
        descriptors: What may describe a task; `id` is always there.
        beside_id: Whether metadata stand beside an id, which says what is asked.
        learns: Whether a support set adapts the described state: then `adapted` is there.
    """

    readers: tuple[Reader, ...] = ()
    descriptors: tuple[Descriptor, ...] = ("id",)
    beside_id: bool = False
    learns: bool = False

    @abstractmethod
    def describe(self, kind: Descriptor, descriptor: Tensors) -> Tensors:
        """The task state φ, `[batch, *state]`, of descriptors.

        Args:
            kind: Which of `descriptors`.
            descriptor: By kind: `index` int64 `[batch]`; `metadata` float32 `[batch, fields]`, and `index` where
                `beside_id`; `text` int64 `[batch, tokens]`, padded with 0.
        """

    def adapted(self, prior: Tensors, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """The state of support sets, from the described states `[task, *state]`; see `Learner.state` for the others.

        Raises:
            ConfigInvalid: the method learns from no support set.
        """
        raise ConfigInvalid(f"{type(self).__name__} learns from no support set")

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """The state of support sets with no task named: from that of the first reader."""
        index = weight.new_zeros(weight.shape[0], dtype=torch.int64)
        return self.adapted(self.describe("id", {"index": index}), features, y, weight)
