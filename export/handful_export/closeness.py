"""What every check of the export gate compares: torch with ONNX Runtime, a row alone with a row among others."""

from dataclasses import dataclass, field

import numpy as np

from handful_service.bundle.manifest import GraphName
from handful_service.task import Arrays

from .errors import GateRefused
from .runner import Runner

PARITY = 1e-4
"""torch against ONNX, relative and absolute."""

SAME = 1e-5
"""Answers that must be the same: scores of a batch and alone, padded and not, permuted and not."""

OUTLIER = 1.0e4


@dataclass
class Report:
    """What the gate measured: by check, the largest difference or the figure found."""

    figures: dict[str, float] = field(default_factory=dict)

    def note(self, check: str, figure: float) -> None:
        """Keep the worst figure of a check."""
        self.figures[check] = max(self.figures.get(check, 0.0), float(figure))


class Comparing:
    """Comparisons that note the worst difference, and refuse what is too large.

    Args:
        torch: The learner.
        onnx: Its exported graphs.
    """

    def __init__(self, torch: Runner, onnx: Runner) -> None:
        self.report = Report()
        self._torch = torch
        self._onnx = onnx

    def _both_encode(self, inputs: Arrays) -> Arrays:
        return self._same("encode", inputs) if self._onnx.encodes else inputs

    def _same(self, graph: GraphName, arrays: Arrays) -> Arrays:
        """What torch gives, which ONNX Runtime gives, too."""
        expected, got = self._torch.run(graph, arrays), self._onnx.run(graph, arrays)
        for name, array in expected.items():
            self._close(f"parity of {graph}", array, got[name], PARITY)
        return expected

    def _apart(self, graph: GraphName, arrays: Arrays) -> None:
        """No row changes when the first becomes an outlier, nor when it is alone."""
        together = self._onnx.run(graph, arrays)
        wild = {name: array.copy() for name, array in arrays.items()}
        for array in wild.values():
            if array.dtype == np.float32:
                array[0] *= OUTLIER
        beside = self._onnx.run(graph, wild)
        for row in range(1, len(next(iter(arrays.values())))):
            alone = self._onnx.run(graph, {name: array[row : row + 1] for name, array in arrays.items()})
            for name, array in together.items():
                self._close(f"rows of {graph} apart", array[row], beside[name][row], SAME)
                self._close(f"rows of {graph} alone", array[row], alone[name][0], SAME)

    def _close(self, check: str, expected: np.ndarray, got: np.ndarray, tolerance: float) -> None:
        if expected.shape != got.shape:
            raise GateRefused(check, f"the shape is {got.shape}, expected {expected.shape}")
        difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
        allowed = tolerance * (1 + np.abs(expected.astype(np.float64)))
        worst = float((difference / allowed).max(initial=0.0)) * tolerance
        # A NaN on either side fails this comparison: it equals nothing.
        if not (difference <= allowed).all():
            raise GateRefused(check, f"differs by {worst:.3g} (relative and absolute), allowed is {tolerance:g}")
        self.report.note(check, worst)
