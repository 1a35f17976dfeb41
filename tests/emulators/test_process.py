"""The emulator as a process: ready line, signals, kill -9, wrong options."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import ServiceBusError

from emulators.processes import StartError
from emulators.service_bus.process import EmulatorProcess, running

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def sending(emulator: EmulatorProcess) -> AsyncIterator[ServiceBusSender]:
    connection = emulator.endpoints.connection_string
    bus = ServiceBusClient.from_connection_string(connection, retry_total=0)
    async with bus, bus.get_queue_sender("jobs") as sender:
        yield sender


@asynccontextmanager
async def receiving(emulator: EmulatorProcess) -> AsyncIterator[ServiceBusReceiver]:
    connection = emulator.endpoints.connection_string
    bus = ServiceBusClient.from_connection_string(connection, retry_total=0)
    async with bus, bus.get_queue_receiver("jobs") as receiver:
        yield receiver


async def ids(receiver: ServiceBusReceiver) -> set[str]:
    return {m.message_id for m in await receiver.peek_messages(250, sequence_number=1)}


async def test_kill_minus_nine_loses_no_acknowledged_message(tmp_path: Path) -> None:
    database = tmp_path / "bus.db"
    acknowledged: set[str] = set()

    async def keep_sending(sender: ServiceBusSender) -> None:
        while True:
            body = str(len(acknowledged))
            await sender.send_messages(ServiceBusMessage(body, message_id=body))
            acknowledged.add(body)

    async with running(queues=["jobs"], database=database) as emulator, sending(emulator) as sender:
        task = asyncio.create_task(keep_sending(sender))
        async with asyncio.timeout(20):
            while len(acknowledged) < 50:
                await asyncio.sleep(0.01)
        emulator.process.kill()
        with pytest.raises(ServiceBusError):
            await task
    async with running(database=database) as emulator, receiving(emulator) as receiver:
        kept = await ids(receiver)
        assert acknowledged <= kept
        assert len(kept) <= len(acknowledged) + 1
        (first,) = await receiver.receive_messages(1, max_wait_time=5)
        await receiver.complete_message(first)
        emulator.process.kill()
    async with running(database=database) as emulator, receiving(emulator) as receiver:
        assert kept - await ids(receiver) == {first.message_id}


async def test_sigterm_ends_it_at_once_with_zero_and_leaves_no_file(tmp_path: Path) -> None:
    database = tmp_path / "bus.db"
    async with running(queues=["jobs"], database=database) as emulator, sending(emulator) as sender:
        await sender.send_messages(ServiceBusMessage("a"))
        emulator.process.terminate()
        async with asyncio.timeout(5):
            assert await emulator.process.wait() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bus.db"]


async def test_a_process_is_gone_after_its_block_even_if_the_block_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        async with running() as emulator:
            raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(emulator.process.pid, 0)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--host", "0.0.0.0"], "--expose"),
        (["--config", "absent.json"], "absent.json"),
        (["--admin-tls-cert", "only.pem"], "key"),
        (["--database", "no/such/folder/bus.db"], "bus.db"),
        (["--queue", "bad name"], "queue name"),
    ],
)
async def test_wrong_options_end_it_with_two_and_say_why(
    arguments: list[str], complaint: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "emulators.service_bus", "--port", "0", "--admin-port", "0",
        *arguments, cwd=ROOT, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert complaint in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_a_taken_port_is_said_so() -> None:
    async with running() as emulator:
        with pytest.raises(StartError, match="ended with 2"):
            async with running(port=emulator.endpoints.amqp_port):
                pass
