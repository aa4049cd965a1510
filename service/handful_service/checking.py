"""`handful check` and `handful inspect`: a bundle looked at in a child process, with bounded time and memory."""

import asyncio
import json
import multiprocessing
import resource
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .assembly import serve
from .bundle.bundle import Bundle
from .cache import Budget
from .engine.engine import EngineLimits
from .engine.runtime import runtime_settings
from .engine.scheduler import Scheduler
from .errors import HandfulError
from .metrics import Metrics
from .predictor.decoding import Decoders
from .predictor.golden import check_descriptors, check_golden_requests
from .predictor.pinning import NoStates
from .predictor.predicting import Predictor
from .problems import problem_body

CHECK_SLOTS_BYTES = 2**20


def check_in_child(folder: Path, *, seconds: float, memory_bytes: int) -> dict[str, Any]:
    """What came of checking a bundle: `{"ok": True, …}`, or `{"ok": False, "problem": …}`.

    The check runs in a child process, so a bundle that crashes the runtime, never ends or eats memory is one that
    fails its check.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(str(folder), memory_bytes, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            return _failed(f"the check did not end within {seconds:g} s")
        return dict(json.loads(ours.recv_bytes()))
    except EOFError:
        child.join()
        return _failed(f"the check died (exit code {child.exitcode}); it may use {memory_bytes} bytes of memory")
    finally:
        child.kill()
        child.join()
        ours.close()


def _child(folder: str, memory_bytes: int, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    try:
        result = asyncio.run(check(Path(folder)))
    except HandfulError as error:
        result = {"ok": False, "problem": problem_body(error)}
    except MemoryError:
        result = _failed(f"the check needs more than {memory_bytes} bytes of memory")
    pipe.send_bytes(json.dumps(result).encode())


def _failed(detail: str) -> dict[str, Any]:
    return {"ok": False, "problem": {"status": 500, "detail": detail, "errors": []}}


async def check(folder: Path) -> dict[str, Any]:
    """Open a bundle, run its golden vectors and requests, and tell what it is.

    Raises:
        BundleError: it is not valid.
    """
    bundle = Bundle.open(folder)
    runtime = runtime_settings("cpu", 0)
    with ThreadPoolExecutor(1) as executor:
        scheduler, budget = Scheduler(executor), Budget(CHECK_SLOTS_BYTES)
        served = serve(bundle, runtime, scheduler, metrics=Metrics(), limits=EngineLimits(), budget=budget)
        decoders = Decoders(executor)
        await check_descriptors(served, decoders)
        await check_golden_requests(Predictor(NoStates(), decoders), served)
    return {"ok": True, **describe(bundle), "runtime": runtime.as_dict()}


def describe(bundle: Bundle) -> dict[str, Any]:
    """What a bundle is, for people and scripts."""
    manifest = bundle.manifest
    return {
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "description": manifest.description,
        "format": manifest.format,
        "accepts": list(manifest.accepts),
        "inputs": {name: spec.model_dump(exclude_none=True) for name, spec in manifest.inputs.items()},
        "features": {name: spec.model_dump() for name, spec in manifest.features.items()},
        "descriptors": None if manifest.descriptors is None else manifest.descriptors.model_dump(exclude_none=True),
        "state": {name: spec.model_dump() for name, spec in manifest.state.items()},
        "state_bytes": manifest.state_bytes,
        "output": manifest.output.model_dump(exclude={"calibration"}, exclude_none=True),
        "limits": manifest.limits.model_dump(exclude_none=True),
        "invariant": list(manifest.invariant),
        "tasks": len(bundle.tasks),
        "graphs": {name: len(bundle.graph(name)) for name in manifest.graphs},
        "bytes": sum(len(content) for content in bundle.files.values()),
    }
