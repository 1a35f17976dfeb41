"""Sends that share round trips: what is asked for while one send is on its way goes in the next.

One link sends one thing at a time: two sends at once on a link read each other's acknowledgements
and wait 0.2 s to notice. So sends queue here, and each round takes all that wait as one Service Bus
batch, which the broker stores whole or not at all. A lone send goes at once, unbatched.
"""

import asyncio

from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusSender

MAX_BATCH_MESSAGES = 100
MAX_BATCH_BYTES = 192 * 1024  # of bodies; the standard tier takes batches of 256 KiB in all
ENVELOPE_BYTES = 512  # properties and annotations of one message, generously


class BatchingSender:
    """One link to one queue."""

    def __init__(self, sender: ServiceBusSender) -> None:
        self._sender = sender
        self._waiting: list[tuple[ServiceBusMessage, int, asyncio.Future[None]]] = []
        self._rounds: asyncio.Task[None] | None = None

    async def send(self, message: ServiceBusMessage, body_bytes: int) -> None:
        """Return when the broker has accepted ``message``; raise what the SDK raises."""
        accepted = asyncio.get_running_loop().create_future()
        self._waiting.append((message, body_bytes + ENVELOPE_BYTES, accepted))
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._send_rounds())
        await accepted

    async def open(self) -> None:
        """Open the link."""
        await self._sender.__aenter__()

    async def close(self) -> None:
        """Let the sends that wait go out, then close the link."""
        if self._rounds is not None:
            await self._rounds
        await self._sender.close()

    async def _send_rounds(self) -> None:
        while batch := self._next_batch():
            messages = [message for message, _ in batch]
            error: Exception | None = None
            try:
                await self._sender.send_messages(messages[0] if len(messages) == 1 else messages)
            except Exception as raised:  # noqa: BLE001 - handed to every caller of this round
                error = raised
            for _, accepted in batch:
                if accepted.done():
                    continue  # its caller was cancelled
                if error is None:
                    accepted.set_result(None)
                else:
                    accepted.set_exception(error)

    def _next_batch(self) -> list[tuple[ServiceBusMessage, asyncio.Future[None]]]:
        taken, total = 0, 0
        for _, size, _ in self._waiting[:MAX_BATCH_MESSAGES]:
            total += size
            if taken and total > MAX_BATCH_BYTES:
                break
            taken += 1
        batch = [(message, accepted) for message, _, accepted in self._waiting[:taken]]
        del self._waiting[:taken]
        return batch
