"""Two hours of a small cluster, as Prometheus would have stored them.

Darkroom's series come out of the product's own registries, so a metric that is renamed there is
missing here. DCGM's have the shape that its exporter gives them: one node whose exporter says
`Hostname`, as before 2026, one that says `hostname`, and one whose GPU is cut into MIG instances.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.utils import floatToGoString

from darkroom.metrics import ApiMetrics, WebhookMetrics, WorkerMetrics

BLOCK_SECONDS = 7200
START = 1_793_577_600  # 2026-11-02T00:00:00Z, where a block of Prometheus begins
STEP_SECONDS = 30
END = START + 6900
assert START % BLOCK_SECONDS == 0

GPU_SHORT = "GPU-11111111-aaaa-bbbb-cccc-000000000001"
GPU_LONG = "GPU-22222222-aaaa-bbbb-cccc-000000000002"
GPU_MIG = "GPU-33333333-aaaa-bbbb-cccc-000000000003"
PRICE_SHORT, PRICE_LONG = 3.6, 12.0


@dataclass
class Process:
    """One pod that is scraped: its registry, and what happens in it at each step."""

    registry: CollectorRegistry
    pod: str
    component: str
    step: Callable[[int], None] = field(default=lambda tick: None)

    def samples(self, tick: int) -> Iterator[str]:
        """Yield one line for each sample, with the labels that scraping adds."""
        self.step(tick)
        added = {"pod": self.pod, "component": self.component, "namespace": "darkroom"}
        for metric in self.registry.collect():
            for sample in metric.samples:
                if not sample.name.endswith("_created"):
                    yield line(sample.name, {**sample.labels, **added}, sample.value, tick)


def line(name: str, labels: dict[str, str], value: float, tick: int) -> str:
    """Return a line of OpenMetrics with its time in seconds."""
    inner = ",".join(f'{key}="{text}"' for key, text in sorted(labels.items()))
    return f"{name}{{{inner}}} {floatToGoString(value)} {START + tick * STEP_SECONDS}"


def text() -> str:
    """Return the recording in OpenMetrics."""
    lines: list[str] = []
    processes = cluster()
    for tick in range(1, (END - START) // STEP_SECONDS + 1):
        for process in processes:
            lines += process.samples(tick)
        lines += [line(name, labels, value, tick) for name, labels, value in devices(tick)]
    return "\n".join([*lines, "# EOF", ""])


def cluster() -> list[Process]:
    """Two API replicas, two workers of pool short, an idle one of pool long, a webhook sender."""
    return [
        *(api(f"darkroom-api-{number}") for number in range(2)),
        worker("darkroom-short-0", "short", PRICE_SHORT, GPU_SHORT, busy=True),
        worker("darkroom-short-1", "short", PRICE_SHORT, GPU_MIG, busy=False),
        worker("darkroom-long-0", "long", PRICE_LONG, GPU_LONG, busy=False),
        sender(),
    ]


def api(pod: str) -> Process:
    metrics = ApiMetrics(CollectorRegistry())
    for pool in ("short", "long"):
        metrics.jobs_admitted.labels("demo", pool)
    metrics.jobs_resent.labels("short")

    def step(tick: int) -> None:
        metrics.jobs_admitted.labels("demo", "short").inc(3)
        metrics.jobs_refused.labels("InvalidParameter").inc()
        metrics.request_seconds.labels("POST", "/v1/jobs", "202").observe(0.02)
        metrics.request_seconds.labels("GET", "/v1/jobs/{job_id}", "200").observe(0.004)
        if tick % 10 == 0:
            metrics.jobs_resent.labels("short").inc()
        for pool, depth in (("short", 7.0), ("long", 0.0), ("webhooks", 1.0)):
            metrics.queue_depth.labels(pool, "active").set(depth)
            metrics.queue_depth.labels(pool, "scheduled").set(0)
            metrics.queue_depth.labels(pool, "dead_lettered").set(2 if pool == "short" else 0)

    return Process(metrics.registry, pod, "api", step)


def worker(pod: str, pool: str, price: float, gpu: str, *, busy: bool) -> Process:
    metrics = WorkerMetrics(CollectorRegistry())
    metrics.price_usd_per_hour.labels(pool).set(price)
    metrics.jobs_in_flight.labels(pool).set(3 if busy else 0)
    metrics.jobs_held.labels(pool).set(2 if busy else 0)
    metrics.model_bytes.labels("device").set(7e9)
    metrics.worker_info.labels(pool, "cuda:0", gpu, "0.1.0").set(1)
    metrics.model_loads.labels("demo", "disk").inc()
    metrics.model_evictions.labels("demo", "host").inc()

    def step(tick: int) -> None:
        if tick % 40 == 0:
            metrics.load_seconds.labels("demo").observe(12)
        if not busy:
            return
        labels = ("demo", pool)
        failed = tick % 5 == 0
        status, code = ("Failed", "OutOfMemory") if failed else ("Succeeded", "")
        metrics.jobs_finished.labels(*labels, status, code).inc()
        metrics.job_seconds.labels(*labels, status).observe(25)
        metrics.queue_seconds.labels(*labels).observe(4)
        metrics.gpu_seconds.labels(*labels).observe(20)
        metrics.device_seconds.labels(pool, "generate").inc(20)
        metrics.device_seconds.labels(pool, "load").inc(1)
        metrics.batch_pictures.labels(pool).observe(3)
        metrics.store_seconds.labels(*labels).observe(0.3)
        metrics.model_loads.labels("demo", "host").inc()
        if failed:
            metrics.deliveries_returned.labels(pool, "abandoned", "OutOfMemory").inc()

    return Process(metrics.registry, pod, "worker", step)


def sender() -> Process:
    metrics = WebhookMetrics(CollectorRegistry())

    def step(_tick: int) -> None:
        metrics.attempts.labels("delivered").inc()

    return Process(metrics.registry, "darkroom-webhooks-0", "webhooks", step)


def devices(tick: int) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield what DCGM's exporters say at a step."""
    h100 = {"modelName": "NVIDIA H100 NVL", "gpu": "0", "device": "nvidia0"}
    a100 = {"modelName": "NVIDIA A100 80GB PCIe", "gpu": "0", "device": "nvidia0"}
    old = {**h100, "UUID": GPU_SHORT, "Hostname": "gpu-old", "pod": "darkroom-short-0"}
    new = {**h100, "UUID": GPU_LONG, "hostname": "gpu-new", "pod": "darkroom-long-0"}
    mig = {**a100, "UUID": GPU_MIG, "hostname": "gpu-mig", "pod": "darkroom-short-1"}
    mig |= {"GPU_I_ID": "1", "GPU_I_PROFILE": "3g.40gb"}
    for labels, busy, used, xid in ((old, 0.8, 60, 0), (new, 0.0, 1, 79), (mig, 0.1, 10, 0)):
        values = {
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE": busy,
            "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": busy / 2,
            "DCGM_FI_PROF_DRAM_ACTIVE": busy / 3,
            "DCGM_FI_DEV_FB_USED": used * 1000,
            "DCGM_FI_DEV_FB_FREE": (78 - used) * 1000,
            "DCGM_FI_DEV_FB_RESERVED": 2000,
            "DCGM_FI_DEV_GPU_TEMP": 30 + 50 * busy,
            "DCGM_FI_DEV_MEMORY_TEMP": 35 + 50 * busy,
            "DCGM_FI_DEV_POWER_USAGE": 80 + 300 * busy,
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": tick * 1e6,
            "DCGM_FI_DEV_SM_CLOCK": 1700,
            "DCGM_FI_DEV_MEM_CLOCK": 2600,
            "DCGM_FI_DEV_XID_ERRORS": xid,
            "DCGM_FI_DEV_ROW_REMAP_FAILURE": 0,
        }
        if "GPU_I_ID" not in labels:  # an instance has no such counter
            values["DCGM_FI_DEV_GPU_UTIL"] = 100 * busy
        yield from ((name, labels, value) for name, value in values.items())
