"""What a kernel has to do, as formulas of the symbolic dimensions: floating-point operations, and bytes.

A floating-point operation is one scalar op of the declarative kernel on one element: an addition, a
product, a division, a function such as ``exp``; a fused multiply-add is two. Comparisons, choices, casts
and index arithmetic are none. The bytes are those of the buffers it reads and writes, each once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import CompileError
from ..ir.dims import Dim, product, substitute
from ..ir.graph import Graph, Loc, Value
from ..ir.loops import Expr, For, Foreign, If, Kernel, Let, Load, Reduce, Scalar, Stmt, Store
from ..ir.op import OPS
from ..ir.program import Call, Program, nbytes
from ..passes.lower_to_loops import lower_to_loops

__all__ = ["Work", "call_bytes", "kernel_work", "line_work"]

_FREE = {"select", "cast", "bitcast", "copysign"}


@dataclass(frozen=True)
class Work:
    """Floating-point operations, those in float32 and those in float64."""

    single: Dim = 0
    double: Dim = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.single + other.single, self.double + other.double)

    def times(self, n: Dim) -> Work:
        """So often."""
        return Work(self.single * n, self.double * n)

    @property
    def total(self) -> Dim:
        return self.single + self.double


def kernel_work(kernel: Kernel) -> Work:
    """The work of a declarative kernel."""
    return _block(kernel.body)


def _block(body: tuple[Stmt, ...]) -> Work:
    return sum(map(_statement, body), Work())


def _statement(s: Stmt) -> Work:
    if isinstance(s, For):  # an extent that depends on an outer counter counts as in its first iteration
        inner = _block(s.body)
        first: Mapping[str, Dim] = {s.var: 0}
        return Work(substitute(inner.single, first), substitute(inner.double, first)).times(s.extent)
    if isinstance(s, If):
        return _expr(s.condition, set()) + _block(s.then) + _block(s.otherwise)
    if isinstance(s, Let):
        return _expr(s.value, set())
    if isinstance(s, Store):
        return _expr(s.value, set()) + (_one(s.value) if s.combiner else Work())
    return Work()


def _one(e: Expr) -> Work:
    if not e.dtype.is_float:
        return Work()
    return Work(1, 0) if e.dtype.bits == 32 else Work(0, 1)


def _expr(e: Expr, seen: set[int]) -> Work:
    """What evaluating an expression once takes; shared parts count once."""
    if id(e) in seen:
        return Work()
    seen.add(id(e))
    if isinstance(e, Reduce):
        return (_expr(e.body, seen) + _one(e)).times(product(n for _, n in e.axes))
    if isinstance(e, Scalar):
        own = Work() if e.op in _FREE else _one(e).times(2 if e.op == "fma" else 1)
        return sum((_expr(a, seen) for a in e.args), own)
    if isinstance(e, Load):
        parts = e.indices if e.guard is None else (*e.indices, e.guard)
        return sum((_expr(i, seen) for i in parts), Work())
    return Work()


def line_work(region: Graph) -> dict[Loc | None, Dim]:
    """How the work of a kernel's ops divides over the user's lines.

    An op without any counts its elements; one without operands, which others are computed from, nothing.
    """
    found: dict[Loc | None, Dim] = {}
    for v in region:
        if v.op.kind != "leaf":
            found[v.loc] = found.get(v.loc, 0) + (_op_work(v) if v.operands else 0)
    return found


def _op_work(v: Value) -> Dim:
    leaves = [OPS["input"](name=f"p{k}", shape=o.shape, dtype=o.dtype) for k, o in enumerate(v.operands)]
    try:
        alone = lower_to_loops(Graph("op", tuple(leaves), (), (v.with_operands(leaves),)), "op")
    except CompileError:
        return v.tensor.size
    has_code = not any(isinstance(s, Foreign) for s in alone.body)
    work = kernel_work(alone).total if has_code else 0
    return v.tensor.size if work == 0 else work


def call_bytes(program: Program, call: Call) -> Dim:
    """The bytes of the buffers that a call reads, and of those that it writes."""
    sizes = {s.buffer.name: nbytes(s.buffer) for s in program.slots}
    total: Dim = 0
    for names in (dict.fromkeys(call.reads), dict.fromkeys(call.writes)):
        for name in names:
            total = total + (sizes[name] if name in sizes else program.constants[name].nbytes)
    return total
