"""What a load test must reach. Ratios within one run mean the same on every machine; milliseconds are only a bound."""

from collections.abc import Iterator, Mapping
from typing import Any

P99_MS = 250.0
"""Of an open loop at half of the capacity, on any machine that is not busy with something else."""

RATIOS = {
    "base, bytes": 0.95,
    "uniform users": 0.8,
    "zipf users": 0.8,
}
"""The least throughput in a closed loop, as a share of that of the workload that stands beside."""

CPU_RATIO = {"base, bytes": 1.1}
"""The most CPU time of a request, as a multiple of that of the workload beside."""

P99_RATIO = {"adapts among predictions": 4.0}
"""The most that the p99 of predictions may be, as a multiple of that of the workload beside."""


def missed(workloads: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What was not reached, in words."""
    for name, found in workloads.items():
        yield from _missed_alone(name, found)
        beside = workloads.get(found["beside"] or "")
        if beside is not None:
            yield from _missed_beside(name, found, beside)


def _missed_alone(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    for what, run in (("closed", found["closed"]), ("open", found["open"])):
        if run["failed"]:
            yield f"{name}, {what} loop: calls failed, by status: {run['failed']}"
    p99 = found["open"]["latency_ms"].get("p99")
    if p99 is None or p99 > P99_MS:
        yield f"{name}, open loop: p99 is {p99} ms, at most {P99_MS} are allowed"


def _missed_beside(name: str, found: Mapping[str, Any], beside: Mapping[str, Any]) -> Iterator[str]:
    if name in RATIOS:
        ratio = found["closed"]["requests_per_s"] / max(beside["closed"]["requests_per_s"], 1e-9)
        if ratio < RATIOS[name]:
            yield f"{name}: {ratio:.2f} of the throughput of {found['beside']}, at least {RATIOS[name]} is asked"
    if name in CPU_RATIO:
        ratio = found["closed"]["cpu_us_per_request"] / max(beside["closed"]["cpu_us_per_request"], 1e-9)
        if ratio > CPU_RATIO[name]:
            yield f"{name}: {ratio:.2f} of the CPU time of {found['beside']}, at most {CPU_RATIO[name]} is asked"
    if name in P99_RATIO:
        ratio = predictions_p99(found) / max(predictions_p99(beside), 1e-9)
        if ratio > P99_RATIO[name]:
            yield f"{name}: predictions' p99 is {ratio:.1f} × that of {found['beside']}, at most {P99_RATIO[name]}"


def predictions_p99(found: Mapping[str, Any]) -> float:
    """Of the open loop, in milliseconds; infinity where no prediction was answered."""
    run = found["open"]
    by_kind = run.get("latency_ms_by_kind", {"predict": run["latency_ms"]})
    return float(by_kind.get("predict", {}).get("p99", float("inf")))
