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

__all__ = ["PARALLEL_GRAIN", "effort", "work"]

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


def effort(s: Stmt) -> Dim:
    """Machine instructions that a scheduled statement executes, times `INSTRUCTION`, as a formula.

    Accesses to memory count twice, those to registers not at all; of two branches the one that is longer at typical
    sizes counts.
    """
    own = {a.buffer.name for a in statements((s,)) if isinstance(a, Alloc) and a.space == "register"}
    return _effort(s, own, 1)


def _effort(s: Stmt, own: set[str], lanes: int) -> Dim:
    if isinstance(s, For):
        wide = min(s.lanes, INSTRUCTION) if s.kind == "vector" and lanes == 1 else lanes
        return s.extent * substitute(_efforts(s.body, own, wide), {s.var: 0})
    if isinstance(s, If):
        then, other = _efforts(s.then, own, lanes), _efforts(s.otherwise, own, lanes)
        return max(then, other, key=_typical)
    if isinstance(s, Let):
        return _instructions(s.value, own) * INSTRUCTION // lanes
    if isinstance(s, Store):
        return (_instructions(s.value, own) + _access(s, own) * (2 if s.combiner else 1)) * INSTRUCTION // lanes
    return _elements(s) * INSTRUCTION if isinstance(s, Foreign) else 0


def _typical(effort: Dim) -> int:
    return evaluate(effort, dict.fromkeys(symbols(effort), TYPICAL))


def _efforts(body: tuple[Stmt, ...], own: set[str], lanes: int) -> Dim:
    total: Dim = 0
    for s in body:
        total = total + _effort(s, own, lanes)
    return total


def _access(s: Load | Store, own: set[str]) -> int:
    return 0 if s.buffer.name in own else 2


def _instructions(e: Expr, own: set[str]) -> int:
    found = 0
    for part in walk(e):
        if isinstance(part, Scalar):
            found += _EXPENSIVE.get(part.op, 1)
        elif isinstance(part, Load):
            found += _access(part, own)
    return found
