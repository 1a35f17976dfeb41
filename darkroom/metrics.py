"""The catalogue of metrics: every series that Darkroom exposes, declared once.

Labels are bounded sets (model and pool from the catalog, states, error codes): never a job, a
tenant or a text. A registry is passed in, so that two apps in one process do not meet.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class ApiMetrics:
    """What the admission tier counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.jobs_admitted = Counter(
            "darkroom_jobs_admitted_total", "Jobs accepted.", ["model", "pool"], registry=registry
        )
        self.jobs_refused = Counter(
            "darkroom_jobs_refused_total",
            "Submits refused, by error code.",
            ["code"],
            registry=registry,
        )
        self.jobs_resent = Counter(
            "darkroom_jobs_resent_total",
            "Messages the sweeper sent again.",
            ["pool"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "darkroom_http_request_seconds",
            "Time to answer an HTTP request, by route template.",
            ["method", "route", "status"],
            buckets=SECONDS,
            registry=registry,
        )
        self.queue_depth = Gauge(
            "darkroom_queue_depth",
            "Messages, by pool (or `webhooks`) and state.",
            ["pool", "state"],
            registry=registry,
        )


class WorkerMetrics:
    """What the GPU tier counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        labels = ["model", "pool"]
        self.jobs_finished = Counter(
            "darkroom_jobs_finished_total",
            "Jobs that reached a terminal state here; code is empty unless they failed.",
            [*labels, "status", "code"],
            registry=registry,
        )
        self.deliveries_returned = Counter(
            "darkroom_deliveries_returned_total",
            "Messages given back or set aside, by error code.",
            ["pool", "disposition", "code"],
            registry=registry,
        )
        self.jobs_in_flight = Gauge(
            "darkroom_jobs_in_flight", "Jobs that this worker runs.", ["pool"], registry=registry
        )
        self.jobs_held = Gauge(
            "darkroom_jobs_held",
            "Messages that this worker holds for jobs that it does not run yet.",
            ["pool"],
            registry=registry,
        )
        self.batch_pictures = Histogram(
            "darkroom_batch_pictures",
            "Pictures made by one pipeline call.",
            ["pool"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.device_seconds = Counter(
            "darkroom_device_seconds_total",
            "Time that the device was given to: `load` of models, `generate` of pictures.",
            ["pool", "doing"],
            registry=registry,
        )
        self.worker_info = Gauge(
            "darkroom_worker_info",
            "1: what this worker runs on; gpu is the UUID of its GPU or MIG slice, where known.",
            ["pool", "device", "gpu", "version"],
            registry=registry,
        )
        self.price_usd_per_hour = Gauge(
            "darkroom_worker_price_usd_per_hour",
            "Price of this worker's device; summed over a pool, what the pool costs now.",
            ["pool"],
            registry=registry,
        )
        self.job_seconds = Histogram(
            "darkroom_job_seconds",
            "From admission to the end of a job that ended here.",
            [*labels, "status"],
            buckets=SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "darkroom_queue_seconds",
            "From admission to claim.",
            labels,
            buckets=SECONDS,
            registry=registry,
        )
        self.load_seconds = Histogram(
            "darkroom_model_load_seconds",
            "Loading a pipeline.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.model_loads = Counter(
            "darkroom_model_loads_total",
            "Models made ready on the device, by where they came from: `disk` or `host`.",
            ["model", "source"],
            registry=registry,
        )
        self.model_evictions = Counter(
            "darkroom_model_evictions_total",
            "Models put away to make room, by where they went: `host` or `disk`.",
            ["model", "to"],
            registry=registry,
        )
        self.model_bytes = Gauge(
            "darkroom_model_bytes",
            "Weights held, by tier: `device` or `host`.",
            ["tier"],
            registry=registry,
        )
        self.gpu_seconds = Histogram(
            "darkroom_gpu_seconds",
            "Inside the pipeline call.",
            labels,
            buckets=SECONDS,
            registry=registry,
        )
        self.store_seconds = Histogram(
            "darkroom_store_seconds",
            "Encoding and storing pictures.",
            labels,
            buckets=SECONDS,
            registry=registry,
        )


class WebhookMetrics:
    """What the sender of webhooks counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.attempts = Counter(
            "darkroom_webhook_attempts_total",
            "Attempts to deliver an event, by what they came to.",
            ["outcome"],
            registry=registry,
        )
        self.attempt_seconds = Histogram(
            "darkroom_webhook_attempt_seconds",
            "Time of an attempt, from the lookup of the receiver's name to its answer.",
            buckets=SECONDS,
            registry=registry,
        )
        self.dead_lettered = Counter(
            "darkroom_webhook_dead_lettered_total",
            "Events set aside after the last attempt.",
            registry=registry,
        )
        self.reannounced = Counter(
            "darkroom_webhook_reannounced_total",
            "Events of ended jobs that the sweeper sent again.",
            registry=registry,
        )
        self.under_way = Gauge(
            "darkroom_webhook_under_way", "Deliveries under way in this sender.", registry=registry
        )
