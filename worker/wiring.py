"""From settings to a running worker: the only module of this package that knows every adapter."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from prometheus_client import CollectorRegistry

from darkroom import __version__
from darkroom import settings as shared_settings
from darkroom.catalog import Catalog, Model, Pool, load_catalog
from darkroom.clock import SystemClock
from darkroom.errors import (
    DeviceLost,
    JobNotFound,
    MissingExtra,
    ModelUnavailable,
    StoreUnavailable,
)
from darkroom.jobs import new_job_id
from darkroom.log import configure, get_logger
from darkroom.metrics import WorkerMetrics
from darkroom.settings import DarkroomSettings, PodSettings
from darkroom.wiring import Backends, open_backends
from worker.background import beside
from worker.backoff import Backoff
from worker.devices import Device, chosen
from worker.drain import Drain
from worker.engine_thread import EngineThread
from worker.engines.base import Engine
from worker.failures import Failures
from worker.fleet import Fleet
from worker.health import Health, served
from worker.idleness import leave_when_idle
from worker.loop import LoopPace, Worker
from worker.model_cache import ModelCache
from worker.models import locate, locate_lora, read_ahead
from worker.pod import keep_deletion_cost, leave_when_finished
from worker.settings import (
    DeviceSettings,
    ModelsSettings,
    WorkerSettings,
    child_environments,
    child_ports,
    load_worker_settings,
    restrain_libraries,
)
from worker.supervisor import Supervisor
from worker.warming import models_to_warm, uncollected, warm_up
from worker.watch import WatchPace
from worker.workplace import Workplace

log = get_logger()


def serve(devices: str | None = None) -> int:
    """Run a worker until SIGTERM or SIGINT, or until its queue is done with it.

    Returns the exit status: what the queue asks for (0 but in the pod of a Kubernetes Job), or 1
    when the device was lost: whoever started the worker starts it again (Kubernetes does).
    ``devices`` overrides the setting of that name: then this process only looks after others.
    Raises `SettingsError` (and `MissingExtra`) when it cannot start.
    """
    shared = shared_settings.load(DarkroomSettings)
    mine = load_worker_settings(devices)
    configure(shared.log_level, shared.log_format, "worker")
    restrain_libraries()
    catalog = load_catalog(shared.catalog, shared_settings.load(ModelsSettings).models_dir)
    pool = catalog.pool(mine.pool) if mine.pool else catalog.pools[0]
    mine.grace_for(pool)  # refused before minutes of loading
    warm = models_to_warm(mine.warm_models, catalog, pool)  # likewise
    if shared_settings.load(PodSettings).job_name:
        warm = ()  # the one job of this pod says which model it needs
    if mine.devices and (gpus := chosen(mine.devices, shared_settings.load(DeviceSettings))):
        return _supervise(gpus, mine)
    return asyncio.run(_serve(shared, mine, catalog, pool, warm))


def _supervise(gpus: Sequence[Device], mine: WorkerSettings) -> int:
    """Run a worker on each of ``gpus``; return the exit status."""
    environments = child_environments([gpu.uuid for gpu in gpus], mine)
    fleet, registry = Fleet(child_ports(len(gpus), mine)), CollectorRegistry()
    registry.register(fleet)
    with served(fleet, registry, mine.metrics_host, mine.metrics_port):
        return asyncio.run(Supervisor(dict(zip(gpus, environments, strict=True))).run())


def open_engine(settings: WorkerSettings, catalog: Catalog) -> Engine:
    """Return the engine that is asked for. Raises `MissingExtra`, `SettingsError`."""
    if settings.engine == "fake":
        from worker.engines.fake import FakeEngine

        return FakeEngine(step_seconds=settings.fake_step_seconds)
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
    for gauge in (metrics.jobs_in_flight, metrics.jobs_held):
        gauge.labels(pool.name).set(0)  # an idle worker is counted too
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
    pace = LoopPace(
        mine.poll_seconds,
        shared.renew_seconds,
        shared.max_delivery_count,
        mine.depth_seconds,
        mine.window,
        hands_on=not shared.queue_url.startswith("kubernetes:"),  # where a pod has but one message
    )
    return Worker(backends.queues[pool.name], place, failures, drain, pace)


async def _serve(
    shared: DarkroomSettings,
    mine: WorkerSettings,
    catalog: Catalog,
    pool: Pool,
    warm: tuple[Model, ...],
) -> int:
    drain = Drain(mine.grace_for(pool))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain.begin, number.name)
    metrics = WorkerMetrics(CollectorRegistry())
    health = Health(drain.begun.is_set)
    with served(health, metrics.registry, mine.metrics_host, mine.metrics_port):
        async with beside(health.keep_beating(), "heartbeat"):
            try:
                status = await _work(shared, mine, catalog, pool, warm, drain, metrics, health)
            except DeviceLost as error:
                log.error("device_lost", message=error.message)
                return 1
    log.info("drained", pool=pool.name)
    return status


async def _work(
    shared: DarkroomSettings,
    mine: WorkerSettings,
    catalog: Catalog,
    pool: Pool,
    warm: tuple[Model, ...],
    drain: Drain,
    metrics: WorkerMetrics,
    health: Health,
) -> int:
    """Get ready, then work until the drain. What can go on at the same time does."""
    pod = shared_settings.load(PodSettings)
    opening = asyncio.create_task(asyncio.to_thread(_open_ahead, mine, catalog, warm))
    backends = open_backends(shared, catalog)
    queue = backends.queues[pool.name]
    thread: EngineThread | None = None
    try:
        with uncollected():
            _, engine = await asyncio.gather(_greet(backends, shared.region), opening)
            cache = ModelCache(engine, mine.device_bytes, mine.host_bytes, metrics)
            thread = EngineThread(engine, cache)
            health.watch_engine(lambda: thread.silent_seconds, mine.stuck_after(pool, catalog))
            is_warm = await warm_up(warm, catalog, thread, drain, mine.warm_steps)
        device, gpu = thread.description.device, shared_settings.load(DeviceSettings).single
        metrics.worker_info.labels(pool.name, device, gpu, __version__).set(1)
        if not is_warm:
            return queue.exit_status
        worker = build_worker(shared, mine, catalog, pool, backends, thread, drain, metrics)
        health.warm()
        log.info("ready", pool=pool.name, device=device, gpu=gpu)
        idling = leave_when_idle(lambda: worker.is_idle, mine.idle_seconds, drain)
        cost = keep_deletion_cost(pod, lambda: not worker.is_idle)
        async with (
            beside(_notices(mine.scheduled_events_url, drain), "scheduled-events"),
            beside(idling, "idleness"),
            beside(leave_when_finished(queue, drain), "finished"),
            beside(cost, "deletion-cost"),
        ):
            await worker.run()
        return queue.exit_status
    finally:
        await backends.close()
        if thread is not None:
            thread.close()


def _open_ahead(mine: WorkerSettings, catalog: Catalog, warm: tuple[Model, ...]) -> Engine:
    """Import and open the engine while the disk already reads the weights of ``warm``."""
    if mine.engine != "fake":
        for model in warm:
            with suppress(ModelUnavailable):  # which `warm_up` will say
                read_ahead(locate(model, catalog))
    return open_engine(mine, catalog)


async def _greet(backends: Backends, region: str) -> None:
    """Have the connection made that the first claim would wait for; asks for a job that is none."""
    try:
        await backends.jobs.get(new_job_id(region, "warm-up"))
    except JobNotFound:
        return
    except StoreUnavailable as error:  # it may be back before the first message comes
        log.warning("jobs_unavailable", message=error.message)


async def _notices(url: str, drain: Drain) -> None:
    """Watch for evictions, if there is an address to ask."""
    if url:
        from worker.preemption import watch_scheduled_events

        await watch_scheduled_events(url, drain)
