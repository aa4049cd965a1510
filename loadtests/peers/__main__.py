"""Side by side with other servers: the same graphs, the same load, in turn.

    python -m loadtests.peers --out docs/results/peers
    python -m loadtests.peers --only mosec --only handful --only MLP --seconds 1 --repetitions 1

    python -m loadtests.peers --table docs/results/peers.json --out docs/results/peers

With `--table` the runs in turn are those of an earlier command, and only what is compared is asked again, by turns.

The environments of the peers are made in `.peers/` of exactly the versions in `requirements/`; wrk has to be installed.
The exit code is 1 where a figure of the second step is not reached (of the first, where the second asks nothing), or a
server could not be measured.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtests.holding import provenance
from loadtests.peers import pages, wrk
from loadtests.peers.bundles import write
from loadtests.peers.catalogue import OURS, PERSONAL, PLAIN, WORKLOADS, Setting, Workload
from loadtests.peers.comparing import Held, Medians, Rounds, held_to, pairs_of
from loadtests.peers.environments import version
from loadtests.peers.measuring import Plan, measure
from loadtests.peers.pairing import measure_pairs
from loadtests.process import worker_flags

PEERS = list(dict.fromkeys(setting.peer for setting in (*PLAIN, *PERSONAL)))
ROOT = Path(".peers")


def chosen(only: Sequence[str]) -> tuple[list[str], list[Workload]]:
    """The servers and the workloads that are named; all of a kind where none of the kind is.

    Raises:
        SystemExit: a name is neither.
    """
    works = [work for work in WORKLOADS if work.name in only]
    servers = [name for name in (OURS, *PEERS) if name in only]
    unknown = set(only) - {work.name for work in works} - set(servers)
    if unknown:
        names = [OURS, *PEERS, *(work.name for work in WORKLOADS)]
        raise SystemExit(f"{sorted(unknown)} is neither a server nor a workload; there are {names}")
    return servers or [OURS, *PEERS], works or list(WORKLOADS)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that was measured, and where."""
    result, started = provenance("peers"), time.monotonic()
    with planned(arguments) as plan:
        runs = measure(plan)
        rounds = measure_pairs(plan, pairs_of(Medians(runs)))
    return {
        **result,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "flags": worker_flags(arguments.workers),
        "seconds": arguments.seconds,
        "repetitions": arguments.repetitions,
        "users": arguments.users,
        "versions": {name: version(name) for name in PEERS},
        "failures": plan.failures,
        "runs": runs,
        "rounds": rounds,
    }


def again(arguments: argparse.Namespace) -> dict[str, Any]:
    """What an earlier command measured, with its pairs asked again now."""
    result, table = provenance("peers"), json.loads(arguments.table.read_text(encoding="utf-8"))
    arguments.users, arguments.seconds, arguments.repetitions = (
        table[name] for name in ("users", "seconds", "repetitions")
    )
    with planned(arguments) as plan:
        rounds = measure_pairs(plan, pairs_of(Medians(table["runs"])))
    of_table = {name: table[name] for name in result}
    return {**table, **result, "table": of_table, "rounds": rounds, "failures": {**table["failures"], **plan.failures}}


@contextmanager
def planned(arguments: argparse.Namespace) -> Iterator[Plan]:
    """What a command measures, with graphs, bundles and a folder to work in."""
    servers, works = chosen(arguments.only or [])
    made = ROOT / "made"
    write(made, arguments.users)

    def wanted(setting: Setting) -> bool:
        return setting.peer in servers

    with tempfile.TemporaryDirectory() as work:
        yield Plan(
            made=made,
            environments=ROOT,
            work=Path(work),
            workloads=works,
            seconds=arguments.seconds,
            repetitions=arguments.repetitions,
            users=arguments.users,
            workers=arguments.workers,
            settings=wanted,
        )


def as_dict(one: Held) -> dict[str, Any]:
    """A figure and its bounds for the JSON file."""
    steps = {step: {"asked": getattr(one.bound, step), "reached": one.reached(step)} for step in ("first", "second")}
    return {"what": one.what, "value": one.value, "at_most": one.bound.at_most, **steps}


def missed(held: Sequence[Held]) -> list[str]:
    """What was measured and not reached, of the last step that asks something."""
    lines = []
    for one in held:
        step = "first" if one.bound.second is None else "second"
        if one.reached(step) is False:
            asked = getattr(one.bound, step)
            lines.append(f"{one.what}: {one.value:.2f}, {'at most' if one.bound.at_most else 'at least'} {asked}")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write, and hold the figures to what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="a server or a workload; several times")
    parser.add_argument("--seconds", type=int, default=2, help="of each run (default: 2)")
    parser.add_argument("--repetitions", type=int, default=3, help="in which all take turns (default: 3)")
    parser.add_argument("--users", type=int, default=1000, help="with a head each (default: 1000)")
    parser.add_argument("--workers", type=int, default=2, help="processes of ours (default: 2)")
    parser.add_argument("--table", type=Path, help="the JSON of an earlier run: only pairs are asked")
    parser.add_argument("--out", type=Path, help="write PATH.md, PATH.png and PATH.json")
    arguments = parser.parse_args(argv)
    try:
        wrk.require()
    except wrk.WrkMissing as error:
        print(error, file=sys.stderr)
        return 2
    result = run(arguments) if arguments.table is None else again(arguments)
    medians = Medians(result["runs"])
    held = held_to(medians, Rounds(result["rounds"]))
    result["held_to"] = [as_dict(one) for one in held]
    text = pages.page(result, held, f"{arguments.out.name}.png" if arguments.out else "peers.png")
    print(text)
    if arguments.out:
        arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
        arguments.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        pages.draw_chart(medians, arguments.out.with_suffix(".png"))
    for line in [*missed(held), *(f"{name}: {why}" for name, why in result["failures"].items())]:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed(held) or result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
