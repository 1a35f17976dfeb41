"""Deliver the event of a job that has ended once more."""

import secrets

from fastapi import APIRouter, Request, Response

from api.answers import job_answer
from api.dependencies import JobId, State, Submitter, own_job
from api.documentation import JOB_HEADERS, refusals
from api.errors import JobNotFinished, NoWebhook
from api.representations import JobBody
from api.state import ApiState
from darkroom.errors import QueueUnavailable, VersionConflict
from darkroom.jobs import Job, mark_webhook
from darkroom.messages import webhook_message_for
from darkroom.webhooks import WebhookState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "/{job_id}:replay-webhook",
    status_code=202,
    response_model=JobBody,
    summary="Tell a job's webhook again how the job ended",
    responses={
        202: {"description": "The delivery is queued.", "headers": JOB_HEADERS},
        **refusals(404, 409, 503),
    },
)
async def replay(request: Request, job_id: JobId, caller: Submitter, state: State) -> Response:
    """Queue a delivery with a schedule of its own and the webhook-id of the first.

    A receiver that has it already knows it by the id. A webhook that answered 410 is enabled again.
    """
    job = await own_job(job_id, caller, state)
    if not job.status.is_terminal:
        raise JobNotFinished(f"the job is {job.status}: it has no event yet")
    if job.webhook is None:
        raise NoWebhook("the job was submitted without webhook_url")
    if state.webhooks is None:
        raise QueueUnavailable("the queue in use carries no events")
    if job.webhook.state is not WebhookState.PENDING:
        job = await _queued(job, state)
    await state.webhooks.send(webhook_message_for(job, replay=secrets.token_hex(4)))
    return await job_answer(request, state, job, status=202)


async def _queued(job: Job, state: ApiState) -> Job:
    """Return the record saying queued; one that says so already is not written."""
    while job.webhook is not None and job.webhook.state is not WebhookState.QUEUED:
        asked = mark_webhook(job, state.clock.now(), WebhookState.QUEUED)
        try:
            return await state.jobs.compare_and_set(asked, job.version)
        except VersionConflict:  # the receiver's 410, or an erase
            job = await state.jobs.get(job.id)
    return job
