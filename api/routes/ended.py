"""What can still be done with a job that has ended: run it again, or erase it."""

from fastapi import APIRouter, Request, Response

from api.answers import job_answer, job_location
from api.dependencies import JobId, State, Submitter, own_job
from api.documentation import JOB_HEADERS, refusals
from api.erasure import erase_job
from api.representations import JobBody
from darkroom.tracing import current_traceparent, span

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "/{job_id}:resubmit",
    status_code=202,
    response_model=JobBody,
    summary="Run a failed job again, as a new one",
    responses={
        202: {"description": "The new job; poll Operation-Location.", "headers": JOB_HEADERS},
        **refusals(400, 404, 409, 503),
    },
)
async def resubmit(request: Request, job_id: JobId, caller: Submitter, state: State) -> Response:
    """Admit a new job with the same input and seed; asking twice gives the same new job."""
    old = await own_job(job_id, caller, state)
    incoming = None if current_traceparent() else request.headers.get("traceparent")
    with span("admit", traceparent=incoming):
        job = await state.admission.resubmit(old, traceparent=current_traceparent())
    answered = await job_answer(request, state, job, status=202)
    answered.headers["operation-location"] = job_location(request, state, job)
    return answered


@router.delete(
    "/{job_id}",
    status_code=204,
    response_class=Response,
    summary="Erase a job's prompt and pictures",
    responses=refusals(404, 409, 503),
)
async def erase(job_id: JobId, caller: Submitter, state: State) -> Response:
    """Delete the pictures and the texts of an ended job; its accounting stays."""
    job = await own_job(job_id, caller, state)
    state.watcher.changed(await erase_job(job, state.jobs, state.images, state.clock))
    return Response(status_code=204)
