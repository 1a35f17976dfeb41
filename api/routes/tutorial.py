"""The tutorial's synchronous API: POST and GET /api/generate, GET /api/health.

What is left out takes the model's default, not the tutorial's own 25 steps at 512 x 512, which a
model may not allow.
"""

import base64
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.answers import job_location, json_answer
from api.bodies import checked, read_json
from api.dependencies import State, Submitter
from api.documentation import WAITING_STATUSES, json_body, shaped_refusals
from api.error_shapes import TUTORIAL_PATH, TutorialErrorAnswer
from api.readiness import checks_of
from api.state import ApiState
from api.submitting import IdempotencyHeader, pictures_of, refusals_counted
from darkroom.generation import (
    MAX_GUIDANCE,
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    MAX_SIDE_PIXELS,
    MAX_STEPS,
    MIN_SIDE_PIXELS,
    GenerationRequest,
    Guidance,
    Prompt,
    Seed,
    Side,
    Steps,
    Text,
)
from darkroom.imagestores.base import output_name
from darkroom.jobs import Job

router = APIRouter(tags=["tutorial"])
_ANSWERS = shaped_refusals(TutorialErrorAnswer, *WAITING_STATUSES)


class TutorialRequest(BaseModel):
    """What the tutorial's clients send."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: Prompt = Field(description="What the picture should show; 1 to 2,000 characters.")
    negative_prompt: Annotated[Text, StringConstraints(max_length=MAX_PROMPT_CHARACTERS)] = Field(
        "", description="What the picture should not show; at most 2,000 characters."
    )
    num_steps: Steps | None = Field(None, description="Denoising steps, 1 to 200.")
    guidance_scale: Guidance | None = Field(None, description="0 to 30.")
    width: Side | None = Field(None, description="Pixels, 64 to 2,048, a multiple of 8.")
    height: Side | None = Field(None, description="Pixels, 64 to 2,048, a multiple of 8.")
    seed: Seed | None = Field(None, description="Not in the tutorial: the seed.")

    async def as_generation(self) -> GenerationRequest:
        """Return the same request in the words of the job API."""
        values = self.model_dump(exclude={"num_steps"})
        return checked(GenerationRequest, {**values, "num_inference_steps": self.num_steps})


class TutorialAnswer(BaseModel):
    """One picture, as base64. Sides in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    success: Literal[True] = True
    prompt: str
    image: str = Field(description="The PNG file as base64.")
    format: Literal["png"] = "png"
    width: int
    height: int


class GpuInfo(BaseModel):
    """A GPU's name and memory in GiB, which this tier never knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    memory_total_gb: float
    memory_allocated_gb: float
    memory_reserved_gb: float


class TutorialHealth(BaseModel):
    """Whether jobs can be taken. Null is what the API cannot know: the GPUs are the workers'."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    status: Literal["healthy", "unhealthy"]
    gpu_available: bool | None = Field(description="Null: this tier has no GPU to look at.")
    gpu_info: GpuInfo | None = Field(description="Null, likewise.")
    model_loaded: bool | None = Field(description="Null: workers load models as jobs come.")


@router.post(
    TUTORIAL_PATH,
    response_model=TutorialAnswer,
    summary="Generate a picture as the tutorial does, in one request",
    openapi_extra=json_body(TutorialRequest),
    responses=_ANSWERS,
)
async def generate(
    request: Request,
    caller: Submitter,
    state: State,
    idempotency_header: IdempotencyHeader = None,
) -> Response:
    """Admit a job, wait for it, and answer with its picture."""
    with refusals_counted(state):
        asked = await read_json(request, state, TutorialRequest)
    reading = asked.as_generation()
    job = await pictures_of(request, caller, state, reading, idempotency_header)
    return await _answer(request, state, job)


@router.get(
    TUTORIAL_PATH,
    response_model=TutorialAnswer,
    summary="Generate a picture from query parameters",
    responses=_ANSWERS,
)
async def generate_by_query(
    request: Request,
    caller: Submitter,
    state: State,
    prompt: Annotated[str, Query(min_length=1, max_length=MAX_PROMPT_CHARACTERS)],
    negative_prompt: Annotated[str, Query(max_length=MAX_PROMPT_CHARACTERS)] = "",
    num_steps: Annotated[int | None, Query(ge=1, le=MAX_STEPS)] = None,
    guidance_scale: Annotated[float | None, Query(ge=0, le=MAX_GUIDANCE)] = None,
    width: Annotated[int | None, Query(ge=MIN_SIDE_PIXELS, le=MAX_SIDE_PIXELS)] = None,
    height: Annotated[int | None, Query(ge=MIN_SIDE_PIXELS, le=MAX_SIDE_PIXELS)] = None,
    seed: Annotated[int | None, Query(ge=0, le=MAX_SEED)] = None,
) -> Response:
    """Do the same as the POST; a prompt in an address may end up in logs of what is between."""
    values = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "num_steps": num_steps,
        "guidance_scale": guidance_scale,
        "width": width,
        "height": height,
        "seed": seed,
    }
    reading = checked(TutorialRequest, values).as_generation()
    job = await pictures_of(request, caller, state, reading, None)
    return await _answer(request, state, job)


@router.get(
    "/api/health",
    summary="Whether jobs can be taken",
    responses={503: {"description": "A backend does not answer.", "model": TutorialHealth}},
)
async def health(state: State, response: Response) -> TutorialHealth:
    """Answer for this tier alone: its job store and queues."""
    checks = await checks_of(state)
    healthy = all(found == "ok" for found in checks.values())
    response.status_code = 200 if healthy else 503
    return TutorialHealth(
        status="healthy" if healthy else "unhealthy",
        gpu_available=None,
        gpu_info=None,
        model_loaded=None,
    )


async def _answer(request: Request, state: ApiState, job: Job) -> Response:
    png = await state.images.get(job.id, output_name(0))
    answered = TutorialAnswer(
        prompt=job.generation.prompt,
        image=base64.b64encode(png).decode(),
        width=job.generation.width,
        height=job.generation.height,
    )
    headers = {
        "operation-location": job_location(request, state, job),
        "cache-control": "no-store",
    }
    return json_answer(answered.model_dump_json(), headers=headers)
