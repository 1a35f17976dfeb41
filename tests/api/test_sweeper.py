"""The sweeper when not all is well: one pool away, deadlines that pass, many jobs."""

import asyncio

from darkroom.errors import QueueUnavailable
from darkroom.jobs import JobState
from darkroom.messages import Message
from darkroom.queues.memory import MemoryJobQueue
from tests.api.stack import open_stack

LONG = {"num_inference_steps": 100, "width": 256, "height": 256, "num_images": 2}


class Away(MemoryJobQueue):
    """A queue that answers only while ``away`` is false; ``tries`` counts the sends."""

    away = True
    tries = 0

    async def send(self, message: Message, **kwargs) -> None:
        self.tries += 1
        if self.away:
            raise QueueUnavailable("no answer from 10.0.0.7")
        await super().send(message, **kwargs)


def queues() -> dict[str, Away]:
    return {name: Away(lease_seconds=30, max_delivery_count=3) for name in ("short", "long")}


async def test_a_pool_that_is_away_blocks_no_other_however_many_jobs_it_keeps_waiting() -> None:
    both = queues()
    async with open_stack(queues=both) as stack:  # type: ignore[arg-type]
        for _ in range(250):
            await stack.submit()
            stack.clock.advance(0.001)
        later = await stack.submit(**LONG)
        assert later["pool"] == "long"
        stack.clock.advance(60)
        both["long"].away = False
        both["short"].tries = 0
        assert await stack.state.sweeper.sweep() == 1
        assert await stack.messages() == [later["id"]]
        assert both["short"].tries == 1, "a queue that is away is tried once a sweep"
        both["short"].away = False
        assert await stack.state.sweeper.sweep() == 250


async def test_a_long_row_of_stuck_jobs_is_gone_through_over_several_sweeps(monkeypatch) -> None:
    monkeypatch.setattr("api.sweeper.PAGE", 5)
    monkeypatch.setattr("api.sweeper.MAX_PAGES", 2)
    both = queues()
    async with open_stack(queues=both) as stack:  # type: ignore[arg-type]
        for _ in range(23):
            await stack.submit()
            stack.clock.advance(0.001)
        await stack.submit(**LONG)
        stack.clock.advance(60)
        both["long"].away = False
        swept = [await stack.state.sweeper.sweep() for _ in range(4)]
        assert sum(swept) == 1
        both["short"].away = False
        while await stack.state.sweeper.sweep():
            pass
        await stack.state.sweeper.sweep()
        assert len(await stack.messages()) == 1 + 23


async def test_a_job_whose_deadline_passes_before_it_is_sent_fails() -> None:
    both = queues()
    async with open_stack(queues=both) as stack:  # type: ignore[arg-type]
        late = await stack.submit(deadline_seconds=30)
        patient = await stack.submit(deadline_seconds=3000)
        stack.clock.advance(31)
        await stack.state.sweeper.sweep()
        job = await stack.state.jobs.get(late["id"])
        assert job.error is not None
        assert (job.status, job.error.code) == (JobState.FAILED, "DeadlineExceeded")
        assert (await stack.state.jobs.get(patient["id"])).status is JobState.NOT_STARTED


async def test_a_process_whose_sweep_seconds_are_0_sweeps_nothing() -> None:
    async with open_stack(sweep_seconds=0) as stack:
        async with asyncio.timeout(1):
            await stack.state.sweeper.run()
