"""The commands for jobs that have ended and for dead letters, against a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.dead_letters import app
from darkroom.client import Client
from darkroom.errors import QueueUnavailable
from darkroom.queues.sqlite import SCHEMA, SqliteJobQueue
from darkroom.sqlite import Database
from tests.cli.conftest import Up, here, running_up
from tests.samples import make_message

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operating")


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Up]:
    """A server whose data is within reach."""
    with running_up(folder, step_seconds=0.02) as up:
        yield up


async def set_aside(folder: Path) -> str:
    """Put a dead letter without a record into the server's queue; return its message's id."""
    database = Database(folder / "data" / "queue.db", SCHEMA, QueueUnavailable)
    queue = SqliteJobQueue(database, "local", lease_seconds=30, max_delivery_count=5)
    message = make_message(pool="local")
    await queue.send(message)
    while True:
        for lease in await queue.lease(1, 0.05):
            await lease.dead_letter("GenerationFailed", "the pipeline raised OSError")
        for dead in await queue.dead_letters():
            if dead.message_id == message.message_id:  # here, or by a worker that was faster
                await queue.close()
                return message.message_id


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    helped = here("dead-letters", command, "--help")
    assert helped.returncode == 0, helped.stderr
    assert f"darkroom dead-letters {command}" in helped.stdout


async def test_a_dead_letter_is_listed_shown_and_discarded(site: Up, folder: Path) -> None:
    message_id = await set_aside(folder)
    listed = site.darkroom("dead-letters", "list")
    assert listed.returncode == 0, listed.stderr
    row = next(line for line in listed.stdout.splitlines() if message_id in line)
    assert row.startswith("local ")
    assert "no record" in row
    shown = site.darkroom("dead-letters", "show", "local", message_id)
    assert shown.returncode == 0, shown.stderr
    assert "num_inference_steps=20" in shown.stdout
    assert "lighthouse" not in shown.stdout
    done = site.darkroom("dead-letters", "discard", "local", message_id)
    assert (done.returncode, done.stdout) == (0, f"{message_id} discarded\n")
    again = site.darkroom("dead-letters", "discard", "local", message_id)
    assert again.returncode == 1
    assert "DeadLetterNotFound" in again.stderr


async def test_a_resubmitted_dead_letter_says_what_became_of_it(site: Up, folder: Path) -> None:
    message_id = await set_aside(folder)
    done = site.darkroom("dead-letters", "resubmit", "local", message_id)
    assert (done.returncode, done.stdout) == (0, f"{message_id} returned\n"), done.stderr


def test_a_canceled_job_is_run_again(site: Up) -> None:
    old = site.darkroom("submit", "a shape", "--no-wait", "--steps", "200").stdout.strip()
    early = site.darkroom("resubmit", old)
    assert early.returncode == 1
    assert "JobNotFinished" in early.stderr
    site.darkroom("cancel", old)
    with Client(site.url) as client:
        client.wait(old, timeout_seconds=30)
    done = site.darkroom("resubmit", old)
    assert done.returncode == 0, done.stderr
    new = done.stdout.split()[0]
    assert new != old
    assert f"repeats   {old}" in site.darkroom("status", new).stdout
    site.darkroom("cancel", new)


def test_a_deleted_job_keeps_its_accounting(site: Up) -> None:
    job_id = site.darkroom("submit", "a shape").stdout.split()[1]
    done = site.darkroom("delete", job_id)
    assert (done.returncode, done.stdout) == (0, f"{job_id} erased\n"), done.stderr
    shown = site.darkroom("status", job_id).stdout
    assert "Succeeded" in shown
    assert "erased" in shown
    with Client(site.url) as client:
        assert client.get(job_id).input["prompt"] == ""


def test_usage_names_models_and_sums(site: Up) -> None:
    site.darkroom("submit", "a shape")
    shown = site.darkroom("usage", "--days", "31")
    assert shown.returncode == 0, shown.stderr
    assert "tiny" in shown.stdout
    assert "Succeeded" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("all ")
    refused = site.darkroom("usage", "--days", "32")
    assert refused.returncode == 2


def test_a_pool_that_there_is_not_is_named(site: Up) -> None:
    refused = site.darkroom("dead-letters", "list", "--pool", "none")
    assert refused.returncode == 1
    assert "pool" in refused.stderr


def test_a_webhooks_address_is_passed_on_with_a_submit(site: Up) -> None:
    """Where nobody's secret is known the API refuses it, so it has arrived there."""
    refused = site.darkroom(
        "submit", "a lighthouse", "--no-wait", "--webhook-url", "https://hooks.example.com/here"
    )
    assert refused.returncode == 1
    assert "webhook_url" in refused.stderr
