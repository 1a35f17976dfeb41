"""A seed gives its picture whatever the batch: the demo model, eight jobs in one call."""

import io
from functools import partial

import numpy as np
from PIL import Image

from darkroom.catalog import load_catalog
from darkroom.imagestores.base import output_name
from darkroom.imagestores.memory import MemoryImageStore
from darkroom.jobstores.memory import MemoryJobStore
from darkroom.queues.memory import MemoryJobQueue
from darkroom.settings import DEFAULT_CATALOG
from tests.samples import make_generation
from tests.worker.batching import all_ended
from tests.worker.site import POOL, Site
from worker.engines.base import GenerationTask, OnStep
from worker.engines.diffusers import DiffusersEngine
from worker.models import locate, locate_lora

PROMPTS = ("a red circle", "a blue square on yellow", "a lake under a purple sky", "a small house")


class RecordingEngine(DiffusersEngine):
    """The real engine; ``sizes`` are those of its calls."""

    sizes: list[int]

    def generate(self, batch: "list[GenerationTask]", on_step: OnStep) -> list[list[Image.Image]]:  # type: ignore[override]
        self.sizes.append(len(batch))
        return super().generate(batch, on_step)


async def test_eight_jobs_in_one_call_look_as_each_does_alone_to_one_grey_level() -> None:
    catalog = load_catalog(DEFAULT_CATALOG)
    pool = catalog.pools[0].model_copy(update={"name": POOL, "concurrency": 8})
    site = Site(
        queue=MemoryJobQueue(lease_seconds=60, max_delivery_count=3),
        jobs=MemoryJobStore(),
        images=MemoryImageStore(),
        catalog=catalog.model_copy(update={"pools": (pool,)}),
    )
    model = catalog.model("demo")
    engine = RecordingEngine("cpu", partial(locate_lora, catalog=catalog), 1)
    engine.sizes = []
    asked = [
        {
            "prompt": PROMPTS[seed % 4],
            "seed": seed,
            "width": 128,
            "height": 128,
            "guidance_scale": 2.0,
            "num_inference_steps": 5,
            "scheduler": model.scheduler,
        }
        for seed in range(8)
    ]
    ids = [await site.submit(**{**asked[0], "num_inference_steps": 2})]
    async with site.worker(engine):
        ids = [await site.submit(**one) for one in asked]
        jobs = await all_ended(site, ids)
    assert max(engine.sizes) == 8
    engine.load(model, locate(model, catalog))
    for job, one in zip(jobs, asked, strict=True):
        ((alone,),) = engine.generate(
            [GenerationTask(make_generation(**one))], lambda step, total, preview: None
        )
        png = await site.images.get(job.id, output_name(0))
        together = np.asarray(Image.open(io.BytesIO(png))).astype(int)
        assert np.abs(together - np.asarray(alone).astype(int)).max() <= 1
