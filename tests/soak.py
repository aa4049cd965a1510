"""An isolation soak: users who contradict each other, all at once, through HTTP, every answer held against numpy.

Two tenants use the same ids. Each user has an owner, who replaces, extends, deletes and makes again its adaptation, one
change after the other, and cancels some of them halfway. Many readers predict meanwhile, some with short deadlines. A
read may show what was current at some moment between its start and its end, and nothing else.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from handful_service.app import create_app
from handful_service.auth import append_key
from handful_service.settings import Settings

from .tiny import Tiny
from .wire import Wire

POINTS = np.array([[3, 0, 0, 0], [0, 3, 0, 0.5], [0, 0, 3, 0]], np.float64)
QUERIES = [[0.4, 0.2, 0.1, 0.0], [0.1, 0.5, 0.2, 0.3], [0.2, 0.1, 0.6, 0.0], [0.3, 0.3, 0.2, 0.9]]
TENANTS = ("ann", "bob")
READERS, OWNERS = 40, 8
TOLERANCE = 1e-4

Send = Callable[[str, str, bytes, Sequence[tuple[bytes, bytes]]], Awaitable[tuple[int, bytes]]]
Only = tuple[bytes, bytes] | None
Support = tuple[tuple[tuple[float, ...], str], ...]
"""Rows and labels, in event order; empty where there is no adaptation."""


@dataclass
class Change:
    """What an owner did.

    Attributes:
        support: What the adaptation consists of after it.
        started: When it was sent.
        acked: When it was known to have happened; None where it was cancelled: it may have happened, or not.
        revision: Of the adaptation after it, where that is known.
    """

    support: Support
    started: int
    acked: int | None = None
    revision: int | None = None


@dataclass
class User:
    """An adaptation of a tenant, and all that its owner did, in order."""

    tenant: str
    name: str
    changes: list[Change] = field(default_factory=lambda: [Change((), 0, 0)])

    def draw(self, rng: random.Random) -> Support:
        """A support set of the three points, named by number of change and in an order of its own."""
        places = rng.sample(range(3), 3)
        rows = POINTS[places] + [[rng.uniform(-0.5, 0.5) for _ in range(4)] for _ in range(3)]
        names = [f"{self.tenant} {self.name} {len(self.changes)} {way}" for way in range(3)]
        return tuple((tuple(map(float, row)), label) for row, label in zip(rows, names, strict=True))

    def may_show(self, started: int, ended: int) -> list[Change]:
        """The changes that a read may show: from the last that was acknowledged before it on, up to its end."""
        last = max(place for place, change in enumerate(self.changes) if change.acked is not None
                   and change.acked <= started)  # fmt: skip
        return [change for change in self.changes[last:] if change.started <= ended]


@dataclass
class Report:
    """What came of a soak.

    Attributes:
        wrong: Answers that no order of the changes explains.
        counts: Of calls by what became of them, and of changes by kind.
        most: The most calls that were under way at a time.
    """

    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    most: int = 0


class Soak:
    """A run against a server that is ready.

    Args:
        send: Gives status and content of the answer to method, path, body and headers.
        keys: A key of each tenant.
        versions: Of the model, all alike, one of which answers each call: they share the slots.
    """

    def __init__(
        self, send: Send, keys: Mapping[str, str], tiny: Tiny, *, users: int, reads: int, seed: int,
        versions: Sequence[int] = (1,),
    ) -> None:  # fmt: skip
        self.report = Report()
        self._versions = versions
        self._send, self._keys, self._tiny, self._left = send, keys, tiny, reads
        self._seed, self._clock, self._at_work, self._over = seed, count(1), 0, False
        self._users = [User(tenant, f"user-{place}") for place in range(users // 2) for tenant in TENANTS]
        self._path = f"/v1/models/{tiny.name}"

    async def run(self) -> Report:
        """Everything at once, until the readers have had enough."""
        owners = [asyncio.create_task(self._own(number)) for number in range(OWNERS)]
        await asyncio.gather(*(self._read(number) for number in range(READERS)))
        self._over = True
        await asyncio.gather(*owners)
        return self.report

    async def _call(
        self, tenant: str, method: str, path: str, body: Any = None, deadline_ms: int = 0, only_if: Only = None
    ) -> Any:
        """Status and document of an answer."""
        headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {self._keys[tenant]}".encode())]
        if deadline_ms:
            headers.append((b"x-deadline-ms", b"%d" % deadline_ms))
        if only_if is not None:
            headers.append(only_if)
        self._at_work += 1
        self.report.most = max(self.report.most, self._at_work)
        try:
            status, content = await self._send(method, self._path + path, json.dumps(body).encode(), headers)
        finally:
            self._at_work -= 1
        self.report.counts[f"{method} {status}"] += 1
        if status == 503:  # whoever came again at once would be refused again
            await asyncio.sleep(0.01)
        return status, json.loads(content) if content else None

    async def _own(self, number: int) -> None:
        rng = random.Random(f"{self._seed} owner {number}")
        while not self._over:
            await self._change(rng.choice(self._users[number::OWNERS]), rng)
            await asyncio.sleep(rng.uniform(0, 0.002))

    async def _change(self, user: User, rng: random.Random) -> None:
        path = f"/adaptations/{user.name}"
        kind = rng.choices(["put", "add", "delete"], [6, 2, 2])[0]
        before = user.changes[-1]
        if kind == "add" and before.acked is not None and before.support:
            row, label = rng.choice(before.support)
            added = tuple(value + rng.uniform(-1, 1) for value in row)
            change = Change((*before.support, (added, label)), next(self._clock))
            sent = ("POST", f"{path}/examples", {"examples": _examples(change.support[-1:])})
        elif kind == "delete" and before.acked is not None:
            change, sent = Change((), next(self._clock)), ("DELETE", path, None)
        else:
            change = Change(user.draw(rng), next(self._clock))
            sent = ("PUT", path, {"support": _examples(change.support)})
        user.changes.append(change)
        only_if = _only_after(before, sent[0]) if rng.random() < 0.15 else None
        call = asyncio.create_task(self._call(user.tenant, *sent, only_if=only_if))
        if only_if is not None:
            await asyncio.sleep(rng.uniform(0, 0.004))
            call.cancel()
        (answer,) = await asyncio.gather(call, return_exceptions=True)
        if isinstance(answer, asyncio.CancelledError):
            self.report.counts["cancelled"] += 1
            return
        if isinstance(answer, BaseException):
            raise answer
        status, document = answer
        if status in (200, 201, 204) or (status == 404 and sent[0] == "DELETE"):
            change.acked, change.revision = next(self._clock), (document or {}).get("revision")
        elif status != 503:
            self.report.wrong.append(f"{sent[0]} of {user.tenant} {user.name}: {status} {document}")

    async def _read(self, number: int) -> None:
        rng = random.Random(f"{self._seed} reader {number}")
        while self._left > 0:
            self._left -= 1
            kind = rng.choices([self._stored, self._rows, self._inline], [7, 2, 1])[0]
            call = asyncio.create_task(kind(rng, 0 if rng.random() < 0.9 else rng.randint(1, 8)))
            if rng.random() < 0.05:
                await asyncio.sleep(rng.uniform(0, 0.003))
                call.cancel()
            (outcome,) = await asyncio.gather(call, return_exceptions=True)
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    async def _stored(self, rng: random.Random, deadline_ms: int) -> None:
        user, query, started = self._user(rng), rng.choice(QUERIES), next(self._clock)
        body = {"inputs": [query], "adaptation": user.name, "version": rng.choice(self._versions)}
        status, document = await self._call(user.tenant, "POST", "/predict", body, deadline_ms)
        if status in (200, 404):
            self._judge(user, query, started, document["predictions"][0] if status == 200 else None)

    async def _rows(self, rng: random.Random, deadline_ms: int) -> None:
        tenant, started = rng.choice(TENANTS), next(self._clock)
        users = rng.sample([user for user in self._users if user.tenant == tenant], 4)
        rows = [{"input": rng.choice(QUERIES), "adaptation": user.name} for user in users]
        body = {"rows": rows, "partial": True, "version": rng.choice(self._versions)}
        status, document = await self._call(tenant, "POST", "/predict", body, deadline_ms)
        if status != 200:
            return
        for user, row, found in zip(users, rows, document["predictions"], strict=True):
            if found.get("problem", {}).get("status") in (None, 404):
                self._judge(user, row["input"], started, None if "problem" in found else found)

    async def _inline(self, rng: random.Random, deadline_ms: int) -> None:
        user, query = User(rng.choice(TENANTS), "inline"), rng.choice(QUERIES)
        support = user.draw(rng)
        body = {"inputs": [query], "support": _examples(support), "version": rng.choice(self._versions)}
        status, document = await self._call(user.tenant, "POST", "/predict", body, deadline_ms)
        if status == 200 and not self._fits(support, query, document["predictions"][0]["scores"]):
            self.report.wrong.append(f"inline: {document}")

    def _user(self, rng: random.Random) -> User:
        """Some are asked for much more often than others."""
        return self._users[min(int(rng.paretovariate(0.7)) - 1, len(self._users) - 1)]

    def _judge(self, user: User, query: Sequence[float], started: int, found: Mapping[str, Any] | None) -> None:
        """Count an answer as wrong unless it shows one of the changes that it may show."""
        for change in user.may_show(started, next(self._clock)):
            if found is None or not change.support:
                if found is None and not change.support:
                    return
            elif change.revision in (None, found["revision"]) and self._fits(change.support, query, found["scores"]):
                return
        self.report.wrong.append(f"{user.tenant} {user.name} at {query}: {found}")

    def _fits(self, support: Support, query: Sequence[float], scores: Mapping[str, float]) -> bool:
        if {label for _, label in support} != set(scores):
            return False
        (expected,) = self._tiny.scores(support, np.array([query]))
        return all(abs(expected[label] - scores[label]) <= TOLERANCE for label in scores)


def _only_after(before: Change, method: str) -> Only:
    """The header that binds a change to the one before it; None where nothing would.

    A change that is cancelled over a real connection may still be under way. With this it happens before the next
    change, which is a replacement without a condition, or never.
    """
    if before.acked is None or (not before.support and method == "DELETE"):
        return None
    if not before.support:
        return (b"if-none-match", b"*")
    return None if before.revision is None else (b"if-match", b'"%d"' % before.revision)


def _examples(support: Support) -> list[dict[str, Any]]:
    return [{"input": list(row), "label": label} for row, label in support]


async def asgi(
    app: Any, method: str, path: str, body: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> tuple[int, bytes]:
    """Status and content of the answer of an app that is called as a server calls it."""
    sent: list[Any] = []
    messages: Iterator[Any] = iter([{"type": "http.request", "body": body, "more_body": False}])
    gone = asyncio.get_running_loop().create_future()

    async def receive() -> Any:
        return next(messages, None) or await gone

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2), "headers": list(headers),
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def make_keys(file: Path) -> dict[str, str]:
    """A key of each tenant, which are in the file."""
    return {tenant: append_key(file, tenant, tenant, "predict,adapt") for tenant in TENANTS}


async def soak_over(url: str, keys: Mapping[str, str], tiny: Tiny, **how: Any) -> Report:
    """The report of a soak of a server, over real connections; see `Soak`."""
    return await Soak(Wire(url).send, keys, tiny, **how).run()


async def soak(folder: Path, bundles: Path, tiny: Tiny, *, how: Mapping[str, Any], **settings: Any) -> Report:
    """The report of a soak on a store in a folder; `how` are arguments of `Soak`."""
    keys = make_keys(folder / "keys")
    failures: list[BaseException] = []
    store = f"sqlite:///{folder / 'handful.db'}"
    given = Settings(bundles=bundles, store=store, keys=folder / "keys", cache_bytes=2**20, **settings)
    app = create_app(given, failures.append)
    async with app.router.lifespan_context(app):
        while app.state.service is None:
            if failures:
                raise failures[0]
            await asyncio.sleep(0.01)
        return await Soak(partial(asgi, app), keys, tiny, **how).run()
