"""The finished pictures, and the preview of one that is being made."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Path, Response

from api.dependencies import JobId, Reader, State, own_job
from api.documentation import NOT_MODIFIED, refusals
from api.errors import JobNotFinished
from api.headers import etag, matches
from darkroom.errors import ImageNotFound
from darkroom.generation import MAX_IMAGES
from darkroom.imagestores.base import PREVIEW, output_name
from darkroom.jobs import JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
_PNG = {
    "description": "The PNG file.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
}
_FOREVER = "private, max-age=31536000, immutable"  # a finished job's pictures never change


@router.get(
    "/{job_id}/images/{index}",
    response_class=Response,
    summary="Get a picture",
    responses={
        200: _PNG,
        304: NOT_MODIFIED,
        307: {"description": "A short-lived link to the file in the image store."},
        **refusals(400, 404, 409, 503),
    },
)
async def get_image(
    job_id: JobId,
    index: Annotated[int, Path(ge=0, lt=MAX_IMAGES, description="Which picture, from 0.")],
    caller: Reader,
    state: State,
    if_none_match: Annotated[str | None, Header(description="An ETag seen before.")] = None,
    sec_fetch_site: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Answer with the bytes, or with a link where the image store makes links.

    Our own page gets the bytes: its content policy lets nothing come from another host.
    """
    job = await own_job(job_id, caller, state)
    if not job.status.is_terminal:
        raise JobNotFinished(f"the job is {job.status}: it has no pictures yet", target="job_id")
    if job.erased_at is not None:
        raise ImageNotFound("the job's pictures were erased", target="job_id")
    image = next((one for one in job.images if one.index == index), None)
    if image is None:
        raise ImageNotFound(f"the job has {len(job.images)} pictures", target="index")
    headers = {"etag": etag(image.sha256), "cache-control": _FOREVER}
    if matches(if_none_match, image.sha256):
        return Response(status_code=304, headers=headers)
    name = output_name(index)
    if sec_fetch_site != "same-origin":
        lifetime = timedelta(seconds=state.settings.link_seconds)
        if link := await state.images.link(job.id, name, lifetime):
            headers = {"location": link, "cache-control": "no-store"}
            return Response(status_code=307, headers=headers)
    png = await state.images.get(job.id, name)
    headers["content-disposition"] = f'inline; filename="{job.id}-{index}.png"'
    return Response(png, media_type="image/png", headers=headers)


@router.get(
    "/{job_id}/preview",
    response_class=Response,
    summary="Get the newest preview of a running job",
    responses={200: _PNG, **refusals(404, 503)},
)
async def get_preview(job_id: JobId, caller: Reader, state: State) -> Response:
    """Answer with the bytes: small, and gone as soon as the job ends."""
    job = await own_job(job_id, caller, state)
    if job.preview_step is None or job.status is not JobState.RUNNING:
        raise ImageNotFound("the job has no preview now", target="job_id")
    png = await state.images.get(job.id, PREVIEW)
    return Response(png, media_type="image/png", headers={"cache-control": "no-store"})
