"""Checks that a program is well formed: its calls, the order of what is written and read, and its memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import NoReturn

from ..errors import VerifyError
from .broadcasting import same_type
from .dims import Dim, evaluate, symbols
from .dtypes import DType, as_dtype, bool_, int64
from .lexer import is_identifier
from .loops import Buffer
from .program import (
    ALIGNMENT,
    Branch,
    Call,
    Loop,
    Program,
    Slot,
    Step,
    Timeline,
    While,
    nbytes,
    parts,
    timeline,
    workspace_buffers,
    written_buffers,
)
from .types import TensorType
from .verify import verify_kernel

__all__ = ["verify_program"]


def verify_program(program: Program, dims: Mapping[str, int] | None = None) -> None:
    """Check that the calls fit their kernels, that nothing is read before it is written, and the arena.

    Parameters
    ----------
    dims : values of the symbolic dimensions at which offsets and overlaps are checked; not needed
        by a program without symbols, and without them that check is left out.

    Raises
    ------
    VerifyError
        Naming the call or the buffers, and what is wrong with them.
    """
    loops = _check_loops(program)
    _check_slots(program, loops)
    for kernel in program.kernels:
        verify_kernel(kernel)
    if len({k.name for k in program.kernels}) < len(program.kernels):
        _fault(program, "two kernels have one name")
    _Order(program).check()
    if dims is not None or not program.symbols:
        _check_parts(program, loops, dims or {})
        if _is_planned(program):
            _check_arena(program, dims or {})


def _fault(program: Program, problem: str) -> NoReturn:
    raise VerifyError(f"@{program.name}: {problem}")


def _loops(steps: tuple[Step, ...]) -> Iterator[Loop | While]:
    """All loops, outer before inner."""
    for step in steps:
        if isinstance(step, (Loop, While)):
            yield step
        if not isinstance(step, Call):
            for part in parts(step):
                yield from _loops(part)


def _check_loops(program: Program) -> dict[str, Dim | None]:
    """The extents of loops by index (None: no limit): each index is a new name, each extent known outside."""
    found: dict[str, Dim | None] = {}
    for loop in _loops(program.steps):
        if not is_identifier(loop.index) or loop.index in found or loop.index in program.symbols:
            _fault(program, f"the loop's index {loop.index!r} is taken, or is no identifier")
        extent = loop.extent if isinstance(loop, Loop) else loop.limit
        unknown = symbols(extent or 0) - set(program.symbols)
        if unknown:
            _fault(program, f"the extent of the loop over {loop.index} uses the unknown symbol {min(unknown)}")
        found[loop.index] = extent
    return found


# --- slots ---------------------------------------------------------------------------------------


def _check_slots(program: Program, loops: Mapping[str, Dim | None]) -> None:
    slots: dict[str, Slot] = {}
    planned, known = _is_planned(program), set(program.symbols)
    for slot in program.slots:
        name = slot.buffer.name
        if name in slots:
            _fault(program, f"the buffer %{name} exists twice")
        slots[name] = slot
        used = set().union(*map(symbols, slot.buffer.shape))
        if slot.alias is None:
            used |= symbols(slot.offset or 0)
        else:
            used |= symbols(slot.offset or 0) - set(loops)
        if not used <= known:
            _fault(program, f"%{name} uses the unknown symbol {min(used - known)}")
        if slot.kind not in ("input", "state", "output", "temp"):
            _fault(program, f"%{name} is of the unknown kind {slot.kind!r}")
        if slot.offset is not None and slot.kind != "temp":
            _fault(program, f"%{name} has an offset, but only a temp has one")
        if slot.alias is not None and slot.kind not in ("temp", "output"):
            _fault(program, f"%{name} is an alias, but only a temp or an output may be one")
        if planned and slot.kind == "temp" and slot.offset is None and slot.alias is None:
            _fault(program, f"the temp %{name} has no offset in the arena")
    for name in program.constants:
        if name in slots:
            _fault(program, f"the constant %{name} has the name of a slot")
    for name, slot in slots.items():
        if slot.alias is not None:
            _check_alias(program, slots, name)


def _is_planned(program: Program) -> bool:
    """Whether `plan_memory` has run: temps, and the workspaces of calls, have offsets."""
    placed = any(s.offset is not None and s.alias is None for s in program.slots)
    return placed or any(call.workspaces for call in program.calls)


def _check_alias(program: Program, slots: Mapping[str, Slot], name: str) -> None:
    seen, at = {name}, slots[name].alias
    while at is not None:
        if at not in slots and at not in program.constants or at in seen:
            problem = "itself" if at in seen else "unknown"
            _fault(program, f"%{name} is an alias of %{at}, which is {problem}")
        seen.add(at)
        at = slots[at].alias if at in slots else None


def _check_parts(program: Program, loops: Mapping[str, Dim | None], dims: Mapping[str, int]) -> None:
    """Every alias lies within the buffer that it is a part of, at the first and the last values of the indices."""
    for slot in program.slots:
        if slot.alias is None or slot.offset is None:
            continue
        whole = program.by_name[slot.alias].buffer if slot.alias in program.by_name else None
        room = program.constants[slot.alias].nbytes if whole is None else evaluate(nbytes(whole), dims)
        size = evaluate(nbytes(slot.buffer), dims)
        indices = sorted(symbols(slot.offset) & set(loops))
        extents = [evaluate(2 if (extent := loops[i]) is None else extent, dims) for i in indices]
        for values in itertools.product(*(sorted({0, 1, n - 1} & set(range(n))) for n in extents)):
            start = evaluate(slot.offset, {**dims, **dict(zip(indices, values))})
            if start < 0 or start + size > room:
                where = f"bytes {start}..{start + size} of %{slot.alias}, which has {room}"
                _fault(program, f"%{slot.buffer.name} is at {where}")


# --- calls and their order -----------------------------------------------------------------------


class _Order:
    """One walk over the steps, with the buffers that are written so far and the indices in scope."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.slots = program.by_name
        self.buffers = {name: slot.buffer for name, slot in self.slots.items()}
        for name, array in program.constants.items():
            self.buffers[name] = Buffer(name, as_dtype(array.dtype), array.shape)
        external = {n for n, s in self.slots.items() if s.kind in ("input", "state")}
        self.defined = set(program.constants) | external
        self.numbers = {id(call): k for k, call in enumerate(program.calls)}
        self.known = set(program.symbols)
        self.planned = _is_planned(program)

    def check(self) -> None:
        self.steps(self.program.steps)
        for name, slot in self.slots.items():
            if slot.kind == "output" and not self.is_defined(name):
                _fault(self.program, f"the output %{name} is never written")

    def is_defined(self, name: str) -> bool:
        return name in self.defined or self.program.place(name)[0] in self.defined

    def steps(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            if isinstance(step, Call):
                where = f"call {self.numbers[id(step)]} of @{step.kernel.name}"
                self.call(where, step)
                self.accesses(where, step)
            elif isinstance(step, (Loop, While)):
                self.loop(step)
            else:
                self.branch(step)

    def loop(self, step: Loop | While) -> None:
        if isinstance(step, Loop) and step.count is not None:
            self.decides(step.count, "the count of a loop", (int64,))
        self.known.add(step.index)
        if isinstance(step, While):
            self.steps(step.test)
            self.decides(step.condition, "the condition of a loop", (bool_,))
        self.steps(step.body)
        self.known.discard(step.index)
        if isinstance(step, While) and step.steps is not None:
            self.defined.add(self.program.place(step.steps)[0])
            self.decides(step.steps, "the number of steps of a loop", (int64,))

    def branch(self, step: Branch) -> None:
        """What all branches write is written afterwards."""
        self.decides(step.index, "the index of a switch")
        if not step.branches:
            _fault(self.program, "a switch has no case")
        before, after = self.defined, []
        for branch in step.branches:
            self.defined = set(before)
            self.steps(branch)
            after.append(self.defined)
        self.defined = set.intersection(*after)

    def decides(self, name: str, what: str, dtypes: tuple[DType, ...] = ()) -> None:
        buffer = self.buffers.get(name)
        if buffer is None or not self.is_defined(name):
            _fault(self.program, f"{what}, %{name}, is {'never' if buffer else 'no buffer that is ever'} written")
        fits = buffer.dtype in dtypes if dtypes else buffer.dtype == bool_ or buffer.dtype.is_integer
        if buffer.shape or not fits:
            _fault(self.program, f"{what}, %{name}, is {TensorType(buffer.dtype, buffer.shape)}")

    def call(self, where: str, call: Call) -> None:
        kernel, program = call.kernel, self.program
        parameters = kernel.inputs + kernel.outputs
        if len(call.arguments) != len(parameters):
            _fault(program, f"{where}: {len(parameters)} buffers needed, {len(call.arguments)} given")
        for name, parameter in zip(call.arguments, parameters):
            buffer = self.buffers.get(name)
            if buffer is None:
                _fault(program, f"{where}: there is no buffer %{name}")
            given, wanted = (TensorType(b.dtype, b.shape) for b in (buffer, parameter))
            if not same_type(given, wanted):
                _fault(program, f"{where}: %{name} is {given}, %{parameter.name} is {wanted}")
            unknown = symbols(program.place(name)[1]) - self.known
            if unknown:
                _fault(program, f"{where}: the place of %{name} depends on {min(unknown)}, which is unknown there")
        if not set(kernel.symbols) <= set(program.symbols):
            _fault(program, f"{where}: the kernel's symbols are not all the program's")
        if self.planned and len(call.workspaces) != len(workspace_buffers(kernel)):
            _fault(program, f"{where}: {len(workspace_buffers(kernel))} workspaces needed")

    def accesses(self, where: str, call: Call) -> None:
        for name in call.reads:
            if not self.is_defined(name):
                _fault(self.program, f"{where} reads %{name} before it is written")
        stored = written_buffers(call.kernel)
        for name, parameter in zip(call.writes, call.kernel.outputs):
            root = self.slots.get(self.program.place(name)[0])
            if root is None or root.kind == "input":
                _fault(self.program, f"{where} writes %{name}, which is an input or a constant")
            if parameter.name in stored:
                self.defined |= {name, root.buffer.name}


# --- the arena -----------------------------------------------------------------------------------


class _Extent:
    """A piece of the arena and the moments during which it is in use."""

    def __init__(self, name: str, start: int, size: int, first: int, last: int) -> None:
        self.name, self.start, self.end = name, start, start + size
        self.first, self.last = first, last

    def overlaps(self, other: _Extent) -> bool:
        in_space = self.start < other.end and other.start < self.end
        return in_space and self.first <= other.last and other.first <= self.last


def _check_arena(program: Program, dims: Mapping[str, int]) -> None:
    total = evaluate(program.arena, dims)
    moments = timeline(program.steps)
    extents = _extents(program, moments, dims)
    for extent in extents:
        if extent.start % ALIGNMENT or extent.start < 0 or extent.end > total:
            _fault(
                program,
                f"{extent.name} at bytes {extent.start}..{extent.end} is not aligned to {ALIGNMENT} "
                f"or not inside the arena of {total}",
            )
    for k, a in enumerate(extents):
        for b in extents[k + 1 :]:
            if a.overlaps(b) and not _hands_over(program, moments, *sorted((a, b), key=lambda e: e.first)):
                _fault(
                    program,
                    f"{a.name} (bytes {a.start}..{a.end}, moments {a.first}..{a.last}) and {b.name} "
                    f"(bytes {b.start}..{b.end}, moments {b.first}..{b.last}) overlap",
                )


def _extents(program: Program, moments: Timeline, dims: Mapping[str, int]) -> list[_Extent]:
    found: list[_Extent] = []
    for name, (first, last) in moments.lives(lambda n: program.place(n)[0]).items():
        slot = program.by_name.get(name)
        if slot is not None and slot.offset is not None:
            start, size = evaluate(slot.offset, dims), evaluate(nbytes(slot.buffer), dims)
            found.append(_Extent(f"%{name}", start, size, first, last))
    for k, (_, call) in enumerate(moments.touched):
        if call is not None:
            for buffer, offset in zip(workspace_buffers(call.kernel), call.workspaces):
                name = f"the workspace %{buffer.name} of @{call.kernel.name}"
                found.append(_Extent(name, evaluate(offset, dims), evaluate(nbytes(buffer), dims), k, k))
    ends = {f"%{program.place(n)[0]}" for n, s in program.by_name.items() if s.kind == "output"}
    for extent in found:
        if extent.name in ends:  # what an output is an alias of stays in use to the end
            extent.last = len(moments.touched)
    return found


def _hands_over(program: Program, moments: Timeline, dying: _Extent, born: _Extent) -> bool:
    """Whether one buffer takes over the memory of another in a kernel that works in place."""
    if dying.last != born.first or dying.start != born.start or dying.first == born.first:
        return False
    call = moments.touched[born.first][1] if born.first < len(moments.touched) else None
    if call is None:
        return False

    def root(name: str) -> str:
        return f"%{program.place(name)[0]}"

    pairs = [(call.writes[o], call.reads[i]) for o, i in call.kernel.inplace]
    return any(root(w) == born.name and root(r) == dying.name and program.place(r)[1] == 0 for w, r in pairs)
