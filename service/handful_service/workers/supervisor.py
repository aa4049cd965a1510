"""The parent of several workers: starts them, hands them connections, replaces one that dies, ends them together."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Coroutine, Sequence
from pathlib import Path

from .. import logs
from ..metrics import Metrics
from ..settings import Settings, unknown_variables
from .folder import metrics_folder
from .handing import Gate, Lane, listen
from .planning import share
from .restarting import Backoff
from .worker import COMMAND, Worker, named

log = logging.getLogger("handful.service")

HAND_OUT_S = 1.0
"""How long the last connections may take to be taken by workers."""

LINGER_S = 0.2
"""Between no new connections and the end of idle ones: what was sent over a new one is read meanwhile."""

GRACE_S = 5.0
"""Beyond the time for accepted calls, until a worker that still lives is killed."""


class Supervisor:
    """The supervisor of a server.

    Args:
        settings: Of the server.
        each: The settings of each worker.
        count: Workers.
        gate: Gives connections to the lanes.
        lanes: The list that the gate looks at.
        folder: Where metrics are kept.
        command: The program of a worker.
    """

    def __init__(
        self,
        settings: Settings,
        each: Settings,
        *,
        count: int,
        gate: Gate,
        lanes: list[Lane],
        folder: Path,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._settings, self._count, self._gate, self._lanes, self._command = settings, count, gate, lanes, command
        self._start = {"settings": each.model_dump(mode="json"), "metrics": str(folder)}
        self._metrics = Metrics(folder)
        self._workers: dict[int, Worker] = {}
        self._backoffs = [Backoff() for _ in range(count)]
        self._digests: dict[str, str] | None = None
        self._blocked: str | None = "the workers are being started"
        self._stopping = self._failed = False
        self._hurry, self._over = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Serve until a signal, or until nothing can be served; the exit code."""
        loop = asyncio.get_running_loop()
        for sent in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sent, self._signalled, sent)
        for number in range(self._count):
            if not self._stopping:
                await self._begin(number)
        await self._over.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._gate.close()
        self._gate.drop()
        return 1 if self._failed else 0

    @property
    def _was_ready(self) -> bool:
        """Whether all workers were ready at some time, with the bundles that are served since."""
        return self._digests is not None

    async def _begin(self, number: int) -> None:
        worker = Worker(number, on_change=self._changed, on_room=self._gate.look, on_end=self._ended)
        self._backoffs[number].started()
        self._workers[number] = worker
        try:
            await worker.start(self._command, self._start)
        except OSError:
            del self._workers[number]
            raise
        if self._stopping:
            worker.send("stop", force=False)
        log.info("worker started", extra={"number": number, "pid": worker.process.pid})
        self._changed()

    async def _begin_again(self, number: int, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if self._stopping:
            return
        try:
            await self._begin(number)
        except OSError as error:  # there is no memory or no file descriptor left: others may give some back
            wait_s = self._backoffs[number].wait_s()
            log.error("worker not started", extra={"number": number, "error": str(error), "again_in_s": wait_s})
            self._spawn(self._begin_again(number, wait_s))
        else:
            self._metrics.restarts.inc()

    def _changed(self) -> None:
        """See which workers are to be given connections, and whether all are ready; tell everyone."""
        for worker in self._workers.values():
            fit = worker.ready and self._digests in (None, worker.digests)
            worker.lane.rank = 0 if fit else 1
        self._lanes[:] = [worker.lane for worker in self._workers.values()]
        self._gate.look()
        before, self._blocked = self._blocked, self._why_blocked()
        for worker in self._workers.values():
            worker.send("group", blocked=self._blocked)
        if before is not None and self._blocked is None:
            self._digests = self._workers[0].digests
            log.info("ready", extra={"workers": self._count})

    def _why_blocked(self) -> str | None:
        """Why the server is not ready; None: it is."""
        held = [worker.digests for worker in self._workers.values() if worker.ready]
        if len(held) < self._count:
            return f"{len(held)} of {self._count} workers are ready"
        if any(digests != held[0] for digests in held):
            return "the workers hold different bundles: what is in the model repository changed while they ran"
        return None

    def _ended(self, worker: Worker) -> None:
        del self._workers[worker.number]
        self._metrics.forget(worker.process.pid)
        left = worker.lane.close()
        self._changed()
        self._gate.give_back(left)
        if self._stopping:
            if not self._workers:
                self._over.set()
            return
        more = {"number": worker.number, "pid": worker.process.pid, "by": named(worker.code or 0)}
        if self._is_final(worker):
            log.error("worker cannot start", extra=more)
            self._failed = True
            self._stop()
            return
        wait_s = self._backoffs[worker.number].wait_s()
        log.warning("worker ended", extra={**more, "again_in_s": wait_s})
        self._spawn(self._begin_again(worker.number, wait_s))

    def _is_final(self, worker: Worker) -> bool:
        """Whether another start would fail alike. Before the server was ever ready, nothing is tried twice."""
        if worker.failure is not None:
            return not (worker.failure.mends and self._was_ready)
        return not self._was_ready and (worker.code or 0) > 0

    def _signalled(self, sent: signal.Signals) -> None:
        """Drain on the first signal; the second ends the drain; Ctrl-C after that waits for nothing."""
        if not self._stopping:
            if self._was_ready and self._settings.drain_ms:
                log.info("draining", extra={"signal": sent.name, "ms": self._settings.drain_ms})
            self._stop()
        elif not self._hurry.is_set():
            self._hurry.set()
        elif sent == signal.SIGINT:
            self._tell("stop", force=True)

    def _stop(self) -> None:
        self._stopping = True
        self._spawn(self._end())

    async def _end(self) -> None:
        if not self._workers:
            self._over.set()
            return
        if self._was_ready and self._settings.drain_ms:
            self._tell("drain")
            await self._within(self._settings.drain_ms / 1000)
        self._hurry.set()
        self._gate.close()
        for _ in range(round(HAND_OUT_S / 0.01)):
            if not self._gate.waiting:
                break
            await asyncio.sleep(0.01)
        if self._was_ready:
            await asyncio.sleep(LINGER_S)
        self._tell("stop", force=False)
        await asyncio.sleep(max(1, self._settings.shutdown_ms // 1000) + GRACE_S)
        for worker in self._workers.values():
            log.error("worker killed", extra={"number": worker.number, "pid": worker.process.pid})
            worker.kill()

    async def _within(self, seconds: float) -> None:
        """Wait, but no longer than until someone is in a hurry."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)

    def _tell(self, kind: str, **values: object) -> None:
        for worker in self._workers.values():
            worker.send(kind, **values)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def run(settings: Settings, count: int, cores: int) -> int:
    """Serve with several workers; the exit code is 1 where the service could never be ready.

    Args:
        settings: Of the server.
        count: Workers.
        cores: Those that the workers share.
    """
    logs.set_up(settings.log_level)
    for name in unknown_variables(os.environ):
        log.warning("unknown setting", extra={"variable": name})
    try:
        listeners = listen(settings.host, settings.port)
    except OSError as error:
        log.error("cannot listen", extra={"host": settings.host, "port": settings.port, "error": str(error)})
        return 1
    lanes: list[Lane] = []
    gate = Gate(listeners, lanes)
    for address in gate.addresses:
        log.info("listening", extra={"address": address})
    with metrics_folder() as folder:

        async def serve() -> int:
            each = share(settings, count, cores)
            return await Supervisor(settings, each, count=count, gate=gate, lanes=lanes, folder=folder).run()

        return asyncio.run(serve())
