"""The outcome of a comparison as a Markdown page and a chart."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.holding import about as provenance_of
from loadtests.holding import number
from loadtests.peers.catalogue import OURS, WORKLOADS
from loadtests.peers.comparing import Held, Medians, Rounds, Run, is_peer, ratio

INTRODUCTION = """\
Every server answers the same graphs with the same weights, one example a request as JSON, over kept connections. wrk
sends on the same machine, with one thread. Requests a second, as the median over the repetitions, in which all servers
take turns; each was first held to the right answers, and warmed up for a second, or four where there are users. CPU
time and memory (PSS) are those of a server's whole tree of processes. Ours runs with its defaults and an API key in
every call; peers have none. A peer that batches is tried with batching and without, and the best setting at each number
of connections counts. Access logs are off everywhere.
"""


BY_TURNS = """\
The servers of a repetition are asked minutes apart, and the speed of a shared machine changes meanwhile. So all that is
compared below was asked again in pairs: both servers were up, and were asked for a second each, ten times, the order
changing from round to round, and once started in the other order. A ratio is the median over the rounds of the ratios
within a round.
"""


def page(result: Mapping[str, Any], held: Sequence[Held], chart: str) -> str:
    """The whole page."""
    medians = Medians(result["runs"])
    parts = [
        "# Side by side with other servers",
        about(result),
        INTRODUCTION,
        f"![Throughput of the best setting of each server]({chart})",
        "## One model for everyone",
        "\n".join(shared_table(medians)),
        "## A head for each user",
        f"{result['users']:,} users, each asked alike often, 64 connections.",
        "\n".join(personal_table(medians)),
        "## By turns",
        BY_TURNS,
        "\n".join(pairs_table(Rounds(result.get("rounds", ())))),
        "## Held to",
        "\n".join(held_table(held)),
        *failures(result["failures"]),
        "## Versions",
        "\n".join(f"- {name} {version}" for name, version in result["versions"].items()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def about(result: Mapping[str, Any]) -> str:
    """Where the figures come from."""
    table = result.get("table")
    how = f"{result['repetitions']} repetitions of {result['seconds']:g} s"
    flags = f"ours with the flags `{' '.join(result['flags']) or 'none'}`."
    if table is None:
        return f"{provenance_of(result)} {how}; {flags}"
    return f"{provenance_of(result)} Of it is what was asked by turns. The rest: {provenance_of(table)} {how}; {flags}"


def shared_table(medians: Medians) -> Iterator[str]:
    """Throughput of each setting, with cost and tail at 64 connections of the MLP."""
    columns = [(work.name, c) for work in WORKLOADS if not work.personal for c in work.connections]
    heads = [f"{name} / {connections}" for name, connections in columns]
    more = ["MLP / 64: p99 ms", "CPU µs", "PSS MB", "Conv-4 / 64: p99 ms", "CPU µs", "PSS MB", "failed"]
    yield f"| server | {' | '.join([*heads, *more])} |"
    yield f"| --- |{' ---: |' * (len(columns) + len(more))}"
    names = dict.fromkeys(row["setting"] for row in medians.rows if row["way"] == "shared")
    personal = {work.name for work in WORKLOADS if work.personal}
    for name in names:
        rows = {(row["workload"], row["connections"]): row for row in medians.rows if row["setting"] == name}
        if all(work in personal for work, _ in rows):
            continue
        cells = [cell(rows.get(column), "requests_per_s") for column in columns]
        for column in (("MLP", 64), ("Conv-4", 64)):
            cells += [cell(rows.get(column), figure) for figure in ("p99_ms", "cpu_us", "pss_mb")]
        failed = sum(row["failed"] for key, row in rows.items() if key in columns)
        yield f"| {name} | {' | '.join(cells)} | {failed} |"
    yield f"| **ours × the best peer** | {' | '.join(ratios(medians, columns))} |{' |' * len(more)}"


def ratios(medians: Medians, columns: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Our throughput as a multiple of that of the best setting of the best peer, for each column."""
    for work, connections in columns:
        found = ratio(medians.ours(work, connections), medians.best(work, connections, is_peer))
        yield "—" if found is None else f"**{found:.2f}**"


def personal_table(medians: Medians) -> Iterator[str]:
    """Throughput, tail, cost and memory of personal heads."""
    yield "| workload | server | requests/s | p50 ms | p99 ms | CPU µs | PSS MB | failed | ours × it |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for work in (work for work in WORKLOADS if work.personal):
        mine = medians.ours(work.name, 64)
        for row in sorted(medians.at(work.name, 64), key=lambda row: -float(row["requests_per_s"])):
            figures = [cell(row, name) for name in ("requests_per_s", "p50_ms", "p99_ms", "cpu_us", "pss_mb")]
            times = ratio(mine, row)
            beside = "—" if times is None or row is mine else f"{times:.2f}"
            yield f"| {work.name} | {row['setting']} | {' | '.join(figures)} | {row['failed']} | {beside} |"


def pairs_table(rounds: Rounds) -> Iterator[str]:
    """Every pair that was asked by turns: medians, and the ratios with the least and the most of the rounds."""
    yield "| workload | connections | beside | ours, requests/s | its | ours × it | from, to | p99 × its | failed |"
    yield "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for pair, found in rounds.pairs.items():
        both = [number(median(one[whose]["requests_per_s"] for one in found)) for whose in ("mine", "its")]
        times, late = rounds.ratios(pair), rounds.ratios(pair, "p99_ms")
        failed = sum(one[whose]["failed"] for one in found for whose in ("mine", "its"))
        ratios_ = f"**{median(times):.2f}** | {times[0]:.2f}, {times[-1]:.2f} | {median(late):.2f}"
        yield f"| {pair.workload} | {pair.connections} | {pair.other} | {' | '.join(both)} | {ratios_} | {failed} |"


def held_table(held: Sequence[Held]) -> Iterator[str]:
    """Every figure beside its bounds."""
    yield "| figure | measured | first step | | second step | |"
    yield "| --- | ---: | ---: | --- | ---: | --- |"
    for one in held:
        value = "not measured" if one.value is None else number(one.value)
        cells = []
        for step in ("first", "second"):
            asked, reached = getattr(one.bound, step), one.reached(step)
            sign = "≤" if one.bound.at_most else "≥"
            word = {True: "reached", False: "**not reached**", None: ""}[reached]
            cells += ["" if asked is None else f"{sign} {number(asked)}", word]
        yield f"| {one.what} | {value} | {' | '.join(cells)} |"


def failures(found: Mapping[str, str]) -> list[str]:
    """A section on servers that could not be installed, started or believed; empty where there is none."""
    if not found:
        return []
    return ["## Not measured", "\n".join(f"- {name}: `{why.replace('`', chr(39))}`" for name, why in found.items())]


def cell(row: Run | None, figure: str) -> str:
    """A figure of a row, or a dash."""
    return "—" if row is None else number(float(row[figure]))


WAYS = {"sessions": "a session a user", "gathered": "gathered by hand"}


def bars_of(medians: Medians, work: str, connections: int) -> dict[str, float]:
    """Throughput to draw: of the best setting of each server, and of each way to answer users with a head each."""
    found: dict[str, float] = {}
    for row in medians.at(work, connections):
        if row["default"]:
            name = "\n".join([row["peer"], *filter(None, [WAYS.get(row["way"])])])
            found[name] = max(found.get(name, 0.0), float(row["requests_per_s"]))
    return found


def draw_chart(medians: Medians, path: Path) -> None:
    """Throughput of the best setting of each server, by workload and number of connections."""
    import matplotlib as mpl  # noqa: PLC0415 (a second of import that only the chart needs)

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    panels = [(name, c) for name in ("MLP", "Conv-4") for c in (1, 16, 64)]
    panels += [(name, 64) for name in ("personal heads", "Conv-4, personal heads")]
    figure, axes = pyplot.subplots(3, 3, figsize=(13, 9))
    for axis, (work, connections) in zip(axes.flat, panels, strict=False):
        axis.set_title(f"{work}, {connections} connection{'s' if connections > 1 else ''}", fontsize=10)
        bars = bars_of(medians, work, connections)
        axis.barh(list(bars), list(bars.values()), color=["C1" if name.startswith(OURS) else "C0" for name in bars])
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    figure.supxlabel("requests/s")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
