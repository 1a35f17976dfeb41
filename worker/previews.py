"""What a job looks like while it forms: a few small pictures, for callers who asked for them.

Each replaces the one before, in the image store under a name of its own; the record then says which
step it shows, and whoever follows the job sees that. All of it is a courtesy: what cannot be stored
is left out, and never fails or delays the job.
"""

import asyncio
import io
from collections import deque

from PIL.Image import Image

from darkroom.errors import DarkroomError
from darkroom.imagestores.base import PREVIEW, ImageStore
from darkroom.log import get_logger
from worker.claims import Claim

log = get_logger()


class JobPreviews:
    """Up to ``wanted`` previews of a job, at even distances through its steps."""

    def __init__(self, claim: Claim, images: ImageStore, wanted: int) -> None:
        self._claim = claim
        self._images = images
        self._left = deque((number + 1) / (wanted + 1) for number in range(wanted))
        self._storing: asyncio.Task[None] | None = None
        self._is_closed = False

    def due(self, share: float) -> bool:
        """Whether to show the picture now that ``share`` of its steps is done, of 1."""
        is_due = False
        while self._left and share < 1 and share >= self._left[0]:
            self._left.popleft()
            is_due = True
        return is_due

    def show(self, picture: Image, share: float) -> None:
        """Store ``picture``, unless the last one is still being stored. On the event loop.

        Nothing once closed: a job may leave its call, and be erased, while that goes on for others.
        """
        if not self._is_closed and (self._storing is None or self._storing.done()):
            self._storing = asyncio.create_task(self._store(picture, share))

    async def close(self) -> None:
        """Give up what is still being stored: the job's own pictures come now, or nothing does."""
        self._is_closed = True
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.wait([self._storing])

    async def _store(self, picture: Image, share: float) -> None:
        job = self._claim.job
        step = round(share * job.generation.num_inference_steps)
        png = await asyncio.to_thread(_encode, picture)
        try:
            await self._images.put(job.id, PREVIEW, png, attempt=self._claim.attempt)
            await self._claim.report(step=step, preview_step=step)
        except DarkroomError as error:  # overtaken, or a store is out: the job itself finds out
            log.info("preview_left_out", code=error.code, **job.log_context())


def _encode(picture: Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
