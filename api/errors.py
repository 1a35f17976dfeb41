"""The errors that only an HTTP tier has, and the status of every error code, in one table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from darkroom.errors import Conflict, DarkroomError, InvalidInput, NotFound


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


class Forbidden(DarkroomError):
    """The caller lacks ``role``, which the route asks for."""

    code = "Forbidden"

    def __init__(self, role: str) -> None:
        super().__init__(f"this needs the role {role}", target=role)


STATUS_BY_CODE: Final[dict[str, int]] = {
    "InvalidParameter": 400,
    "InvalidJson": 400,
    "UnknownModel": 400,
    "NoPoolForJob": 400,
    "UnsafeContent": 400,
    "Forbidden": 403,
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
    "IdempotencyKeyInFlight": 409,
    "RequestTooLarge": 413,
    "UnsupportedMediaType": 415,
    "IdempotencyKeyReused": 422,
    "InternalError": 500,
    "StoreUnavailable": 503,
    "QueueUnavailable": 503,
}
"""What a caller can get from the API. A code that is not here is our fault: `InternalError`."""

UNAVAILABLE_RETRY_SECONDS = 5


def status_of(error: DarkroomError) -> int:
    """Return the HTTP status that ``error`` is answered with."""
    return STATUS_BY_CODE.get(error.code, STATUS_BY_CODE["InternalError"])
