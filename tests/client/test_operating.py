"""The calls for ended jobs and for operators are the same in both clients."""

import inspect
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from darkroom.client import AsyncClient, Client, DarkroomClientError
from darkroom.jobs import JobState
from tests.live import Live


@pytest.fixture
async def client(server: Live) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.url) as opened:
        yield opened


def offered(kind: type) -> dict[str, list[str]]:
    """The public methods, each with its parameters."""
    return {
        name: [str(each) for each in inspect.signature(method).parameters.values()]
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_clients_offer_the_same_calls() -> None:
    assert offered(AsyncClient) == offered(Client)
    assert {"replay_webhook", "discard_dead_letter", "usage"} <= offered(AsyncClient).keys()


async def test_a_canceled_job_is_run_again_and_erased_without_blocking(
    client: AsyncClient,
) -> None:
    first = await client.submit("a lighthouse", num_inference_steps=200)
    await client.cancel(first.id)
    assert (await client.wait(first.id)).status is JobState.CANCELED
    again = await client.resubmit(first.id)
    assert again.id != first.id
    assert (await client.resubmit(first.id)).id == again.id
    await client.cancel(again.id)
    await client.wait(again.id)
    await client.erase(again.id)
    with pytest.raises(DarkroomClientError) as refused:
        await client.replay_webhook(first.id)
    assert refused.value.code == "NoWebhook"


async def test_what_was_used_is_read_for_a_time(client: AsyncClient) -> None:
    job = await client.wait((await client.submit("a lighthouse")).id)
    assert job.status is JobState.SUCCEEDED
    now = datetime.now(UTC)
    used = await client.usage(start=now - timedelta(hours=1), end=now + timedelta(minutes=1))
    assert used.jobs >= 1
    before = await client.usage(start=now - timedelta(hours=3), end=now - timedelta(hours=2))
    assert before.jobs == 0


async def test_dead_letters_are_listed_and_one_that_is_none_is_refused(
    client: AsyncClient,
) -> None:
    assert await client.dead_letters(pool="local", limit=5) == ()
    for call in (client.dead_letter, client.resubmit_dead_letter, client.discard_dead_letter):
        with pytest.raises(DarkroomClientError) as refused:
            await call("local", "a/b?c")
        assert refused.value.code == "DeadLetterNotFound"
