"""The ImageStore port: the finished pictures, and the callers' input pictures.

Names
    Functions of the job id alone (`output_name`, `INPUT_IMAGE`, `INPUT_MASK`, `PREVIEW`), so that
    a redelivered job writes the same names again and nothing is ever doubled.
Fence
    ``put`` carries the attempt that made the picture. A lower attempt never replaces what a higher
    one wrote: it gets `StaleAttempt`. The same or a higher attempt replaces it atomically: a reader
    sees the old bytes or the new, never a part.
Durability
    A ``put`` that returned survives the death of this process.
Errors
    `ImageNotFound`, `StaleAttempt`; `StoreUnavailable` after the adapter's own retries.
"""

from abc import ABC, abstractmethod
from datetime import timedelta

INPUT_IMAGE = "input-image.png"
INPUT_MASK = "input-mask.png"
PREVIEW = "preview.png"


def output_name(index: int) -> str:
    """Return the name of picture ``index`` (from 0) of a job."""
    return f"{index}.png"


class ImageStore(ABC):
    """All pictures, by job id and name."""

    @abstractmethod
    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        """Store a PNG file. Raises `StaleAttempt` when a higher attempt has written the name."""

    @abstractmethod
    async def get(self, job_id: str, name: str) -> bytes:
        """Return the PNG file. Raises `ImageNotFound`."""

    @abstractmethod
    async def link(self, job_id: str, name: str, lifetime: timedelta) -> str | None:
        """Return a read-only URL good for ``lifetime``, or None where only `get` can serve it."""

    @abstractmethod
    async def delete(self, job_id: str) -> None:
        """Remove every picture of the job; a job without pictures is fine."""

    async def close(self) -> None:
        """Release connections."""
        return None
