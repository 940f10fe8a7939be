"""The program: an ordered list of kernel calls over buffers, each with its place in memory.

This is the form in which peak memory is known: `Program.arena` is its size in bytes, a formula of the
symbolic dimensions. Inputs, states and outputs live in the caller's memory, temps in the arena.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .dims import Dim, product
from .graph import Loc
from .loops import Alloc, Buffer, Foreign, Kernel, Store, statements

__all__ = ["ALIGNMENT", "Call", "Program", "Slot", "nbytes", "workspace_buffers", "written_buffers"]

ALIGNMENT = 64
"""Every offset in the arena is a multiple of this many bytes."""


@dataclass(frozen=True)
class Slot:
    """Where a buffer lives.

    Attributes
    ----------
    kind : ``"input"``, ``"state"`` and ``"output"`` are the caller's memory; ``"temp"`` is ours.
    offset : a temp's position in the arena, in bytes.
    alias : the buffer whose memory this one is (a state updated in place, a reshaped input);
        it then has no offset of its own.
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
    steps: tuple[Call, ...]
    arena: Dim = 0
    constants: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels that are called, each once, by first call."""
        return tuple(dict.fromkeys(step.kernel for step in self.steps))

    def slot(self, name: str) -> Slot:
        """The slot of a buffer's name; `KeyError` if there is none."""
        for slot in self.slots:
            if slot.buffer.name == name:
                return slot
        raise KeyError(name)

    def __str__(self) -> str:
        from .printer import print_program

        return print_program(self)


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
