"""Profiling as users see it: the calls inside a ``with`` block, or some calls with given arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import GraphError
from ..runtime.buffers import Cell
from .debug import WatchedExecutable
from .shapes import fail
from .source import located

if TYPE_CHECKING:
    from ..compiler.profile import Profile
    from .function import Function

__all__ = ["profile", "profile_call"]


@contextmanager
def profile(function: Function) -> Iterator[Profile]:
    """Measure the calls of a function inside a ``with`` block.

    ::

        with gw.profile(step) as p:
            for x, y in batches:
                step(x, y)
        print(p)
        p.trace("step.json")

    The calls do what they always do. They run a variant of the code that notes the time after each
    kernel; it is compiled at the first use, and costs nothing afterwards.

    Raises
    ------
    GraphError
        If it is no compiled function.
    CompileError
        If it is not compiled for the CPU, or under a debugger.
    """
    profiled = _profiled(function)
    holder: Any = function
    name = "_execute"
    if isinstance(function._execute, WatchedExecutable):
        holder, name = function._execute, "inner"
    plain = getattr(holder, name)
    setattr(holder, name, profiled)
    try:
        yield profiled.profile
    finally:
        setattr(holder, name, plain)


@located
def _profiled(function: Function, cells: Sequence[Cell] | None = None) -> Any:
    from ..compiler.profile import Profiled
    from .function import Function

    if not isinstance(function, Function):
        fail("profile", GraphError, f"measures functions, got a {type(function).__name__}")
    return Profiled(function.compiled, cells)


def profile_call(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any], repeat: int) -> Profile:
    """The profile of `repeat` calls with the same arguments, on copies of the variables; one more goes before."""
    copies = [Cell(c.name, c.value) for c in function.cells]
    profiled = _profiled(function, copies)
    profiled(*args, **kwargs)
    profiled.profile.clear()
    for _ in range(repeat):
        profiled(*args, **kwargs)
    result: Profile = profiled.profile
    return result
