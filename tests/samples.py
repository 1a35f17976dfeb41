"""Small valid things to begin a test with; every field can be overridden."""

from datetime import UTC, datetime
from typing import Any

from darkroom.generation import Generation
from darkroom.jobs import Job, new_job_id
from darkroom.messages import JobMessage, message_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


def make_generation(**fields: Any) -> Generation:
    defaults: dict[str, Any] = {
        "model": "demo",
        "prompt": "a lighthouse at dusk",
        "negative_prompt": "",
        "width": 512,
        "height": 512,
        "num_inference_steps": 20,
        "guidance_scale": 7.5,
        "num_images": 1,
        "seed": 7,
        "scheduler": "DDIMScheduler",
    }
    return Generation(**{**defaults, **fields})


def make_job(**fields: Any) -> Job:
    tenant = fields.get("tenant", "acme")
    created_at = fields.get("created_at", NOW)
    defaults: dict[str, Any] = {
        "id": new_job_id("local", tenant),
        "tenant": tenant,
        "pool": "short",
        "generation": make_generation(),
        "created_at": created_at,
        "updated_at": created_at,
    }
    return Job(**{**defaults, **fields})


def make_message(**fields: Any) -> JobMessage:
    return message_for(make_job(**fields))
