"""The numbers of steps: which step of each enclosing loop a value in a body is computed in.

A loop whose body is being traced stands ready to count its steps, and does so only if something in the body asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..ir.graph import Value

__all__ = ["Steps", "counting", "enclosing_steps"]


class Steps:
    """The number of a loop's step; `value` is None until it is asked for.

    Parameters
    ----------
    make : adds the number, an int64 scalar, to the body's inputs.
    """

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self.value: Value | None = None

    def number(self) -> Value:
        if self.value is None:
            self.value = self._make()
        return self.value


class _Loops(threading.local):
    def __init__(self) -> None:
        self.open: list[Steps] = []


_loops = _Loops()


@contextmanager
def counting(make: Callable[[], Value]) -> Iterator[Steps]:
    """While the body of a loop is traced: the loop's `Steps`."""
    steps = Steps(make)
    _loops.open.append(steps)
    try:
        yield steps
    finally:
        _loops.open.pop()


def enclosing_steps() -> list[Value]:
    """The number of the present step of each loop whose body is being traced, outermost first."""
    return [steps.number() for steps in _loops.open]
