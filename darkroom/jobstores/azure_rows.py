"""Job records as table rows, and back; `darkroom.jobstores.azure_tables` says what they are for."""

import hashlib
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from darkroom.errors import InvalidInput
from darkroom.jobs import Job, JobState, is_unannounced, tenant_key
from darkroom.jobstores.base import IDEMPOTENCY_LIFETIME, Idempotency

UNSENT, UNANNOUNCED, UNMARKED = "u", "a", "-"
PART_CHARACTERS = 16_000  # at most 2 UTF-16 units each, and a property holds 32 Ki of those

_JOB_ID = re.compile(r"([a-z][a-z0-9]{0,15})-([0-9a-f]{32})([0-9a-f]{8})")
_INVERTED = str.maketrans("0123456789abcdef", "fedcba9876543210")

Row = dict[str, Any]


def record_keys(job_id: str) -> tuple[str, str] | None:
    """Return partition and row key of a record, or None for what is no job id."""
    found = _JOB_ID.fullmatch(job_id)
    if not found:
        return None
    region, time_ordered, tenant = found.groups()
    return tenant[0], f"job-{tenant}-{time_ordered.translate(_INVERTED)}-{region}"


def record_row(job: Job) -> Row:
    """Return a record as a row. Raises `InvalidInput` for an id that is another tenant's."""
    keys = record_keys(job.id)
    if keys is None or not job.id.endswith(tenant_key(job.tenant)):
        raise InvalidInput(f"job id {job.id} was not made for its tenant", target="id")
    text = job.model_dump_json()
    parts = [text[at : at + PART_CHARACTERS] for at in range(0, len(text), PART_CHARACTERS)]
    row: Row = {"PartitionKey": keys[0], "RowKey": keys[1], "Parts": len(parts)}
    row |= {f"Record{index}": part for index, part in enumerate(parts)}
    row |= {
        "Waiting": job.status is JobState.NOT_STARTED,
        "GpuSeconds": float(job.estimated_gpu_seconds),
    }
    row |= {"Unsent": is_unsent(job), "Unannounced": is_unannounced(job)}
    return row | {"WriteId": uuid.uuid4().hex}


def marker_row(job: Job, marker: str) -> Row:
    """Return the row that says that something about the job is still to be done."""
    if marker == UNSENT:
        prefix = marker_prefix("unsent", job.created_at)
    else:
        assert job.finished_at is not None
        prefix = marker_prefix("unannounced", job.finished_at)
    return {"PartitionKey": tenant_key(job.tenant)[0], "RowKey": f"{prefix}-{job.id}"}


def marker_of(row: Any) -> str:
    """Return which marker row stands beside a record's row: a job has one at most."""
    if row["Unsent"]:
        return UNSENT
    return UNANNOUNCED if row.get("Unannounced") else UNMARKED


def key_row(job: Job, idempotency: Idempotency) -> Row:
    """Return the row that says which job an idempotency key made, and until when."""
    digest = hashlib.sha256(f"{job.tenant}\0{idempotency.key}".encode()).hexdigest()
    return {
        "PartitionKey": tenant_key(job.tenant)[0],
        "RowKey": f"key-{digest}",
        "JobId": job.id,
        "Fingerprint": idempotency.fingerprint,
        "ExpiresAt": (job.created_at + IDEMPOTENCY_LIFETIME).isoformat(),
    }


def marker_prefix(kind: str, moment: datetime) -> str:
    """Return how the keys of marker rows of ``moment`` begin; they sort by that."""
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return f"{kind}-{microseconds:020d}"


def is_unsent(job: Job) -> bool:
    """Whether the job waits without a confirmed send."""
    return job.status is JobState.NOT_STARTED and job.sent_at is None


def version_of(marker: str, etag: str) -> str:
    """Return a record's version: which marker row is there, and its ETag."""
    return marker + etag


def job_of(row: Any) -> Job:
    """Return the record in a row that was read, with its version."""
    text = "".join(row[f"Record{index}"] for index in range(row["Parts"]))
    version = version_of(marker_of(row), row.metadata["etag"])
    return Job.model_validate_json(text).model_copy(update={"version": version})
