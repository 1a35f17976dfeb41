"""What the routes work with: one value, built by `api.wiring`, kept on the app."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from api.admission import Admission
from api.auth.credentials import Callers
from api.auth.wiring import open_callers
from api.caps import Caps, TenantCaps
from api.dead_letters import DeadLetters
from api.exhausted import Exhausted
from api.lines import PoolLines
from api.rates import Rates
from api.settings import ApiSettings
from api.sweeper import Sweeper
from api.watching import Watcher
from api.webhooks.addresses import UrlRules
from api.webhooks.policy import WebhookPolicy
from api.webhooks.secrets import Secrets
from api.webhooks.settings import WebhookSettings
from darkroom.catalog import Catalog
from darkroom.clock import Clock
from darkroom.imagestores.base import ImageStore
from darkroom.jobstores.base import JobStore
from darkroom.metrics import ApiMetrics
from darkroom.queues.base import JobQueue
from darkroom.webhooks import QUEUE_NAME


@dataclass(frozen=True)
class ApiState:
    """The ports and policies of one API process. ``queues`` is by pool name.

    ``webhooks`` is the queue of ended jobs' events; None where nobody has webhooks.
    """

    settings: ApiSettings
    catalog: Catalog
    jobs: JobStore
    images: ImageStore
    queues: Mapping[str, JobQueue]
    clock: Clock
    metrics: ApiMetrics
    admission: Admission
    watcher: Watcher
    sweeper: Sweeper
    dead_letters: DeadLetters
    callers: Callers
    rates: Rates
    lines: PoolLines
    webhooks: JobQueue | None
    close: Callable[[], Awaitable[None]]


async def nothing_to_close() -> None:
    """Close nothing: for adapters that hold no connection."""


def make_state(
    *,
    settings: ApiSettings,
    region: str,
    catalog: Catalog,
    jobs: JobStore,
    images: ImageStore,
    queues: Mapping[str, JobQueue],
    clock: Clock,
    webhooks: JobQueue | None = None,
    webhook_settings: WebhookSettings | None = None,
    close: Callable[[], Awaitable[None]] = nothing_to_close,
) -> ApiState:
    """Put the policies around the adapters; without ``webhook_settings`` nobody has webhooks.

    Raises `SettingsError` for a file of keys or secrets or a counter of requests that cannot work.
    """
    metrics = ApiMetrics(CollectorRegistry())
    caps = Caps(int(settings.limit("max_queued_jobs")), settings.limit("max_queued_gpu_seconds"))
    lines = PoolLines(
        catalog=catalog, jobs=jobs, queues=queues, clock=clock, max_jobs=settings.max_pool_jobs
    )
    admission = Admission(
        catalog=catalog,
        region=region,
        jobs=jobs,
        images=images,
        queues=queues,
        clock=clock,
        metrics=metrics,
        caps=TenantCaps(jobs, caps, clock),
        lines=lines,
        webhooks=_policy(webhook_settings, clock, can_queue=webhooks is not None),
    )
    # Where nobody can have webhooks their queue may not exist: it is never asked for.
    has_webhooks = webhook_settings is not None and webhook_settings.secrets_file is not None
    events = webhooks if has_webhooks else None
    aside = dict(queues) if events is None else {**queues, QUEUE_NAME: events}
    sweeper = Sweeper(
        admission=admission,
        exhausted=Exhausted(queues, jobs, clock),
        jobs=jobs,
        queues=queues,
        clock=clock,
        metrics=metrics,
        sweep_seconds=settings.sweep_seconds,
        unsent_seconds=settings.unsent_seconds,
    )
    return ApiState(
        settings=settings,
        catalog=catalog,
        jobs=jobs,
        images=images,
        queues=queues,
        clock=clock,
        metrics=metrics,
        admission=admission,
        watcher=Watcher(jobs, settings.watch_seconds),
        sweeper=sweeper,
        dead_letters=DeadLetters(aside, jobs, admission, clock),
        callers=open_callers(settings, clock),
        rates=Rates(int(settings.limit("requests_per_minute")), settings.limits_url),
        lines=lines,
        webhooks=events,
        close=close,
    )


def _policy(settings: WebhookSettings | None, clock: Clock, *, can_queue: bool) -> WebhookPolicy:
    if settings is None:
        return WebhookPolicy(
            UrlRules(frozenset(), False), Secrets(None, clock), can_queue=can_queue
        )
    rules = UrlRules(settings.allowed_ports, settings.allow_loopback)
    return WebhookPolicy(rules, Secrets(settings.secrets_file, clock), can_queue=can_queue)
