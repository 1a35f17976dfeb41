"""Our messages as Kubernetes Jobs, both ways. Nothing here talks to a server.

A Job is the pool's PodTemplate with our labels, our failure policy and the message in annotations;
docs/kubernetes-dispatch.md has the whole table.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from lightkube.models.batch_v1 import JobStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod, PodTemplate

from darkroom.errors import InvalidInput
from darkroom.messages import Message
from darkroom.queues.base import MAX_DELIVERY_COUNT_EXCEEDED, DeadLetter

CONTAINER = "worker"
EXIT_COMPLETED = 0
EXIT_COUNTED = 1
EXIT_DEAD_LETTERED = 65  # EX_DATAERR of sysexits.h
EXIT_UNCOUNTED = 75  # EX_TEMPFAIL of sysexits.h

POOL, MODEL, TENANT, MESSAGE = (
    "darkroom/pool",
    "darkroom/model",
    "darkroom/tenant",
    "darkroom/message",
)
BODY, PROPERTIES, ENQUEUED_AT, NOT_BEFORE = (
    "darkroom/message",
    "darkroom/properties",
    "darkroom/enqueued-at",
    "darkroom/not-before",
)
KUEUE = "kueue.x-k8s.io/"
KUEUE_QUEUE = KUEUE + "queue-name"
JOB_NAME = "batch.kubernetes.io/job-name"

MAX_MESSAGE_BYTES = 200 * 1024  # all annotations of an object may have 256 KiB
KEPT_SECONDS = 7 * 24 * 3600  # how long a failed Job, a dead letter, stays for operators

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,57}[a-z0-9])?")  # room for a generation: 63 in all
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class Content:
    """What a message is, apart from any object that carries it."""

    def __init__(
        self, message_id: str, body: bytes, properties: Mapping[str, str], enqueued_at: datetime
    ) -> None:
        self.message_id = message_id
        self.body = body
        self.properties = properties
        self.enqueued_at = enqueued_at

    @classmethod
    def of_message(cls, message: Message, now: datetime) -> "Content":
        """Return what is sent. Raises `InvalidInput` for a message over `MAX_MESSAGE_BYTES`."""
        body = message.encode()
        if len(body) > MAX_MESSAGE_BYTES:
            raise InvalidInput(
                f"the message has {len(body):,} bytes; a Job holds {MAX_MESSAGE_BYTES:,}"
            )
        return cls(message.message_id, body, dict(message.properties), now)

    @classmethod
    def of_job(cls, job: Job) -> "Content":
        """Return what a Job of ours carries."""
        notes = metadata(job).annotations or {}
        carried = json.loads(notes.get(PROPERTIES, "{}"))
        return cls(
            carried["id"],
            notes.get(BODY, "").encode(),
            carried["properties"],
            datetime.fromisoformat(notes[ENQUEUED_AT]),
        )


def job_name(message_id: str) -> str:
    """Return the name of a message's first Job: the id where Kubernetes takes it for a name."""
    if _NAME.fullmatch(message_id):
        return message_id
    return f"m-{hashlib.sha256(message_id.encode()).hexdigest()[:40]}"


def next_name(name: str, first: str) -> str:
    """Return the name of the Job that a resubmit makes of the Job called ``name``."""
    generation = int(name[len(first) + 2 :]) if name != first else 0
    return f"{first}-r{generation + 1}"


def label_value(text: str) -> str:
    """Return ``text`` where it can be a label's value, else a digest of it."""
    return text if _LABEL.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:40]


def tenant_hash(tenant: str) -> str:
    """Return what labels say instead of a tenant's name."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:16]


def make_job(
    name: str,
    content: Content,
    template: PodTemplate,
    pool: str,
    *,
    max_delivery_count: int,
    not_before: datetime | None = None,
) -> Job:
    """Return the Job that carries ``content``; held until ``not_before`` if that is given."""
    kueue = kueue_labels(template)
    labels = _labels(content, pool)
    pod = template.template.to_dict() if template.template else {}
    pod_meta = dict(pod.get("metadata") or {})
    pod_meta["labels"] = {**(pod_meta.get("labels") or {}), **labels}
    notes = {
        BODY: content.body.decode(),
        PROPERTIES: json.dumps({"id": content.message_id, "properties": dict(content.properties)}),
        ENQUEUED_AT: content.enqueued_at.isoformat(),
    }
    if not_before is not None:
        notes[NOT_BEFORE] = not_before.isoformat()
    manifest = {
        "metadata": {
            "name": name,
            "labels": labels if not_before else {**labels, **kueue},
            "annotations": notes,
        },
        "spec": {
            "backoffLimit": max_delivery_count - 1,
            "completions": 1,
            "parallelism": 1,
            "suspend": not_before is not None or KUEUE_QUEUE in kueue,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "podReplacementPolicy": "Failed",  # never two pods of one job at a time
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {
                "metadata": pod_meta,
                "spec": {**(pod.get("spec") or {}), "restartPolicy": "Never"},
            },
        },
    }
    return cast("Job", Job.from_dict(manifest))


def kueue_labels(template: PodTemplate) -> dict[str, str]:
    """Return the labels with which Kueue is told what to do with a pool's Jobs."""
    labels = metadata(template).labels or {}
    return {key: value for key, value in labels.items() if key.startswith(KUEUE)}


def release(template: PodTemplate) -> dict[str, Any]:
    """Return the merge patch that hands a held Job to Kueue, or starts it where there is none."""
    kueue = kueue_labels(template)
    held = KUEUE_QUEUE in kueue
    return {
        "metadata": {"labels": kueue, "annotations": {NOT_BEFORE: None}},
        "spec": {"suspend": held},
    }


def _labels(content: Content, pool: str) -> dict[str, str]:
    named = content.properties
    return {
        POOL: label_value(pool),
        MODEL: label_value(named.get("model", "")),
        TENANT: tenant_hash(named.get("tenant", "")),
        MESSAGE: job_name(content.message_id),
    }


def _failure_rules() -> list[dict[str, Any]]:
    """The first rule that matches a failed pod decides; without one it counts."""

    def exits(action: str, status: int) -> dict[str, Any]:
        codes = {"containerName": CONTAINER, "operator": "In", "values": [status]}
        return {"action": action, "onExitCodes": codes}

    disrupted = {"type": "DisruptionTarget", "status": "True"}
    return [
        exits("FailJob", EXIT_DEAD_LETTERED),
        exits("Ignore", EXIT_UNCOUNTED),
        {"action": "Ignore", "onPodConditions": [disrupted]},
    ]


def metadata(thing: Job | Pod | PodTemplate) -> ObjectMeta:
    """Return an object's metadata; the server never leaves it out."""
    return thing.metadata or ObjectMeta()


def failed_deliveries(job: Job) -> int:
    """How many pods failed and counted, those of which the status was not yet written included."""
    status = job.status or JobStatus()
    pending = status.uncountedTerminatedPods
    return (status.failed or 0) + len((pending.failed or []) if pending else [])


def ended(job: Job, how: str) -> str | None:
    """Return the reason of the condition ``how`` (Complete or Failed), None while it is not so."""
    for condition in (job.status or JobStatus()).conditions or []:
        if condition.type == how and condition.status == "True":
            return condition.reason or how
    return None


def is_unfinished(job: Job) -> bool:
    """Whether the Job may still start a pod, or has one."""
    return ended(job, "Complete") is None and ended(job, "Failed") is None


def held_until(job: Job) -> datetime | None:
    """Return when a scheduled Job may start; None for any other."""
    text = (metadata(job).annotations or {}).get(NOT_BEFORE)
    return datetime.fromisoformat(text) if text else None


def is_between_pods(job: Job) -> bool:
    """Whether the Job has run a pod and waits for the Job controller's back-off."""
    status = job.status or JobStatus()
    is_suspended = job.spec is not None and bool(job.spec.suspend)
    return status.startTime is not None and not status.active and not is_suspended


def dead_letter(job: Job, said: Mapping[str, str]) -> DeadLetter:
    """Return a failed Job in our words; ``said`` is what its worker left as last words."""
    content, deliveries = Content.of_job(job), failed_deliveries(job)
    if "reason" in said:
        reason, description = said["reason"], said.get("description", "")
    elif ended(job, "Failed") == "PodFailurePolicy":
        reason, description = "DeadLettered", "its pod is gone; the job's record says why"
    else:
        reason = MAX_DELIVERY_COUNT_EXCEEDED
        description = f"{deliveries} deliveries failed ({ended(job, 'Failed')})"
    return DeadLetter(
        message_id=content.message_id,
        body=content.body,
        properties=content.properties,
        reason=reason,
        description=description,
        delivery_count=max(1, deliveries),
        enqueued_at=content.enqueued_at,
    )


def last_words(pod: Pod) -> dict[str, str]:
    """Return what a pod's worker wrote before it ended: reason and description, or nothing."""
    for each in (pod.status.containerStatuses if pod.status else None) or []:
        ending = each.state.terminated if each.state else None
        if each.name != CONTAINER or ending is None or ending.exitCode != EXIT_DEAD_LETTERED:
            continue
        try:
            said = json.loads(ending.message or "")
            return {"reason": str(said["reason"]), "description": str(said["description"])}
        except (ValueError, KeyError, TypeError):  # cut off, or somebody else's words
            return {}
    return {}


def finished_at(job: Job) -> datetime:
    """Return when a Job completed; now for one that does not say."""
    when = (job.status or JobStatus()).completionTime
    return when if isinstance(when, datetime) else datetime.now(UTC)
