"""How long adaptation takes beside encoding: 5-way 5-shot, one thread, the median of 200 runs of each bundle's graphs.

    python loadtests/adapting.py bundles/glyphs-* --page docs/results/adapting.md

The baseline of a bundle with an encoder is encoding the 25 images of its own support set. The baseline of one that
adapts the whole network (named by `--maml`) is the same adaptation in eager torch on one thread, 5-way 1-shot.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from process import machine

RUNS = 200
WAYS, SHOTS = 5, 5


def session(path: Path) -> Any:
    """One thread, as the server runs graphs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def median_ms(run: Callable[[], object]) -> float:
    """The median of `RUNS` runs, after a few to warm up."""
    for _ in range(10):
        run()
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def inputs_of(manifest: dict[str, Any], rows: int) -> dict[str, np.ndarray]:
    """Random inputs as the encoder takes them."""
    generator = np.random.default_rng(0)
    return {name: generator.random((rows, *spec["axes"]), np.float32) for name, spec in manifest["inputs"].items()}


def measure(folder: Path, *, shots: int) -> dict[str, float]:
    """Milliseconds of encoding the images of a support set, and of adapting to what that gives."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    graphs = {name: session(folder / spec["file"]) for name, spec in manifest["graphs"].items()}
    features = inputs = inputs_of(manifest, WAYS * shots)
    if "encode" in graphs:
        names = [output.name for output in graphs["encode"].get_outputs()]
        features = dict(zip(names, graphs["encode"].run(names, inputs), strict=True))
    support = {f"{name}_s": value[None] for name, value in features.items()}
    support["y_s"] = np.arange(WAYS).repeat(shots)[None]
    support["weight_s"] = np.ones((1, WAYS * shots), np.float32)

    def adapt() -> object:
        given = support
        if "summarise" in graphs:
            statistics_names = [output.name for output in graphs["summarise"].get_outputs()]
            given = dict(zip(statistics_names, graphs["summarise"].run(statistics_names, support), strict=True))
        return graphs["adapt"].run(None, given)

    encode_ms = median_ms(lambda: graphs["encode"].run(None, inputs)) if "encode" in graphs else float("nan")
    return {"encode_ms": encode_ms, "adapt_ms": median_ms(adapt)}


def eager_maml_ms(folder: Path) -> float:
    """Milliseconds of the same adaptation, 5-way 1-shot, in eager torch on one thread.

    Four convolutions of stride 2 with fixed statistics, ReLU and a linear head, of the sizes in the bundle's state.
    """
    import torch  # noqa: PLC0415 (only this baseline needs it)
    from torch.nn import functional as F  # noqa: PLC0415

    torch.set_num_threads(1)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    steps, filters, blocks = loop_turns(folder), filters_of(manifest), 4
    generator = torch.Generator().manual_seed(0)
    channels = [1, *[filters] * (blocks - 1)]
    weights = [torch.randn(filters, c, 3, 3, generator=generator) / (3 * c**0.5) for c in channels]
    biases = [torch.zeros(filters) for _ in channels]
    head, start = torch.randn(WAYS, 4 * filters, generator=generator) / filters, torch.zeros(WAYS)
    x, y = torch.rand(WAYS, 1, 28, 28, generator=generator), torch.arange(WAYS)
    mean, variance = torch.zeros(filters), torch.ones(filters)

    def adapt() -> object:
        fast = [value.clone().requires_grad_() for value in (*weights, *biases, head, start)]
        for _ in range(steps):
            found = x
            for block in range(blocks):
                found = F.conv2d(found, fast[block], stride=2, padding=1)
                found = F.relu(F.batch_norm(found, mean, variance, bias=fast[blocks + block]))
            loss = F.cross_entropy(F.linear(found.flatten(1), fast[-2], fast[-1]), y)
            gradients = torch.autograd.grad(loss, fast)
            with torch.no_grad():
                fast = [(value - 0.1 * slope).requires_grad_() for value, slope in zip(fast, gradients, strict=True)]
        return fast

    return median_ms(adapt)


def filters_of(manifest: dict[str, Any]) -> int:
    """Filters of the network that the state holds: of its second convolution, `[9 * filters, filters]`."""
    return int(manifest["state"]["conv2"]["axes"][-1])


def loop_turns(folder: Path) -> int:
    """Steps of the loop inside adapt.onnx."""
    import onnx  # noqa: PLC0415 (only this baseline needs it)
    from onnx import numpy_helper  # noqa: PLC0415

    graph = onnx.load(str(folder / "adapt.onnx")).graph
    (loop,) = [node for node in graph.node if node.op_type == "Loop"]
    constants = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    return int(constants[loop.input[0]])


def main() -> None:
    """Measure, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="*", help="folders <model>, version 1 of each")
    parser.add_argument("--maml", type=Path, action="append", default=[], help="folders whose whole network adapts")
    parser.add_argument("--page", type=Path, help="also write the table as a page")
    arguments = parser.parse_args()
    lines = ["| bundle | encode 25 images, ms | adapt, ms | adapt / encode |", "| --- | ---: | ---: | ---: |"]
    for model in arguments.bundles:
        found = measure(model / "1", shots=SHOTS)
        ratio = found["adapt_ms"] / found["encode_ms"]
        lines.append(f"| `{model.name}` | {found['encode_ms']:.2f} | {found['adapt_ms']:.3f} | {ratio:.3f} |")
    if arguments.maml:
        lines += [
            "",
            "| bundle, 5-way 1-shot | adapt, ms | eager torch, ms | adapt / eager |",
            "| --- | ---: | ---: | ---: |",
        ]
    for model in arguments.maml:
        found, eager = measure(model / "1", shots=1), eager_maml_ms(model / "1")
        lines.append(f"| `{model.name}` | {found['adapt_ms']:.1f} | {eager:.1f} | {found['adapt_ms'] / eager:.2f} |")
    command = " ".join(["python", *sys.argv])
    how = f"one thread, 5-way 5-shot, the median of {RUNS} runs"
    head = ["# Time of adaptation", "", f"Written by `{command}` on {machine()}: {how}.", ""]
    text = "\n".join([*head, *lines, ""])
    print(text)
    if arguments.page:
        arguments.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
