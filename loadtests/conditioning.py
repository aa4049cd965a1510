"""What conditioning costs: graphs of 30 tasks against the bare graph of one task, and mixed rows against one task's.

    python loadtests/conditioning.py --page docs/results/conditioning.md

Graphs have fresh weights, for time does not depend on what they are; one thread, batches of `--rows` rows. Variants
take turns, so that a machine that slows down slows all of them; a ratio is the median over rounds. The bare graph is
the same trunk with one linear head, exported alone; «of as many networks» has the experts or columns that a row runs
through, averaged. Sorting is 30 bare graphs, one a task, each run on the rows of its task. Conditioned rows run as in
the server: states are gathered for one graph, which is encode and predict in one. Through HTTP a call has 30 rows of
one input, of 30 tasks or of one, on a shipped bundle.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import onnxruntime
import torch
from process import machine, server
from torch import Tensor, nn

from handful_export.described_graphs import described_edges, export_described_graphs
from handful_export.graphs import exported
from handful_models.banks import Bank
from handful_models.conditioning import form_of
from handful_models.learner import Descriptor, Reader
from handful_models.multitask import ConditioningName, MultiTask, MultiTaskOptions
from handful_models.record_encoder import RecordField
from handful_service.engine.joining import joined

TASKS, LABELS, NUMBERS = 30, 20, 16
MIXTURES = ("mmoe", "cross-stitch")
"""Conditionings in which a row of any task runs through several networks."""

TRUNKS: Mapping[str, dict[str, Any]] = {"MLP": {"hidden": (128,), "width": 64}, "Conv-4": {"filters": 32, "width": 128}}
SECONDS, CONNECTIONS, HTTP_ROUNDS = 3.0, 4, 4
BUNDLES = {"schools": "MLP", "alphabets": "Conv-4"}

Run = Callable[[], object]
Arrays = Mapping[str, np.ndarray]


class Bare(nn.Module):
    """One task, which nothing describes: a trunk of so many networks with the mean of their features, and a head."""

    def __init__(self, learner: MultiTask, networks: int) -> None:
        super().__init__()
        settings, self.encoder = learner.settings, learner.encoder
        inputs = getattr(learner.encoder, "width", None)
        form = form_of(inputs, filters=settings.filters, hidden=settings.hidden, width=settings.width)
        self.bank, self.head = Bank(form, networks), nn.Linear(form.width, LABELS)

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        """Logits `[row, label]`."""
        begin = self.bank.form.begin(self.encoder(inputs["x"]))
        values = begin.unsqueeze(0).expand(self.bank.networks, *(-1 for _ in begin.shape))
        return [self.head(self.bank.run(values, self.bank.everything()).flatten(2).mean(0))]


def learner_of(trunk: str, conditioning: str) -> MultiTask:
    """A learner of 30 tasks with fresh weights."""
    torch.manual_seed(0)
    labels = tuple(str(place) for place in range(LABELS))
    readers = [Reader(f"task-{place}", "class", (0, LABELS), labels) for place in range(TASKS)]
    fields = [RecordField(f"f{place}", "number") for place in range(NUMBERS)] if trunk == "MLP" else []
    options = MultiTaskOptions.model_validate({"conditioning": conditioning, **TRUNKS[trunk]})
    return MultiTask(readers, fields, options).eval()


def inputs_of(trunk: str, rows: int) -> np.ndarray:
    """Random inputs."""
    shape = (rows, NUMBERS) if trunk == "MLP" else (rows, 1, 28, 28)
    return np.random.default_rng(0).random(shape, np.float32)


def session(content: bytes) -> Any:
    """One thread, as the server runs graphs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@cache
def graphs_of(trunk: str, conditioning: str) -> dict[str, Any]:
    """The sessions of a learner's graphs; encode and predict are one, as in the server."""
    learner = learner_of(trunk, conditioning)
    kinds: dict[Descriptor, dict[str, Tensor]] = {"id": {"index": torch.arange(3)}}
    found = described_edges(learner, {"x": torch.from_numpy(inputs_of(trunk, 3))}, kinds)
    graphs = dict(export_described_graphs(learner, found, kinds))
    both = joined(graphs["encode"], graphs["predict"]) if "encode" in graphs else None
    if both is not None:
        del graphs["encode"]
        graphs["predict"] = both
    return {name: session(graph) for name, graph in graphs.items()}


def described_run(graphs: Mapping[str, Any], x: np.ndarray, index: np.ndarray) -> Run:
    """Taking the state of each row's task, encoding and predicting, as the server does."""
    table = _named(graphs["describe.id"], {"index": np.arange(TASKS, dtype=np.int64)})
    given = {"x": x}

    def run() -> object:
        features = _named(graphs["encode"], {"x": x}) if "encode" in graphs else given
        return _named(graphs["predict"], {**features, **{name: value[index] for name, value in table.items()}})

    return run


def _named(graph: Any, arrays: Arrays) -> dict[str, np.ndarray]:
    names = [output.name for output in graph.get_outputs()]
    return dict(zip(names, graph.run(names, dict(arrays)), strict=True))


def networks_of(learner: MultiTask) -> int:
    """Networks that a row runs through."""
    return learner.trunk.bank.networks if learner.settings.conditioning in MIXTURES else 1


@cache
def bare_graph(trunk: str, networks: int) -> bytes:
    """The graph of one task."""
    x = torch.from_numpy(inputs_of(trunk, 3))
    return exported(Bare(learner_of(trunk, "multi-head"), networks).eval(), {"x": x}, ["y"])


def bare_run(graph: Any, x: np.ndarray) -> Run:
    """The rows through one graph."""
    return lambda: graph.run(None, {"x": x})


def sorted_run(graphs: Sequence[Any], x: np.ndarray, index: np.ndarray) -> Run:
    """Rows sorted by task, the bare graph of each task on its rows, and the answers in the order of the rows."""

    def run() -> object:
        order = np.argsort(index, kind="stable")
        ends = np.searchsorted(index[order], np.arange(TASKS), side="right")
        y = np.empty((len(x), LABELS), np.float32)
        start = 0
        for graph, end in zip(graphs, ends.tolist(), strict=True):
            if end > start:
                places = order[start:end]
                y[places] = graph.run(None, {"x": x[places]})[0]
            start = end
        return y

    return run


def in_turns(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each variant in each round, each after a run that warms caches which the others used."""
    for run in runs.values():
        for _ in range(5):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            started = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - started))
    return times


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratio in the same round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def graphs_table(trunk: str, rows: int, rounds: int) -> list[str]:
    """The lines on one trunk."""
    x, mixed = inputs_of(trunk, rows), np.random.default_rng(1).integers(TASKS, size=rows)
    one = np.zeros(rows, np.int64)
    bare = bare_graph(trunk, 1)
    alone, apart = session(bare), [session(bare) for _ in range(TASKS)]
    lines = [
        f"## {trunk}, {rows} rows", "",
        "| conditioning | mixed rows, ms | one task's rows, ms | bare, ms | bare of as many networks, ms | sorted, ms "
        "| throughput, mixed / one task's | cost, mixed / bare | / bare of as many networks | / sorted |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name in get_args(ConditioningName):
        graphs, networks = graphs_of(trunk, name), networks_of(learner_of(trunk, name))
        as_many = session(bare_graph(trunk, networks)) if networks > 1 else alone
        runs = {
            "mixed": described_run(graphs, x, mixed), "one": described_run(graphs, x, one),
            "bare": bare_run(alone, x), "as many": bare_run(as_many, x), "sorted": sorted_run(apart, x, mixed),
        }  # fmt: skip
        times = in_turns(runs, rounds)
        middle = {variant: f"{statistics.median(found):.3f}" for variant, found in times.items()}
        shares = [ratio(times["one"], times["mixed"])]
        shares += [ratio(times["mixed"], times[variant]) for variant in ("bare", "as many", "sorted")]
        lines.append(" | ".join([f"| {name}", *middle.values(), *(f"{share:.2f}" for share in shares)]) + " |")
    return [*lines, ""]


def rows_of(model: str, bundles: Path) -> list[dict[str, Any]]:
    """A row for each of the first 30 tasks of a shipped bundle, of one input."""
    folder = bundles / model / "1"
    value = json.loads((folder / "golden_requests.json").read_bytes())[0]["inputs"][0]
    ids = [task["id"] for task in json.loads((folder / "tasks.json").read_bytes())][:TASKS]
    return [{"input": value, "task": {"id": name}} for name in ids]


async def _rows_a_second(client: httpx.AsyncClient, model: str, rows: Sequence[Mapping[str, Any]]) -> float:
    body, done, until = json.dumps({"rows": list(rows)}), 0, time.monotonic() + SECONDS

    async def connection() -> None:
        nonlocal done
        while time.monotonic() < until:
            headers = {"Content-Type": "application/json"}
            answer = await client.post(f"/v1/models/{model}/predict", content=body, headers=headers)
            answer.raise_for_status()
            done += len(rows)

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return done / SECONDS


async def http_table(bundles: Path) -> list[str]:
    """The lines on calls of 30 rows."""
    lines = [
        f"## Through HTTP, calls of {TASKS} rows", "",
        f"| bundle | one task, rows/s | {TASKS} tasks, rows/s | ratio |", "| --- | ---: | ---: | ---: |",
    ]  # fmt: skip
    with server(bundles=str(bundles)) as running:
        async with httpx.AsyncClient(base_url=running.url, timeout=30) as client:
            for model, trunk in BUNDLES.items():
                mixed = rows_of(model, bundles)
                one = [mixed[-1]] * len(mixed)
                rounds = [
                    (await _rows_a_second(client, model, one), await _rows_a_second(client, model, mixed))
                    for _ in range(HTTP_ROUNDS)
                ]
                alone, many = (statistics.median(column) for column in zip(*rounds, strict=True))
                share = statistics.median(b / a for a, b in rounds)
                lines.append(f"| `{model}`, {trunk} | {alone:.0f} | {many:.0f} | {share:.2f} |")
    return [*lines, ""]


def main() -> None:
    """Measure, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256], help="of a batch (default: 64 256)")
    parser.add_argument("--rounds", type=int, default=100, help="of a median (default: 100)")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="model repository (default: bundles)")
    parser.add_argument("--page", type=Path, help="also write the tables as a page")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    command = " ".join(["python", *sys.argv])
    lines = [
        "# What conditioning costs", "",
        f"Written by `{command}` on {machine()}: {TASKS} tasks, one thread, medians of {arguments.rounds} rounds in "
        "which the variants take turns.", "",
    ]  # fmt: skip
    for trunk in TRUNKS:
        lines += [line for rows in arguments.rows for line in graphs_table(trunk, rows, arguments.rounds)]
    lines += asyncio.run(http_table(arguments.bundles))
    text = "\n".join(lines)
    print(text)
    if arguments.page:
        arguments.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
