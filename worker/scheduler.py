"""Which of the messages that a worker holds run together next: pure functions, no clock, no I/O.

Terms
    The *window* is what a worker has leased and not yet started. The *line* is the window by age
    (``admitted_at``, then ``job_id``). A job is *overtaken* when its worker runs a job that is
    younger than it while holding it. Its *extra wait* is the time its worker spent that way: the
    seconds of those younger jobs, and of the loads made for them. In the order of the line it is 0.

The bound
    ``bound_seconds`` = patience x active / replicas x mean seconds, where the mean is over the
    window, with one load for each of its models that is not loaded: a part (patience) of the time
    in which the pool works off its backlog. No batch is chosen that would, by the estimates, lift
    the extra wait of a job that it passes over above the bound. The oldest job overtakes nobody, so
    there is always a batch to choose, and a job at its bound is passed by nothing that is younger.
    Deadlines, tenants' turns and savings are weighed only among the batches that the bound allows;
    what holds for each job holds for every tenant. The bound follows the backlog: under overload a
    fixed number of seconds leaves nothing but arrival order, and with a short backlog nothing is
    gained by making anybody wait.

How the loop uses it
    1. Whenever it may hold more: lease up to `window_size` minus what it holds, from
       `depth().active` (some seconds old is well enough). With nothing running it may lease one
       at least. ``line_empty`` says that its last lease call brought less than it asked for:
       nobody waits in the queue itself.
    2. When the device is free (or about to be): `choose`. Run ``run``; abandon ``give_back``
       uncounted. A window that is not empty gives a ``run`` that is not empty, unless the worker
       takes part in handing on (next paragraph).
    3. When the batch has ended: add `overtaken` of what it took to the ``overtaken_seconds`` of the
       messages still held. Once per batch, with the seconds that were measured; a message that
       joined the window while the batch ran is not in it.
    4. While a long batch runs, whenever the depth was read: abandon, uncounted, what `surplus`
       names.

Handing on
    With fewer messages than workers, some worker is free, and one that has the job's model loaded
    saves its load. A free worker that has not gives such a job back once, to the next free worker;
    whoever sees it for the second time runs it. Nearly nobody waits then, so no place is lost. It
    is for workers that keep ``passed``, the ids that they gave back by a decision with an empty
    ``run`` (the last few hundred are enough), that follow such a decision only when their
    ``active`` is fresh, and that leave the queue to others for ``Rules.hop_seconds`` after it. Only
    where a load takes longer than a hop to every worker.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One leased message. Times in seconds on one clock, the same as `WorkerState.now`.

    Jobs of one model with equal ``key`` may share a pipeline call; one that is ``solo`` shares
    with nobody. ``gpu_seconds`` and ``load_seconds`` are estimates, the second for loading the
    model when it is not loaded. ``overtaken_seconds`` is the extra wait so far.
    """

    job_id: str
    tenant: str
    model: str
    key: Hashable
    pictures: int
    gpu_seconds: float
    load_seconds: float
    admitted_at: float
    deadline_at: float | None = None
    solo: bool = False
    overtaken_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker knows when it chooses.

    ``loaded`` are the models that need no load, least recently used first. ``capacity`` is the most
    jobs of one call, ``max_pictures`` the most pictures, for all keys or by key; a job over it
    still runs, alone. ``active`` counts the pool's waiting and leased messages, ``replicas`` its
    workers. ``served`` are the tenants of the jobs that it started last (some dozens), one entry a
    job: who had many turns comes after who had few. ``passed``: job ids that it handed on before;
    None if it takes no part in that.
    """

    now: float
    loaded: tuple[str, ...] = ()
    capacity: int = 1
    max_pictures: int | Callable[[Hashable], int] = 64
    active: int = 0
    replicas: int = 1
    line_empty: bool = False
    served: Sequence[str] = ()
    passed: Collection[str] | None = None

    def picture_limit(self, key: Hashable) -> int:
        """The most pictures of one call with that key."""
        return self.max_pictures(key) if callable(self.max_pictures) else self.max_pictures


@dataclass(frozen=True, slots=True)
class Rules:
    """``patience``: the longest extra wait, as a part of the time to work off the backlog.

    ``most``: the most messages held beyond the running batch; every one must be renewed.
    ``hop_seconds``: how long a message takes from one free worker to the next, generously.
    """

    patience: float = 1 / 3
    most: int = 64
    hop_seconds: float = 0.5


@dataclass(frozen=True, slots=True)
class Decision:
    """Job ids: the next batch, oldest first, and what returns to the queue for other workers."""

    run: tuple[str, ...] = ()
    give_back: tuple[str, ...] = ()


def window_size(active: int, replicas_max: int, capacity: int, most: int, running: int = 1) -> int:
    """How many messages a worker holds beyond its running batch: at most its share of the backlog.

    ``active`` counts the waiting and the leased messages of the pool, ``running`` the jobs of the
    batch, which are part of the share. So no worker is free while another, whose batch is within
    its share, holds what it could start: were all others within a share of active // replicas, they
    would hold less than ``active``, and the rest waits in the queue. ``most`` counts as
    ``capacity`` at least, or a full batch could never be held.
    """
    share = max(0, active) // max(1, replicas_max) - running
    return max(0, min(max(most, capacity), share))


def bound_seconds(window: Sequence[Candidate], state: WorkerState, rules: Rules) -> float:
    """The most extra wait of any job now (see the module's docstring)."""
    if not window:
        return 0.0
    active = max(state.active, len(window))
    loads = {c.model: c.load_seconds for c in window if c.model not in state.loaded}
    line_seconds = sum(c.gpu_seconds for c in window) + sum(loads.values())
    return rules.patience * active / max(1, state.replicas) * line_seconds / len(window)


def choose(window: Sequence[Candidate], state: WorkerState, rules: Rules) -> Decision:
    """Pick the next batch, and what to give back. The same arguments give the same decision.

    In this order: what the bound allows; a job that would miss its deadline if it waited for
    another; a model that is loaded, the fullest batch first, then the model that fewest held jobs
    want (so that it is done with when it is evicted); else the model that most jobs wait for per
    second of its load. Ties, and the places of a batch, go to the tenant with the fewest turns (its
    jobs among ``served`` and ahead in the line), then to the oldest.
    """
    if not window:
        return Decision()
    line = sorted(window, key=_age)
    if _hands_on(line, state, rules):
        return Decision(give_back=tuple(candidate.job_id for candidate in line))
    bound = bound_seconds(line, state, rules)
    demand, turns = _demand(line), _turns(line, state.served)
    spare = _spare(line, bound)
    formed = (_batch(line, members, turns, state, spare) for members in _alike(line).values())
    longest = max(_seconds(candidate, state) for candidate in line)

    def rank(batch: list[int]) -> tuple[float, ...]:
        head = line[batch[0]]
        worth: tuple[float, float, float]
        deadline = min(_urgency(line[position], state, longest) for position in batch)
        wanted = demand[head.model]
        if head.model in state.loaded:
            worth = (0.0, -len(batch), float(wanted))
        else:
            worth = (1.0, 0, -wanted / max(head.load_seconds, 1e-9))
        return deadline, *worth, turns[batch[0]], batch[0]

    best = min((batch for batch in formed if batch), key=rank)
    run = tuple(line[position].job_id for position in sorted(best))
    others = [candidate for position, candidate in enumerate(line) if position not in best]
    return Decision(run, surplus(others, state, rules, running=len(run)))


def surplus(
    window: Sequence[Candidate], state: WorkerState, rules: Rules, running: int
) -> tuple[str, ...]:
    """The job ids to give back: what is held beyond the share while the queue itself is empty.

    ``window`` without the ``running`` jobs. Youngest first. An empty queue's end is its front: what
    is given back loses no place, and a free worker takes it at once. Its extra wait is then counted
    anew.
    """
    if not state.line_empty:
        return ()
    active = max(state.active, len(window) + running)
    share = window_size(active, state.replicas, state.capacity, rules.most, running)
    youngest = sorted(window, key=_age, reverse=True)
    return tuple(held.job_id for held in youngest[: max(0, len(window) - share)])


def overtaken(
    window: Collection[Candidate], run: Collection[str], load_seconds: float, run_seconds: float
) -> dict[str, float]:
    """The extra wait that a batch was for the others of its window, by job id, in seconds.

    ``window`` as it was given to `choose`, ``run`` the jobs that ran, and how long loading and
    running them took. The run is shared out among its jobs by their estimates.
    """
    batch = sorted((c for c in window if c.job_id in run), key=_age)
    if not batch:
        return {}
    total = sum(c.gpu_seconds for c in batch)
    charges = {}
    for held in window:
        if held.job_id in run or _age(held) > _age(batch[-1]):
            continue
        younger = [c for c in batch if _age(c) > _age(held)]
        part = (
            sum(c.gpu_seconds for c in younger) / total if total > 0 else len(younger) / len(batch)
        )
        loading = load_seconds if len(younger) == len(batch) else 0.0
        charges[held.job_id] = part * run_seconds + loading
    return charges


def evict_order(
    loaded: Sequence[str], window: Collection[Candidate], recent: Sequence[str] = ()
) -> tuple[str, ...]:
    """Order loaded models by which to evict first: that which the fewest held jobs want.

    Then that which came least often among ``recent``, the models of the jobs started last (some
    hundred), then the least recently used: ``loaded`` is in that order.
    """
    demand = _demand(window)
    came = Counter(recent)
    return tuple(sorted(loaded, key=lambda model: (demand.get(model, 0), came[model])))


def _age(candidate: Candidate) -> tuple[float, str]:
    return candidate.admitted_at, candidate.job_id


def _alike(line: Sequence[Candidate]) -> Mapping[Hashable, list[int]]:
    """Positions in the line of the jobs that may share a call, oldest first."""
    groups: dict[Hashable, list[int]] = {}
    for position, candidate in enumerate(line):
        alone = candidate.job_id if candidate.solo else None
        groups.setdefault((candidate.model, candidate.key, alone), []).append(position)
    return groups


def _demand(window: Collection[Candidate]) -> dict[str, int]:
    """How many held jobs want each model."""
    demand: dict[str, int] = {}
    for candidate in window:
        demand[candidate.model] = demand.get(candidate.model, 0) + 1
    return demand


def _seconds(candidate: Candidate, state: WorkerState) -> float:
    """What the job takes on this worker now."""
    loading = 0.0 if candidate.model in state.loaded else candidate.load_seconds
    return loading + candidate.gpu_seconds


def _urgency(candidate: Candidate, state: WorkerState, longest: float) -> float:
    """The deadline of a job that makes it now, but not after the longest other; else infinity."""
    if candidate.deadline_at is None:
        return float("inf")
    spare = candidate.deadline_at - state.now - _seconds(candidate, state)
    return candidate.deadline_at if 0 <= spare < longest else float("inf")


def _spare(line: Sequence[Candidate], bound: float) -> list[float]:
    """How much longer each job may be overtaken, in seconds."""
    return [bound - candidate.overtaken_seconds for candidate in line]


def _batch(
    line: Sequence[Candidate],
    members: Sequence[int],
    turns: Sequence[int],
    state: WorkerState,
    spare: Sequence[float],
) -> list[int]:
    """Positions of the batch to make of ``members``, the first of which goes before all others.

    That is the one with the fewest turns before it, or the oldest if the bound forbids that; empty
    if it forbids both.
    """
    first = min(members, key=lambda position: (turns[position], position))
    for head in dict.fromkeys((first, members[0])):
        cost = _seconds(line[head], state)
        if all(cost <= seconds for seconds in spare[:head]):
            left = [seconds - cost for seconds in spare[:head]] + list(spare[head:])
            return _filled(line, members, turns, head, left, state)
    return []


def _filled(
    line: Sequence[Candidate],
    members: Sequence[int],
    turns: Sequence[int],
    head: int,
    spare: list[float],
    state: WorkerState,
) -> list[int]:
    """``head`` and as many mates as the limits and the bound allow, by turns.

    Whoever is in the batch is not overtaken by its mates.
    """
    batch, pictures = [head], line[head].pictures
    limit = state.picture_limit(line[head].key)
    for mate in sorted(members, key=lambda position: (turns[position], position)):
        if len(batch) >= state.capacity:
            break
        if mate in batch or pictures + line[mate].pictures > limit:
            continue
        cost = line[mate].gpu_seconds
        passed = [older for older in range(mate) if older not in batch]
        if all(cost <= spare[older] for older in passed):
            for older in passed:
                spare[older] -= cost
            batch.append(mate)
            pictures += line[mate].pictures
    return sorted(batch)


def _turns(line: Sequence[Candidate], served: Sequence[str]) -> list[int]:
    """For each job, how many of its tenant's had their turn or come before it."""
    before = Counter(served)
    turns = []
    for candidate in line:
        turns.append(before[candidate.tenant])
        before[candidate.tenant] += 1
    return turns


def _hands_on(line: Sequence[Candidate], state: WorkerState, rules: Rules) -> bool:
    """Whether another free worker should look at these jobs first (module docstring)."""
    if state.passed is None or max(state.active, len(line)) >= state.replicas:
        return False
    round_seconds = rules.hop_seconds * state.replicas
    return all(
        c.model not in state.loaded
        and c.job_id not in state.passed
        and c.load_seconds > round_seconds
        and (
            c.deadline_at is None or c.deadline_at - state.now > _seconds(c, state) + round_seconds
        )
        for c in line
    )
