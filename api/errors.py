"""The errors that only an HTTP tier has, and the status of every error code, in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from darkroom.errors import Conflict, DarkroomError, InvalidInput, NotFound, Retryable


@dataclass(frozen=True)
class Detail:
    """One of several things wrong with a request."""

    code: str
    message: str
    target: str | None = None


class InvalidJson(InvalidInput):
    """The body is not one JSON document (RFC 8259), or a name stands twice in an object."""

    code = "InvalidJson"


class InvalidParameters(InvalidInput):
    """Several fields are out of their limits; ``details`` names each."""

    def __init__(self, details: Sequence[Detail]) -> None:
        first = details[0]
        more = f" (and {len(details) - 1} more: see details)" if len(details) > 1 else ""
        super().__init__(first.message + more, target=first.target)
        self.details = tuple(details)


class InvalidForm(InvalidInput):
    """The body is not one multipart form (RFC 7578), or a field stands twice in it."""

    code = "InvalidForm"


class RequestTooLarge(InvalidInput):
    """The body is longer than the API reads."""

    code = "RequestTooLarge"


class UnsupportedMediaType(InvalidInput):
    """The body is of a type that the route does not read."""

    code = "UnsupportedMediaType"


class RouteNotFound(NotFound):
    """No route has that path."""


class MethodNotAllowed(InvalidInput):
    """The path exists, but not for that method."""

    code = "MethodNotAllowed"


class JobNotFinished(Conflict):
    """The job has not ended yet."""

    code = "JobNotFinished"


class JobSucceeded(Conflict):
    """The job has its pictures: there is nothing to try again."""

    code = "JobSucceeded"


class JobErased(Conflict):
    """What the job asked for was erased, so it cannot be run again."""

    code = "JobErased"


class NoWebhook(Conflict):
    """The job was submitted without a webhook_url."""

    code = "NoWebhook"


class JobTimedOut(DarkroomError):
    """A caller who waits in one request waited long enough; the job goes on."""

    code = "JobTimedOut"

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(
            f"job {job_id} has not ended after {seconds:g} s; it goes on: GET /v1/jobs/{job_id}"
        )
        self.headers = {"x-should-retry": "false"}  # an OpenAI client would ask for it once more


class JobFailed(DarkroomError):
    """The job of a caller who waits in one request ended without pictures."""

    code = "JobFailed"

    def __init__(self, job_id: str, code: str, message: str) -> None:
        super().__init__(f"job {job_id} ended without pictures: {code}: {message}")
        self.headers = {"x-should-retry": "false"}  # it was tried as often as makes sense


class NotSupported(DarkroomError):
    """A convention that this API does not follow, where ignoring it would mislead."""

    code = "NotSupported"


class Unauthenticated(DarkroomError):
    """No credential, or one that is not good. ``headers`` has the challenge of RFC 6750."""

    code = "Unauthenticated"

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message, target="Authorization")
        flaw = "" if is_missing else ', error="invalid_token"'
        self.headers = {"www-authenticate": f'Bearer realm="darkroom"{flaw}'}


class Forbidden(DarkroomError):
    """The caller lacks ``role``, which the route asks for."""

    code = "Forbidden"

    def __init__(self, role: str) -> None:
        super().__init__(f"this needs the role {role}", target=role)
        challenge = f'Bearer realm="darkroom", error="insufficient_scope", scope="{role}"'
        self.headers = {"www-authenticate": challenge}


class CrossSite(DarkroomError):
    """A page of another site sent it, without a credential."""

    code = "CrossSite"


class IdentityProviderUnavailable(Retryable):
    """Whether a token is good cannot be found out at present."""

    code = "IdentityProviderUnavailable"


class HostNotAllowed(InvalidInput):
    """The request names a host that this process does not answer for."""

    code = "HostNotAllowed"


class LimitReached(DarkroomError):
    """A base: what is asked may be had later, after ``retry_after_seconds``."""

    def __init__(
        self,
        message: str,
        *,
        target: str | None = None,
        retry_after_seconds: int,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, target=target)
        self.headers = {**(headers or {}), "retry-after": str(max(1, retry_after_seconds))}


class TooManyRequests(LimitReached):
    """The tenant's requests come faster than its rate allows."""

    code = "TooManyRequests"


class QueuedJobsLimit(LimitReached):
    """The tenant has as much waiting as it may; ``target`` names the cap."""

    code = "QueuedJobsLimit"


class DeadlineCannotBeMet(LimitReached):
    """What waits before the job takes longer than the job's deadline."""

    code = "DeadlineCannotBeMet"


class QueueFull(LimitReached):
    """The pool has as many jobs waiting as it may, whoever they belong to."""

    code = "QueueFull"


STATUS_BY_CODE: Final[dict[str, int]] = {
    "InvalidParameter": 400,
    "InvalidJson": 400,
    "InvalidForm": 400,
    "UnknownModel": 400,
    "NoPoolForJob": 400,
    "UnsafeContent": 400,
    "Unauthenticated": 401,
    "Forbidden": 403,
    "CrossSite": 403,
    "NotFound": 404,
    "JobNotFound": 404,
    "ImageNotFound": 404,
    "DeadLetterNotFound": 404,
    "MethodNotAllowed": 405,
    "Conflict": 409,
    "VersionConflict": 409,
    "IllegalTransition": 409,
    "JobNotFinished": 409,
    "JobSucceeded": 409,
    "JobErased": 409,
    "NoWebhook": 409,
    "IdempotencyKeyInFlight": 409,
    "RequestTooLarge": 413,
    "UnsupportedMediaType": 415,
    "HostNotAllowed": 421,
    "IdempotencyKeyReused": 422,
    "TooManyRequests": 429,
    "QueuedJobsLimit": 429,
    "DeadlineCannotBeMet": 429,
    "InternalError": 500,
    "NotSupported": 501,
    "JobFailed": 502,
    "StoreUnavailable": 503,
    "QueueUnavailable": 503,
    "QueueFull": 503,
    "IdentityProviderUnavailable": 503,
    "JobTimedOut": 504,
}
"""What a caller can get from the API. A code that is not here is our fault: `InternalError`."""

UNAVAILABLE_RETRY_SECONDS = 5


def status_of(error: DarkroomError) -> int:
    """Return the HTTP status that ``error`` is answered with."""
    return STATUS_BY_CODE.get(error.code, STATUS_BY_CODE["InternalError"])
