"""The doctor's look at Azure: whether the identity is one, and the queues as they must be."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.servicebus.aio.management import ServiceBusAdministrationClient
from azure.servicebus.management import QueueProperties

from cli.doctor_findings import Finding, fail, ok, warn
from cli.settings import WorkloadIdentitySettings
from darkroom import webhooks
from darkroom.settings import DarkroomSettings

STORAGE_SCOPE = "https://storage.azure.com/.default"
TOKEN_SECONDS = 60.0
LOCK_TOLERANCE_SECONDS = 1.0


class Credential(Protocol):
    """What hands out tokens."""

    async def get_token(self, *scopes: str) -> Any:
        """Return a token for ``scopes``. Raises `AzureError`."""
        ...


def identity_is_given(settings: WorkloadIdentitySettings, *, in_cluster: bool) -> list[Finding]:
    """Check that the pod was given a Workload ID: three variables and a token that can be read."""
    name = "identity"
    cure = (
        "label the pod azure.workload.identity/use=true, annotate its ServiceAccount with the"
        " client id, and check that the cluster's workload identity webhook runs"
    )
    missing = settings.missing
    if missing and not in_cluster:
        return [ok(name, "no Workload ID here: this machine's own sign-in is used")]
    if missing:
        return [fail(name, f"not set: {', '.join(missing)}", cure)]
    token = settings.federated_token_file
    if token is None or not token.is_file():
        return [fail(name, f"there is no {token}", cure)]
    return [ok(name, f"client {settings.client_id}")]


async def identity_works(credential: Credential, client_id: str) -> list[Finding]:
    """Exchange it for a token of Azure Storage."""
    name = "token"
    try:
        async with asyncio.timeout(TOKEN_SECONDS):
            await credential.get_token(STORAGE_SCOPE)
    except (AzureError, TimeoutError) as error:
        subject = f" {client_id}" if client_id else ""
        return [
            fail(
                name,
                f"Entra ID gave none ({type(error).__name__})",
                f"check that identity{subject} has a federated credential for this namespace and"
                " ServiceAccount, and that login.microsoftonline.com can be reached",
            )
        ]
    return [ok(name, "Entra ID exchanged the identity")]


async def queue_is_set_up(
    admin: ServiceBusAdministrationClient, queue: str, settings: DarkroomSettings
) -> Sequence[Finding]:
    """Compare a Service Bus queue with what docs/backends.md asks of it."""
    name = f"entity {queue}"
    try:
        found = await admin.get_queue(queue)
    except ResourceNotFoundError:
        return [fail(name, "there is no such queue", "apply the Terraform of infra/")]
    except HttpResponseError as error:
        if error.status_code in {401, 403}:
            cure = "grant Azure Service Bus Data Owner, or look at the queue by hand"
            return [warn(name, "this identity may not read its settings", cure)]
        raise
    wrong = _differences(found, settings, queue)
    if wrong:
        return [fail(name, "; ".join(wrong), "apply the Terraform of infra/")]
    return [ok(name, "lock and delivery limit fit the settings")]


def _differences(found: QueueProperties, settings: DarkroomSettings, queue: str) -> list[str]:
    wrong = []
    limit = settings.delivery_limit(queue)
    if found.max_delivery_count != limit:
        wrong.append(f"MaxDeliveryCount is {found.max_delivery_count}, must be {limit}")
    lock = found.lock_duration
    seconds = lock.total_seconds() if lock is not None and hasattr(lock, "total_seconds") else 0.0
    is_short = seconds < settings.lease_seconds - LOCK_TOLERANCE_SECONDS
    if is_short or (queue != webhooks.QUEUE_NAME and seconds > settings.lease_seconds + 1):
        wrong.append(f"LockDuration is {seconds:g} s, must be {settings.lease_seconds:g} s")
    unwanted = ("requires_session", "enable_partitioning")
    wrong += [f"{name} is on, must be off" for name in unwanted if getattr(found, name, False)]
    return wrong
