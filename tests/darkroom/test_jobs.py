"""The transition table, and what no sequence of steps can do."""

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.errors import Conflict, IllegalTransition, StaleAttempt
from darkroom.generation import InputImage
from darkroom.jobs import (
    TRANSITIONS,
    Job,
    JobError,
    JobImage,
    JobState,
    Phase,
    Provenance,
    Usage,
    cancel,
    check_attempt,
    claim,
    erase,
    fail,
    is_claimed,
    mark_sent,
    new_job_id,
    release,
    report,
    request_cancel,
    succeed,
)
from tests.samples import NOW, make_generation, make_job

ERROR = JobError(code="GenerationFailed", message="It broke.")
IMAGE = JobImage(index=0, width=512, height=512, sha256="a" * 64, seed=7)


def finish(job: Job, attempt: int) -> Job:
    return succeed(
        job, attempt, NOW, images=[IMAGE], usage=Usage(gpu_seconds=2), provenance=Provenance()
    )


def tell(job: Job, attempt: int, step: int = 5) -> Job:
    return report(job, attempt, NOW, phase=Phase.GENERATING, step=step, claim_seconds=60)


STEPS: dict[str, Callable[[Job, int], Job]] = {
    "mark_sent": lambda job, attempt: mark_sent(job, NOW),
    "claim": lambda job, attempt: claim(job, NOW, 60),
    "report": tell,
    "release": lambda job, attempt: release(job, attempt, NOW),
    "succeed": finish,
    "fail": lambda job, attempt: fail(job, NOW, ERROR),
    "cancel": lambda job, attempt: cancel(job, NOW),
    "request_cancel": lambda job, attempt: request_cancel(job, NOW),
    "erase": lambda job, attempt: erase(job, NOW),
}
LIFE = st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(-1, 1)), max_size=30)


def live(life: list[tuple[str, int]]) -> list[Job]:
    """Take each step that is allowed; a step's attempt is the present one, give or take one."""
    records = [make_job()]
    for name, off_by in life:
        try:
            records.append(STEPS[name](records[-1], records[-1].attempts + off_by))
        except Conflict:
            continue
    return records


@given(LIFE)
def test_no_sequence_of_steps_leaves_a_terminal_state(life: list[tuple[str, int]]) -> None:
    for before, after in pairwise(live(life)):
        if before.status.is_terminal:
            assert after == before or after == erase(before, NOW)
            assert after.status is before.status
        assert after.status in TRANSITIONS[before.status] or after.status is before.status


@given(LIFE)
def test_attempts_only_grow_and_only_by_a_claim(life: list[tuple[str, int]]) -> None:
    for before, after in pairwise(live(life)):
        claimed = after.status is JobState.RUNNING and after.phase is Phase.LOADING
        assert after.attempts - before.attempts in ({0, 1} if claimed else {0})


@given(LIFE)
def test_a_record_never_contradicts_itself(life: list[tuple[str, int]]) -> None:
    for job in live(life):
        assert job.status.is_terminal == (job.finished_at is not None)
        assert job.status.is_terminal == (job.phase is Phase.DONE)
        shows = job.status is JobState.SUCCEEDED and job.erased_at is None
        assert shows == (job.images != ())
        assert (job.generation.prompt == "") == (job.erased_at is not None)
        assert job.erased_at is None or job.status.is_terminal
        assert (job.status is JobState.FAILED) == (job.error is not None)
        assert (job.status is JobState.SUCCEEDED) == (job.progress == 1.0)
        assert (job.status is JobState.NOT_STARTED) == (job.phase is Phase.QUEUED)
        assert (job.status is JobState.RUNNING) == (job.claim_expires_at is not None)
        assert is_claimed(job, NOW) == (job.status is JobState.RUNNING)
        assert Job.model_validate_json(job.model_dump_json()) == job


@given(LIFE, st.integers(-1, 30))
def test_only_the_attempt_that_runs_publishes(life: list[tuple[str, int]], attempt: int) -> None:
    job = live(life)[-1]
    owns = job.status is JobState.RUNNING and job.attempts == attempt
    for step in (finish, tell, STEPS["release"]):
        if owns:
            step(job, attempt)
        else:
            with pytest.raises(StaleAttempt):
                step(job, attempt)


def test_exactly_the_ends_are_terminal() -> None:
    ends = {state for state in JobState if state.is_terminal}
    assert ends == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED}


@given(LIFE)
def test_an_erased_record_never_changes_again(life: list[tuple[str, int]]) -> None:
    for before, after in pairwise(live(life)):
        if before.erased_at is not None:
            assert after == before


def test_an_erase_takes_the_content_and_leaves_the_accounting() -> None:
    picture = InputImage(sha256="b" * 64, width=512, height=512)
    asked = make_generation(negative_prompt="fog", image=picture, mask_image=picture, strength=0.5)
    done = finish(claim(make_job(generation=asked, tags={"set": "a"}), NOW, 60), 1)
    later = NOW + timedelta(days=1)
    erased = erase(done, later)
    said = erased.model_dump_json()
    for content in ("lighthouse", "fog", "a" * 64, "b" * 64):
        assert content in done.model_dump_json()
        assert content not in said
    assert (erased.erased_at, erased.updated_at) == (later, later)
    changed = {"generation", "images", "erased_at", "updated_at"}
    assert erased.model_dump(exclude=changed) == done.model_dump(exclude=changed)
    assert erased.generation.without_content() == done.generation.without_content()
    assert erased.generation.kind == "inpainting", "what was run stays countable"
    assert erase(erased, later + timedelta(days=1)) is erased


@pytest.mark.parametrize("name", ["request_cancel", "claim"])
def test_a_job_that_has_not_ended_cannot_be_erased(name: str) -> None:
    job = STEPS[name](claim(make_job(), NOW, 60), 1)
    with pytest.raises(IllegalTransition, match=r"cancel it first"):
        erase(job, NOW)
    with pytest.raises(IllegalTransition):
        erase(make_job(), NOW)


@pytest.mark.parametrize("name", ["mark_sent", "claim", "fail", "cancel"])
def test_a_finished_job_refuses_by_saying_what_it_is(name: str) -> None:
    done = finish(claim(make_job(), NOW, 60), 1)
    with pytest.raises(IllegalTransition, match=r"Succeeded"):
        STEPS[name](done, 1)


def test_a_late_note_of_the_send_does_not_put_a_running_job_back() -> None:
    with pytest.raises(IllegalTransition):
        mark_sent(claim(make_job(), NOW, 60), NOW)


def test_a_claim_confirms_the_send() -> None:
    assert claim(make_job(), NOW, 60).sent_at == NOW


def test_a_claim_begins_the_next_attempt_from_nothing() -> None:
    first = tell(claim(make_job(), NOW, 60), 1, step=10)
    later = NOW + timedelta(seconds=90)
    second = claim(first, later, 60)
    assert (second.attempts, second.step, second.progress) == (2, 0, 0.0)
    assert second.started_at == NOW, "the job began with its first attempt"
    assert second.claim_expires_at == later + timedelta(seconds=60)
    with pytest.raises(StaleAttempt):
        check_attempt(second, 1)


def test_time_in_the_queue_adds_up_over_attempts() -> None:
    first = claim(make_job(), NOW + timedelta(seconds=10), 60)
    back = release(first, 1, NOW + timedelta(seconds=40))
    second = claim(back, NOW + timedelta(seconds=45), 60)
    assert second.usage.queue_seconds == 15


def test_a_claim_that_is_not_renewed_runs_out() -> None:
    job = claim(make_job(), NOW, 60)
    assert is_claimed(job, NOW + timedelta(seconds=59))
    assert not is_claimed(job, NOW + timedelta(seconds=60))
    renewed = report(
        job, 1, NOW + timedelta(seconds=59), phase=Phase.GENERATING, step=1, claim_seconds=60
    )
    assert is_claimed(renewed, NOW + timedelta(seconds=118))


def test_progress_never_goes_back_and_never_says_done_too_early() -> None:
    job = tell(claim(make_job(), NOW, 60), 1, step=20)
    assert job.progress == 0.99
    assert tell(job, 1, step=3).progress == 0.99
    assert tell(job, 1, step=1_000).progress == 0.99
    assert finish(job, 1).progress == 1.0


def test_cancel_ends_a_waiting_job_and_asks_a_running_one() -> None:
    assert request_cancel(make_job(), NOW).status is JobState.CANCELED
    running = request_cancel(claim(make_job(), NOW, 60), NOW)
    assert (running.status, running.cancel_requested) == (JobState.RUNNING, True)
    assert request_cancel(running, NOW + timedelta(seconds=1)) is running
    done = finish(claim(make_job(), NOW, 60), 1)
    assert request_cancel(done, NOW) is done


def test_ids_of_a_region_sort_by_time_and_do_not_repeat() -> None:
    ids = [new_job_id("weu", "acme") for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    times = [each.removeprefix("weu-")[:12] for each in ids]
    assert times == sorted(times)
    assert all(each.startswith("weu-") for each in ids)


def test_the_log_context_names_the_job_and_nothing_of_its_content() -> None:
    job = claim(make_job(), NOW, 60)
    assert job.log_context() == {"job_id": job.id, "tenant": "acme", "attempt": 1}


def test_a_takeover_counts_only_the_wait_since_the_dead_attempts_claim_ran_out() -> None:
    job = make_job()
    first = claim(job, job.created_at + timedelta(seconds=10), 60)
    second = claim(first, job.created_at + timedelta(seconds=75), 60)
    assert first.usage.queue_seconds == 10
    assert second.usage.queue_seconds == 15
