"""How much work a loop does: decides, at run time, whether threads are worth waking."""

from __future__ import annotations

from ...ir.dims import Dim, product, substitute
from ...ir.loops import Expr, For, Foreign, If, Let, Load, Scalar, Stmt, Store, children

__all__ = ["work"]

_EXPENSIVE = {"div": 5, "sqrt": 5, "floordiv": 20, "mod": 20}


def _expr_cost(e: Expr, seen: set[int]) -> int:
    if id(e) in seen:
        return 0
    seen.add(id(e))
    own = _EXPENSIVE.get(e.op, 1) if isinstance(e, Scalar) else 1 if isinstance(e, Load) else 0
    return own + sum(_expr_cost(c, seen) for c in children(e))


def work(s: Stmt) -> Dim:
    """Scalar operations that a statement executes, as a formula; branches count as taken.

    An inner loop whose extent depends on an outer counter counts as in the outer's first iteration.
    """
    if isinstance(s, For):
        return s.extent * substitute(_total(s.body), {s.var: 0})
    if isinstance(s, If):
        return _total(s.then) + _total(s.otherwise)
    if isinstance(s, (Let, Store)):
        return 1 + _expr_cost(s.value, set())
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
