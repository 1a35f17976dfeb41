"""The chaos run itself: that it runs, and that its checks can fail."""

import io
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from bench import chaos
from bench.chaos_audit import Verdict, audit
from darkroom.clock import SystemClock
from darkroom.imagestores.base import output_name
from darkroom.jobs import Job, JobError, JobState, fail
from tests.samples import make_job
from tests.worker.site import Site


async def test_a_short_run_on_files_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chaos.ENV, "DARKROOM_WORKER_RETRY_CAP_SECONDS", "0.05")  # poison's pauses
    with mock.patch.dict(os.environ):  # noqa: TID251 - the run changes it
        summary = await chaos.run_chaos(20, 3, "embedded", tmp_path, most_faults=8)
    assert chaos.is_sound(summary), summary
    assert summary["jobs"] == 20
    assert sum(summary["faults"].values()) >= 4


@pytest.mark.parametrize("wrong", ["lost", "doubled", "wrong", "others_dead_lettered"])
def test_a_run_with_anything_amiss_is_not_sound(wrong: str) -> None:
    none = {"lost": 0, "doubled": 0, "wrong": 0, "others_dead_lettered": 0}
    sound = {**none, "poison_sent": 3, "poison_dead_lettered": 3}
    assert chaos.is_sound(sound)
    assert not chaos.is_sound({**sound, wrong: 1})
    assert not chaos.is_sound({**sound, "poison_dead_lettered": 2})


class Evidence:
    """Two done jobs and a canceled one as a run leaves them, to be tampered with."""

    def __init__(self, site: Site, jobs: Mapping[str, Job]) -> None:
        self.site = site
        self.jobs = dict(jobs)
        self.first_ends = dict(jobs)
        self.extra: dict[str, set[str]] = {}
        self.done, self.other, self.canceled = jobs

    async def names_of(self, job_id: str) -> set[str]:
        number = len(self.jobs[job_id].images)
        return {output_name(index) for index in range(number)} | self.extra.get(job_id, set())

    async def verdict(self) -> Verdict:
        return await audit(self.jobs, self.first_ends, self.site.images, self.names_of)

    def change(self, job_id: str, **fields: object) -> None:
        self.jobs[job_id] = self.jobs[job_id].model_copy(update=fields)


@pytest.fixture
async def evidence(memory_site: Site) -> Evidence:
    ids = [await memory_site.submit(seed=number, num_images=2) for number in range(2)]
    async with memory_site.worker():
        jobs = [await memory_site.ended(job_id) for job_id in ids]
    waiting = await memory_site.create()
    jobs.append(await memory_site.cancel(waiting.id))
    return Evidence(memory_site, {job.id: job for job in jobs})


async def test_the_audit_finds_nothing_in_a_sound_run(evidence: Evidence) -> None:
    assert await evidence.verdict() == Verdict()


async def _did_not_end(evidence: Evidence) -> None:
    evidence.change(evidence.done, status=JobState.RUNNING)


async def _failed(evidence: Evidence) -> None:
    waiting = await evidence.site.create()
    error = JobError(code="GenerationFailed", message="no")
    failed = fail(waiting, SystemClock().now(), error)
    evidence.jobs[evidence.done] = failed.model_copy(update={"id": evidence.done})


async def _ended_twice(evidence: Evidence) -> None:
    evidence.change(evidence.done, finished_at=SystemClock().now())


async def _has_a_picture_too_many(evidence: Evidence) -> None:
    evidence.extra[evidence.done] = {output_name(2)}


async def _lacks_a_picture(evidence: Evidence) -> None:
    evidence.change(evidence.done, images=evidence.jobs[evidence.done].images[:1])
    evidence.first_ends[evidence.done] = evidence.jobs[evidence.done]


async def _has_anothers_pixels(evidence: Evidence) -> None:
    other = await evidence.site.images.get(evidence.other, output_name(0))
    await evidence.site.images.put(evidence.done, output_name(0), other, attempt=9)


async def _has_a_changed_pixel(evidence: Evidence) -> None:
    name = output_name(1)
    png = await evidence.site.images.get(evidence.done, name)
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.array(picture)
    pixels[0, 0, 0] ^= 1
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    await evidence.site.images.put(evidence.done, name, file.getvalue(), attempt=9)


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (_did_not_end, "lost"),
        (_failed, "lost"),
        (_ended_twice, "doubled"),
        (_has_a_picture_too_many, "doubled"),
        (_lacks_a_picture, "wrong"),
        (_has_anothers_pixels, "wrong"),
        (_has_a_changed_pixel, "wrong"),
    ],
)
async def test_the_audit_names_what_was_tampered_with(
    evidence: Evidence, tamper: Callable[[Evidence], Awaitable[None]], named: str
) -> None:
    await tamper(evidence)
    assert await evidence.verdict() == Verdict(**{named: {evidence.done}})


async def test_the_audit_names_a_canceled_job_with_pictures(evidence: Evidence) -> None:
    evidence.change(evidence.canceled, images=evidence.jobs[evidence.done].images)
    evidence.first_ends[evidence.canceled] = evidence.jobs[evidence.canceled]
    assert await evidence.verdict() == Verdict(wrong={evidence.canceled})


def test_two_jobs_of_one_idempotency_key_are_doubled() -> None:
    first, second, third = (make_job(tags={"number": number}) for number in ("1", "2", "1"))
    jobs = {job.id: job for job in (first, second, third)}
    assert chaos.Run.doubled_keys(jobs) == {first.id, third.id}
