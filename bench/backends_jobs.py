"""Jobs for the measurements of queues and stores: small, alike, valid."""

from datetime import UTC, datetime

from darkroom.generation import Generation
from darkroom.jobs import Job, new_job_id

GENERATION = Generation(
    model="demo",
    prompt="a lighthouse at dusk, in the style of a woodcut, with gulls over the rocks",
    negative_prompt="blurry, watermark",
    width=512,
    height=512,
    num_inference_steps=25,
    guidance_scale=7.5,
    num_images=1,
    seed=7,
    scheduler="DPMSolverMultistepScheduler",
)


def make_job(tenant: str = "acme", *, is_sent: bool = False) -> Job:
    """Return a fresh waiting job; with ``is_sent``, one whose message has been confirmed."""
    now = datetime.now(UTC)
    return Job(
        id=new_job_id("local", tenant),
        tenant=tenant,
        pool="short",
        generation=GENERATION,
        created_at=now,
        updated_at=now,
        sent_at=now if is_sent else None,
    )
