"""Two servers that are up beside each other and asked by turns, for ratios that a slow moment does not move.

The servers of a repetition are asked minutes apart, on a machine whose speed changes meanwhile. What is compared with
what is asked again in pairs: a second of one, a second of the other, the order changing from round to round, and the
order in which they start after half of the rounds.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from loadtests.peers import wrk
from loadtests.peers.catalogue import OURS, WORKLOADS, Workload
from loadtests.peers.comparing import Pair
from loadtests.peers.measuring import Job, Plan, check, make_users, target_of, warm_up
from loadtests.peers.servers import ServerFailed

ROUNDS, SECONDS = 10, 1

Round = dict[str, Any]


def measure_pairs(plan: Plan, pairs: Sequence[Pair]) -> list[Round]:
    """The rounds of every pair; one that cannot be measured is left out, and told."""
    jobs = {(job.setting.title, job.model): job for job in plan.jobs()}
    works = {work.name: work for work in WORKLOADS}
    found: list[Round] = []
    for pair in pairs:
        work = works[pair.workload]
        mine, other = jobs.get((f"{OURS}, defaults", work.model)), jobs.get((pair.other, work.model))
        if mine is None or other is None:
            continue
        try:
            found += list(_rounds(plan, pair, work, (mine, other)))
        except ServerFailed as error:
            plan.failures[f"{pair.other} in a pair: {pair.workload}, {pair.connections}"] = str(error)
    return found


def _rounds(plan: Plan, pair: Pair, work: Workload, jobs: Sequence[Job]) -> Iterator[Round]:
    for half, starts in enumerate(((0, 1), (1, 0))):  # of two that are alike, the one that starts later may be faster
        with ExitStack() as stack:
            targets = {place: _ready(stack, plan, work, jobs[place], place) for place in starts}
            for number in range(half, ROUNDS, 2):
                found: Round = {**asdict(pair), "round": number}
                for place in starts if number % 4 < 2 else reversed(starts):
                    one = wrk.send(targets[place], connections=pair.connections, seconds=SECONDS, seed=number)
                    figures = {"requests_per_s": round(one.requests_per_s, 1), "p99_ms": one.p99_ms}
                    found["mine" if place == 0 else "its"] = {**figures, "failed": one.failed}
                print(json.dumps(found), file=sys.stderr)
                yield found


def _ready(stack: ExitStack, plan: Plan, work: Workload, job: Job, place: int) -> wrk.Target:
    """A server that answers rightly, and is warm."""
    up = stack.enter_context(job.start())
    if work.personal and up.peer == OURS:
        asyncio.run(make_users(up, work.model, plan.users))
    check(up, plan, work.model, personal=work.personal)
    target = target_of(up, work, plan, f"bodies-{place}")
    warm_up(target, work)
    return target
