"""Checks that a graph or a kernel is well formed (a program: `verify_program`); tests run them after every pass."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NoReturn

import numpy as np

from ..errors import GraphwrightError, VerifyError
from .broadcasting import same_type
from .dims import Dim, equal, symbols
from .dtypes import bool_, int64
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
    Prefetch,
    Reduce,
    Scalar,
    Stmt,
    Store,
    Temp,
)
from .op import OPS
from .print_loops import expression_text, statement_head
from .program import nbytes
from .scalars import COMPARISONS, SCALARS
from .types import TensorType, TupleType, Type

__all__ = ["verify_graph", "verify_kernel"]


# --- graphs --------------------------------------------------------------------------------------


def verify_graph(graph: Graph, symbols: Collection[str] = ()) -> None:
    """Check that a graph is what its types and its signature say.

    Every type is inferred again; every leaf belongs to the signature; names are unique; updates
    fit their states; regions are checked in the same way.

    Parameters
    ----------
    symbols : symbolic dimensions known from outside, beside those of inputs and states.

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
    known = {*graph.symbols, *symbols}
    for value in graph:
        if value.op.name in ("input", "state") and value not in parameters:
            _graph_fault(graph, value, f"{value.attrs['name']!r} is used but is not in the signature")
        if not value.symbols <= known:
            _graph_fault(graph, value, f"no input or state has the dimension {min(value.symbols - known)}")
        _check_value(graph, value, known)
    _check_updates(graph)


def _graph_fault(graph: Graph, value: Value, problem: str) -> NoReturn:
    where = f" at {value.loc.file}:{value.loc.line}" if value.loc else ""
    raise VerifyError(f"@{graph.name}: {value.op.name} of type {value.type}{where}: {problem}")


def _check_value(graph: Graph, value: Value, symbols: Collection[str]) -> None:
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
        verify_graph(region, symbols)


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
            elif isinstance(s, Prefetch):
                self.prefetch(s)
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

    def prefetch(self, s: Prefetch) -> None:
        self.access(s.buffer, s.indices)
        for e in s.indices:
            self.expr(e)

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
