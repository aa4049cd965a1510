"""The graphs of one bundle as ONNX Runtime's sessions: checked against their golden vectors, and run."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..bundle.bundle import GOLDEN, Bundle, Golden
from ..bundle.manifest import GraphName
from ..bundle.signature import BATCH, Signature
from ..errors import BundleInvalid, SignatureMismatch
from ..task import Array, Arrays
from .joining import joined
from .runtime import RuntimeSettings, make_session

log = logging.getLogger("handful.service")

JOINED = "encode+predict"
"""The graph that is both in one, where there is one."""

SLOW_S = 0.5
"""A golden run that takes longer is not timed again: a start should not take twice as long for that."""

OFTEN = 64
"""Batches after which encode and predict are joined: a session takes memory and time, and most bundles rest."""


class Graphs:
    """The sessions of one bundle. They may be run from any thread.

    Args:
        bundle: A checked bundle.
        settings: What sessions run with.

    Attributes:
        encodes: Whether inputs are encoded; else they are the features themselves.
    """

    def __init__(self, bundle: Bundle, settings: RuntimeSettings) -> None:
        self._bundle, self._settings = bundle, settings
        self._answered, self._joining = 0, False
        self._sessions: dict[str, Any] = {}
        self._outputs: dict[str, Sequence[str]] = {}
        for name, graph in bundle.manifest.graphs.items():
            self._sessions[name] = make_session(bundle.graph(name), file=graph.file, settings=settings)
            self._outputs[name] = list(bundle.signatures[name][1].tensors)
        self.encodes = "encode" in self._sessions

    def join(self) -> None:
        """Make one graph of encode and predict, where the two can be joined and give what they give apart."""
        content = joined(self._bundle.graph("encode"), self._bundle.graph("predict")) if self.encodes else None
        if content is None:
            return
        self._outputs[JOINED] = [*self._outputs["encode"], *self._outputs["predict"]]
        try:
            session = make_session(content, file=JOINED, settings=self._settings)
            differs = self._differs(session)
        except Exception as error:  # see `_check`; the two graphs go on answering
            log.warning("encode and predict are run apart", extra={"model": self._bundle.name, "why": str(error)})
            return
        if differs:
            log.warning("encode and predict are run apart", extra={"model": self._bundle.name, "why": "other numbers"})
        else:
            self._sessions[JOINED] = session

    def run(self, graph: str, feed: Arrays, rows: int) -> Arrays:
        """The outputs of a graph, each `[rows, …]`, for inputs by name."""
        names = self._outputs[graph]
        outputs = dict(zip(names, self._sessions[graph].run(names, feed), strict=True))
        for name, array in outputs.items():
            if len(array) != rows:
                raise RuntimeError(f"{graph}: {rows} rows in, {len(array)} rows of {name} out")
        return outputs

    def encode_and_predict(self, inputs: Arrays, states: Arrays, rows: int) -> tuple[Arrays, Array]:
        """The features of `n` inputs, each `[n, …]`, and `y`, float32 `[n, member, column]`, under as many states.

        Where nothing is encoded, no features are told: they are the inputs, which were looked at when they came.

        A bundle that is asked often gets one graph for both, made in a thread meanwhile.
        """
        self._answered += 1
        if self._answered >= OFTEN and self.encodes and not self._joining:
            self._joining = True
            threading.Thread(target=self.join, name="handful-join", daemon=True).start()
        if JOINED in self._sessions:
            found = self.run(JOINED, {**states, **inputs}, rows)
            return {name: found[name] for name in self._bundle.manifest.features}, found["y"]
        if not self.encodes:
            return {}, self.run("predict", {**states, **inputs}, rows)["y"]
        features = self.run("encode", inputs, rows)
        return features, self.run("predict", {**states, **features}, rows)["y"]

    def check_golden(self) -> dict[GraphName, tuple[int, float]]:
        """Run the golden inputs through every graph, which warms them up, too.

        Returns:
            The rows of work that each run had, and its seconds.

        Raises:
            BundleInvalid: a graph does not run, or an output differs by more than the graph's tolerance.
        """
        golden = self._bundle.golden()
        return {name: self._check(name, of_graph) for name, of_graph in golden.items()}

    def _check(self, name: GraphName, golden: Golden) -> tuple[int, float]:
        takes, gives = self._bundle.signatures[name]
        graph = self._bundle.manifest.graphs[name]
        rows = _golden_rows(takes, gives, golden)
        try:
            for _ in range(2):  # the first run may take many times as long as any later one
                started = time.perf_counter()
                outputs = self.run(name, dict(golden.inputs), rows)
                seconds = time.perf_counter() - started
                if seconds > SLOW_S:
                    break
            gives.check(outputs)
        except Exception as error:  # ONNX Runtime raises classes of its C++ binding without a common root
            raise BundleInvalid(f"cannot run its golden inputs: {error}", field=graph.file) from error
        for tensor, expected in golden.outputs.items():
            # NaN equals nothing here, so a graph that lost its numbers is refused.
            if not np.allclose(outputs[tensor], expected, rtol=graph.tolerance, atol=graph.tolerance):
                with np.errstate(invalid="ignore"):
                    difference = float(np.max(np.abs(outputs[tensor] - expected)))
                what = f"{tensor} differs from its golden value by {difference:.3g}"
                raise BundleInvalid(what, field=graph.file, allowed=f"{graph.tolerance:g}")
        return _work_rows(golden, rows), seconds

    def _differs(self, session: Any) -> bool:
        """Whether a joined graph gives other numbers for the golden inputs than the two that it was made of."""
        golden, manifest = self._bundle.golden(), self._bundle.manifest
        encode, predict = golden["encode"].inputs, golden["predict"].inputs
        rows = min(len(array) for array in (*encode.values(), *predict.values()))
        inputs = {name: array[:rows] for name, array in encode.items()}
        states = {name: array[:rows] for name, array in predict.items() if name not in manifest.features}
        features = self.run("encode", inputs, rows)
        expected = {**features, "y": self.run("predict", {**states, **features}, rows)["y"]}
        names = self._outputs[JOINED]
        found = dict(zip(names, session.run(names, {**states, **inputs}), strict=True))
        tolerance = manifest.graphs["predict"].tolerance
        return not all(
            np.allclose(found[name], array, rtol=tolerance, atol=tolerance, equal_nan=True)
            for name, array in expected.items()
        )


def _golden_rows(takes: Signature, gives: Signature, golden: Golden) -> int:
    try:
        sizes, given = takes.check(golden.inputs), gives.check(golden.outputs)
    except SignatureMismatch as error:
        raise BundleInvalid(str(error), field=GOLDEN) from None
    if not sizes[BATCH] or sizes[BATCH] != given[BATCH]:
        raise BundleInvalid(f"has {sizes[BATCH]} rows in and {given[BATCH]} rows out", field=GOLDEN)
    return sizes[BATCH]


def _work_rows(golden: Golden, rows: int) -> int:
    """The rows that a batcher would count: of support sets, their examples."""
    return int(golden.inputs["y_s"].shape[1]) * rows if "y_s" in golden.inputs else rows
