"""Builds the running service from settings: bundles, engines, caches, store, use cases."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .bundle.bundle import Bundle
from .bundle.repository import naming, open_repository
from .cache import MIN_SLOTS, Budget, StateCache
from .codecs.decode import tokenizer_of
from .engine.engine import Engine, EngineLimits
from .engine.runtime import RuntimeSettings, give_way, runtime_settings
from .engine.scheduler import Scheduler, learners_of
from .engine.slots import SlotTables
from .metrics import Metrics
from .predictor.adapting import Adaptations
from .predictor.decoding import Decoders
from .predictor.golden import check_descriptors, check_golden_requests
from .predictor.learning import RepeatedSupports
from .predictor.models import Model, Models, Served
from .predictor.predicting import Predictor
from .predictor.states import States
from .settings import Settings
from .store.lanes import AsyncStore
from .store.store import Store

log = logging.getLogger("handful.service")

ENTRY_BYTES = 2048
"""About what the cache keeps of a state beside its arrays: its key, which may be a descriptor, and its labels."""

DECODERS = 2


@dataclass(frozen=True, slots=True)
class Service:
    """Everything that the routes use."""

    models: Models
    predictor: Predictor
    adaptations: Adaptations
    store: AsyncStore
    runtime: RuntimeSettings
    metrics: Metrics
    executors: tuple[ThreadPoolExecutor, ...]
    decoders: Decoders
    max_rows_per_call: int
    max_queued_rows: int

    @property
    def most_inputs(self) -> int:
        """Inputs that a call may have, without examples beside them."""
        return min(self.max_rows_per_call, self.max_queued_rows)

    @property
    def served(self) -> list[Served]:
        """Every bundle."""
        return [served for model in self.models.all() for served in model.versions.values()]

    @property
    def digests(self) -> dict[str, str]:
        """The digest of every bundle, by `model/version`."""
        return {f"{served.bundle.name}/{served.bundle.version}": served.digest for served in self.served}

    def observe_caches(self) -> None:
        """Set the gauges of what the caches hold."""
        for served in self.served:
            self.metrics.cached.labels(served.bundle.name, served.bundle.version).set(len(served.cache))

    async def close(self) -> None:
        """Give back threads and connections, and count what was noted last."""
        self.metrics.settle()
        await self.store.close()
        for executor in self.executors:
            executor.shutdown()


async def build_service(settings: Settings, metrics: Metrics) -> Service:
    """A service whose bundles passed their golden vectors and requests, and whose graphs are warm.

    Raises:
        BundleError: a bundle is not valid, or ONNX Runtime is not fit.
        NotReady: the store cannot be opened.
    """
    runtime = runtime_settings(settings.provider, settings.threads)
    log.info("runtime", extra=runtime.as_dict())
    runs = ThreadPoolExecutor(runtime.threads, "handful-run", initializer=give_way)
    learns = ThreadPoolExecutor(learners_of(runtime.threads), "handful-learn", initializer=give_way)
    decoder = ThreadPoolExecutor(DECODERS, "handful-decode")
    scheduler = Scheduler(
        runs,
        runtime.threads,
        learner=learns,
        inline_s=settings.inline_ms / 1000,
        max_queued_s=settings.max_queued_ms / 1000,
    )
    try:
        models, store = await _load_and_open(settings, runtime, scheduler, metrics)
    except BaseException:
        for executor in (runs, learns, decoder):
            executor.shutdown()
        raise
    decoders = Decoders(decoder, DECODERS, settings.max_queued_ms / 1000)
    states = States(store, decoders)
    predictor = Predictor(states, decoders, RepeatedSupports(settings.support_cache_bytes))
    adaptations = Adaptations(models, store, states, settings.retention)
    service = Service(
        models=models,
        predictor=predictor,
        adaptations=adaptations,
        store=store,
        runtime=runtime,
        metrics=metrics,
        executors=(runs, learns, decoder),
        decoders=decoders,
        max_rows_per_call=settings.max_rows_per_call,
        max_queued_rows=settings.max_queued_rows,
    )
    try:
        await _check_golden_requests(service)
        for served in service.served:
            metrics.bundles.labels(served.bundle.name, served.bundle.version, served.digest).set(1)
            log.info("bundle", extra={"model": served.bundle.name, "version": served.bundle.version,
                                      "digest": served.digest})  # fmt: skip
    except BaseException:
        await service.close()
        raise
    return service


async def _load_and_open(
    settings: Settings, runtime: RuntimeSettings, scheduler: Scheduler, metrics: Metrics
) -> tuple[Models, AsyncStore]:
    """The models and the store, made beside each other: at the first start its tables take as long as a few bundles."""
    models, store = await asyncio.gather(
        asyncio.to_thread(_load, settings, runtime, scheduler, metrics),
        asyncio.to_thread(Store, settings.store),
        return_exceptions=True,
    )
    if isinstance(models, BaseException):
        if isinstance(store, Store):
            store.close()
        raise models
    if isinstance(store, BaseException):
        raise store
    return models, AsyncStore(store)


async def _check_golden_requests(service: Service) -> None:
    """Answer the golden requests of all bundles beside each other; the first that is not valid, by name, is told."""
    checks = (_check_one(service.predictor, served, service.decoders) for served in service.served)
    for error in await asyncio.gather(*checks, return_exceptions=True):
        if isinstance(error, BaseException):
            raise error


async def _check_one(predictor: Predictor, served: Served, decoders: Decoders) -> None:
    with naming(served.bundle.folder):
        await check_descriptors(served, decoders)
        await check_golden_requests(predictor, served)


def _load(settings: Settings, runtime: RuntimeSettings, scheduler: Scheduler, metrics: Metrics) -> Models:
    """Every bundle of the repository, opened and run beside each other: much of it is digests and ONNX Runtime."""
    limits = EngineLimits(settings.max_batch_rows, settings.max_queued_rows)
    budget = Budget(settings.cache_bytes)

    def make(bundle: Bundle) -> Served:
        with naming(bundle.folder):
            return serve(bundle, runtime, scheduler, metrics=metrics, limits=limits, budget=budget)

    with ThreadPoolExecutor(runtime.threads, "handful-load") as workers:
        published = open_repository(settings.bundles, workers)
        bundles = [bundle for model in published.values() for bundle in model.bundles.values()]
        served = {(item.bundle.name, item.bundle.version): item for item in workers.map(make, bundles)}
    return Models(
        {
            name: Model(name, {version: served[name, version] for version in model.bundles}, model.labels)
            for name, model in published.items()
        }
    )


def serve(
    bundle: Bundle,
    runtime: RuntimeSettings,
    scheduler: Scheduler,
    *,
    metrics: Metrics,
    limits: EngineLimits,
    budget: Budget,
) -> Served:
    """A bundle with its sessions, slots and cache, its golden vectors checked.

    Raises:
        BundleInvalid: a graph cannot be loaded, or differs from its golden vectors.
    """
    slot_bytes = bundle.manifest.state_bytes + ENTRY_BYTES
    tables = SlotTables(bundle.manifest.state, max(MIN_SLOTS, budget.size // slot_bytes))
    engine = Engine(
        bundle, runtime, tables=tables, scheduler=scheduler, limits=limits, on_batch=metrics.batch_observer(bundle.name)
    )
    engine.check_golden()
    return Served(bundle, engine, StateCache(tables, budget, slot_bytes), tokenizer_of(bundle.manifest, bundle.files))
