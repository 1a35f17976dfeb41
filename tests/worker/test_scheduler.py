"""The scheduler's promises, tried on windows that hypothesis makes up."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.scheduler import (
    Candidate,
    Decision,
    Rules,
    WorkerState,
    bound_seconds,
    choose,
    evict_order,
    overtaken,
    surplus,
    window_size,
)

RULES = Rules()


def job(
    job_id: str,
    model: str = "a",
    *,
    tenant: str = "t",
    key: Hashable = None,
    at: float = 0.0,
    gpu: float = 10.0,
    load: float = 20.0,
    pictures: int = 1,
    deadline: float | None = None,
    solo: bool = False,
    waited: float = 0.0,
) -> Candidate:
    return Candidate(job_id, tenant, model, key, pictures, gpu, load, at, deadline, solo, waited)


seconds = st.floats(0.0, 600.0, allow_nan=False).map(lambda value: round(value, 1))
candidates = st.builds(
    Candidate,
    job_id=st.uuids().map(str),
    tenant=st.sampled_from("xyz"),
    model=st.sampled_from("abcdef"),
    key=st.integers(0, 2),
    pictures=st.integers(1, 8),
    gpu_seconds=seconds,
    load_seconds=seconds,
    admitted_at=st.floats(0, 1000, allow_nan=False).map(round),
    deadline_at=st.none() | st.floats(0, 3000, allow_nan=False),
    solo=st.booleans(),
    overtaken_seconds=st.just(0.0) | seconds,
)
windows = st.lists(candidates, max_size=24, unique_by=lambda candidate: candidate.job_id)
states = st.builds(
    WorkerState,
    now=st.just(1000.0),
    loaded=st.lists(st.sampled_from("abcdef"), unique=True, max_size=3).map(tuple),
    capacity=st.integers(1, 8),
    max_pictures=st.integers(1, 16),
    active=st.integers(0, 400),
    replicas=st.integers(1, 16),
    line_empty=st.booleans(),
)
rules = st.builds(Rules, patience=st.floats(0.0, 2.0), most=st.integers(1, 64))


def estimated(
    window: Sequence[Candidate], run: Sequence[str], state: WorkerState
) -> dict[str, float]:
    """The extra wait that the batch is for the others, if it takes what was estimated."""
    batch = [candidate for candidate in window if candidate.job_id in run]
    load = 0.0 if batch[0].model in state.loaded else batch[0].load_seconds
    return overtaken(window, run, load, sum(candidate.gpu_seconds for candidate in batch))


@given(windows, states, rules, st.randoms())
def test_the_same_window_gives_the_same_decision_in_whatever_order_it_is_told(
    window, state, rules, shuffler
):
    decision = choose(window, state, rules)
    shuffled = list(window)
    shuffler.shuffle(shuffled)
    assert choose(shuffled, state, rules) == decision


@given(windows, states, rules)
def test_a_batch_agrees_in_model_and_key_and_keeps_to_the_limits(window, state, rules):
    decision = choose(window, state, rules)
    by_id = {candidate.job_id: candidate for candidate in window}
    run = [by_id[job_id] for job_id in decision.run]
    assert len({(candidate.model, candidate.key) for candidate in run}) == bool(window)
    assert len(set(decision.run + decision.give_back)) == len(decision.run + decision.give_back)
    assert set(decision.give_back) <= set(by_id)
    assert len(run) <= state.capacity
    if len(run) > 1:
        assert sum(candidate.pictures for candidate in run) <= state.max_pictures
        assert not any(candidate.solo for candidate in run)


@given(windows, states, rules)
def test_no_batch_lifts_the_extra_wait_of_a_job_above_the_bound(window, state, rules):
    bound = bound_seconds(window, state, rules)
    run = choose(window, state, rules).run
    if not run:
        return
    added = estimated(window, run, state)
    for held in window:
        extra = added.get(held.job_id, 0.0)
        assert extra == 0 or held.overtaken_seconds + extra <= bound + 1e-6


class Line:
    """One worker for whom jobs keep coming, and what becomes of them; estimates come true."""

    def __init__(self, state: WorkerState, rules: Rules, room: int) -> None:
        self.state = state
        self.rules = rules
        self.room = room
        self.window: list[Candidate] = []
        self.allowed: dict[str, float] = {}
        self.extra: dict[str, float] = {}
        self.started: list[str] = []

    def step(self, coming: list[Candidate]) -> None:
        while coming and len(self.window) < self.room:
            self.window.append(coming.pop(0))
        bound = bound_seconds(self.window, self.state, self.rules)
        for held in self.window:
            self.allowed[held.job_id] = max(bound, self.allowed.get(held.job_id, 0.0))
        run = choose(self.window, self.state, self.rules).run
        added = estimated(self.window, run, self.state)
        model = next(c.model for c in self.window if c.job_id in run)
        loaded = (*(name for name in self.state.loaded if name != model), model)[-3:]
        served = (*self.state.served, *(c.tenant for c in self.window if c.job_id in run))
        self.state = replace(self.state, loaded=loaded, served=served[-64:])
        self.started += run
        self.window = [
            replace(held, overtaken_seconds=held.overtaken_seconds + added.get(held.job_id, 0.0))
            for held in self.window
            if held.job_id not in run
        ]
        self.extra |= {held.job_id: held.overtaken_seconds for held in self.window}


@settings(max_examples=60)
@given(
    st.lists(candidates, min_size=1, max_size=80, unique_by=lambda candidate: candidate.job_id),
    states,
    rules,
    st.integers(1, 32),
)
def test_over_a_whole_run_no_job_is_overtaken_for_longer_than_it_ever_was_allowed(
    jobs, state, rules, room
):
    coming = [
        replace(candidate, admitted_at=float(number), overtaken_seconds=0.0)
        for number, candidate in enumerate(jobs)
    ]
    line = Line(replace(state, line_empty=False), rules, room)
    while coming or line.window:
        line.step(coming)
    assert sorted(line.started) == sorted(candidate.job_id for candidate in jobs)
    for job_id, extra in line.extra.items():
        assert extra <= line.allowed[job_id] + 1e-6


def test_nobody_to_choose_from_is_nothing_to_run():
    assert choose([], WorkerState(now=0.0), RULES) == Decision()


def test_the_only_job_runs():
    assert choose([job("1", solo=True)], WorkerState(now=0.0), RULES).run == ("1",)


@given(candidates, states, rules)
def test_one_job_runs_whatever_it_is_like(candidate, state, rules):
    assert choose([candidate], state, rules) == Decision(run=(candidate.job_id,))


BUSY = WorkerState(now=100.0, loaded=("a",), capacity=1, active=400, replicas=4)


def test_a_job_whose_model_is_loaded_goes_before_an_older_one_that_needs_a_load():
    window = [job("1", "b", at=1), job("2", "a", at=2)]
    assert choose(window, BUSY, RULES).run == ("2",)


def test_a_job_at_its_bound_is_passed_no_more():
    window = [job("1", "b", at=1), job("2", "a", at=2)]
    bound = bound_seconds(window, BUSY, RULES)
    window[0] = replace(window[0], overtaken_seconds=bound - window[1].gpu_seconds)
    assert choose(window, BUSY, RULES).run == ("2",)
    window[0] = replace(window[0], overtaken_seconds=bound - window[1].gpu_seconds + 1)
    assert choose(window, BUSY, RULES).run == ("1",)


def test_with_a_short_backlog_the_order_of_arrival_is_kept():
    window = [job("1", "b", at=1), job("2", "a", at=2)]
    assert choose(window, replace(BUSY, active=2), RULES).run == ("1",)


def test_the_bound_follows_the_backlog():
    window = [job("1", "a"), job("2", "b"), job("3", "b"), job("4", "b")]
    deep, deeper = (bound_seconds(window, replace(BUSY, active=n), RULES) for n in (100, 200))
    mean_seconds = (4 * 10 + 20) / 4  # one load, of b
    assert deeper == pytest.approx(2 * deep) == pytest.approx(200 / 4 * mean_seconds / 3)


def test_among_models_to_load_the_one_most_jobs_wait_for_is_taken():
    window = [job("1", "b", at=1), job("2", "c", at=2), job("3", "c", at=3)]
    assert choose(window, BUSY, RULES).run == ("2",)


def test_a_cheap_load_for_one_is_taken_before_a_dear_one_for_two():
    window = [job("1", "b", at=1, load=5), job("2", "c", at=0, load=60), job("3", "c", load=60)]
    assert choose(window, BUSY, RULES).run == ("1",)


def test_the_fullest_batch_of_the_loaded_models_runs_first():
    window = [job("1", key=1, at=1), job("2", key=2, at=2), job("3", key=2, at=3)]
    assert choose(window, replace(BUSY, capacity=4), RULES).run == ("2", "3")


def test_a_loaded_model_that_few_want_is_finished_with_first():
    state = replace(BUSY, loaded=("a", "b"))
    window = [job("1", "a", at=1), job("2", "a", at=2), job("3", "b", at=3)]
    assert choose(window, state, RULES).run == ("3",)


def test_a_job_larger_than_a_call_may_be_runs_alone():
    window = [job("1", pictures=8, at=1), job("2", at=2)]
    state = replace(BUSY, capacity=4, max_pictures=4)
    assert choose(window, state, RULES).run in {("1",), ("2",)}
    assert choose(window[:1], state, RULES).run == ("1",)


def test_the_limit_of_pictures_may_depend_on_the_key():
    window = [job(str(n), key="large", at=n) for n in range(6)]
    state = replace(BUSY, capacity=6, max_pictures={"large": 2, "small": 6}.__getitem__)
    assert choose(window, state, RULES).run == ("0", "1")


def test_a_solo_job_runs_alone_and_joins_no_batch():
    window = [job("1", solo=True, at=1), job("2", at=2), job("3", at=3)]
    state = replace(BUSY, capacity=4)
    assert choose(window, state, RULES).run == ("2", "3")
    assert choose([window[0], replace(window[1], solo=True)], state, RULES).run == ("1",)


def test_a_deadline_that_would_be_missed_goes_first():
    window = [job("1", "a", at=1), job("2", "b", at=2, gpu=10, load=20, deadline=135.0)]
    assert choose(window, BUSY, RULES).run == ("2",)


@pytest.mark.parametrize("deadline", [110.0, 900.0])
def test_a_deadline_that_is_lost_or_far_off_changes_nothing(deadline):
    window = [job("1", "a", at=1), job("2", "b", at=2, gpu=10, load=20, deadline=deadline)]
    assert choose(window, BUSY, RULES).run == ("1",)


def test_a_deadline_does_not_go_before_the_bound():
    window = [job("1", "a", at=1, waited=1e6), job("2", "b", at=2, deadline=135.0)]
    assert choose(window, BUSY, RULES).run == ("1",)


def test_tenants_take_turns_in_a_batch():
    flood = [job(f"f{n:02}", tenant="flood", at=n) for n in range(20)]
    one = job("one", tenant="small", at=30)
    state = replace(BUSY, capacity=4)
    assert choose([*flood, one], state, RULES).run == ("f00", "f01", "f02", "one")


def test_without_batching_a_tenant_with_one_job_does_not_wait_for_a_flood_of_the_same_model():
    flood = [job(f"f{n:02}", tenant="flood", at=n) for n in range(20)]
    one = job("one", tenant="small", at=30)
    line = Line(BUSY, RULES, room=30)
    coming = [*flood, one]
    while "one" not in line.started:
        line.step(coming)
    assert line.started == ["f00", "one"]


@given(st.integers(1, 64), st.integers(1, 8), st.floats(1, 60), st.floats(0, 120))
@settings(max_examples=40)
def test_a_flood_of_a_loaded_model_starves_no_other_tenant(room, capacity, gpu, load):
    """The flood never ends, and every job of it is younger than the one that it would starve."""
    state = replace(BUSY, capacity=capacity, active=8 * room, replicas=8)
    numbers = count(1)
    line = Line(state, RULES, room)
    line.window = [job("one", "b", tenant="small", gpu=gpu, load=load)]
    spent = 0.0
    while "one" not in line.started:
        flood = [
            job(f"f{n:05}", "a", tenant="flood", at=n, gpu=gpu, load=load)
            for n in (next(numbers) for _ in range(room))
        ]
        line.step(flood)
        spent = line.extra.get("one", spent)
    assert spent <= line.allowed["one"] + 1e-6
    assert line.allowed["one"] <= room * (gpu + load) / 3 + 1e-6


@given(st.integers(2, 16), st.lists(st.integers(0, 80), min_size=15, max_size=15))
def test_while_a_worker_is_free_no_other_holds_what_it_could_start(replicas, held):
    """All messages are leased by the others, who each run one and give back what is too much.

    What is given back, the free worker takes and runs, and it is gone.
    """
    held = held[: replicas - 1]
    while True:
        size = window_size(sum(held) + len(held), replicas, 1, 64)
        kept = [min(number, size) for number in held]
        if kept == held:
            break
        held = kept
    assert held == [0] * (replicas - 1)


@given(st.integers(0, 2000), st.integers(1, 16), st.integers(1, 8), st.integers(1, 64))
def test_all_windows_together_are_no_more_than_the_backlog(active, replicas, running, most):
    size = window_size(active, replicas, 1, most, running)
    assert size == 0 or replicas * (size + running) <= active


def test_the_window_shrinks_to_the_running_batch_when_the_backlog_is_short():
    assert [window_size(active, 8, 1, 64) for active in (0, 8, 15, 16, 80)] == [0, 0, 0, 1, 9]


def test_the_window_is_never_larger_than_is_allowed_but_holds_a_full_batch():
    assert window_size(10_000, 8, 4, 64) == 64
    assert window_size(10_000, 8, 16, 2) == 16


def test_what_is_over_the_share_goes_back_youngest_first_when_nobody_waits_in_the_queue():
    window = [job(str(n), at=n) for n in range(6)]
    state = replace(BUSY, active=16, line_empty=True)
    assert choose(window, state, RULES) == Decision(run=("0",), give_back=("5", "4"))
    assert surplus(window, state, RULES, running=1) == ("5", "4", "3")
    assert choose(window, replace(state, line_empty=False), RULES).give_back == ()


@given(windows, states, rules, st.integers(1, 8))
def test_what_is_over_the_share_goes_back_and_no_more(window, state, rules, running):
    back = surplus(window, state, rules, running)
    active = max(state.active, len(window) + running)
    share = window_size(active, state.replicas, state.capacity, rules.most, running)
    kept = len(window) - len(back)
    assert kept == min(share, len(window)) if state.line_empty else not back


QUIET = WorkerState(now=0.0, loaded=("a",), active=1, replicas=4, passed=frozenset())


def test_a_free_worker_without_the_model_hands_the_job_on_once():
    window = [job("1", "b")]
    assert choose(window, QUIET, RULES) == Decision(give_back=("1",))
    assert choose(window, replace(QUIET, passed={"1"}), RULES).run == ("1",)


@pytest.mark.parametrize(
    ("window", "state"),
    [
        ([job("1", "a")], QUIET),  # it has the model
        ([job("1", "b")], replace(QUIET, passed=None)),  # it takes no part
        ([job("1", "b")], replace(QUIET, active=4)),  # nobody else is free
        ([job("1", "b", load=1.9)], QUIET),  # the load is as quick as the round
        ([job("1", "b", deadline=31.0)], QUIET),  # no time to lose
    ],
)
def test_it_runs_the_job_itself_when_handing_on_gains_nothing(window, state):
    assert choose(window, state, RULES).run == ("1",)


def test_the_first_to_be_evicted_is_what_nobody_waits_for_and_came_least_often():
    window = [job("1", "a")]
    assert evict_order(["a", "b", "c"], window) == ("b", "c", "a")
    assert evict_order(["a", "b", "c"], window, ["b", "b", "c", "a"]) == ("c", "b", "a")
    assert evict_order(["c", "b", "a"], []) == ("c", "b", "a")


def test_who_is_overtaken_waits_for_the_younger_part_of_the_batch_and_its_load():
    window = [job("1", at=1), job("2", at=2, gpu=30), job("3", at=3), job("4", at=4, gpu=10)]
    assert overtaken(window, ("2", "4"), 20.0, 8.0) == {"1": 28.0, "3": 2.0}
    assert overtaken(window, ("1",), 20.0, 8.0) == {}
    assert overtaken(window, (), 20.0, 8.0) == {}


def test_a_batch_estimated_at_nothing_is_shared_out_evenly():
    window = [job("1", at=1, gpu=0.0), job("2", at=2), job("3", at=3, gpu=0.0)]
    assert overtaken(window, ("1", "3"), 20.0, 8.0) == {"2": 4.0}
