"""One SQLite file behind an event loop: a thread of its own, and group commit.

Durability
    WAL with ``synchronous=NORMAL``: what was committed survives kill -9 of every process, but the
    last commits before a power cut may be gone (never torn). Several processes may share a file.
Group commit
    A transaction costs more than what it holds. The calls of one turn of the event loop go to the
    thread together, and those that arrive while it commits a batch wait in line; the thread runs
    all of them in one transaction. Nobody gets an answer before the commit. When a call refuses
    (raises), the transaction is undone and the batch run again with each write in a savepoint, so
    that the refusal does not undo its neighbours: refusals are rare, and savepoints cost as much
    as the writes.
"""

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from darkroom.errors import DarkroomError

T = TypeVar("T")

BUSY_SECONDS = 10.0
MAX_BATCH = 256  # bounds how long the first caller of a batch waits for the last


@dataclass(frozen=True)
class _Call:
    work: Callable[[sqlite3.Connection], Any]
    writes: bool
    answer: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


_Outcome = tuple[_Call, Any, BaseException | None]


class Database:
    """A connection to ``path``, opened at the first call, with ``schema`` applied.

    SQLite's errors (a locked, full or damaged file) are raised as ``unavailable``. Calls may come
    from several event loops. Adapters that share a database are closed together.
    """

    def __init__(self, path: Path, schema: str, unavailable: type[DarkroomError]) -> None:
        self.path = path
        self._schema = schema
        self._unavailable = unavailable
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{path.name}")
        self._lock = threading.Lock()
        self._line: deque[_Call] = deque()
        self._draining = False
        self._closed = False
        self._connection: sqlite3.Connection | None = None

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work``, which only reads, in the database's thread and return what it returns."""
        return await self._call(work, writes=False)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in the database's thread; return what it returns once that is committed.

        What ``work`` wrote is undone when it raises. It may be run twice, so it must have no effect
        but on the database.
        """
        return await self._call(work, writes=True)

    async def close(self) -> None:
        """Finish the calls in line and close the connection. Closing twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._finish)
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        with self._lock:
            if self._closed:
                raise self._unavailable(f"{self.path.name} is closed")
            self._line.append(_Call(work, writes, answer, loop))
            if not self._draining:
                loop.call_soon(self._start)  # after all the calls of this turn
        return await answer

    def _start(self) -> None:
        with self._lock:
            if self._line and not self._draining:
                self._draining = True
                self._thread.submit(self._drain)

    def _drain(self) -> None:
        while True:
            with self._lock:
                calls = [self._line.popleft() for _ in range(min(len(self._line), MAX_BATCH))]
                if not calls:
                    self._draining = False
                    return
            try:
                outcomes = self._transact(calls)
            except (sqlite3.Error, OSError) as error:
                failure = self._unavailable(f"{self.path.name}: {error}")
                outcomes = [(call, None, failure) for call in calls]
            _deliver(outcomes)

    def _transact(self, calls: list[_Call]) -> list[_Outcome]:
        connection = self._connect()
        begin = "BEGIN IMMEDIATE" if any(call.writes for call in calls) else "BEGIN"
        try:
            connection.execute(begin)
            outcomes = _run_all(connection, calls)
            if outcomes is None:
                connection.execute("ROLLBACK")
                connection.execute(begin)
                outcomes = [_run(connection, call) for call in calls]
            connection.execute("COMMIT")
        except BaseException:  # whatever ends the batch, nothing of it may stay
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return outcomes

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            ends = time.monotonic() + BUSY_SECONDS
            while (connection := self._open(may_be_busy=time.monotonic() < ends)) is None:
                time.sleep(0.01)
            self._connection = connection
        return self._connection

    def _open(self, *, may_be_busy: bool) -> sqlite3.Connection | None:
        """Open the file; None when a neighbour was opening it too.

        SQLite does not wait for the lock that turning WAL on takes, whatever the timeout.
        """
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(f"BEGIN IMMEDIATE; {self._schema}; COMMIT")
        except sqlite3.Error as error:
            connection.close()
            if may_be_busy and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return None
            raise
        return connection

    def _finish(self) -> None:
        self._drain()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _run_all(connection: sqlite3.Connection, calls: list[_Call]) -> list[_Outcome] | None:
    """Run all calls; None when one refused, whose writes are then still in the transaction."""
    try:
        return [(call, call.work(connection), None) for call in calls]
    except (sqlite3.Error, OSError):
        raise
    except Exception:  # noqa: BLE001 - run again by `_run`, which hands it to its caller
        return None


def _run(connection: sqlite3.Connection, call: _Call) -> _Outcome:
    """Run one call. SQLite's own errors end the batch: it may have rolled back everything."""
    if call.writes:
        connection.execute("SAVEPOINT call")
    try:
        result = call.work(connection)
    except (sqlite3.Error, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - handed to the caller, who sees it raised
        if call.writes:
            connection.execute("ROLLBACK TO call")
            connection.execute("RELEASE call")
        return call, None, error
    if call.writes:
        connection.execute("RELEASE call")
    return call, result, None


def _deliver(outcomes: list[_Outcome]) -> None:
    """Wake each event loop once for all of its answers."""
    for loop in {call.loop for call, _, _ in outcomes}:
        with suppress(RuntimeError):  # the loop has closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle, [o for o in outcomes if o[0].loop is loop])


def _settle(outcomes: list[_Outcome]) -> None:
    for call, result, error in outcomes:
        if call.answer.done():  # the caller was cancelled while it waited
            continue
        if error is None:
            call.answer.set_result(result)
        else:
            call.answer.set_exception(error)
