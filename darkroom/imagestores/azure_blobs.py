"""Azure Blob Storage: one container, blobs named ``<job id>/<picture>``.

Fence
    A blob's metadata says which attempt wrote it. A first write is conditional on the blob's
    absence (If-None-Match), a later one on the version that was looked at (If-Match), so of two
    attempts at one time the lower never wins. A blob is replaced whole: pictures are uploaded in
    one request up to 64 MiB.
Links
    A shared access signature, minted when the link is asked for: this one blob, read only, https
    only, for at most `MAX_LINK_LIFETIME`. It is signed with a user-delegation key, which Azure
    gives to an identity (role Storage Blob Data Contributor, whose ``generateUserDelegationKey``
    is at the account); the key is asked for once and kept until it is about to run out. Against an
    emulator that was opened with an account key, the signature is made with that, http included.
Cost
    A first `put` is one request; a replacement three. `link` is none while the key lasts.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import (
    BlobSasPermissions,
    ContentSettings,
    UserDelegationKey,
    generate_blob_sas,
)
from azure.storage.blob.aio import BlobServiceClient

from darkroom.azure_clients import store_errors, unless_it_is_there
from darkroom.clock import Clock, SystemClock
from darkroom.errors import ImageNotFound, InvalidInput, StaleAttempt, StoreUnavailable
from darkroom.imagestores.base import ImageStore

PNG = ContentSettings(content_type="image/png", cache_control="private, max-age=3600")
MAX_LINK_LIFETIME = timedelta(hours=1)
KEY_LIFETIME = timedelta(hours=6)  # Azure allows 7 days; a shorter one limits what a leak is worth
PUT_TRIES = 10
CLOCK_SKEW = timedelta(minutes=5)  # signatures begin this much earlier, for clocks that differ


class AzureBlobsImageStore(ImageStore):
    """All pictures of one container. ``service`` is this store's own, closed with it.

    ``account_key`` signs links against an emulator; against Azure it is None.
    """

    def __init__(
        self,
        service: BlobServiceClient,
        container: str,
        *,
        account_key: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._service = service
        self._container = service.get_container_client(container)
        self._account_key = account_key
        self._clock = clock or SystemClock()
        self._delegation: tuple[UserDelegationKey, datetime] | None = None
        self._asking = asyncio.Lock()
        self._is_prepared = False

    async def put(self, job_id: str, name: str, png: bytes, *, attempt: int = 0) -> None:
        """Store a picture unless a higher attempt has."""
        await self._prepare()
        blob = self._container.get_blob_client(f"{job_id}/{name}")
        options: dict[str, Any] = {
            "metadata": {"attempt": str(attempt)},
            "content_settings": PNG,
        }
        condition: dict[str, Any] = {"overwrite": False}
        with store_errors("storing a picture"):
            for _ in range(PUT_TRIES):
                try:
                    await blob.upload_blob(png, **options, **condition)
                except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError):
                    condition = await self._outrank(blob, attempt)
                else:
                    return
        raise StoreUnavailable("storing a picture: it keeps being replaced by others")

    async def get(self, job_id: str, name: str) -> bytes:
        """Return the picture."""
        with store_errors("reading a picture"):
            try:
                stream = await self._container.download_blob(f"{job_id}/{name}")
                return await stream.readall()
            except ResourceNotFoundError:
                raise ImageNotFound("the job has no such picture") from None

    async def link(self, job_id: str, name: str, lifetime: timedelta) -> str | None:
        """Return a signed URL. Raises `InvalidInput` for more than `MAX_LINK_LIFETIME`."""
        if not timedelta(0) < lifetime <= MAX_LINK_LIFETIME:
            raise InvalidInput(
                f"a link's lifetime must be over 0 and at most {MAX_LINK_LIFETIME}",
                target="lifetime",
            )
        now = self._clock.now()
        if self._account_key is None:
            signed_by: dict[str, Any] = {
                "user_delegation_key": await self._delegation_key(now, lifetime),
                "protocol": "https",
            }
        else:
            signed_by = {"account_key": self._account_key}
        blob = self._container.get_blob_client(f"{job_id}/{name}")
        signature = generate_blob_sas(
            account_name=str(self._service.account_name),
            container_name=blob.container_name,
            blob_name=blob.blob_name,
            permission=BlobSasPermissions(read=True),
            start=now - CLOCK_SKEW,
            expiry=now + lifetime,
            **signed_by,
        )
        return f"{blob.url}?{signature}"

    async def delete(self, job_id: str) -> None:
        """Remove every blob under the job's id."""
        await self._prepare()
        with store_errors("deleting pictures"):
            async for name in self._container.list_blob_names(name_starts_with=f"{job_id}/"):
                try:
                    await self._container.delete_blob(name)
                except ResourceNotFoundError:
                    continue  # somebody else deletes it too

    async def close(self) -> None:
        """Close the connections."""
        await self._container.close()
        await self._service.close()

    async def _outrank(self, blob: Any, attempt: int) -> dict[str, Any]:
        """Return the condition of a replacement. Raises `StaleAttempt` for a lower attempt."""
        try:
            present = await blob.get_blob_properties()
        except ResourceNotFoundError:
            return {"overwrite": False}
        if int(present.metadata.get("attempt", 0)) > attempt:
            raise StaleAttempt(f"a later attempt than {attempt} has stored this picture")
        return {
            "overwrite": True,
            "etag": present.etag,
            "match_condition": MatchConditions.IfNotModified,
        }

    async def _delegation_key(self, now: datetime, lifetime: timedelta) -> UserDelegationKey:
        async with self._asking:
            if self._delegation is None or now + lifetime + CLOCK_SKEW > self._delegation[1]:
                ends = now + KEY_LIFETIME
                with store_errors("asking for a user-delegation key"):
                    key = await self._service.get_user_delegation_key(now - CLOCK_SKEW, ends)
                self._delegation = (key, ends)
            return self._delegation[0]

    async def _prepare(self) -> None:
        """Create the container, once per process, unless it is there."""
        if self._is_prepared:
            return
        with store_errors("opening the container of pictures"), unless_it_is_there():
            await self._container.create_container()
        self._is_prepared = True
