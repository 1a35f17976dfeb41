"""What the caller has used."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.dependencies import Reader, State
from api.documentation import refusals
from api.usage import MAX_RANGE, TenantUsage, check_end, usage_of
from darkroom.jobs import JobState

router = APIRouter(tags=["usage"])
DEFAULT_RANGE = timedelta(days=1)


class ModelUsageBody(BaseModel):
    """One model's share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    gpu_seconds: float
    cost_usd: float
    jobs: dict[JobState, int] = Field(description="How many, by status; those that there are.")


class UsageReport(BaseModel):
    """GPU seconds, cost and jobs of the caller's tenant."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    start: datetime = Field(serialization_alias="from", description="Start of the time, exclusive.")
    end: datetime = Field(serialization_alias="to", description="End of the time, inclusive.")
    gpu_seconds: float
    cost_usd: float
    jobs: int
    models: list[ModelUsageBody]
    truncated: bool = Field(
        description="Whether there were too many jobs: then only those created at `counted_from`"
        " or later are counted."
    )
    counted_from: datetime


@router.get(
    "/v1/usage",
    response_model=UsageReport,
    summary="GPU seconds, cost and jobs over a time",
    responses=refusals(400, 503),
)
async def usage(
    caller: Reader,
    state: State,
    start: Annotated[
        AwareDatetime | None,
        Query(
            alias="from",
            description=f"RFC 3339 with zone, up to {MAX_RANGE.days} days before `to`; a day"
            " before it unless given.",
        ),
    ] = None,
    end: Annotated[
        AwareDatetime | None, Query(alias="to", description="RFC 3339 with zone; now unless given.")
    ] = None,
) -> UsageReport:
    """Add up the caller's jobs by the time of their creation."""
    until = end or state.clock.now()
    check_end(until)
    since = start or until - DEFAULT_RANGE
    return _report(await usage_of(state.jobs, caller.tenant, since, until))


def _report(used: TenantUsage) -> UsageReport:
    models = [
        ModelUsageBody(
            model=name,
            gpu_seconds=sums.gpu_seconds,
            cost_usd=sums.cost_usd,
            jobs=dict(sorted(sums.jobs.items())),
        )
        for name, sums in sorted(used.models.items())
    ]
    return UsageReport(
        start=used.start,
        end=used.end,
        gpu_seconds=sum(one.gpu_seconds for one in models),
        cost_usd=sum(one.cost_usd for one in models),
        jobs=sum(sum(one.jobs.values()) for one in models),
        models=models,
        truncated=used.truncated,
        counted_from=used.counted_from,
    )
