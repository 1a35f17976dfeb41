"""What a pipeline call that several jobs share takes."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.replay_trace import TraceJob


@dataclass(frozen=True)
class Batching:
    """The most jobs and pictures of a call, and how much faster pictures come in company.

    ``points`` are (pictures in a call, pictures a second by those of a call with one), ascending;
    between two points the line, beyond the last no faster.
    """

    jobs: int = 1
    pictures: int = 8
    points: tuple[tuple[int, float], ...] = ((1, 1.0),)

    def speed_up(self, pictures: int) -> float:
        """Pictures a second in a call of so many, by those of a call with one."""
        before = self.points[0]
        for point in self.points:
            if point[0] >= pictures:
                span = point[0] - before[0]
                part = (pictures - before[0]) / span if span else 0.0
                return before[1] + part * (point[1] - before[1])
            before = point
        return before[1]

    def seconds(self, jobs: Sequence[TraceJob]) -> float:
        """What the call takes, if each job's own time was that of its own pictures in one call."""
        if len(jobs) == 1:
            return jobs[0].seconds
        alone = sum(job.seconds * self.speed_up(job.images) for job in jobs)
        return alone / self.speed_up(sum(job.images for job in jobs))


ALONE = Batching()


def parse_points(text: str) -> tuple[tuple[int, float], ...]:
    """Read ``2:1.4,8:2.2``; a call with one picture has 1. Raises `ValueError`."""
    points = {1: 1.0}
    for part in text.split(","):
        pictures, _, speed = part.partition(":")
        points[int(pictures)] = float(speed)
    if min(points) < 1 or min(points.values()) <= 0:
        raise ValueError(f"batch speed-up {text!r}: pictures and ratios are above 0")
    return tuple(sorted(points.items()))
