"""What a receiver is told: how the job ended and where to look; no prompt and no picture.

Made from the ended record, which does not change, so that every attempt says the same.
"""

import json
from typing import Any

from darkroom.jobs import Job, end_event

MAX_PAYLOAD_BYTES = 20_000  # what Standard Webhooks asks for


def payload_of(job: Job, base_url: str) -> bytes:
    """Return the body, less than `MAX_PAYLOAD_BYTES` of JSON in UTF-8.

    ``base_url`` is how links start; empty makes them relative to the API's address. Tags are left
    out where they would make the body too long.
    """
    data = _data(job, base_url)
    body = _encoded(job, data)
    if len(body) >= MAX_PAYLOAD_BYTES:
        body = _encoded(job, {**data, "tags": {}})
    return body


def _encoded(job: Job, data: dict[str, Any]) -> bytes:
    ended_at = job.finished_at and job.finished_at.isoformat()
    said = {"type": end_event(job.status), "timestamp": ended_at, "data": data}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


def _data(job: Job, base_url: str) -> dict[str, Any]:
    link = f"{base_url}/v1/jobs/{job.id}"
    times = ("created_at", "started_at", "finished_at")
    shown = job.model_dump(
        mode="json", include={"id", "status", "error", "usage", "attempts", "tags", *times}
    )
    images = [
        {"url": f"{link}/images/{image.index}", **image.model_dump(mode="json")}
        for image in job.images
    ]
    return {**shown, "model": job.generation.model, "images": images, "links": {"self": link}}
