"""What every method of learning offers, whatever its family."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
"""Named tensors: the inputs, features, statistics or state of a batch."""


class Learner(nn.Module, ABC):
    """A model trained across tasks: features of an input, a state of a task, predictions from both.

    Every method is pure and batched. `batch` runs over inputs, `task` over support sets, `example` over the
    examples of one support set. `weight` is float32 `[task, example]`, 0 for an absent example (padding)
    and 1 for a present one; `y` is int64 `[task, example]`, a way in `0..ways-1`, and has no meaning where
    the weight is 0.

    A learner is one of the two kinds below: its state comes from statistics that add up, or from the examples.

    Attributes:
        ways: Ways that a task state holds; a task with fewer leaves the others absent.
        examples: Examples that a state can hold, where it holds them; None: any number.
    """

    ways: int
    examples: int | None = None

    @abstractmethod
    def encode(self, inputs: Tensors) -> Tensors:
        """Features of shape `[batch, *feature]` of inputs of shape `[batch, *input]`."""

    @abstractmethod
    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """The task state φ, of shape `[task, *state]`, of support sets with features `[task, example, *feature]`."""

    @abstractmethod
    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """Logits `[..., member, way]`; the leading axes of `features` and `state` broadcast."""


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
