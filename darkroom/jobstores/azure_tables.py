"""Azure Table Storage: a tenant's records side by side, newest first.

Rows
    One table. A tenant's rows share a partition, named by the first digit of the tenant's key, so
    there are 16 partitions for ever. Row keys, in a partition:

    ``job-<tenant key>-<inverted UUIDv7>-<region>``  the record, as JSON; ascending is newest first
    ``key-<SHA-256 of tenant and idempotency key>``  which job the key made, until when
    ``unsent-<created_at in microseconds>-<job id>`` there while the job waits without a sent_at
    ``unannounced-<finished_at in µs>-<job id>``     there while its webhook's event is not queued

    All kinds of a job are in one partition, so they change together in one entity group
    transaction: `create` is one request, and so is a write that sets or clears a marker. The job
    id ends with the tenant's key (`darkroom.jobs.new_job_id`), so `get` is a point read.
Cost
    `create`, `get`, `compare_and_set`: one request. A page: one request of its own length, or with
    filters at most `MAX_SCANNED` records read. `unsent` and `unannounced`: 16 requests that see
    only such jobs, and one read per job found. `backlog`: at most two requests. None depends
    on how many jobs there are.
Limits
    Azure allows 2,000 rows a second in a partition and 20,000 in an account: one tenant, or two
    whose keys begin alike, can admit about 200 jobs a second. A record may have 1 MiB.
Versions
    ``u``, ``a`` or ``-`` (which marker is there: unsent, unannounced, none) and the ETag.
    Every write carries an id of its own: when an answer is lost and the SDK tries again, the
    refusal is recognised as our own success.
Idempotency keys
    Rows of keys that ran out stay until the key is used again.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.data.tables import TableTransactionError, UpdateMode
from azure.data.tables.aio import TableServiceClient

from darkroom.azure_clients import store_errors, unless_it_is_there
from darkroom.clock import Clock, SystemClock
from darkroom.errors import (
    IdempotencyKeyReused,
    InvalidInput,
    JobNotFound,
    StoreUnavailable,
    VersionConflict,
)
from darkroom.jobs import Job, is_unannounced, tenant_key
from darkroom.jobstores.azure_rows import (
    UNMARKED,
    UNSENT,
    Row,
    is_unsent,
    job_of,
    key_row,
    marker_of,
    marker_prefix,
    marker_row,
    record_keys,
    record_row,
    version_of,
)
from darkroom.jobstores.base import (
    Backlog,
    Created,
    Idempotency,
    JobFilter,
    JobStore,
    Page,
)
from darkroom.jobstores.cursor import decode_cursor, encode_cursor

TABLE = "jobs"
PARTITIONS = "0123456789abcdef"
MAX_SCANNED = 1_000
SCAN_PAGE = 200
ROWS_PER_REQUEST = 1_000  # the service's own limit
MAX_COUNTED = 2 * ROWS_PER_REQUEST
CLOCK_SKEW = timedelta(minutes=1)  # between the time in a job's id and its created_at
CREATE_TRIES = 5
RETRIED_TOO: dict[str, Any] = {  # transactions are POSTs, which the SDK does not repeat by itself
    "retry_on_methods": frozenset({"POST"})
}


class AzureTablesJobStore(JobStore):
    """All job records of one storage account. ``service`` is this store's own, closed with it."""

    def __init__(
        self, service: TableServiceClient, clock: Clock | None = None, *, table: str = TABLE
    ) -> None:
        self._service = service
        self._table = service.get_table_client(table)
        self._clock = clock or SystemClock()
        self._preparing = asyncio.Lock()
        self._is_prepared = False

    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        """Store record, key and ``unsent`` in one transaction."""
        await self._prepare()
        with store_errors("creating a job record"):
            for _ in range(CREATE_TRIES):
                created = await self._try_create(job, idempotency)
                if created is not None:
                    return created
        raise StoreUnavailable("creating a job record: its idempotency key keeps changing")

    async def get(self, job_id: str) -> Job:
        """Return the record: one point read."""
        await self._prepare()
        with store_errors("reading a job record"):
            return job_of(await self._row(job_id))

    async def list(
        self, tenant: str, filters: JobFilter, *, limit: int = 20, cursor: str | None = None
    ) -> Page:
        """Return a page, newest first; with filters, of at most `MAX_SCANNED` records read."""
        after = _after(tenant, cursor)
        await self._prepare()
        per_request = limit + 1 if filters == JobFilter() else SCAN_PAGE
        jobs: list[Job] = []
        scanned = 0
        last = ""
        with store_errors("listing job records"):
            async for job in self._records(tenant, after, per_request):
                if len(jobs) == limit or scanned == MAX_SCANNED:
                    return Page(jobs, encode_cursor(last))
                if filters.created_after and job.created_at < filters.created_after - CLOCK_SKEW:
                    break
                if filters.matches(job):
                    jobs.append(job)
                scanned, last = scanned + 1, job.id
        return Page(jobs, None)

    async def compare_and_set(self, job: Job, expected_version: str) -> Job:
        """Replace the record, and its marker with it, if the ETag is still the same."""
        await self._prepare()
        row = record_row(job)
        with store_errors("writing a job record"):
            try:
                etag = await self._replace(job, row, expected_version)
            except HttpResponseError as error:
                if error.status_code not in {404, 412}:
                    raise
                present = await self._row(job.id)  # raises JobNotFound
                if present["WriteId"] != row["WriteId"]:
                    raise VersionConflict(f"job {job.id} changed since it was read") from None
                etag = present.metadata["etag"]
        return job.model_copy(update={"version": version_of(marker_of(row), etag)})

    async def unsent(
        self, created_before: datetime, limit: int = 100, created_from: datetime | None = None
    ) -> Sequence[Job]:
        """Return jobs that wait without a confirmed send, by created_at."""
        first = marker_prefix("unsent", created_from) if created_from else "unsent-"
        jobs = await self._marked((first, marker_prefix("unsent", created_before)), limit)
        return [job for job in jobs if is_unsent(job)]

    async def unannounced(self, ended_before: datetime, limit: int = 100) -> Sequence[Job]:
        """Return ended jobs whose webhook's event is not queued, by finished_at."""
        span = ("unannounced-", marker_prefix("unannounced", ended_before))
        return [job for job in await self._marked(span, limit) if is_unannounced(job)]

    async def backlog(self, tenant: str) -> Backlog:
        """Count among the tenant's newest `MAX_COUNTED` records: at most two requests.

        Two properties of each row are read, not the record. Jobs older than that which wait still
        are not counted, nor are other tenants' told apart whose key is the same by chance.
        """
        await self._prepare()
        key = tenant_key(tenant)
        rows = self._table.query_entities(
            "PartitionKey eq @partition and RowKey gt @start and RowKey lt @end",
            parameters={"partition": key[0], "start": f"job-{key}-", "end": f"job-{key}."},
            select=["Waiting", "GpuSeconds"],
            results_per_page=ROWS_PER_REQUEST,
        )
        jobs, gpu_seconds, read = 0, 0.0, 0
        with store_errors("counting waiting jobs"):
            async for row in rows:
                if row.get("Waiting"):
                    jobs, gpu_seconds = jobs + 1, gpu_seconds + row["GpuSeconds"]
                read += 1
                if read == MAX_COUNTED:
                    break
        return Backlog(jobs, gpu_seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._table.close()
        await self._service.close()

    async def _try_create(self, job: Job, idempotency: Idempotency | None) -> Created | None:
        """Create once; None when the key's row changed meanwhile."""
        row = record_row(job)
        operations: list[Any] = [("create", row)]
        if is_unsent(job):
            operations.append(("create", marker_row(job, UNSENT)))
        if idempotency:
            operations.append(("create", key_row(job, idempotency)))
        try:
            return await self._created(job, operations)
        except TableTransactionError as error:
            if error.status_code != 409:
                raise
        try:
            present = await self._row(job.id)
        except JobNotFound:
            present = None
        if present is not None and present["WriteId"] == row["WriteId"]:
            return Created(job_of(present), is_new=True)  # the first try's answer was lost
        if idempotency and (made := await self._made_by(job, idempotency, operations)):
            return made
        if present is not None:
            raise VersionConflict(f"job {job.id} exists already")
        return None

    async def _made_by(
        self, job: Job, idempotency: Idempotency, operations: Sequence[Any]
    ) -> Created | None:
        """Return what the key made, or create after all when the key has run out."""
        wanted = key_row(job, idempotency)
        try:
            key = await self._table.get_entity(wanted["PartitionKey"], wanted["RowKey"])
        except ResourceNotFoundError:
            return None
        if datetime.fromisoformat(key["ExpiresAt"]) > self._clock.now():
            if key["Fingerprint"] != idempotency.fingerprint:
                raise IdempotencyKeyReused("the idempotency key was used with another body")
            return Created(job_of(await self._row(key["JobId"])), is_new=False)
        replace = _conditional("update", wanted, key.metadata["etag"])
        try:
            return await self._created(job, [*operations[:-1], replace])
        except TableTransactionError as error:
            if error.status_code not in {404, 409, 412}:
                raise
            return None

    async def _created(self, job: Job, operations: Sequence[Any]) -> Created:
        written = await self._table.submit_transaction(operations, **RETRIED_TOO)
        version = version_of(UNSENT if is_unsent(job) else UNMARKED, written[0]["etag"])
        return Created(job.model_copy(update={"version": version}), is_new=True)

    async def _replace(self, job: Job, row: Row, expected_version: str) -> str:
        """Write the row and return its new ETag; raise what the SDK raises."""
        was, etag = expected_version[:1], expected_version[1:]
        if not etag.startswith(('W/"', '"')):
            was, etag = UNMARKED, 'W/"none"'  # no version of ours: no row can have it
        replace = _conditional("update", row, etag)
        marker = marker_of(row)
        if was == marker:
            written = await self._table.update_entity(row, **replace[2])
            return str(written["etag"])
        operations: list[Any] = [replace]
        if was != UNMARKED:
            operations.append(("delete", marker_row(job, was)))
        if marker != UNMARKED:
            operations.append(("upsert", marker_row(job, marker)))
        results = await self._table.submit_transaction(operations, **RETRIED_TOO)
        return str(results[0]["etag"])

    async def _row(self, job_id: str) -> Any:
        keys = record_keys(job_id)
        if keys is not None:
            try:
                return await self._table.get_entity(*keys)
            except ResourceNotFoundError:
                pass
        raise JobNotFound(f"there is no job {job_id}")

    async def _records(self, tenant: str, after: str, per_request: int) -> AsyncIterator[Job]:
        key = tenant_key(tenant)
        rows = self._table.query_entities(
            "PartitionKey eq @partition and RowKey gt @after and RowKey lt @end",
            parameters={"partition": key[0], "after": after, "end": f"job-{key}."},
            results_per_page=per_request,
        )
        async for row in rows:
            job = job_of(row)
            if job.tenant == tenant:  # another tenant's key may be the same
                yield job

    async def _marked(self, span: tuple[str, str], limit: int) -> Sequence[Job]:
        """Return the records of marker rows whose keys are in ``span``, in their order."""
        await self._prepare()
        with store_errors("looking for jobs with something left to do"):
            found = await asyncio.gather(
                *(self._markers_in(partition, span, limit) for partition in PARTITIONS)
            )
            oldest = sorted(row_key for keys in found for row_key in keys)[:limit]
            return [job_of(await self._row(row_key.split("-", 2)[2])) for row_key in oldest]

    async def _markers_in(self, partition: str, span: tuple[str, str], limit: int) -> Sequence[str]:
        """Return row keys from the first of ``span`` to before its second."""
        rows = self._table.query_entities(
            "PartitionKey eq @partition and RowKey ge @start and RowKey lt @end",
            parameters={
                "partition": partition,
                "start": span[0],
                "end": span[1],
            },
            select=["RowKey"],
            results_per_page=limit,
        )
        found = []
        async for row in rows:
            found.append(str(row["RowKey"]))
            if len(found) == limit:
                break
        return found

    async def _prepare(self) -> None:
        """Create the table, once per process, unless it is there."""
        if self._is_prepared:
            return
        async with self._preparing:
            if not self._is_prepared:
                with store_errors("opening the table of jobs"), unless_it_is_there():
                    await self._table.create_table()
                self._is_prepared = True


def _after(tenant: str, cursor: str | None) -> str:
    """Return the row key to start behind. Raises `InvalidInput` for another list's cursor."""
    prefix = f"job-{tenant_key(tenant)}-"
    if cursor is None:
        return prefix
    keys = record_keys(decode_cursor(cursor))
    if keys is None or not keys[1].startswith(prefix):
        raise InvalidInput("cursor is not one that a page of this list gave", target="cursor")
    return keys[1]


def _conditional(step: str, row: Row, etag: str | None) -> tuple[str, Row, dict[str, Any]]:
    return (
        step,
        row,
        {
            "mode": UpdateMode.REPLACE,
            "etag": etag,
            "match_condition": MatchConditions.IfNotModified,
        },
    )
