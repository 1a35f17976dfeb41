"""How many pictures of a size fit the device in one call: learned from what did not.

A call that ran out of memory halves the limit of its model and size; after `CALM_CALLS` calls at
the limit without another, it is one more. (The rule by which TCP finds a link's capacity: additive
increase, multiplicative decrease; RFC 5681.)
"""

from dataclasses import dataclass

from darkroom.messages import BatchKey

Size = tuple[str, int]
"""What the memory of a picture depends on: the model and the number of pixels."""

UNBOUNDED = 1_000
"""Pictures of one call where nothing has been learned: more than a call ever has."""

CALM_CALLS = 32


@dataclass
class _Learned:
    limit: int
    calm_calls: int = 0


def size_of(key: BatchKey) -> Size:
    """Return what matters of ``key``."""
    return key.model, key.width * key.height


class BatchLimits:
    """What was learned so far. `limit` is for any thread, the rest for the engine's."""

    def __init__(self) -> None:
        self._learned: dict[Size, _Learned] = {}

    def limit(self, size: Size) -> int:
        """The most pictures of one call, at least 1."""
        learned = self._learned.get(size)
        return UNBOUNDED if learned is None else learned.limit

    def failed(self, size: Size, pictures: int) -> None:
        """Note that a call of so many pictures ran out of memory."""
        self._learned[size] = _Learned(max(1, min(self.limit(size), pictures // 2)))

    def passed(self, size: Size, pictures: int) -> None:
        """Note that a call of so many pictures did not."""
        learned = self._learned.get(size)
        if learned is None or pictures < learned.limit:
            return
        learned.calm_calls += 1
        if learned.calm_calls >= CALM_CALLS:
            self._learned[size] = _Learned(learned.limit + 1)
