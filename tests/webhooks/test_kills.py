"""Kill -9 between any two effects loses no event, and doubles none under another id."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from darkroom.clock import FakeClock, SystemClock
from darkroom.webhooks import WebhookState
from tests.webhooks.dying import LEASE_SECONDS, POINTS, open_stores
from tests.webhooks.receiver import posting, receiving

MOST_TIMES = {"ended": 1, "sent": 2, "marked": 1, "leased": 1, "posted": 2, "completed": 1}


async def test_a_killed_process_loses_no_event(tmp_path: Path) -> None:
    async with receiving() as receiver:
        killed = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.webhooks.dying", str(tmp_path), receiver.url
        )
        assert await killed.wait() == 0, "each died where it should"
        after = FakeClock(SystemClock().now() + timedelta(seconds=LEASE_SECONDS + 1))
        told_before = len(receiver.requests)
        assert told_before == 2, "posted, completed"
        for point in POINTS:
            jobs, queue = open_stores(tmp_path / point, after)
            job_id = (tmp_path / point / "id").read_text()
            async with posting(tmp_path, jobs=jobs, queue=queue) as post:
                post.clock.advance((after.now() - post.clock.now()).total_seconds())
                swept = await post.sender.sweep()
                assert swept == (1 if point in ("ended", "sent") else 0), point
                await post.deliver()
                told = receiver.ids.count(f"{job_id}.job.canceled")
                assert 1 <= told <= MOST_TIMES[point], point
                read = await jobs.get(job_id)
                assert read.webhook.state is WebhookState.QUEUED, point
                depth = await queue.depth()
                assert (depth.active, depth.scheduled, depth.dead_lettered) == (0, 0, 0), point
            await jobs.close()
            await queue.close()
        assert len(set(receiver.ids)) == len(POINTS)
