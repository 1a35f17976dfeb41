"""What every job of a worker shares."""

from dataclasses import dataclass

from darkroom.catalog import Catalog, Pool
from darkroom.clock import Clock
from darkroom.imagestores.base import ImageStore
from darkroom.jobstores.base import JobStore
from darkroom.metrics import WorkerMetrics
from worker.engine_thread import EngineThread
from worker.watch import WatchPace


@dataclass(frozen=True)
class Workplace:
    """Backends, device and rules. ``claim_seconds`` is the queue's lease time."""

    catalog: Catalog
    pool: Pool
    jobs: JobStore
    images: ImageStore
    engine: EngineThread
    clock: Clock
    metrics: WorkerMetrics
    pace: WatchPace
    claim_seconds: float
    image_digest: str = ""
