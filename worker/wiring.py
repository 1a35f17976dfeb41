"""From settings to a running worker: the only module of this package that knows every adapter."""

import asyncio
import signal
from functools import partial

from prometheus_client import CollectorRegistry, start_http_server

from darkroom import settings as shared_settings
from darkroom.catalog import Catalog, Pool, load_catalog
from darkroom.clock import SystemClock
from darkroom.errors import DeviceLost, MissingExtra
from darkroom.log import configure, get_logger
from darkroom.metrics import WorkerMetrics
from darkroom.settings import DarkroomSettings
from darkroom.wiring import Backends, open_backends
from worker.background import beside
from worker.backoff import Backoff
from worker.drain import Drain
from worker.engine_thread import EngineThread
from worker.engines.base import Engine
from worker.failures import Failures
from worker.loop import LoopPace, Worker
from worker.models import locate_lora
from worker.runner import Runner, Workplace
from worker.settings import WorkerSettings, restrain_libraries
from worker.watch import WatchPace

log = get_logger()


def serve() -> int:
    """Run a worker until SIGTERM or SIGINT and return the exit status.

    1 when the device was lost: whoever started the worker starts it again (Kubernetes does).
    Raises `SettingsError` (and `MissingExtra`) when it cannot start.
    """
    shared = shared_settings.load(DarkroomSettings)
    mine = shared_settings.load(WorkerSettings)
    configure(shared.log_level, shared.log_format, "worker")
    catalog = load_catalog(shared.catalog)
    pool = catalog.pool(mine.pool) if mine.pool else catalog.pools[0]
    mine.grace_for(pool)  # refused before minutes of loading
    engine = open_engine(mine, catalog)
    return asyncio.run(_serve(shared, mine, catalog, pool, engine))


def open_engine(settings: WorkerSettings, catalog: Catalog) -> Engine:
    """Return the engine that is asked for. Raises `MissingExtra`, `SettingsError`."""
    if settings.engine == "fake":
        from worker.engines.fake import FakeEngine

        return FakeEngine(step_seconds=settings.fake_step_seconds)
    restrain_libraries()
    try:
        from worker.engines.diffusers import DiffusersEngine
    except ImportError as error:
        raise MissingExtra("worker", "the diffusers engine") from error
    return DiffusersEngine(
        settings.device, partial(locate_lora, catalog=catalog), settings.torch_threads
    )


def build_worker(
    shared: DarkroomSettings,
    mine: WorkerSettings,
    catalog: Catalog,
    pool: Pool,
    backends: Backends,
    engine: EngineThread,
    drain: Drain,
    metrics: WorkerMetrics,
) -> Worker:
    """Return a worker of ``pool`` on ``backends``."""
    clock = SystemClock()
    metrics.price_usd_per_hour.labels(pool.name).set(pool.price_per_hour_usd)
    metrics.jobs_in_flight.labels(pool.name).set(0)  # an idle worker is counted too
    failures = Failures(
        jobs=backends.jobs,
        clock=clock,
        backoff=Backoff(mine.retry_base_seconds, mine.retry_cap_seconds),
        metrics=metrics,
        pool=pool,
    )
    place = Workplace(
        catalog=catalog,
        pool=pool,
        jobs=backends.jobs,
        images=backends.images,
        engine=engine,
        clock=clock,
        metrics=metrics,
        pace=WatchPace(mine.progress_seconds, mine.cancel_check_seconds),
        claim_seconds=shared.lease_seconds,
        image_digest=mine.image_digest,
    )
    return Worker(
        queue=backends.queues[pool.name],
        runner=Runner(place, failures),
        drain=drain,
        clock=clock,
        metrics=metrics,
        pace=LoopPace(mine.poll_seconds, shared.renew_seconds, shared.max_delivery_count),
        pool=pool.name,
    )


async def _serve(
    shared: DarkroomSettings, mine: WorkerSettings, catalog: Catalog, pool: Pool, engine: Engine
) -> int:
    drain = Drain(mine.grace_for(pool))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain.begin, number.name)
    metrics = WorkerMetrics(CollectorRegistry())
    if mine.metrics_port:
        start_http_server(mine.metrics_port, addr=mine.metrics_host, registry=metrics.registry)
    thread = EngineThread(engine)
    backends = open_backends(shared, catalog)
    try:
        worker = build_worker(shared, mine, catalog, pool, backends, thread, drain, metrics)
        log.info("ready", pool=pool.name, device=thread.description.device)
        async with beside(_notices(mine.scheduled_events_url, drain), "scheduled-events"):
            await worker.run()
    except DeviceLost as error:
        log.error("device_lost", message=error.message)
        return 1
    finally:
        await backends.close()
        thread.close()
    log.info("drained", pool=pool.name)
    return 0


async def _notices(url: str, drain: Drain) -> None:
    """Watch for evictions, if there is an address to ask."""
    if url:
        from worker.preemption import watch_scheduled_events

        await watch_scheduled_events(url, drain)
