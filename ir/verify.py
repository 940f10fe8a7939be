"""Checks that a graph, a kernel or a program is well formed; tests run them after every pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NoReturn

import numpy as np

from ..errors import GraphwrightError, VerifyError
from .broadcasting import same_type
from .dims import Dim, equal, evaluate, symbols
from .dtypes import as_dtype, bool_, int64
from .graph import Graph, Value
from .lexer import is_identifier
from .loops import (
    Alloc,
    Buffer,
    Const,
    Expr,
    For,
    Foreign,
    If,
    Index,
    Kernel,
    Let,
    Load,
    Reduce,
    Scalar,
    Stmt,
    Store,
    Temp,
)
from .op import OPS
from .print_loops import expression_text, statement_head
from .program import ALIGNMENT, Call, Program, Slot, nbytes, workspace_buffers, written_buffers
from .scalars import COMPARISONS, SCALARS
from .types import TensorType, TupleType, Type

__all__ = ["verify_graph", "verify_kernel", "verify_program"]


# --- graphs --------------------------------------------------------------------------------------


def verify_graph(graph: Graph) -> None:
    """Check that a graph is what its types and its signature say.

    Every type is inferred again; every leaf belongs to the signature; names are unique; updates
    fit their states; regions are checked in the same way.

    Raises
    ------
    VerifyError
        Naming the value and what is wrong with it.
    """
    parameters = graph.inputs + graph.states
    names: set[str] = set()
    for value, wanted in [*((v, "input") for v in graph.inputs), *((v, "state") for v in graph.states)]:
        if value.op.name != wanted:
            _graph_fault(graph, value, f"stands among the {wanted}s")
        name = value.attrs["name"]
        if name in names:
            _graph_fault(graph, value, f"the name {name!r} is taken twice")
        names.add(name)
        for s in value.tensor.symbols:
            _check_name(s, f"@{graph.name}: the symbolic dimension")
    for value in graph:
        if value.op.name in ("input", "state") and value not in parameters:
            _graph_fault(graph, value, f"{value.attrs['name']!r} is used but is not in the signature")
        _check_value(graph, value)
    _check_updates(graph)


def _graph_fault(graph: Graph, value: Value, problem: str) -> NoReturn:
    where = f" at {value.loc.file}:{value.loc.line}" if value.loc else ""
    raise VerifyError(f"@{graph.name}: {value.op.name} of type {value.type}{where}: {problem}")


def _check_value(graph: Graph, value: Value) -> None:
    for operand in value.operands:
        if not isinstance(operand, Value):
            _graph_fault(graph, value, f"operand {operand!r} is not a value")
    try:
        inferred = value.op.infer_type(value.operands, value.attrs, value.regions, value.loc)
    except GraphwrightError as error:
        _graph_fault(graph, value, f"its type rule refuses it: {error}")
    if not _same(inferred, value.type):
        _graph_fault(graph, value, f"its type rule gives {inferred}")
    for region in value.regions:
        verify_graph(region)


def _same(a: Type, b: Type) -> bool:
    if isinstance(a, TupleType) and isinstance(b, TupleType):
        return len(a.items) == len(b.items) and all(map(same_type, a.items, b.items))
    return isinstance(a, TensorType) and isinstance(b, TensorType) and same_type(a, b)


def _check_updates(graph: Graph) -> None:
    updated: set[Value] = set()
    for state, new in graph.updates:
        if state not in graph.states:
            _graph_fault(graph, state, "is updated but is not a state of the function")
        if state in updated:
            _graph_fault(graph, state, "is updated twice")
        if not _same(state.type, new.type):
            _graph_fault(graph, new, f"updates {state.attrs['name']!r} of type {state.type}")
        updated.add(state)


def _check_name(name: str, what: str) -> None:
    if not is_identifier(name):
        raise VerifyError(f"{what} {name!r} is not an identifier, or is a reserved word")


# --- kernels -------------------------------------------------------------------------------------

_KINDS = ("serial", "parallel", "vector", "unroll", "block", "thread")
_SPACES = ("register", "local", "shared", "workspace")
_COMBINERS = ("add", "mul", "max", "min", "or", "and")


def verify_kernel(kernel: Kernel) -> None:
    """Check that a kernel's names are bound, its dtypes consistent and its accesses of the right rank.

    Raises
    ------
    VerifyError
        Naming the statement and what is wrong with it.
    """
    _KernelChecker(kernel).check()


class _KernelChecker:
    """One walk over the statements with the names in scope."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.statement: Stmt | None = None
        self.indices: set[str] = set(kernel.symbols)
        self.temps: dict[str, Temp] = {}
        self.buffers: dict[str, Buffer] = {}
        self.unrolled: set[str] = set()
        self.registers: dict[str, Alloc] = {}
        self.loops = 0

    def fail(self, problem: str) -> NoReturn:
        where = f"\n  in: {statement_head(self.statement)}" if self.statement is not None else ""
        raise VerifyError(f"@{self.kernel.name}: {problem}{where}")

    def check(self) -> None:
        kernel = self.kernel
        for s in kernel.symbols:
            _check_name(s, f"@{kernel.name}: the symbol")
        if len(set(kernel.symbols)) < len(kernel.symbols):
            self.fail("a symbol is listed twice")
        for buffer in kernel.inputs + kernel.outputs:
            self.declare(buffer)
        for o, i in kernel.inplace:
            self.check_inplace(o, i)
        self.block(kernel.body)

    def check_inplace(self, o: int, i: int) -> None:
        outputs, inputs = self.kernel.outputs, self.kernel.inputs
        if not (0 <= o < len(outputs) and 0 <= i < len(inputs)):
            self.fail(f"inplace pair ({o}, {i}) names no output and input")
        if nbytes(outputs[o]) != nbytes(inputs[i]) and not equal(nbytes(outputs[o]), nbytes(inputs[i])):
            self.fail(f"%{outputs[o].name} and %{inputs[i].name} differ in size and cannot share memory")

    def declare(self, buffer: Buffer) -> None:
        if buffer.name in self.buffers:
            self.fail(f"a buffer %{buffer.name} exists already")
        for d in buffer.shape:
            self.dim(d, f"the shape of %{buffer.name}")
        self.buffers[buffer.name] = buffer

    def dim(self, dim: Dim, what: str) -> None:
        unknown = symbols(dim) - self.indices
        if unknown:
            self.fail(f"{what} uses {min(unknown)}, which is neither a symbol nor a loop variable here")

    # --- statements ------------------------------------------------------------------------------

    def block(self, body: tuple[Stmt, ...]) -> None:
        """Names bound in a block end with it."""
        temps, buffers, registers = dict(self.temps), dict(self.buffers), dict(self.registers)
        for s in body:
            self.statement = s
            if isinstance(s, For):
                self.loop(s)
            elif isinstance(s, Let):
                self.let(s)
            elif isinstance(s, Store):
                self.store(s)
            elif isinstance(s, Alloc):
                self.alloc(s)
            elif isinstance(s, Foreign):
                self.foreign(s)
            else:
                self.branch(s)
        self.temps, self.buffers, self.registers = temps, buffers, registers

    def bind_index(self, name: str) -> None:
        _check_name(name, f"@{self.kernel.name}: the loop variable")
        if name in self.indices or name in self.temps:
            self.fail(f"{name} has a meaning here already")

    def loop(self, s: For) -> None:
        self.bind_index(s.var)
        self.dim(s.extent, "the extent")
        if s.kind not in _KINDS:
            self.fail(f"unknown kind of loop {s.kind!r}")
        if s.kind == "unroll" and not isinstance(s.extent, int):
            self.fail("the extent of an unrolled loop must be an integer")
        if s.lanes < 1:
            self.fail(f"{s.lanes} lanes")
        constant = {s.var} if s.kind in ("unroll", "vector") else set()
        self.indices.add(s.var)
        self.unrolled |= constant
        self.loops += 1
        self.block(s.body)
        self.loops -= 1
        self.unrolled -= constant
        self.indices.discard(s.var)

    def let(self, s: Let) -> None:
        _check_name(s.name, f"@{self.kernel.name}: the temp")
        if s.name in self.indices:
            self.fail(f"{s.name} is a symbol or loop variable")
        self.expr(s.value)
        self.temps[s.name] = Temp(s.name, s.value.dtype)

    def store(self, s: Store) -> None:
        self.access(s.buffer, s.indices)
        for e in (*s.indices, s.value):
            self.expr(e)
        if s.value.dtype != s.buffer.dtype:
            self.fail(f"stores {s.value.dtype} to %{s.buffer.name} of {s.buffer.dtype}")
        if s.combiner is not None and s.combiner not in _COMBINERS:
            self.fail(f"unknown combiner {s.combiner!r}")
        self.written(s.buffer)

    def written(self, buffer: Buffer) -> None:
        if any(b.name == buffer.name for b in self.kernel.inputs):
            self.fail(f"stores to the input %{buffer.name}")

    def alloc(self, s: Alloc) -> None:
        if s.space not in _SPACES:
            self.fail(f"unknown space {s.space!r}")
        if s.space in ("register", "local", "shared") and not all(isinstance(d, int) for d in s.buffer.shape):
            self.fail(f"%{s.buffer.name} in {s.space} memory needs a static shape")
        if s.space == "workspace" and self.loops:
            self.fail(f"the workspace %{s.buffer.name} must be allocated at the kernel's top level")
        self.declare(s.buffer)
        if s.space == "register":
            self.registers[s.buffer.name] = s

    def foreign(self, s: Foreign) -> None:
        op = OPS.get(s.op)
        if op is None or not op.kernels:
            self.fail(f"there is no op {s.op!r} with a kernel of its own")
        if self.loops:
            self.fail("a foreign kernel must run at the kernel's top level")
        if op.arity not in (None, len(s.inputs)) or len(s.outputs) != 1:
            self.fail(f"{s.op} takes {op.arity} buffers and writes one")
        for buffer in (*s.inputs, *s.outputs):
            self.known(buffer)
        self.written(s.outputs[0])

    def branch(self, s: If) -> None:
        self.expr(s.condition)
        if s.condition.dtype != bool_:
            self.fail(f"the condition is {s.condition.dtype}, not bool")
        self.block(s.then)
        self.block(s.otherwise)

    # --- expressions -----------------------------------------------------------------------------

    def known(self, buffer: Buffer) -> None:
        known = self.buffers.get(buffer.name)
        if known is None:
            self.fail(f"%{buffer.name} is not defined here")
        if known != buffer:
            self.fail(f"%{buffer.name} is accessed as {_buffer_type(buffer)} but is {_buffer_type(known)}")

    def access(self, buffer: Buffer, indices: tuple[Expr, ...]) -> None:
        self.known(buffer)
        if len(indices) not in (1, len(buffer.shape)):
            self.fail(f"%{buffer.name} has {len(buffer.shape)} axes, indexed with {len(indices)}")
        for index in indices:
            if not index.dtype.is_integer:
                self.fail(f"the index {expression_text(index)} of %{buffer.name} is {index.dtype}")
            if buffer.name in self.registers:
                self.check_register_index(buffer, index)

    def check_register_index(self, buffer: Buffer, index: Expr) -> None:
        constant = (
            isinstance(index, Const) or isinstance(index, Index) and symbols(index.dim) <= self.unrolled
        )
        if not constant:
            self.fail(
                f"registers are not indexable: %{buffer.name}[{expression_text(index)}] varies at run time"
            )

    def expr(self, root: Expr) -> None:
        """Check an expression; reductions bind their axes while their bodies are checked."""
        for e in _outside_reductions(root):
            if isinstance(e, Scalar):
                self.scalar(e)
            elif isinstance(e, Load):
                self.access(e.buffer, e.indices)
                if e.guard is not None and e.guard.dtype != bool_:
                    self.fail(f"the guard {expression_text(e.guard)} is {e.guard.dtype}, not bool")
            elif isinstance(e, Index):
                self.dim(e.dim, f"the index {e.dim}")
                if not e.dtype.is_integer:
                    self.fail(f"the index {e.dim} has dtype {e.dtype}")
            elif isinstance(e, Temp):
                self.temp(e)
            elif isinstance(e, Const):
                self.const(e)
            elif isinstance(e, Reduce):
                self.reduce(e)
            else:
                self.fail(f"{type(e).__name__} is not an expression")

    def temp(self, e: Temp) -> None:
        known = self.temps.get(e.name)
        if known is None:
            self.fail(f"{e.name} is not bound here")
        if known.dtype != e.dtype:
            self.fail(f"{e.name} is used as {e.dtype} but bound as {known.dtype}")

    def const(self, e: Const) -> None:
        fits = isinstance(e.value, bool) if e.dtype.is_bool else isinstance(e.value, (int, float))
        if fits and e.dtype.is_integer:
            info = np.iinfo(e.dtype.numpy)
            fits = isinstance(e.value, int) and info.min <= e.value <= info.max
        if not fits:
            self.fail(f"{e.value!r} is no {e.dtype}")

    def reduce(self, e: Reduce) -> None:
        for var, extent in e.axes:
            self.bind_index(var)
            self.dim(extent, f"the extent of {var}")
            self.indices.add(var)
        self.expr(e.body)
        self.indices.difference_update(var for var, _ in e.axes)
        positional = e.combiner in ("argmax", "argmin")
        if not positional and e.combiner not in _COMBINERS:
            self.fail(f"unknown combiner {e.combiner!r}")
        if e.dtype != (int64 if positional else e.body.dtype):
            self.fail(f"reduce({e.combiner}) of {e.body.dtype} cannot be {e.dtype}")

    def scalar(self, e: Scalar) -> None:
        op = SCALARS.get(e.op)
        if op is None or len(e.args) != op.arity:
            self.fail(f"there is no scalar op {e.op} of {len(e.args)} arguments")
        dtypes = [a.dtype for a in e.args]
        if e.op in ("cast", "bitcast"):
            if e.op == "bitcast" and dtypes[0].bits != e.dtype.bits:
                self.fail(f"bitcast from {dtypes[0]} to {e.dtype} changes the width")
            return
        if e.op == "select":
            if dtypes[0] != bool_:
                self.fail(f"the condition of select is {dtypes[0]}, not bool")
            dtypes = dtypes[1:]
        if len(set(dtypes)) > 1:
            self.fail(f"{e.op} joins {' and '.join(map(str, dtypes))} in {expression_text(e)[:200]}")
        wanted = bool_ if e.op in COMPARISONS else dtypes[0]
        if e.dtype != wanted:
            self.fail(f"{e.op} of {dtypes[0]} is {wanted}, not {e.dtype}")


def _outside_reductions(root: Expr) -> Iterable[Expr]:
    """All subexpressions but those in the bodies of reductions, each once."""
    stack, seen = [root], set()
    while stack:
        e = stack.pop()
        if id(e) in seen:
            continue
        seen.add(id(e))
        yield e
        if isinstance(e, Scalar):
            stack.extend(e.args)
        elif isinstance(e, Load):
            stack.extend(e.indices if e.guard is None else (*e.indices, e.guard))


def _buffer_type(buffer: Buffer) -> TensorType:
    return TensorType(buffer.dtype, buffer.shape)


# --- programs ------------------------------------------------------------------------------------


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
    slots = _check_slots(program)
    for kernel in program.kernels:
        verify_kernel(kernel)
    if len({k.name for k in program.kernels}) < len(program.kernels):
        _program_fault(program, "two kernels have one name")
    buffers = {name: slot.buffer for name, slot in slots.items()}
    for name, array in program.constants.items():
        if name in buffers:
            _program_fault(program, f"the constant %{name} has the name of a slot")
        buffers[name] = Buffer(name, as_dtype(array.dtype), array.shape)
    defined = set(program.constants) | {n for n, s in slots.items() if s.kind in ("input", "state")}
    for k, step in enumerate(program.steps):
        _check_call(program, k, step, buffers)
        _check_order(program, k, step, slots, defined)
    for name, slot in slots.items():
        if slot.kind == "output" and not _is_defined(name, slots, defined):
            _program_fault(program, f"the output %{name} is never written")
    if _is_planned(program) and (dims is not None or not program.symbols):
        _check_arena(program, slots, dims or {})


def _program_fault(program: Program, problem: str) -> NoReturn:
    raise VerifyError(f"@{program.name}: {problem}")


def _check_slots(program: Program) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    planned = _is_planned(program)
    for slot in program.slots:
        name = slot.buffer.name
        if name in slots:
            _program_fault(program, f"the buffer %{name} exists twice")
        slots[name] = slot
        used = set().union(*map(symbols, (*slot.buffer.shape, slot.offset or 0)))
        if not used <= set(program.symbols):
            _program_fault(program, f"%{name} uses the unknown symbol {min(used - set(program.symbols))}")
        if slot.kind not in ("input", "state", "output", "temp"):
            _program_fault(program, f"%{name} is of the unknown kind {slot.kind!r}")
        if slot.offset is not None and (slot.kind != "temp" or slot.alias is not None):
            _program_fault(program, f"%{name} has an offset, but only a temp that is no alias has one")
        if slot.alias is not None and slot.kind not in ("temp", "output"):
            _program_fault(program, f"%{name} is an alias, but only a temp or an output may be one")
        if planned and slot.kind == "temp" and slot.offset is None and slot.alias is None:
            _program_fault(program, f"the temp %{name} has no offset in the arena")
    for name, slot in slots.items():
        if slot.alias is not None:
            _check_alias(program, slots, name)
    return slots


def _is_planned(program: Program) -> bool:
    """Whether `plan_memory` has run: temps, and the workspaces of calls, have offsets."""
    return any(s.offset is not None for s in program.slots) or any(step.workspaces for step in program.steps)


def _check_alias(program: Program, slots: Mapping[str, Slot], name: str) -> None:
    seen, at = {name}, slots[name].alias
    while at is not None:
        if at not in slots or at in seen:
            problem = "itself" if at in seen else "unknown"
            _program_fault(program, f"%{name} is an alias of %{at}, which is {problem}")
        seen.add(at)
        at = slots[at].alias


def _root(name: str, slots: Mapping[str, Slot]) -> str:
    """The buffer whose memory a buffer is."""
    while name in slots and (alias := slots[name].alias) is not None:
        name = alias
    return name


def _is_defined(name: str, slots: Mapping[str, Slot], defined: set[str]) -> bool:
    return name in defined or _root(name, slots) in defined


def _check_call(program: Program, k: int, step: Call, buffers: Mapping[str, Buffer]) -> None:
    kernel = step.kernel
    where = f"call {k} of @{kernel.name}"
    parameters = kernel.inputs + kernel.outputs
    if len(step.arguments) != len(parameters):
        _program_fault(program, f"{where}: {len(parameters)} buffers needed, {len(step.arguments)} given")
    for name, parameter in zip(step.arguments, parameters):
        buffer = buffers.get(name)
        if buffer is None:
            _program_fault(program, f"{where}: there is no buffer %{name}")
        if not same_type(_buffer_type(buffer), _buffer_type(parameter)):
            types = f"%{name} is {_buffer_type(buffer)}, %{parameter.name} is {_buffer_type(parameter)}"
            _program_fault(program, f"{where}: {types}")
    if not set(kernel.symbols) <= set(program.symbols):
        _program_fault(program, f"{where}: the kernel's symbols are not all the program's")
    if _is_planned(program) and len(step.workspaces) != len(workspace_buffers(kernel)):
        _program_fault(program, f"{where}: {len(workspace_buffers(kernel))} workspaces needed")


def _check_order(program: Program, k: int, step: Call, slots: Mapping[str, Slot], defined: set[str]) -> None:
    for name in step.reads:
        if not _is_defined(name, slots, defined):
            _program_fault(program, f"call {k} of @{step.kernel.name} reads %{name} before it is written")
    stored = written_buffers(step.kernel)
    for name, parameter in zip(step.writes, step.kernel.outputs):
        slot = slots.get(name)
        if slot is None or slot.kind == "input" or slots.get(_root(name, slots), slot).kind == "input":
            where = f"call {k} of @{step.kernel.name}"
            _program_fault(program, f"{where} writes %{name}, which is an input or a constant")
        if parameter.name in stored:
            defined |= {name, _root(name, slots)}


# --- the arena -----------------------------------------------------------------------------------


class _Extent:
    """A piece of the arena and the calls during which it is in use."""

    def __init__(self, name: str, start: int, size: int, step: int) -> None:
        self.name, self.start, self.end = name, start, start + size
        self.first = self.last = step

    def overlaps(self, other: _Extent) -> bool:
        in_space = self.start < other.end and other.start < self.end
        return in_space and self.first <= other.last and other.first <= self.last


def _check_arena(program: Program, slots: Mapping[str, Slot], dims: Mapping[str, int]) -> None:
    total = evaluate(program.arena, dims)
    extents = _extents(program, slots, dims)
    for extent in extents:
        if extent.start % ALIGNMENT or extent.start < 0 or extent.end > total:
            _program_fault(
                program,
                f"{extent.name} at bytes {extent.start}..{extent.end} is not aligned to {ALIGNMENT} "
                f"or not inside the arena of {total}",
            )
    for k, a in enumerate(extents):
        for b in extents[k + 1 :]:
            if a.overlaps(b) and not _hands_over(program, slots, *sorted((a, b), key=lambda e: e.first)):
                _program_fault(
                    program,
                    f"{a.name} (bytes {a.start}..{a.end}, calls {a.first}..{a.last}) and {b.name} "
                    f"(bytes {b.start}..{b.end}, calls {b.first}..{b.last}) overlap",
                )


def _extents(program: Program, slots: Mapping[str, Slot], dims: Mapping[str, int]) -> list[_Extent]:
    found: dict[str, _Extent] = {}
    scratch: list[_Extent] = []
    for k, step in enumerate(program.steps):
        for name in step.arguments:
            slot = slots.get(_root(name, slots))
            if slot is None or slot.offset is None:
                continue
            owner = slot.buffer.name
            size = evaluate(nbytes(slot.buffer), dims)
            extent = found.setdefault(owner, _Extent(f"%{owner}", evaluate(slot.offset, dims), size, k))
            extent.last = k
        for buffer, offset in zip(workspace_buffers(step.kernel), step.workspaces):
            name = f"the workspace %{buffer.name} of call {k}"
            scratch.append(_Extent(name, evaluate(offset, dims), evaluate(nbytes(buffer), dims), k))
    for name, slot in slots.items():  # what an output or a state is an alias of stays in use to the end
        owner = _root(name, slots)
        if slot.kind == "output" and owner in found:
            found[owner].last = len(program.steps)
    return [*found.values(), *scratch]


def _hands_over(program: Program, slots: Mapping[str, Slot], dying: _Extent, born: _Extent) -> bool:
    """Whether one buffer takes over the memory of another in a kernel that works in place."""
    if dying.last != born.first or dying.start != born.start or dying.first == born.first:
        return False
    step = program.steps[born.first]
    return any(
        f"%{_root(step.writes[o], slots)}" == born.name and f"%{_root(step.reads[i], slots)}" == dying.name
        for o, i in step.kernel.inplace
    )
