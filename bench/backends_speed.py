"""The Service Bus adapter beside the bare SDK, doing the same, in turns, against one broker.

Both sides have a queue, a sender and a receiver of their own, opened once. Throughput: send a round
of messages one by one, then receive them in batches and complete each. Latency: a waiting consumer,
one message, from before the send until it is in hand.
"""

import asyncio
import statistics
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from bench.backends_jobs import make_job
from darkroom.azure_clients import emulated_service_bus
from darkroom.messages import message_for
from darkroom.queues.service_bus import ServiceBusJobQueue
from emulators.service_bus.server import Endpoints

BATCH = 10  # what is asked for at once; a worker's window


class Side(ABC):
    """One of the two that are compared."""

    @abstractmethod
    async def send(self) -> None:
        """Send one message like an admission does."""

    @abstractmethod
    async def receive(self, most: int, wait_seconds: float) -> int:
        """Receive and complete up to ``most``; return how many."""

    @abstractmethod
    async def close(self) -> None:
        """Close the links."""


class BareSdk(Side):
    """What one writes with the SDK alone."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._client = ServiceBusClient.from_connection_string(endpoints.connection_string)
        self._sender = self._client.get_queue_sender("bare")
        self._receiver = self._client.get_queue_receiver("bare")

    async def send(self) -> None:
        ours = message_for(make_job())
        await self._sender.send_messages(
            ServiceBusMessage(
                ours.encode(),
                message_id=ours.message_id,
                subject=ours.model,
                content_type="application/json",
                application_properties=dict(ours.properties),
            )
        )

    async def receive(self, most: int, wait_seconds: float) -> int:
        messages = await self._receiver.receive_messages(most, wait_seconds)
        for message in messages:
            b"".join(message.body)
            await self._receiver.complete_message(message)
        return len(messages)

    async def close(self) -> None:
        await asyncio.gather(self._sender.close(), self._receiver.close())
        await self._client.close()


class Adapter(Side):
    """The product's way."""

    def __init__(self, endpoints: Endpoints) -> None:
        client, admin = emulated_service_bus(
            endpoints.connection_string, endpoints.admin_connection_string
        )
        self._queue = ServiceBusJobQueue(client, admin, "adapter", max_delivery_count=5)

    async def send(self) -> None:
        await self._queue.send(message_for(make_job()))

    async def receive(self, most: int, wait_seconds: float) -> int:
        leases = await self._queue.lease(most, wait_seconds)
        for lease in leases:
            await lease.complete()
        return len(leases)

    async def close(self) -> None:
        await self._queue.close()


@dataclass
class Speed:
    """What was measured: messages a second, and milliseconds, for each side."""

    bare_per_second: float
    adapter_per_second: float
    bare_latency_ms: float
    adapter_latency_ms: float

    @property
    def throughput_ratio(self) -> float:
        """Of the adapter to the SDK; the more the better."""
        return self.adapter_per_second / self.bare_per_second

    @property
    def latency_ratio(self) -> float:
        """Of the adapter to the SDK; the less the better."""
        return self.adapter_latency_ms / self.bare_latency_ms


async def measure(endpoints: Endpoints, rounds: int, messages: int, samples: int) -> Speed:
    """Run both sides in turns; medians of ``rounds`` throughputs and of ``samples`` latencies."""
    sides: tuple[Side, Side] = (BareSdk(endpoints), Adapter(endpoints))
    rates: tuple[list[float], list[float]] = ([], [])
    waits: tuple[list[float], list[float]] = ([], [])
    for side in sides:  # opening the links is not what is measured
        await _round(side, BATCH)
    for number in range(rounds):
        for which in _turn(number):
            rates[which].append(await _round(sides[which], messages))
    for number in range(samples):
        for which in _turn(number):
            waits[which].append(await _latency_ms(sides[which]))
    for side in sides:
        await side.close()
    return Speed(
        *(statistics.median(each) for each in rates), *(statistics.median(each) for each in waits)
    )


def _turn(number: int) -> tuple[int, int]:
    return (0, 1) if number % 2 == 0 else (1, 0)


async def _round(side: Side, messages: int) -> float:
    """Return messages a second, sent, received and completed."""
    began = time.perf_counter()
    for _ in range(messages):
        await side.send()
    done = 0
    while done < messages:
        done += await side.receive(min(BATCH, messages - done), 5)
    return messages / (time.perf_counter() - began)


async def _latency_ms(side: Side) -> float:
    waiting = asyncio.create_task(side.receive(1, 30))
    await asyncio.sleep(0.03)  # so that the consumer waits
    began = time.perf_counter()
    await side.send()
    await waiting
    return (time.perf_counter() - began) * 1000
