"""What every method of learning offers, whatever its family."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

if TYPE_CHECKING:
    from .tasks import Episodes

Tensors = Mapping[str, Tensor]
"""Named tensors: the inputs, features, statistics or state of a batch."""

Target = Literal["class", "number"]
Law = Literal["order", "labels"]


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
        target: What this learner predicts.
        invariant: What does not change an answer: the `order` of the support set; the `labels`, that is, which
            way stands for which label.
        ways: Ways that a task state holds; a task with fewer leaves the others absent. 1 for numbers.
        examples: Examples that a state can hold, where it holds them; None: any number.
    """

    options: ClassVar[type[Options]] = Options
    targets: ClassVar[tuple[Target, ...]] = ("class",)
    invariant: tuple[Law, ...] = ("order", "labels")
    target: Target = "class"
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
