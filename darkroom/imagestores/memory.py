"""Pictures inside one process, for tests and for reading. Nothing survives the process."""

from datetime import timedelta

from darkroom.errors import ImageNotFound, StaleAttempt
from darkroom.imagestores.base import ImageStore


class MemoryImageStore(ImageStore):
    """Pictures by job id and name, each with the attempt that wrote it."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, tuple[int, bytes]]] = {}

    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        """Keep the picture, unless a higher attempt wrote one."""
        pictures = self._jobs.setdefault(job_id, {})
        written_by = pictures[name][0] if name in pictures else 0
        if attempt < written_by:
            raise StaleAttempt(f"attempt {written_by} wrote {name}; this is attempt {attempt}")
        pictures[name] = (attempt, png)

    async def get(self, job_id: str, name: str) -> bytes:
        """Return the picture."""
        try:
            return self._jobs[job_id][name][1]
        except KeyError:
            raise ImageNotFound(f"job {job_id} has no picture {name}") from None

    async def link(self, job_id: str, name: str, lifetime: timedelta) -> str | None:
        """Return None: there is no server that could be linked to."""
        return None

    async def delete(self, job_id: str) -> None:
        """Forget the job's pictures."""
        self._jobs.pop(job_id, None)
