"""The broker: its queues, what each link of a connection is, and the turn's end.

All changes of one turn of the event loop are committed together, then answered, then messages go
out. So nothing is acknowledged that could be lost, and many senders share one commit.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from emulators.service_bus.cbs import (
    CBS_ADDRESS,
    DEAD_LETTER_SUFFIX,
    MANAGEMENT_SUFFIX,
    Authority,
    Claims,
    base_entity,
    entity_path,
)
from emulators.service_bus.codec import Described
from emulators.service_bus.config import ConfigError, QueueSettings, check_queue_name
from emulators.service_bus.endpoints import (
    Consumer,
    Producer,
    RequestEndpoint,
    ResponseEndpoint,
)
from emulators.service_bus.engine import Connection
from emulators.service_bus.links import Endpoint, Link, Refusal
from emulators.service_bus.management import handle
from emulators.service_bus.message import Request
from emulators.service_bus.outlet import Outlet
from emulators.service_bus.queue import DEAD_LETTER_SUFFIX as DEAD_LETTER_NAME
from emulators.service_bus.queue import Queue
from emulators.service_bus.store import Store

MAX_MESSAGE_BYTES: Final = 262_144
"""Azure's standard tier; premium takes up to 100 MB."""

SESSION_FILTER: Final = "com.microsoft:session-filter"
_LONGEST_WAIT_SECONDS: Final = 60.0

logger = logging.getLogger(__name__)


class Broker:
    """Queues by name, and the end of each turn. Lives in one event loop.

    `clock_ms` gives milliseconds since 1970; a test passes its own and calls `tick` after moving
    it. `on_failure` is told when the store cannot commit: the broker must not go on then.
    """

    def __init__(
        self,
        authority: Authority,
        store: Store,
        clock_ms: Callable[[], int],
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        self.authority = authority
        self.max_message_bytes = max_message_bytes
        self.clock_ms = clock_ms
        self.connections: set[Connection] = set()
        self._store = store
        self._on_failure = on_failure
        self._outlets: dict[str, Outlet] = {}
        self._touched: dict[Outlet, None] = {}
        self._answers: list[Callable[[], None]] = []
        self._turn_end: asyncio.Handle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        for name, settings in store.queues().items():
            self._restore(name, settings)

    # --- queues

    def create_queue(self, name: str, settings: QueueSettings) -> Queue:
        """Makes a queue, or gives an existing one these settings.

        Raises ConfigError for a bad name, or when duplicate detection would change: like Azure's,
        it is settled when the queue is made.
        """
        check_queue_name(name)
        outlet = self._outlets.get(name.lower())
        if outlet is None:
            self._restore(name, settings)
        else:
            queue = outlet.queue
            if queue.settings.requires_duplicate_detection != settings.requires_duplicate_detection:
                raise ConfigError("RequiresDuplicateDetection cannot change after creation")
            queue.settings = settings
            if queue.dead_letter is not None:
                queue.dead_letter.settings = _dead_letter_settings(settings)
        self._store.save_queue(name, settings)
        self._store.commit()
        return self._outlets[name.lower()].queue

    def _restore(self, name: str, settings: QueueSettings) -> None:
        buried_name = name + DEAD_LETTER_NAME
        buried = Queue(buried_name, _dead_letter_settings(settings), self.clock_ms, self._store)
        queue = Queue(name, settings, self.clock_ms, self._store, dead_letter=buried)
        for one in (buried, queue):
            one.restore(*self._store.load(one.name))
            self._outlets[one.name.lower()] = outlet = Outlet(one)
            self._touched[outlet] = None

    def delete_queue(self, name: str) -> bool:
        """Deletes a queue, its dead letters and all links to it; False when there is none."""
        outlet = self._outlets.get(name.lower())
        if outlet is None or outlet.queue.dead_letter is None:
            return False
        for key in (name.lower(), name.lower() + DEAD_LETTER_SUFFIX):
            gone = self._outlets.pop(key)
            self._touched.pop(gone, None)
            gone.close()
        self._store.drop_queue(outlet.queue.name, outlet.queue.dead_letter.name)
        return True

    def queue(self, name: str) -> Queue | None:
        """A queue by name, in any case; None when there is none."""
        outlet = self._outlets.get(name.lower())
        return outlet.queue if outlet and outlet.queue.dead_letter is not None else None

    def queues(self) -> list[Queue]:
        """Every queue, by name; not the dead-letter queues."""
        found = [o.queue for o in self._outlets.values() if o.queue.dead_letter is not None]
        return sorted(found, key=lambda queue: queue.name.lower())

    # --- turns

    def touch(self, outlet: Outlet) -> None:
        """The outlet is pumped at the end of this turn."""
        self._touched[outlet] = None
        self._end_turn_soon()

    def after_commit(self, answer: Callable[[], None]) -> None:
        """Runs `answer` at the end of this turn, when its changes are durable."""
        self._answers.append(answer)
        self._end_turn_soon()

    def _end_turn_soon(self) -> None:
        if self._turn_end is None:
            self._turn_end = asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn_end = None
        try:
            self._store.commit()
            answers, self._answers = self._answers, []
            for answer in answers:
                answer()
            touched, self._touched = list(self._touched), {}
            for outlet in touched:
                outlet.queue.advance()
                self._pump(outlet)
            self._store.commit()
        except Exception as error:  # whatever it was, going on could acknowledge what is lost
            logger.exception("the broker cannot go on")
            if self._on_failure is None:
                raise
            self._on_failure(error)
            return
        self._set_alarm()

    def _pump(self, outlet: Outlet) -> None:
        """Hands out what is ready, dead letters too: they may have come from this very queue."""
        outlet.pump()
        if outlet.queue.dead_letter is not None:
            self._outlets[outlet.queue.dead_letter.name.lower()].pump()

    def tick(self) -> None:
        """Applies what time has made due in all queues, and hands out what became ready."""
        for outlet in self._outlets.values():
            self._touched[outlet] = None
        self._end_turn()

    def _set_alarm(self) -> None:
        """Wakes for the next expiry or due time of any queue."""
        if self._alarm is not None:
            self._alarm.cancel()
        times = (outlet.queue.next_event_ms() for outlet in self._outlets.values())
        next_ms = min((time for time in times if time is not None), default=None)
        if next_ms is None:
            self._alarm = None
            return
        wait_seconds = (next_ms - self.clock_ms()) / 1000
        self._alarm = asyncio.get_running_loop().call_later(
            min(max(wait_seconds, 0.001), _LONGEST_WAIT_SECONDS), self.tick
        )

    async def close(self) -> None:
        """Finishes the turn, ends every connection and keeps what is to be kept."""
        if self._turn_end is not None:
            self._turn_end.cancel()
            self._end_turn()
        for connection in list(self.connections):
            connection.close()
        if self._alarm is not None:
            self._alarm.cancel()
        self._store.close()

    # --- connections

    def connect(self, connection: Connection) -> "Client":
        """The handler of a new connection."""
        self.connections.add(connection)
        return Client(self, connection)

    def outlet(self, path: str) -> Outlet:
        """The queue or dead-letter queue at a path; raises Refusal when there is none."""
        outlet = self._outlets.get(path.lower())
        if outlet is None:
            raise Refusal("amqp:not-found", f"the messaging entity {path!r} could not be found")
        return outlet


def _dead_letter_settings(settings: QueueSettings) -> QueueSettings:
    return replace(settings, requires_duplicate_detection=False)


class Client:
    """One connection's claims, and what each of its links is."""

    def __init__(self, broker: Broker, connection: Connection) -> None:
        self._broker, self._connection = broker, connection
        self._claims = Claims(broker.authority)

    def on_close(self) -> None:
        """The connection is gone."""
        self._broker.connections.discard(self._connection)

    def on_attach(self, link: Link) -> tuple[Endpoint, int]:
        """Finds out what is at the link's address; raises Refusal when it may not be had."""
        node = link.source.address if link.sending and link.source else None
        if not link.sending and link.target:
            node = link.target.address
        if node is None:
            raise Refusal("amqp:not-implemented", "this emulator has no transactions")
        path = entity_path(node)
        limit_bytes = self._broker.max_message_bytes
        if path == CBS_ADDRESS:
            return self._request_link(link, self._authorize, None), limit_bytes
        if not self._claims.cover(path):
            text = f"the connection has no valid claim for {base_entity(path)!r}"
            raise Refusal("amqp:unauthorized-access", text)
        if path.lower().endswith(MANAGEMENT_SUFFIX):
            outlet = self._broker.outlet(path[: -len(MANAGEMENT_SUFFIX)])
            return self._management(link, outlet), 4 * limit_bytes
        outlet = self._broker.outlet(path)
        if not link.sending:
            if path.lower().endswith(DEAD_LETTER_SUFFIX):
                raise Refusal("amqp:not-allowed", "nothing can be sent to a dead-letter queue")
            return Producer(link, outlet, self._broker), limit_bytes
        _refuse_sessions(link)
        return Consumer(link, outlet, self._broker), limit_bytes

    def _management(self, link: Link, outlet: Outlet) -> Endpoint:
        def answer(request: Request) -> tuple[dict[object, object], object]:
            response = handle(outlet.queue, request)
            return response.properties(), response.body

        return self._request_link(link, answer, outlet)

    def _request_link(
        self,
        link: Link,
        answer: Callable[[Request], tuple[dict[object, object], object]],
        outlet: Outlet | None,
    ) -> Endpoint:
        if link.sending:
            return ResponseEndpoint(link, outlet)
        return RequestEndpoint(link, answer, self._reply_link, self._broker, outlet)

    def _authorize(self, request: Request) -> tuple[dict[object, object], object]:
        return self._claims.put_token(request), None

    def _reply_link(self, link: Link, request: Request) -> Link | None:
        """The link for a request's answer.

        It is the one whose target is the reply-to, or else the one from the same node in the same
        session.
        """
        node = link.target.address if link.target else None
        beside: Link | None = None
        for other in self._connection.links():
            if not other.sending:
                continue
            if request.reply_to and other.target and other.target.address == request.reply_to:
                return other
            if other.session is link.session and other.source and other.source.address == node:
                beside = other
        return beside


def _refuse_sessions(link: Link) -> None:
    filters = (link.source.filter if link.source else None) or {}
    for key, value in filters.items():
        descriptor = value.descriptor if isinstance(value, Described) else None
        if SESSION_FILTER in (key, descriptor):
            raise Refusal("amqp:not-allowed", "this emulator has no sessions")
