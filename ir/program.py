"""The program: kernel calls over buffers, with loops and branches around them, each buffer with its place in memory.

This is the form in which peak memory is known: `Program.arena` is its size in bytes, a formula of the
symbolic dimensions. Inputs, states and outputs live in the caller's memory, temps in the arena.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as with_fields
from functools import cached_property
from typing import Any, Union

import numpy as np

from .dims import Dim, product
from .graph import Loc
from .loops import Alloc, Buffer, Foreign, Kernel, Store, statements

__all__ = [
    "ALIGNMENT", "Branch", "Call", "Loop", "Program", "Slot", "Step", "Timeline", "While", "calls_of", "map_calls",
    "nbytes", "timeline", "workspace_buffers", "written_buffers",
]

ALIGNMENT = 64
"""Every offset in the arena is a multiple of this many bytes."""


@dataclass(frozen=True)
class Slot:
    """Where a buffer lives.

    Attributes
    ----------
    kind : ``"input"``, ``"state"`` and ``"output"`` are the caller's memory; ``"temp"`` is ours.
    offset : a temp's position in the arena, in bytes; of an alias, its position in the other buffer's memory
        (None: where that begins), which may depend on the index of a loop: ``x[t]`` is a part of ``x``.
    alias : the buffer whose memory this one is, or a part of (a state updated in place, a reshaped input,
        an element of a sequence).
    """

    buffer: Buffer
    kind: str
    offset: Dim | None = None
    alias: str | None = None


@dataclass(frozen=True, eq=False)
class Call:
    """One run of a kernel.

    Attributes
    ----------
    arguments : buffer names, the kernel's inputs and then its outputs.
    workspaces : offsets in the arena of the kernel's workspace allocations, in their order.
    locs : the source lines that the kernel computes.
    """

    kernel: Kernel
    arguments: tuple[str, ...]
    workspaces: tuple[Dim, ...] = ()
    locs: tuple[Loc, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        return self.arguments[: len(self.kernel.inputs)]

    @property
    def writes(self) -> tuple[str, ...]:
        return self.arguments[len(self.kernel.inputs) :]


@dataclass(frozen=True, eq=False)
class Loop:
    """The body runs for each value of `index` in ``0..extent``; places of aliases may depend on it.

    Attributes
    ----------
    reverse : from the last value to the first.
    count : a buffer (i64) that holds how many values there are, clamped to ``0..extent``; None for all.
    """

    index: str
    extent: Dim
    body: tuple[Step, ...]
    reverse: bool = False
    count: str | None = None


@dataclass(frozen=True, eq=False)
class While:
    """`test` runs; while it leaves true in the buffer `condition` (a bool), the body runs, then `test` again.

    Attributes
    ----------
    index : counts the runs of the body, from 0; places of aliases may depend on it.
    limit : how often the body runs at most; None for any number.
    steps : a buffer (i64) that gets how often it ran; None if nobody asks.
    """

    index: str
    test: tuple[Step, ...]
    condition: str
    body: tuple[Step, ...]
    limit: Dim | None = None
    steps: str | None = None


@dataclass(frozen=True, eq=False)
class Branch:
    """One of several lists of steps runs: that whose number the buffer `index` holds (a bool or an integer).

    A number below 0 means the first, one too large the last.
    """

    index: str
    branches: tuple[tuple[Step, ...], ...]


Step = Union[Call, Loop, While, Branch]


@dataclass(frozen=True, eq=False)
class Program:
    """Kernel calls over buffers; `steps` run in order.

    Attributes
    ----------
    symbols : the symbolic dimensions of inputs and states, sorted.
    slots : all buffers but the constants, in the order of the signature, then temps.
    arena : bytes of memory that the temps and workspaces need.
    constants : arrays that calls read, by buffer name.
    """

    name: str
    symbols: tuple[str, ...]
    slots: tuple[Slot, ...]
    steps: tuple[Step, ...]
    arena: Dim = 0
    constants: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels that are called, each once, by first call."""
        return tuple(dict.fromkeys(call.kernel for call in self.calls))

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls in the order of the text, those inside loops and branches once."""
        return tuple(calls_of(self.steps))

    def with_calls(self, change: Callable[[Call], Call]) -> Program:
        """The program with each call changed."""
        return with_fields(self, steps=map_calls(self.steps, change))

    def slot(self, name: str) -> Slot:
        """The slot of a buffer's name; `KeyError` if there is none."""
        return self.by_name[name]

    def place(self, name: str) -> tuple[str, Dim]:
        """The buffer whose memory a buffer is or is a part of, and its position there in bytes.

        A constant, which has no slot, is itself.
        """
        slots = self.by_name
        position: Dim = 0
        while (slot := slots.get(name)) is not None and slot.alias is not None:
            position, name = position + (slot.offset or 0), slot.alias
        return name, position

    @cached_property
    def by_name(self) -> dict[str, Slot]:
        """The slots by the names of their buffers."""
        return {slot.buffer.name: slot for slot in self.slots}

    def __str__(self) -> str:
        from .printer import print_program

        return print_program(self)


def calls_of(steps: Iterable[Step]) -> Iterator[Call]:
    """The calls among steps and inside of them, in the order of the text."""
    for step in steps:
        if isinstance(step, Call):
            yield step
        else:
            for part in parts(step):
                yield from calls_of(part)


def parts(step: Loop | While | Branch) -> tuple[tuple[Step, ...], ...]:
    """The lists of steps inside a step."""
    if isinstance(step, Loop):
        return (step.body,)
    return (step.test, step.body) if isinstance(step, While) else step.branches


def map_calls(steps: Iterable[Step], change: Callable[[Call], Call]) -> tuple[Step, ...]:
    """The steps with each call changed, in the order of the text."""
    return tuple(_map_step(s, change) for s in steps)


def _map_step(step: Step, change: Callable[[Call], Call]) -> Step:
    if isinstance(step, Call):
        return change(step)
    if isinstance(step, Loop):
        return with_fields(step, body=map_calls(step.body, change))
    if isinstance(step, While):
        return with_fields(step, test=map_calls(step.test, change), body=map_calls(step.body, change))
    return with_fields(step, branches=tuple(map_calls(b, change) for b in step.branches))


@dataclass
class Timeline:
    """When the steps of a program run, loops and branches written out once.

    Attributes
    ----------
    touched : the moments in order: the buffers that each touches, and the call that it is, if it is one.
    loops : the first and the last moment of each loop, inner loops first; no call is at these moments.
    """

    touched: list[tuple[tuple[str, ...], Call | None]] = field(default_factory=list)
    loops: list[tuple[int, int]] = field(default_factory=list)

    def add(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, Call):
                self.touched.append((step.arguments, step))
            elif isinstance(step, Branch):
                self.touched.append(((step.index,), None))
                for branch in step.branches:
                    self.add(branch)
            else:
                self._add_loop(step)

    def _add_loop(self, step: Loop | While) -> None:
        first = len(self.touched)
        count = step.count if isinstance(step, Loop) else None
        self.touched.append(((count,) if count else (), None))
        if isinstance(step, While):
            self.add(step.test)
            self.touched.append(((step.condition,), None))
        self.add(step.body)
        steps = step.steps if isinstance(step, While) else None
        self.touched.append(((steps,) if steps else (), None))
        self.loops.append((first, len(self.touched) - 1))

    @property
    def names(self) -> set[str]:
        """All buffers that are touched."""
        return {name for names, _ in self.touched for name in names}

    def lives(self, root: Callable[[str], str]) -> dict[str, tuple[int, int]]:
        """The first and the last moment at which each root of buffers is in use.

        What is touched inside a loop and outside is in use during the whole loop.
        """
        lives: dict[str, tuple[int, int]] = {}
        for k, (names, _) in enumerate(self.touched):
            for name in map(root, names):
                lives[name] = (lives.get(name, (k, k))[0], k)
        for begin, end in self.loops:
            for name, (first, last) in lives.items():
                meets = first <= end and begin <= last
                if meets and not (begin < first and last < end):
                    lives[name] = min(first, begin), max(last, end)
        return lives


def timeline(steps: Iterable[Step]) -> Timeline:
    """When steps run."""
    moments = Timeline()
    moments.add(steps)
    return moments


def nbytes(buffer: Buffer) -> Dim:
    """A buffer's size in bytes."""
    return product(buffer.shape) * buffer.dtype.itemsize


def workspace_buffers(kernel: Kernel) -> tuple[Buffer, ...]:
    """The kernel's workspace allocations, in order; a call gives each an offset."""
    return tuple(s.buffer for s in statements(kernel.body) if isinstance(s, Alloc) and s.space == "workspace")


def written_buffers(kernel: Kernel) -> set[str]:
    """Names of the buffers that the kernel stores to."""
    stored = {s.buffer.name for s in statements(kernel.body) if isinstance(s, Store)}
    foreign = (s for s in statements(kernel.body) if isinstance(s, Foreign))
    return stored.union(b.name for s in foreign for b in s.outputs)
