"""What a function computes of its variables alone: kept from call to call, made again when one has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from .buffers import Cell, generation

__all__ = ["Preparation"]


class Preparation:
    """Memory that depends on variables.

    Parameters
    ----------
    run : computes it, from the variables' present values.
    sources : the variables.

    Attributes
    ----------
    seen : the `generation` up to which it is known to be valid, where machine code can see it.
    """

    def __init__(self, run: Callable[[], object], sources: Sequence[Cell]) -> None:
        self.seen = np.full(1, -1, np.int64)
        self._run = run
        self._sources = tuple(sorted(set(sources), key=id))  # the order in which locks are taken everywhere
        self._stamps: list[int] = []
        self._lock = threading.Lock()

    def renew(self) -> None:
        """Compute it again if a variable has changed."""
        if self.seen[0] == generation[0]:
            return
        with ExitStack() as held:
            held.enter_context(self._lock)
            for cell in self._sources:
                held.enter_context(cell.lock)
            now = int(generation[0])  # whoever changes a variable changes this afterwards
            stamps = [int(cell.stamp[0]) for cell in self._sources]
            if stamps != self._stamps:
                self._run()
                self._stamps = stamps
            self.seen[0] = now
