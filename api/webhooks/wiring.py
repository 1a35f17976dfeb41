"""From settings to a sending process."""

import asyncio
import signal
import ssl

from prometheus_client import CollectorRegistry, start_http_server

from api.settings import ApiSettings
from api.webhooks.addresses import UrlRules
from api.webhooks.delivering import Delivering
from api.webhooks.guard import Resolver, SystemResolver
from api.webhooks.lanes import Lanes
from api.webhooks.posting import Poster
from api.webhooks.secrets import Secrets
from api.webhooks.sender import Sender, SenderPace
from api.webhooks.settings import WebhookSettings
from darkroom import log
from darkroom.catalog import load_catalog
from darkroom.clock import Clock, SystemClock
from darkroom.errors import SettingsError
from darkroom.jobstores.base import JobStore
from darkroom.metrics import WebhookMetrics
from darkroom.queues.base import JobQueue
from darkroom.settings import DarkroomSettings, load
from darkroom.wiring import Backends, open_backends

SETTLING_SECONDS = 10.0  # what a lease must last beyond an attempt


def serve() -> int:
    """Send webhooks until SIGTERM or SIGINT; return the exit status."""
    log.configure("info", "json", "webhooks")  # for what is said before the settings are known
    try:
        settings, shared, api = load(WebhookSettings), load(DarkroomSettings), load(ApiSettings)
        log.configure(shared.log_level, shared.log_format, "webhooks")
        check(settings, shared)
        secrets = Secrets(settings.secrets_file, SystemClock())
        backends = open_backends(shared, load_catalog(shared.catalog))
        queue = queue_of(backends)
    except SettingsError as error:
        log.get_logger().error("settings_refused", reason=error.message)
        return 2
    base_url = str(api.public_url or "").rstrip("/")
    asyncio.run(_serve(settings, backends, queue, secrets, base_url))
    return 0


def check(settings: WebhookSettings, shared: DarkroomSettings) -> None:
    """Raise `SettingsError` where a lease could end before an attempt, or nothing could be sent."""
    if settings.secrets_file is None:
        name = "DARKROOM_API_WEBHOOK_SECRETS_FILE"
        raise SettingsError(f"{name} is not set: nothing could be signed", target=name)
    if shared.lease_seconds < settings.timeout_seconds + SETTLING_SECONDS:
        name = "DARKROOM_API_WEBHOOK_TIMEOUT_SECONDS"
        raise SettingsError(
            f"{name} ({settings.timeout_seconds:g}) and {SETTLING_SECONDS:g} more must be at most"
            f" DARKROOM_LEASE_SECONDS ({shared.lease_seconds:g})",
            target=name,
        )


def queue_of(backends: Backends) -> JobQueue:
    """Return the events' queue. Raises `SettingsError` where there is none."""
    if backends.webhooks is None:
        name = "DARKROOM_QUEUE_URL"
        raise SettingsError(f"{name}: this kind of queue carries no events", target=name)
    return backends.webhooks


def build_sender(
    settings: WebhookSettings,
    *,
    queue: JobQueue,
    jobs: JobStore,
    secrets: Secrets,
    clock: Clock,
    metrics: WebhookMetrics,
    resolve: Resolver,
    base_url: str = "",
    ssl_context: ssl.SSLContext | None = None,
) -> tuple[Sender, Poster]:
    """Return a sender, and what it sends with, which is to be closed after it."""
    rules = UrlRules(settings.allowed_ports, settings.allow_loopback)
    poster = Poster(rules, resolve, settings.timeout_seconds, ssl_context)
    delivering = Delivering(
        jobs=jobs,
        secrets=secrets,
        poster=poster,
        lanes=Lanes(settings.per_host, max(1, settings.concurrency // 2)),
        clock=clock,
        metrics=metrics,
        base_url=base_url,
    )
    pace = SenderPace(
        settings.concurrency,
        settings.poll_seconds,
        settings.sweep_seconds,
        settings.unsent_seconds,
    )
    return Sender(queue, jobs, delivering, clock, metrics, pace), poster


async def _serve(
    settings: WebhookSettings, backends: Backends, queue: JobQueue, secrets: Secrets, base_url: str
) -> None:
    metrics = WebhookMetrics(CollectorRegistry())
    if settings.metrics_port:
        start_http_server(
            settings.metrics_port, addr=settings.metrics_host, registry=metrics.registry
        )
    resolver = SystemResolver(2 * settings.concurrency)
    sender, poster = build_sender(
        settings,
        queue=queue,
        jobs=backends.jobs,
        secrets=secrets,
        clock=SystemClock(),
        metrics=metrics,
        resolve=resolver,
        base_url=base_url,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sender.stop)
    log.get_logger().info("ready", queue="webhooks")
    try:
        await sender.run()
    finally:
        await poster.close()
        resolver.close()
        await backends.close()
