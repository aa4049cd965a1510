"""Golden requests: raw inputs whose answers the training pipeline wrote down; the service must give the same.

What describes a known task in other words must give its state, too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..bundle.bundle import GOLDEN_REQUESTS
from ..bundle.manifest import DESCRIBE_ID, DESCRIBE_METADATA, DESCRIBE_TEXT
from ..bundle.tasks import TASKS
from ..errors import BundleInvalid, HandfulError
from ..task import Arrays, Caller
from .decoding import Decoders
from .describing import check_named, decode_named, described_state
from .models import Served
from .predicting import PredictOptions, Predictor
from .reading import Answer, ClassAnswer, LabelsAnswer, NumberAnswer
from .refs import Ask, Base, BySupport, ByTask, Named, TaskRef
from .supports import Labelled

_KINDS = {ClassAnswer: "class", LabelsAnswer: "labels", NumberAnswer: "number"}
_CALLER = Caller(tenant="golden", scopes=frozenset({"predict"}))


async def check_golden_requests(predictor: Predictor, served: Served) -> None:
    """Answer every golden request of a bundle, and compare: scores, or numbers with their intervals.

    Raises:
        BundleInvalid: a request cannot be read or answered, or an answer differs by more than its tolerance.
    """
    for number, request in enumerate(served.bundle.golden_requests()):
        place = f"{GOLDEN_REQUESTS}[{number}]"
        try:
            ask, expected, tolerance = _read(request)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleInvalid(f"cannot be read: {error!r}", field=place) from error
        try:
            answers = await predictor.answer(_CALLER, served, ask, PredictOptions())
        except Exception as error:  # whatever it is, it is the bundle that brought it
            raise BundleInvalid(f"cannot be answered: {error}", field=place) from error
        if len(expected) != len(answers):
            raise BundleInvalid(f"has {len(expected)} answers", field=place, allowed=str(len(answers)))
        for want, got in zip(expected, answers, strict=True):
            _compare(want, got.answer, tolerance, place)


async def check_descriptors(served: Served, decoders: Decoders) -> None:
    """Hold the metadata and the text of every known task to the state of its id.

    Raises:
        BundleInvalid: one cannot be read, or gives another state than the id, by more than the graph's tolerance.
    """
    descriptors = served.manifest.descriptors
    beside = descriptors is not None and descriptors.metadata is not None and descriptors.metadata.beside_id
    for index, (name, task) in enumerate(served.bundle.known_tasks.items()):
        place = f"{TASKS}[{index}]"
        forms = {
            DESCRIBE_METADATA: Named(name if beside else None, metadata=task.metadata, field=place),
            DESCRIBE_TEXT: Named(text=task.text, field=place),
        }
        for graph, given in ((DESCRIBE_METADATA, task.metadata), (DESCRIBE_TEXT, task.text)):
            if given is not None:
                tolerance = max(served.manifest.graphs[key].tolerance for key in (DESCRIBE_ID, graph))
                found = await _phi(served, forms[graph], decoders)
                by_id = await _phi(served, Named(name, field=place), decoders)
                _compare_states(by_id, found, tolerance, f"{place}.{graph.partition('.')[2]}")


async def _phi(served: Served, named: Named, decoders: Decoders) -> Arrays:
    try:
        check_named(served, named)
        return (await described_state(served, await decode_named(served, named, decoders))).arrays
    except HandfulError as error:
        raise BundleInvalid(error.detail, field=error.field, allowed=error.allowed) from error


def _compare_states(want: Arrays, got: Arrays, tolerance: float, place: str) -> None:
    for name, array in want.items():
        exact = array.dtype.kind == "i"  # an index, of which no other is close
        if not np.allclose(got[name], array, rtol=0 if exact else tolerance, atol=0 if exact else tolerance):
            difference = float(np.max(np.abs(np.asarray(got[name], np.float64) - array)))
            raise BundleInvalid(
                f"gives a {name} that differs from that of the id by {difference:.3g}",
                field=place,
                allowed=f"{tolerance:g}",
            )


def _read(request: dict[str, Any]) -> tuple[Ask, list[tuple[str, Any]], float]:
    examples = tuple(
        Labelled(example["input"], example["label"], float(example.get("weight", 1.0)), f"support[{place}]")
        for place, example in enumerate(request.get("support", []))
    )
    inputs = tuple(request["inputs"])
    if not inputs:
        raise ValueError("no inputs")
    ask = Ask(inputs, tuple(f"inputs[{i}]" for i in range(len(inputs))), _task(request.get("task"), examples))
    return ask, [_wanted(answer) for answer in request["answers"]], float(request["tolerance"])


def _task(given: dict[str, Any] | None, examples: tuple[Labelled, ...]) -> TaskRef:
    if given is None:
        return BySupport(examples) if examples else Base()
    if not given or given.keys() - {"id", "ids", "metadata", "text"}:
        raise ValueError(f"a task of {sorted(given)}")
    metadata, text = given.get("metadata"), given.get("text")
    names = tuple(Named(name, metadata, text) for name in given.get("ids", [given.get("id")]))
    return BySupport(examples, named=names[0]) if examples else ByTask(names)


def _wanted(answer: dict[str, Any]) -> tuple[str, Any]:
    """The kind of an answer, and its scores by label, or its number with the two ends of the interval."""
    kind = answer.get("kind", "class")
    if kind == "number":
        low, high = answer["interval"]
        return kind, [float(answer["value"]), float(low), float(high)]
    return kind, {label: float(score) for label, score in answer["scores"].items()}


def _compare(want: tuple[str, Any], got: Answer, tolerance: float, place: str) -> None:
    kind, wanted = want
    if kind != _KINDS[type(got)]:
        raise BundleInvalid(
            "holds an answer of another kind", field=place, allowed=f"answers of kind {_KINDS[type(got)]}"
        )
    if isinstance(got, NumberAnswer):
        _compare_numbers(wanted, [got.value, *got.interval], tolerance, place)
    else:
        _compare_scores(wanted, got.scores or {}, tolerance, place)


def _compare_numbers(want: list[float], got: list[float], tolerance: float, place: str) -> None:
    for wanted, found in zip(want, got, strict=True):
        if not abs(wanted - found) <= tolerance * (1 + abs(wanted)):
            raise BundleInvalid(f"answered {found:.6g}", field=place, allowed=f"{wanted:.6g} within {tolerance:g}")


def _compare_scores(want: Mapping[str, float], got: Mapping[str, float], tolerance: float, place: str) -> None:
    if want.keys() != got.keys():
        raise BundleInvalid(f"answered with the labels {sorted(got)}", field=place, allowed=f"{sorted(want)}")
    worst = max(abs(want[label] - got[label]) for label in want)
    if not worst <= tolerance:
        raise BundleInvalid(f"a score differs by {worst:.3g}", field=place, allowed=f"{tolerance:g}")
