"""Order the steps of a block: as the graph has them, but at once where a step frees more memory than it takes.

So the gradient of a weight is computed when the cotangent is there, not when all cotangents are, and what the two
are made of need not be kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Touched", "order_steps"]


@dataclass(frozen=True)
class Touched:
    """The memory that a step reads and writes, by the names of buffers."""

    reads: Collection[str]
    writes: Collection[str]


def order_steps(
    steps: Sequence[Touched], before: Mapping[int, Collection[int]], size: Callable[[str], int]
) -> list[int]:
    """The positions of steps, each after those that must come before it.

    Parameters
    ----------
    before : by position, the positions of steps that must come before.
    size : the bytes that a buffer takes while it is in use; 0 for memory that is there anyway.

    Raises
    ------
    ValueError
        If steps wait for each other.
    """
    return _Ordering(steps, before, size).run()


class _Ordering:
    def __init__(
        self, steps: Sequence[Touched], before: Mapping[int, Collection[int]], size: Callable[[str], int]
    ) -> None:
        self.steps, self.size = steps, size
        self.waiting = {p: set(before[p]) for p in range(len(steps))}
        self.blocked: dict[int, list[int]] = {}
        self.readers: dict[str, set[int]] = {}  # that are still to come
        for p, step in enumerate(steps):
            for b in before[p]:
                self.blocked.setdefault(b, []).append(p)
            for name in step.reads:
                self.readers.setdefault(name, set()).add(p)
        self.live: set[str] = set()
        self.ready: list[int] = []
        self.frugal: list[int] = []  # of those that are ready, the ones after which less memory is in use
        self.done: set[int] = set()

    def run(self) -> list[int]:
        for p, before in self.waiting.items():
            if not before:
                self._offer(p)
        order = []
        while self.ready or self.frugal:
            p = heapq.heappop(self.frugal or self.ready)
            if p not in self.done:
                order.append(p)
                self._finish(p)
        if len(order) != len(self.steps):
            raise ValueError("cyclic dependences between steps")
        return order

    def _offer(self, p: int) -> None:
        heapq.heappush(self.frugal if self._growth(p) < 0 else self.ready, p)

    def _growth(self, p: int) -> int:
        """By how many bytes more is in use after a step."""
        step = self.steps[p]
        taken = sum(self.size(name) for name in set(step.writes) - self.live if self.readers.get(name))
        freed = sum(self.size(name) for name in set(step.reads) if self.readers[name] == {p})
        return taken - freed

    def _finish(self, p: int) -> None:
        step = self.steps[p]
        self.done.add(p)
        self.live.update(step.writes)
        for name in set(step.reads):
            left = self.readers[name]
            left.discard(p)
            if len(left) == 1 and not self.waiting[last := next(iter(left))] and last not in self.done:
                self._offer(last)  # it frees the buffer now
        for q in self.blocked.get(p, ()):
            self.waiting[q].discard(p)
            if not self.waiting[q]:
                self._offer(q)
