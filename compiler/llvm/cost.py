"""How much work a loop does: decides, at run time, whether threads are worth waking."""

from __future__ import annotations

from ...ir.dims import Dim, evaluate, product, substitute, symbols
from ...ir.loops import (
    Alloc,
    Expr,
    For,
    Foreign,
    If,
    Let,
    Load,
    Scalar,
    Stmt,
    Store,
    statements,
    walk,
)
from ...passes.cpu_model import CpuModel

__all__ = ["PARALLEL_GRAIN", "effort", "length", "work"]

INSTRUCTION = 64
"""Effort of one instruction; an element of a vector has its lane's share."""

PARALLEL_GRAIN = 60_000 * INSTRUCTION
"""Effort, some 8 microseconds, below which waking the threads costs more than it saves."""

TYPICAL = 64
"""What a symbol stands for where two formulas are compared."""

_EXPENSIVE = {"div": 5, "sqrt": 5, "floordiv": 20, "mod": 20}


def _expr_cost(e: Expr) -> int:
    """Each distinct subexpression once."""
    scalars = sum(_EXPENSIVE.get(x.op, 1) for x in walk(e) if isinstance(x, Scalar))
    return scalars + sum(isinstance(x, Load) for x in walk(e))


def length(body: tuple[Stmt, ...]) -> int:
    """Operations, loads and stores that statements are written as; those of an unrolled loop several times."""
    total = 0
    for s in body:
        if isinstance(s, For):
            total += length(s.body) * (s.extent if s.kind == "unroll" and isinstance(s.extent, int) else 1)
        elif isinstance(s, If):
            total += length(s.then) + length(s.otherwise)
        elif isinstance(s, (Let, Store)):
            total += isinstance(s, Store) + sum(isinstance(x, (Load, Scalar)) for x in walk(s.value))
    return total


def work(s: Stmt) -> Dim:
    """Scalar operations that a statement executes, as a formula; branches count as taken.

    An inner loop whose extent depends on an outer counter counts as in the outer's first iteration.
    """
    if isinstance(s, For):
        return s.extent * substitute(_total(s.body), {s.var: 0})
    if isinstance(s, If):
        return _total(s.then) + _total(s.otherwise)
    if isinstance(s, (Let, Store)):
        return 1 + _expr_cost(s.value)
    if isinstance(s, Foreign):
        return _elements(s)
    return 0


def _elements(s: Foreign) -> Dim:
    """What is known of a foreign kernel: it touches its buffers."""
    total: Dim = 0
    for b in (*s.inputs, *s.outputs):
        total = total + product(b.shape)
    return total


def _total(body: tuple[Stmt, ...]) -> Dim:
    total: Dim = 0
    for s in body:
        total = total + work(s)
    return total


def effort(s: Stmt, cpu: CpuModel) -> Dim:
    """Machine instructions that a scheduled statement executes, times `INSTRUCTION`, as a formula.

    Accesses to memory count twice, those to registers not at all; of two branches the one that is longer at typical
    sizes counts.
    """
    own = {a.buffer.name for a in statements((s,)) if isinstance(a, Alloc) and a.space == "register"}
    return _Effort(own, max(cpu.vector_bytes, cpu.tile_bytes)).of(s, 1)


class _Effort:
    """Counts instructions: `own` are buffers in registers, `width` the bytes of one of these."""

    def __init__(self, own: set[str], width: int) -> None:
        self.own, self.width = own, width

    def of(self, s: Stmt, lanes: int) -> Dim:
        """The effort of a statement in a vector loop of so many lanes, for one of them."""
        if isinstance(s, For):
            inner = min(s.lanes, INSTRUCTION) if s.kind == "vector" and lanes == 1 else lanes
            return s.extent * substitute(self.total(s.body, inner), {s.var: 0})
        if isinstance(s, If):
            return max(self.total(s.then, lanes), self.total(s.otherwise, lanes), key=_typical)
        if isinstance(s, Let):
            return self.instructions(s.value) * INSTRUCTION // self.shared(s.value, lanes)
        if isinstance(s, Store):
            count = self.instructions(s.value) + self.access(s) * (2 if s.combiner else 1)
            return count * INSTRUCTION // self.shared(s.value, lanes)
        return _elements(s) * INSTRUCTION if isinstance(s, Foreign) else 0

    def total(self, body: tuple[Stmt, ...], lanes: int) -> Dim:
        total: Dim = 0
        for s in body:
            total = total + self.of(s, lanes)
        return total

    def shared(self, value: Expr, lanes: int) -> int:
        """The lanes that share an instruction: several registers of them need several."""
        return min(lanes, max(self.width // value.dtype.itemsize, 1))

    def access(self, s: Load | Store) -> int:
        return 0 if s.buffer.name in self.own else 2

    def instructions(self, e: Expr) -> int:
        found = 0
        for part in walk(e):
            if isinstance(part, Scalar):
                found += _EXPENSIVE.get(part.op, 1)
            elif isinstance(part, Load):
                found += self.access(part)
        return found


def _typical(effort: Dim) -> int:
    return evaluate(effort, dict.fromkeys(symbols(effort), TYPICAL))
