"""The chaos run's embedded backends: SQLite files and a folder, and what can go wrong with them."""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from bench.chaos_stack import Stack


class EmbeddedBackends:
    """SQLite and file system in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.env: Mapping[str, str] = {
            "DARKROOM_QUEUE_URL": f"sqlite:///{folder}/queue.db",
            "DARKROOM_JOBSTORE_URL": f"sqlite:///{folder}/jobs.db",
            "DARKROOM_IMAGESTORE_URL": f"file:///{folder}/images",
        }
        self.inspect_env = self.env

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing to start: the files are made at first use."""
        yield

    def faults(
        self, rng: random.Random, stack: Stack, lease_seconds: float
    ) -> dict[str, Callable[[], Awaitable[bool]]]:
        """Return the faults that only these backends have; each tells whether it took place."""
        return {"lock_expired": self._expire_lock, "database_locked": self._lock_database}

    async def images_of(self, job_id: str) -> set[str]:
        """Return the names stored for a job."""
        folder = self._folder / "images" / job_id
        return {path.name for path in folder.glob("*.png")} if folder.exists() else set()

    async def _expire_lock(self) -> bool:
        """End one held lease from outside, as a clock jump or an operator would."""

        def expire() -> bool:
            with contextlib.closing(sqlite3.connect(self._folder / "queue.db", timeout=10)) as db:
                held = "SELECT seq FROM messages WHERE token IS NOT NULL LIMIT 1"
                changed = db.execute(f"UPDATE messages SET expires_at = 0 WHERE seq IN ({held})")
                db.commit()
                return changed.rowcount > 0

        return await asyncio.to_thread(expire)

    async def _lock_database(self) -> bool:
        """Hold the records' write lock for a second: every writer waits."""

        def hold() -> sqlite3.Connection:
            db = sqlite3.connect(
                self._folder / "jobs.db", timeout=10, isolation_level=None, check_same_thread=False
            )
            db.execute("BEGIN IMMEDIATE")
            return db

        db = await asyncio.to_thread(hold)
        await asyncio.sleep(1.0)
        db.execute("ROLLBACK")
        db.close()
        return True
