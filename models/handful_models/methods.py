"""The methods of learning, by the names that configs use."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import ValidationError
from torch import nn

from .errors import DataUnknown
from .learner import Learner, Target

METHODS = {
    "prototypes": "prototypes:Prototypes",
    "relation": "relation:Relation",
    "matching": "matching:Matching",
    "ridge": "ridge:Ridge",
    "logistic": "logistic:Logistic",
    "bayes": "bayes:Bayes",
    "described-bayes": "described_bayes:DescribedBayes",
    "mixed-readers": "mixed_readers:MixedReaders",
    "probe": "probe:Probe",
    "context": "context:Context",
    "hypernetwork": "hypernetwork:Hypernetwork",
    "transformer": "transformer:Transformer",
    "lstm": "lstm:Lstm",
    "snail": "snail:Snail",
    "neural-process": "neural_process:NeuralProcess",
    "ensemble": "ensemble:Ensemble",
    "anil": "anil:Anil",
    "meta-sgd": "meta_sgd:MetaSGD",
    "maml": "maml:MAML",
    "meta-sgd-network": "meta_sgd:MetaSGDNetwork",
    "reptile": "reptile:Reptile",
    "multi-task": "multitask:MultiTask",
}
"""By name, the module and the class in it: a module is imported when a config first names its method."""

DESCRIBED = ("multi-task",)
"""Those that know their tasks, by a descriptor; their data sets say what the tasks are."""


def method_class(name: str) -> type[Learner]:
    """The learner's class.

    Raises:
        DataUnknown: no such method.
    """
    if name not in METHODS:
        raise DataUnknown("method", name, sorted(METHODS))
    module, _, kind = METHODS[name].partition(":")
    found: type[Learner] = getattr(import_module(f".{module}", __package__), kind)
    return found


def check_method(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a method that is unknown, or settings that it does not have.

    Raises:
        DataUnknown: no such method.
        ValueError: a setting is unknown or out of range.
    """
    try:
        method_class(name).options.model_validate(dict(options))
    except ValidationError as error:
        lines = [f"options.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ValueError("; ".join(lines)) from None


def make_learner(
    name: str,
    encoder: nn.Module,
    options: Mapping[str, Any],
    *,
    ways: int,
    examples: int,
    target: Target,
    fixed: bool,
) -> Learner:
    """A learner with fresh weights around an encoder.

    Args:
        name: The method.
        encoder: Gives features `[batch, encoder.width]` of `x [batch, *input]`.
        options: The method's own settings.
        ways: Ways that a state holds.
        examples: Examples that a state holds, where it holds them.
        target: What is predicted.
        fixed: Whether the labels mean the same in every task, so that ways without examples are answered, too.

    Raises:
        DataUnknown: no such method, or it does not predict such a target.
    """
    kind = method_class(name)
    if target not in kind.targets:
        raise DataUnknown(f"target of {name}", target, kind.targets)
    settings = kind.options.model_validate(dict(options))
    return kind.make(encoder, ways=ways, examples=examples, target=target, fixed=fixed, options=settings)
