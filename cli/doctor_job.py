"""The doctor's last look: the API answers, and one small job comes back with a picture."""

import time
from collections.abc import Sequence

from cli.doctor_findings import Finding, fail, ok, warn
from darkroom.client import Client, DarkroomClientError, JobView, ServerUnreachable
from darkroom.jobs import JobState

PROMPT = "a red circle on a blue background"
PNG = b"\x89PNG\r\n\x1a\n"
NOT_LET_IN = {"Unauthenticated", "Forbidden"}


def job_ends_well(url: str, key: str | None, wait_seconds: float) -> Sequence[Finding]:
    """Submit one small job through the API, wait for it, and look at its picture."""
    began = time.monotonic()
    try:
        with Client(url, key) as client:
            job = client.submit(PROMPT, tags={"from": "doctor"})
            job = client.wait(job.id, timeout_seconds=wait_seconds)
            if job.status is not JobState.SUCCEEDED:
                return [_unfinished(job, wait_seconds)]
            picture = client.image(job.id)
    except ServerUnreachable as error:
        cure = "check the API's pods and its Service, or start one with: darkroom up"
        return [fail("api", error.message, cure)]
    except DarkroomClientError as error:
        if error.status in {401, 403}:
            cure = "set DARKROOM_API_KEY to a key that may submit; no job was tried without"
            return [warn("api", f"answers, and wants a credential ({error.code})", cure)]
        return [fail("job", f"{error.code}: {error.message}", "look into the API's log")]
    if not picture.startswith(PNG):
        return [fail("job", "its picture is no PNG", "look into the worker's log")]
    seconds = time.monotonic() - began
    return [ok("api", url), ok("job", f"{job.id} came back with a picture in {seconds:.1f} s")]


def _unfinished(job: JobView, wait_seconds: float) -> Finding:
    if job.status is JobState.NOT_STARTED:
        return fail(
            "job",
            f"{job.id} waited {wait_seconds:g} s and no worker took it",
            "docs/runbook: GPU quota, stuck queue; raise --wait where nodes start slowly",
        )
    if job.status is JobState.RUNNING:
        return fail("job", f"{job.id} still runs after {wait_seconds:g} s", "raise --wait")
    why = f"{job.error.code}: {job.error.message}" if job.error else str(job.status)
    return fail("job", f"{job.id} ended as {job.status}: {why}", "look into the worker's log")
