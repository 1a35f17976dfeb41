"""The database piece under the embedded adapters: group commit, refusals, failures."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from darkroom import sqlite
from darkroom.errors import NotFound, StoreUnavailable
from darkroom.sqlite import Database

SCHEMA = "CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY)"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "new" / "folder" / "things.db", SCHEMA, StoreUnavailable)
    yield opened
    await opened.close()


async def add(database: Database, name: str) -> None:
    await database.write(lambda c: c.execute("INSERT INTO things VALUES (?)", (name,)) and None)


async def names(database: Database) -> list[str]:
    query = "SELECT name FROM things ORDER BY name"
    return await database.read(lambda c: [row[0] for row in c.execute(query)])


async def hold(database: Database) -> threading.Event:
    """Keep the database's thread busy until the event is set, so that calls line up behind."""
    started, free = threading.Event(), threading.Event()

    def wait(connection: sqlite3.Connection) -> None:
        started.set()
        free.wait(10)

    database.held = asyncio.ensure_future(database.read(wait))  # type: ignore[attr-defined]
    await asyncio.to_thread(started.wait, 10)
    return free


async def test_calls_that_wait_together_are_committed_together(database: Database) -> None:
    statements: list[str] = []
    await database.read(lambda c: c.set_trace_callback(statements.append))
    free = await hold(database)
    statements.clear()
    calls = [asyncio.ensure_future(add(database, f"{index:03}")) for index in range(100)]
    await asyncio.sleep(0)
    free.set()
    await asyncio.gather(*calls)
    assert sum(statement.startswith("BEGIN IMMEDIATE") for statement in statements) == 1
    assert len(await names(database)) == 100


async def test_calls_of_one_turn_are_committed_together(database: Database) -> None:
    statements: list[str] = []
    await database.read(lambda c: c.set_trace_callback(statements.append))
    statements.clear()
    await asyncio.gather(*(add(database, f"{index:03}") for index in range(100)))
    assert sum(statement.startswith("BEGIN IMMEDIATE") for statement in statements) == 1


async def test_a_call_in_the_turn_of_the_close_is_answered_first(database: Database) -> None:
    _, listed, _ = await asyncio.gather(add(database, "a"), names(database), database.close())
    assert listed == ["a"]


async def test_a_loop_that_ended_with_a_call_in_line_holds_up_no_other(database: Database) -> None:
    def end_early() -> None:
        loop = asyncio.new_event_loop()
        loop.call_soon(loop.stop)
        task = loop.create_task(add(database, "a"))
        loop.run_forever()
        assert not task.done()
        loop.close()

    await asyncio.to_thread(end_early)
    await asyncio.wait_for(add(database, "b"), 5)
    assert await names(database) == ["a", "b"]


async def test_one_refusal_does_not_undo_its_neighbours(database: Database) -> None:
    def add_then_refuse(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES ('half')")
        raise NotFound("no")

    free = await hold(database)
    calls = [
        asyncio.ensure_future(call)
        for call in (add(database, "a"), database.write(add_then_refuse), add(database, "b"))
    ]
    await asyncio.sleep(0)
    free.set()
    first, refused, last = await asyncio.gather(*calls, return_exceptions=True)
    assert (first, last) == (None, None)
    assert isinstance(refused, NotFound)
    assert await names(database) == ["a", "b"]


async def test_sqlites_own_failure_fails_the_batch_and_the_next_call_works(
    database: Database,
) -> None:
    await add(database, "a")
    free = await hold(database)
    calls = [asyncio.ensure_future(add(database, name)) for name in ("b", "a", "c")]
    await asyncio.sleep(0)
    free.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, StoreUnavailable) for result in results)
    await add(database, "d")
    assert await names(database) == ["a", "d"]


async def test_a_caller_that_gives_up_disturbs_nobody(database: Database) -> None:
    free = await hold(database)
    quitter = asyncio.ensure_future(add(database, "a"))
    stayer = asyncio.ensure_future(add(database, "b"))
    await asyncio.sleep(0)
    quitter.cancel()
    free.set()
    await stayer
    assert "b" in await names(database)


async def test_the_loop_runs_on_while_another_process_holds_the_file(
    database: Database,
) -> None:
    """Guards the wait of `BUSY_SECONDS` (darkroom/sqlite.py).

    (Removing it makes this fail; tried.)
    """
    await add(database, "a")
    neighbour = sqlite3.connect(database.path, isolation_level=None)
    neighbour.execute("BEGIN IMMEDIATE")
    writing = asyncio.ensure_future(add(database, "b"))
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not writing.done()
    neighbour.execute("COMMIT")
    neighbour.close()
    await asyncio.wait_for(writing, 5)


async def test_a_file_that_stays_locked_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    database = Database(tmp_path / "things.db", SCHEMA, StoreUnavailable)
    await add(database, "a")
    neighbour = sqlite3.connect(database.path, isolation_level=None)
    neighbour.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=r"things.db: database is locked"):
        await add(database, "b")
    assert await names(database) == ["a"], "reading goes on"
    neighbour.execute("COMMIT")
    neighbour.close()
    await add(database, "b")
    await database.close()


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "things.db").write_bytes(b"not a database at all" * 100)
    database = Database(tmp_path / "things.db", SCHEMA, StoreUnavailable)
    with pytest.raises(StoreUnavailable, match=r"not a database"):
        await names(database)
    await database.close()


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    database = Database(tmp_path / "file" / "things.db", SCHEMA, StoreUnavailable)
    with pytest.raises(StoreUnavailable):
        await names(database)
    await database.close()


async def test_a_closed_database_says_so(database: Database) -> None:
    await add(database, "a")
    await database.close()
    await database.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await names(database)


async def test_calls_in_line_are_answered_before_closing(database: Database) -> None:
    calls = [asyncio.ensure_future(add(database, str(index))) for index in range(50)]
    await asyncio.sleep(0)
    await database.close()
    await asyncio.gather(*calls)


async def test_two_loops_in_two_threads_share_a_database(database: Database) -> None:
    """As when a lease is renewed off the loop that the engine blocks."""
    await asyncio.gather(
        asyncio.to_thread(lambda: asyncio.run(add(database, "there"))), add(database, "here")
    )
    assert await names(database) == ["here", "there"]


async def test_many_that_open_a_new_file_at_once_all_succeed(tmp_path: Path) -> None:
    for round_ in range(10):
        path = tmp_path / f"{round_}.db"
        opened = [Database(path, SCHEMA, StoreUnavailable) for _ in range(8)]
        await asyncio.gather(*(add(each, str(index)) for index, each in enumerate(opened)))
        assert len(await names(opened[0])) == 8
        for each in opened:
            await each.close()
