"""Every error that Darkroom raises on purpose.

::

    DarkroomError                    code, message, target
    ├── Terminal                     trying again cannot help: the job fails at once
    │   ├── InvalidInput             the caller asked for something that cannot be
    │   │   ├── UnknownModel
    │   │   └── NoPoolForJob         no pool serves that model for that long
    │   ├── UnsafeContent
    │   ├── ModelUnavailable         the catalog names weights that cannot be loaded
    │   ├── DeadlineExceeded
    │   └── UnsupportedMessage       a message that this version cannot read
    ├── Retryable                    goes back to the queue with back-off, up to the delivery limit
    │   ├── LeaseLost
    │   ├── StoreUnavailable         job records or images cannot be reached
    │   ├── QueueUnavailable
    │   ├── OutOfMemory
    │   ├── GenerationFailed         the pipeline raised
    │   ├── DeviceLost               the GPU is unusable until the worker's process starts anew
    │   └── Preempted                the worker must go; does not count against the delivery limit
    ├── NotFound
    │   ├── JobNotFound
    │   ├── ImageNotFound
    │   └── DeadLetterNotFound
    ├── Conflict
    │   ├── VersionConflict          somebody else wrote the record first
    │   ├── IllegalTransition        the job's state does not allow it
    │   ├── StaleAttempt             the fence: another attempt owns the job now
    │   ├── IdempotencyKeyReused     same key, other body
    │   └── IdempotencyKeyInFlight   same key, still being admitted
    └── SettingsError
        └── MissingExtra             names the ``pip install`` that cures it

Adapters translate their vendor's errors to these. ``code`` is what callers see in
``error.code``; messages never hold prompt text, keys or links with signatures.
"""

from typing import ClassVar


class DarkroomError(Exception):
    """Base of the tree.

    ``message`` is one sentence for a person, ``target`` the request field or setting at fault.
    """

    code: ClassVar[str] = "InternalError"

    def __init__(self, message: str, *, target: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.target = target


class Terminal(DarkroomError):
    """Trying again cannot help."""

    code = "Terminal"


class InvalidInput(Terminal):
    """A field of the request is out of its limits."""

    code = "InvalidParameter"


class UnknownModel(InvalidInput):
    """The catalog has no model of that name."""

    code = "UnknownModel"


class NoPoolForJob(InvalidInput):
    """No pool serves the model for as many GPU seconds as the job is estimated to take."""

    code = "NoPoolForJob"


class UnsafeContent(Terminal):
    """A content filter refused the prompt or the picture."""

    code = "UnsafeContent"


class ModelUnavailable(Terminal):
    """The model's files are missing, damaged or of a class that cannot be run."""

    code = "ModelUnavailable"


class DeadlineExceeded(Terminal):
    """The job's own deadline passed before it was done."""

    code = "DeadlineExceeded"


class UnsupportedMessage(Terminal):
    """The message cannot be decoded, or has a version this release does not know."""

    code = "UnsupportedMessage"


class Retryable(DarkroomError):
    """Another try may succeed."""

    code = "Retryable"


class LeaseLost(Retryable):
    """The message is no longer ours: its lock expired or was taken over."""

    code = "LeaseLost"


class StoreUnavailable(Retryable):
    """A job store or image store did not answer."""

    code = "StoreUnavailable"


class QueueUnavailable(Retryable):
    """The queue did not answer."""

    code = "QueueUnavailable"


class OutOfMemory(Retryable):
    """The device has too little memory for even the smallest batch."""

    code = "OutOfMemory"


class GenerationFailed(Retryable):
    """The pipeline raised an error that is not known to be the caller's fault."""

    code = "GenerationFailed"


class DeviceLost(Retryable):
    """The GPU is in an error state that only a new process gets rid of."""

    code = "DeviceLost"


class Preempted(Retryable):
    """The worker is being drained or evicted."""

    code = "Preempted"


class NotFound(DarkroomError):
    """What was asked for does not exist, or is not this caller's."""

    code = "NotFound"


class JobNotFound(NotFound):
    """No such job for this tenant."""

    code = "JobNotFound"


class ImageNotFound(NotFound):
    """The job has no image of that index, or not yet."""

    code = "ImageNotFound"


class DeadLetterNotFound(NotFound):
    """No dead-lettered message of that job."""

    code = "DeadLetterNotFound"


class Conflict(DarkroomError):
    """The current state forbids it."""

    code = "Conflict"


class VersionConflict(Conflict):
    """The record changed since it was read."""

    code = "VersionConflict"


class IllegalTransition(Conflict):
    """The transition table has no such step."""

    code = "IllegalTransition"


class StaleAttempt(Conflict):
    """A later attempt, or a terminal state, owns the job: publish nothing."""

    code = "StaleAttempt"


class IdempotencyKeyReused(Conflict):
    """The key was used for a request with another body."""

    code = "IdempotencyKeyReused"


class IdempotencyKeyInFlight(Conflict):
    """A request with this key is still being admitted."""

    code = "IdempotencyKeyInFlight"


class SettingsError(DarkroomError):
    """The configuration cannot work; said at start-up."""

    code = "SettingsError"


class MissingExtra(SettingsError):
    """A backend was asked for whose packages are not installed."""

    code = "MissingExtra"

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs packages that are not installed: pip install 'darkroom[{extra}]'"
        )
        self.extra = extra
