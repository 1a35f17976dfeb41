"""How many deliveries may be under way at once, by host and by tenant.

A receiver that hangs holds as many places as its lane has, never all. Who finds the lane full is
told how long to stay away: each is given a later time, by how long that lane's deliveries take, so
that the messages of a host that hangs do not go round and round.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Lane = tuple[str, str]  # ("host", name) or ("tenant", name)
LEARNING = 0.3  # the weight of the newest delivery in a lane's mean time
LEAST_SECONDS = 1.0
MOST_SECONDS = 600.0


@dataclass
class _Traffic:
    under_way: int = 0
    mean_seconds: float = LEAST_SECONDS
    next_at: float = 0.0


class Lanes:
    """Places by lane. ``now`` is in seconds of any steady clock."""

    def __init__(self, per_host: int, per_tenant: int) -> None:
        self._room = {"host": per_host, "tenant": per_tenant}
        self._traffic: dict[Lane, _Traffic] = {}

    def enter(self, lanes: Sequence[Lane], now: float) -> float:
        """Take a place in each lane and return 0, or return the seconds to stay away."""
        full = [
            lane
            for lane in lanes
            if lane in self._traffic and self._of(lane).under_way >= self._room[lane[0]]
        ]
        if not full:
            for lane in lanes:
                self._of(lane).under_way += 1
            return 0.0
        return max(self._put_off(lane, now) for lane in full)

    def leave(self, lanes: Sequence[Lane], seconds: float) -> None:
        """Give the places back after a delivery that took ``seconds``."""
        for lane in lanes:
            traffic = self._of(lane)
            traffic.under_way -= 1
            traffic.mean_seconds += LEARNING * (seconds - traffic.mean_seconds)
            if not traffic.under_way:
                del self._traffic[lane]

    def _put_off(self, lane: Lane, now: float) -> float:
        traffic = self._of(lane)
        step = max(LEAST_SECONDS, traffic.mean_seconds) / self._room[lane[0]]
        traffic.next_at = max(traffic.next_at, now) + step
        return min(MOST_SECONDS, max(LEAST_SECONDS, traffic.next_at - now))

    def _of(self, lane: Lane) -> _Traffic:
        return self._traffic.setdefault(lane, _Traffic())
