"""Real workers beside the API of a test: its own queue and stores, the fake engine."""

from pathlib import Path

from darkroom.errors import OutOfMemory
from tests.api.stack import Stack
from tests.worker.site import POOL, Site
from worker.engines.fake import FakeEngine


def floor(stack: Stack, folder: Path) -> Site:
    """Return the site of the short pool's workers."""
    (folder / "demo" / "pipeline").mkdir(parents=True, exist_ok=True)
    return Site(
        queue=stack.state.queues[POOL],
        jobs=stack.state.jobs,
        images=stack.state.images,
        catalog=stack.state.catalog.model_copy(update={"folder": folder}),
        clock=stack.clock,
    )


async def break_down(stack: Stack, site: Site, **fields: object) -> str:
    """Submit a job that fails on every delivery; return its id once its message is set aside."""

    def too_big(batch: object) -> None:
        raise OutOfMemory("no room for even one picture")

    job_id: str = (await stack.submit(width=64, height=64, num_inference_steps=2, **fields))["id"]
    async with site.worker(FakeEngine(fail=too_big)):
        await site.ended(job_id)
        await site.settled()
    return job_id
