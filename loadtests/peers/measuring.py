"""The runs of the comparison: every server in turn, for every repetition, under the same bodies."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from loadtests.client import Request, pool
from loadtests.peers import graphs, wrk
from loadtests.peers.bundles import decimals, labelled, queries, session, softmax
from loadtests.peers.catalogue import (
    OURS,
    PERSONAL,
    PLAIN,
    VARIANTS,
    WIDTHS,
    Setting,
    Workload,
    body_of,
    user_name,
)
from loadtests.peers.environments import NotInstalled, python
from loadtests.peers.graphs import Array
from loadtests.peers.servers import ServerFailed, Up, ours, peer
from loadtests.tree import cpu_s, pss_mb

QUERIES = 64
"""Different inputs that are sent."""

CHECKED = 3
WARM_UP, WARM_UP_OF_USERS = (16, 1.0), (64, 4.0)
"""Connections and seconds, once for each server that is started; every worker has to have seen every user."""

CONNECTIONS_TO_MAKE = 8
ATTEMPTS = 2
"""To start a server and measure it: a port that was free may be taken a moment later."""

Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A server to start for a model.

    Attributes:
        default: Whether the setting is one that is compared; ours has others beside, which the default is held to.
    """

    setting: Setting
    model: str
    start: Callable[[], AbstractContextManager[Up]]
    default: bool = True


@dataclass
class Plan:
    """What one command measures.

    Attributes:
        made: The folder with graphs and bundles.
        environments: The folder with the peers' environments.
        failures: What could not be installed, started or checked, by setting and model.
    """

    made: Path
    environments: Path
    work: Path
    workloads: Sequence[Workload]
    seconds: float
    repetitions: int
    users: int
    workers: int
    settings: Callable[[Setting], bool]
    failures: dict[str, str] = field(default_factory=dict)

    def jobs(self) -> Iterator[Job]:
        """Every server, ours first, for every model that a workload asks."""
        for model in dict.fromkeys(work.model for work in self.workloads):
            personal = model.endswith("heads")
            ourselves = [("defaults", ()), *([] if personal else VARIANTS.items())]
            for name, flags in ourselves:
                setting = Setting(OURS, name)
                if self.settings(setting):
                    yield Job(setting, model, self._ours(model, tuple(flags)), default=name == "defaults")
            for setting in PERSONAL if personal else PLAIN:
                if self.settings(setting):
                    yield from self._peer(setting, model)

    def _ours(self, model: str, flags: tuple[str, ...]) -> Callable[[], AbstractContextManager[Up]]:
        home = self.work / model
        home.mkdir(exist_ok=True)
        return partial(ours, self.made / "bundles", model, home, flags=flags, workers=self.workers)

    def _peer(self, setting: Setting, model: str) -> Iterator[Job]:
        try:
            found = python(self.environments, setting.peer)
        except NotInstalled as error:
            self.failures[f"{setting.title}: {model}"] = f"not installed: {error}"
            return
        yield Job(setting, model, partial(peer, setting, found, self.made / "graphs", model))


def measure(plan: Plan) -> list[Run]:
    """The figures of every run. A server that fails twice on end is left out from then on, and told."""
    jobs, found = list(plan.jobs()), []
    for repetition in range(plan.repetitions):
        for job in jobs:
            if _name(job) not in plan.failures:
                found += _tried(job, plan, repetition)
    return found


def _tried(job: Job, plan: Plan, repetition: int) -> list[Run]:
    for _ in range(ATTEMPTS):
        try:
            return list(runs_of(job, plan, repetition))
        except ServerFailed as error:
            told = str(error)
            print(f"{_name(job)}: {told}", file=sys.stderr)
    plan.failures[_name(job)] = told
    return []


def _name(job: Job) -> str:
    return f"{job.setting.title}: {job.model}"


def runs_of(job: Job, plan: Plan, repetition: int) -> Iterator[Run]:
    """Start the server, check what it answers, and send it every workload of its model."""
    asked = [work for work in plan.workloads if work.model == job.model and (work.form == "json" or is_ours(job))]
    if not job.default:  # what is beside the default is compared at the ends only
        asked = [work for work in asked if work.rows == 1 and work.form == "json"]
    if not asked:
        return
    with job.start() as up:
        if is_ours(job) and asked[0].personal:
            asyncio.run(make_users(up, job.model, plan.users))
        check(up, plan, job.model, personal=asked[0].personal)
        for place, work in enumerate(asked):
            target = target_of(up, work, plan, "bodies")
            if place == 0:
                warm_up(target, work)
            for connections in work.connections:
                if job.default or connections != 16:
                    yield one_run(up, job, work, target, connections, plan, repetition)


def target_of(up: Up, work: Workload, plan: Plan, name: str) -> wrk.Target:
    """Where and what a workload sends to a server; the bodies are written to a file of a name."""
    bodies = plan.work / name
    wrk.write_bodies(bodies, bodies_of(up.peer, work, plan.users))
    kind = "application/octet-stream" if work.form == "bytes" else "application/json"
    return wrk.Target(up.url, bodies, kind, up.key, "random" if work.personal else "round")


def warm_up(target: wrk.Target, work: Workload) -> None:
    """Ask a server for a while, every user in turn."""
    connections, seconds = WARM_UP_OF_USERS if work.personal else WARM_UP
    wrk.send(replace(target, order="round"), connections=connections, seconds=seconds)


def is_ours(job: Job) -> bool:
    """Whether it is our own server."""
    return job.setting.peer == OURS


def one_run(up: Up, job: Job, work: Workload, target: wrk.Target, connections: int, plan: Plan, repetition: int) -> Run:
    """The figures of one run."""
    before = cpu_s(up.pid)
    counted = wrk.send(target, connections=connections, seconds=plan.seconds, seed=repetition)
    cpu = cpu_s(up.pid) - before
    run = {
        "peer": up.peer,
        "setting": job.setting.title,
        "way": job.setting.way,
        "default": job.default,
        "workload": work.name,
        "connections": connections,
        "repetition": repetition,
        "requests_per_s": round(counted.requests_per_s, 1),
        "p50_ms": counted.p50_ms,
        "p99_ms": counted.p99_ms,
        "failed": counted.failed,
        "cpu_us": round(1e6 * cpu / max(1, counted.requests), 1),
        "pss_mb": round(pss_mb(up.pid), 1),
    }
    print(json.dumps(run), file=sys.stderr)
    return run


def bodies_of(peer_name: str, work: Workload, users: int) -> list[bytes]:
    """The bodies of a workload; of personal ones one for each user."""
    rows = queries(QUERIES, WIDTHS[work.model])
    if work.form == "bytes":
        return [row.tobytes() for row in rows]
    if work.personal:
        return [body_of(peer_name, [decimals(rows[user % QUERIES])], user) for user in range(users)]
    starts = range(0, QUERIES, work.rows)
    return [body_of(peer_name, [decimals(row) for row in rows[at : at + work.rows]], None) for at in starts]


async def make_users(up: Up, model: str, users: int) -> None:
    """Make the adaptations that are not there yet.

    Raises:
        ServerFailed: one is refused.
    """
    root = up.url.removesuffix("/predict")
    path = "/" + root.split("/", 3)[3]
    async with pool(up.url, most=CONNECTIONS_TO_MAKE, key=up.key) as send:
        last, _ = await send.send(Request("read", "GET", f"{path}/adaptations/{user_name(users - 1)}"))
        if last == 200:
            return

        async def make(user: int) -> None:
            shown = {"support": labelled(graphs.support(user, WIDTHS[model]))}
            body = json.dumps(shown).encode()
            status, answer = await send.send(Request("adapt", "PUT", f"{path}/adaptations/{user_name(user)}", body))
            if status not in (200, 201):
                raise ServerFailed(f"{user_name(user)}: {status} {answer[:300]!r}")

        for start in range(0, users, CONNECTIONS_TO_MAKE):
            await asyncio.gather(*map(make, range(start, min(users, start + CONNECTIONS_TO_MAKE))))


def check(up: Up, plan: Plan, model: str, *, personal: bool) -> None:
    """Hold the server's first answers to what the graphs give in this process.

    Raises:
        ServerFailed: an answer is wrong.
    """
    rows = queries(CHECKED, WIDTHS[model])
    if not personal:
        logits = session((plan.made / "graphs" / f"{model}.onnx").read_bytes()).run(None, {"x": rows})[0]
        up.check(rows, softmax(logits), None)
        return
    heads = np.load(plan.made / "graphs" / f"{model}.npz")
    features: Array = rows
    if model == "conv4-heads":
        features = session((plan.made / "graphs" / "trunk.onnx").read_bytes()).run(None, {"x": rows})[0]
    for user in (0, 1, plan.users // 2, plan.users - 1):
        up.check(rows, softmax(features @ heads["weight"][user].T + heads["bias"][user]), user)
