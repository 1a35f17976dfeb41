"""A Service Bus receiver that never leaves credit at the broker.

Why: `ServiceBusReceiver.receive_messages` grants the broker credit for as many messages as it is
asked for and, when fewer come in time, leaves the rest of the credit there. The broker then sends
the next message to that receiver although nobody there is waiting; the SDK's keep-alive gives it
back up to 5 s later, while another worker stands free. It also waits 0.2 s after a first message
for more. Neither can be turned off, and the SDK has no public call that takes credit back, so this
module runs the receive itself on the SDK's link: grant, wait for a first message, withdraw what is
left of the grant, and take what arrived before the broker confirmed the withdrawal. One round trip
more than the SDK when fewer messages came than were asked for, none when all came.

Which parts of the SDK are reached into is listed in `_Wire`; they are those of azure-servicebus
7.15, and the package is pinned to it. Withdrawing is AMQP 1.0's own ``flow`` with a credit of 0 and
``echo`` (part 2, section 2.6.7): frames of a session stay in order, so whatever the broker sent
before it learnt of the withdrawal arrives before its echo.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from queue import Empty
from typing import Any, TypeVar

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver
from azure.servicebus.exceptions import ServiceBusError

T = TypeVar("T")

IDLE_READ_SECONDS = 0.2  # the SDK's own socket timeout: how often an idle wait looks around
SHARED_READ_SECONDS = 0.02  # while leases are held, so that settling never waits longer for a read
LEAST_WAIT_SECONDS = 0.1  # some tens of round trips within a region
ECHO_SECONDS = 0.5  # what a broker without an echo costs; what comes later, the SDK releases

_FLOW_HANDLE, _FLOW_CREDIT = 4, 6  # positions in AMQP's flow performative


class _Wire:
    """What is used of the SDK's receiver beyond its public interface.

    `ServiceBusReceiver`: ``_handler``, ``_receive_context`` (set while somebody waits; transfers
    that arrive while it is clear are released by the SDK), ``_build_received_message``. Its
    handler: ``_link``, ``_connection``, ``_received_messages``, ``client_ready_async``,
    ``settle_messages_async``. The link: ``flow``, ``current_link_credit``, ``_incoming_flow``.
    """

    def __init__(self, receiver: ServiceBusReceiver) -> None:
        self._receiver: Any = receiver
        self._handler: Any = receiver._handler
        self._link: Any = self._handler._link

    def accept(self, accepting: bool) -> None:
        """Keep transfers that arrive from now on, or let the SDK release them."""
        context = self._receiver._receive_context
        context.set() if accepting else context.clear()

    @property
    def has_message(self) -> bool:
        return not self._handler._received_messages.empty()

    @property
    def credit(self) -> int:
        return int(self._link.current_link_credit)

    async def grant(self, credit: int) -> None:
        await self._link.flow(link_credit=credit)

    async def read(self, seconds: float) -> None:
        """Handle frames for up to ``seconds``; raise what the link or connection died of."""
        # The shield keeps a cancelled receive from cutting a token refresh in half.
        if await asyncio.shield(self._handler.client_ready_async()):
            await self._handler._connection.listen(wait=seconds)

    async def withdraw(self) -> None:
        """Take the credit back; return when the broker can send nothing more."""
        echoed = asyncio.Event()
        usual = self._link._incoming_flow

        async def note(frame: Any) -> None:
            if frame[_FLOW_HANDLE] is not None and not frame[_FLOW_CREDIT]:
                echoed.set()
            await usual(frame)

        self._link._incoming_flow = note
        try:
            await self._link.flow(link_credit=0, drain=True, echo=True)
            ends = time.monotonic() + ECHO_SECONDS
            while not echoed.is_set() and (left := ends - time.monotonic()) > 0:
                await self._handler._connection.listen(wait=min(left, IDLE_READ_SECONDS))
        finally:
            self._link._incoming_flow = usual

    def take(self) -> list[ServiceBusReceivedMessage]:
        taken = []
        while self.has_message:
            taken.append(
                self._receiver._build_received_message(self._handler._received_messages.get())
            )
        return taken

    async def release_all(self) -> None:
        """Give back what arrived, without counting a delivery."""
        while True:
            try:
                frame, _ = self._handler._received_messages.get_nowait()
            except Empty:
                return
            await self._handler.settle_messages_async(frame[1], frame[2], "released")


class ExactReceiver:
    """One link. `receive` calls take turns; settling and renewing go between their reads.

    ``is_shared`` says whether leases are held, that is, whether somebody may want to settle while
    a receive waits: the connection is then read in short slices. (All calls on a link read from one
    connection. A call whose answer was read by another notices it only when its own read ends.)
    """

    def __init__(self, receiver: ServiceBusReceiver, is_shared: Callable[[], bool]) -> None:
        self._receiver = receiver
        self._is_shared = is_shared
        self._turn = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._closed = False

    async def receive(
        self, max_messages: int, max_wait_seconds: float
    ) -> list[ServiceBusReceivedMessage]:
        """Return up to ``max_messages``, at once when there is any; none after the wait.

        The broker is given at least `LEAST_WAIT_SECONDS` to answer the grant. Raises what the SDK
        raises, after its retries. When cancelled, gives back what arrived.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(max_wait_seconds, LEAST_WAIT_SECONDS)):
                await self._turn.acquire()
        except TimeoutError:
            return []
        wait_seconds = max(max_wait_seconds - (time.monotonic() - began), LEAST_WAIT_SECONDS)
        try:
            await self.open()  # is not waiting, and not counted as such
            return await self._receiver._do_retryable_operation(  # type: ignore[no-any-return]
                self._receive, max_messages=max_messages, ends=time.monotonic() + wait_seconds
            )
        finally:
            self._turn.release()

    async def open(self) -> None:
        """Open the link, unless it is open."""
        async with self._reading:
            await self._receiver.__aenter__()

    async def alone(self, operation: Callable[[ServiceBusReceiver], Awaitable[T]]) -> T:
        """Run a settlement or renewal as the only reader, reconnecting first if need be."""
        async with self._reading:
            if self._closed:
                raise ServiceBusError("the queue was closed")
            return await operation(await self._receiver.__aenter__())

    async def close(self) -> None:
        """End a waiting receive with nothing, then close the link."""
        self._closed = True
        async with self._turn:
            await self._receiver.close()

    async def _receive(self, max_messages: int, ends: float) -> list[ServiceBusReceivedMessage]:
        async with self._reading:
            await self._receiver.__aenter__()
            wire = _Wire(self._receiver)
            wire.accept(True)
            await wire.grant(max_messages)
        try:
            await self._wait_for_first(wire, ends)
            if wire.credit > 0:
                async with self._reading:
                    await wire.withdraw()
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back(wire))
            raise
        finally:
            wire.accept(False)
        return wire.take()

    async def _wait_for_first(self, wire: _Wire, ends: float) -> None:
        while not wire.has_message and not self._closed:
            left = ends - time.monotonic()
            if left <= 0:
                return
            async with self._reading:
                slice_seconds = SHARED_READ_SECONDS if self._is_shared() else IDLE_READ_SECONDS
                await wire.read(min(left, slice_seconds))
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Python 3.11's wait_for, inside the SDK, can swallow a cancellation.
                raise asyncio.CancelledError

    async def _give_back(self, wire: _Wire) -> None:
        async with self._reading:
            wire.accept(False)
            try:
                await wire.withdraw()
                await wire.release_all()
            except Exception as error:  # noqa: BLE001 - of whatever kind, the link is gone
                logging.getLogger(__name__).debug("credit went with its link: %r", type(error))
