"""What a worker did lately: all of its past that the scheduler is told."""

from collections import deque
from collections.abc import Collection, Iterable, Sequence

from worker.scheduler import Candidate

REMEMBERED = 200
"""Jobs: enough to tell a model that comes often from one that came once."""


class Lately:
    """The tenants and models of the jobs started last, and the ids of those handed on."""

    def __init__(self) -> None:
        self._started: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)
        self._passed: deque[str] = deque(maxlen=REMEMBERED)

    @property
    def tenants(self) -> Sequence[str]:
        """Oldest first, one entry a job."""
        return tuple(tenant for tenant, _ in self._started)

    @property
    def models(self) -> Sequence[str]:
        """Oldest first, one entry a job."""
        return tuple(model for _, model in self._started)

    @property
    def passed(self) -> Collection[str]:
        """The jobs that were handed on to other workers."""
        return frozenset(self._passed)

    def start(self, jobs: Iterable[Candidate]) -> None:
        """Note a batch."""
        self._started.extend((job.tenant, job.model) for job in jobs)

    def hand_on(self, job_ids: Iterable[str]) -> None:
        """Note what went to others."""
        self._passed.extend(job_ids)
