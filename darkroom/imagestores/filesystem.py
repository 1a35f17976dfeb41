"""Pictures in a folder that the processes of one machine share.

``root/<job id>/<name>`` is the picture, ``root/<job id>/.<name>.attempt`` the attempt that wrote
it. Under a lock of its own (``root/.locks``, a fixed number of files) a write first raises the
attempt, then replaces the picture; dying between the two leaves the old picture and a fence that
the same attempt, or a later one, may pass. Both are synced: a picture survives a power cut.
"""

import asyncio
import fcntl
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from darkroom.errors import ImageNotFound, InvalidInput, StaleAttempt, StoreUnavailable
from darkroom.imagestores.base import ImageStore

LOCK_FILES = 64
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # no separator, no leading dot


class FilesystemImageStore(ImageStore):
    """Pictures below ``root``, which is created when needed. File work is done in threads."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        """Write the picture. Raises `InvalidInput` for a job id or name that is no file name."""
        await asyncio.to_thread(self._put, job_id, name, png, attempt)

    async def get(self, job_id: str, name: str) -> bytes:
        """Return the picture."""
        return await asyncio.to_thread(self._get, job_id, name)

    async def link(self, job_id: str, name: str, lifetime: timedelta) -> str | None:
        """Return None: there is no server that could be linked to."""
        return None

    async def delete(self, job_id: str) -> None:
        """Remove the job's folder."""
        await asyncio.to_thread(self._delete, job_id)

    def _put(self, job_id: str, name: str, png: bytes, attempt: int) -> None:
        folder = self._folder(job_id)
        if not _SAFE.fullmatch(name):
            raise InvalidInput("name is not a plain file name", target="name")
        with _as_unavailable(), self._lock(job_id):
            folder.mkdir(parents=True, exist_ok=True)
            fence = folder / f".{name}.attempt"
            written_by = int(fence.read_text()) if fence.exists() else 0
            if attempt < written_by:
                raise StaleAttempt(f"attempt {written_by} wrote {name}; this is attempt {attempt}")
            if attempt > written_by:
                _replace(fence, str(attempt).encode())
            _replace(folder / name, png)

    def _get(self, job_id: str, name: str) -> bytes:
        missing = ImageNotFound(f"job {job_id} has no picture {name}")
        if not (_SAFE.fullmatch(job_id) and _SAFE.fullmatch(name)):
            raise missing
        with _as_unavailable():
            try:
                return (self._root / job_id / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                raise missing from None

    def _delete(self, job_id: str) -> None:
        folder = self._folder(job_id)
        with _as_unavailable(), self._lock(job_id):
            if folder.exists():
                shutil.rmtree(folder)

    def _folder(self, job_id: str) -> Path:
        if not _SAFE.fullmatch(job_id):
            raise InvalidInput("job id is not a plain file name", target="job_id")
        return self._root / job_id

    @contextmanager
    def _lock(self, job_id: str) -> Iterator[None]:
        locks = self._root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / f"{zlib.crc32(job_id.encode()) % LOCK_FILES:02}").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
            yield


def _replace(path: Path, content: bytes) -> None:
    """Put ``content`` in the place of ``path`` at once and for good."""
    scratch = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"the image folder: {error.strerror}") from error
