"""The API on memory adapters, with a clock that tests move; the worker's part is played by hand."""

import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from PIL import Image

from api.app import create_app
from api.settings import ApiSettings
from api.state import ApiState, make_state
from api.webhooks.settings import WebhookSettings
from darkroom import webhooks
from darkroom.announcing import AnnouncingJobStore
from darkroom.catalog import Catalog
from darkroom.clock import FakeClock
from darkroom.errors import VersionConflict
from darkroom.imagestores.base import ImageStore, output_name
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobs import Job, JobImage, Provenance, Usage, cancel, claim, succeed
from darkroom.jobstores.base import JobStore
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.queues.base import JobQueue
from darkroom.queues.memory import MemoryJobQueue

PROMPT = "a lighthouse at dusk"
BASE = "http://darkroom.localhost"

CATALOG = Catalog.model_validate(
    {
        "default_model": "demo",
        "models": [
            {
                "name": "demo",
                "source": "demo/pipeline",
                "revision": "1",
                "kinds": ["text_to_image", "image_to_image", "inpainting"],
                "scheduler": "DDIMScheduler",
                "schedulers": ["EulerDiscreteScheduler"],
                "defaults": {"width": 128, "height": 128, "num_inference_steps": 20},
                "limits": {
                    "max_side": 512,
                    "max_pixels": 131072,
                    "max_steps": 100,
                    "max_guidance_scale": 20,
                    "max_images": 4,
                },
                "loras": [{"name": "ink", "source": "ink.safetensors"}],
                "seconds_per_megapixel_step": 1.0,
                "licence": "MIT",
            },
            {
                "name": "words-only",
                "source": "words",
                "revision": "1",
                "seconds_per_megapixel_step": 1.0,
                "licence": "MIT",
            },
        ],
        "pools": [
            {"name": "short", "models": ["demo", "words-only"], "max_gpu_seconds": 7},
            {"name": "long", "models": ["demo"], "max_gpu_seconds": 20},
        ],
    }
)


@dataclass(frozen=True)
class Stack:
    """One API and what stands behind it."""

    state: ApiState
    http: httpx.AsyncClient
    clock: FakeClock

    async def submit(self, **fields: Any) -> dict[str, Any]:
        answer = await self.http.post("/v1/jobs", json={"prompt": PROMPT, **fields})
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def begin(self, job_id: str) -> Job:
        """Claim the job as a worker would."""
        job = await self.state.jobs.get(job_id)
        return await self.state.jobs.compare_and_set(claim(job, self.clock.now(), 60), job.version)

    async def finish(self, job_id: str) -> Job:
        """Store a picture for the running job, and end it; if it is to be cancelled, cancel it."""
        png = picture_file()
        while True:
            job = await self.state.jobs.get(job_id)
            now = self.clock.now()
            if job.cancel_requested:
                ended = cancel(job, now)
            else:
                await self.state.images.put(job_id, output_name(0), png, attempt=job.attempts)
                ended = _succeeded(job, now)
            try:
                return await self.state.jobs.compare_and_set(ended, job.version)
            except VersionConflict:
                continue

    async def messages(self) -> list[str]:
        """Take every waiting message, as a consumer that completes at once; return the job ids."""
        found: list[str] = []
        for queue in self.state.queues.values():
            while leases := await queue.lease(100, 0):
                for lease in leases:
                    found.append(lease.message_id)
                    await lease.complete()
        return found


def _succeeded(job: Job, now: Any) -> Job:
    image = JobImage(index=0, width=64, height=64, sha256="ab" * 32, seed=job.generation.seed)
    return succeed(
        job,
        job.attempts,
        now,
        images=[image],
        usage=Usage(gpu_seconds=1.5),
        provenance=Provenance(model_revision="1"),
    )


@asynccontextmanager
async def open_stack(
    *,
    jobs: JobStore | None = None,
    images: ImageStore | None = None,
    queues: dict[str, JobQueue] | None = None,
    catalog: Catalog = CATALOG,
    webhook_settings: WebhookSettings | None = None,
    **settings: Any,
) -> AsyncIterator[Stack]:
    """Serve the API inside this process; ``settings`` are `ApiSettings` fields."""
    clock = FakeClock()
    events = MemoryJobQueue(
        lease_seconds=60, max_delivery_count=webhooks.MAX_DELIVERY_COUNT, clock=clock
    )
    if webhook_settings is not None:
        jobs = AnnouncingJobStore(jobs or MemoryJobStore(clock), events, clock)
    state = make_state(
        settings=ApiSettings.model_validate({"watch_seconds": 0.01, **settings}),
        region="local",
        catalog=catalog,
        jobs=jobs or MemoryJobStore(clock),
        images=images or MemoryImageStore(),
        queues=queues or {pool.name: memory_queue(clock) for pool in catalog.pools},
        clock=clock,
        webhooks=events,
        webhook_settings=webhook_settings,
    )
    transport = httpx.ASGITransport(create_app(state), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
        yield Stack(state, http, clock)


def memory_queue(clock: FakeClock) -> JobQueue:
    return MemoryJobQueue(lease_seconds=30, max_delivery_count=3, clock=clock)


def picture_file(
    width: int = 64, height: int = 64, form: str = "PNG", color: Any = "navy", mode: str = "RGB"
) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height), color).save(out, form)
    return out.getvalue()


def base64_picture(*args: Any, **kwargs: Any) -> str:
    return base64.b64encode(picture_file(*args, **kwargs)).decode()
