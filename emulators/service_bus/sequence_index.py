"""An index of sequence numbers that finds "the first n from here on" without a scan."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final

BLOCK: Final = 256


class SequenceIndex:
    """Numbers in blocks of 256 consecutive ones; a block goes when its last number does.

    Adding at the end and removing cost O(1) but for the list of block starts, which has one entry
    for 256 messages. Reading from a number on skips at most one block's worth of gaps.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._blocks: dict[int, set[int]] = {}

    def add(self, number: int) -> None:
        """Adds a number; in rising order this is cheapest."""
        start = number // BLOCK
        block = self._blocks.get(start)
        if block is None:
            block = self._blocks[start] = set()
            if not self._starts or start > self._starts[-1]:
                self._starts.append(start)
            else:
                insort(self._starts, start)
        block.add(number)

    def remove(self, number: int) -> None:
        """Removes a number that is there; raises KeyError otherwise."""
        start = number // BLOCK
        block = self._blocks[start]
        block.remove(number)
        if not block:
            del self._blocks[start]
            del self._starts[bisect_left(self._starts, start)]

    def from_number(self, first: int) -> Iterator[int]:
        """The numbers >= first, rising."""
        for start in self._starts[bisect_left(self._starts, first // BLOCK) :]:
            for number in sorted(self._blocks[start]):
                if number >= first:
                    yield number
