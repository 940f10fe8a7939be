"""Sums with one term that may differ from 0, as of a row times a one-hot vector: that term is read, nothing summed."""

from __future__ import annotations

from ..ir.dims import Dim, coefficient, symbol, symbols
from ..ir.dtypes import int64
from ..ir.loops import Expr, Index, Load, Reduce, Scalar, children, free_symbols, walk
from ..ir.scalars import apply, const, select

__all__ = ["picked"]


def picked(e: Reduce) -> Expr:
    """``sum over r < n of (x[r] if r == k else 0)`` as ``x[k] if 0 <= k < n else 0``; others as they are.

    Nothing is read where no term is picked. 0 is added, as the sum does: it makes 0 of -0.
    """
    if e.combiner != "add" or len(e.axes) != 1 or not isinstance(e.body, Scalar) or e.body.op != "select":
        return e
    (var, extent), (condition, value, other) = e.axes[0], e.body.args
    k = _position(condition, var)
    if k is None or other != const(0, e.dtype) or any(isinstance(x, Reduce) for x in walk(value)):
        return e
    inside = apply("bitand", apply("le", const(0, int64), k), apply("lt", k, Index(extent)))
    term = _at(value, var, k, inside)
    return e if term is None else apply("add", select(inside, term, const(0, e.dtype)), const(0, e.dtype))


def _position(condition: Expr, var: str) -> Expr | None:
    """`k` of a condition ``var == k``."""
    if not isinstance(condition, Scalar) or condition.op != "eq":
        return None
    for counter, k in (condition.args, condition.args[::-1]):
        if counter == Index(symbol(var)) and var not in free_symbols(k):
            return k
    return None


def _at(e: Expr, var: str, k: Expr, inside: Expr) -> Expr | None:
    """`e` where the counter is `k`; None if the counter occurs in a way that is not supported."""
    new: dict[Expr, Expr | None] = {}
    for x in walk(e):
        parts = [new[c] for c in children(x)]
        if isinstance(x, Index):
            new[x] = _index(x.dim, var, k) if var in symbols(x.dim) else x
        elif any(p is None for p in parts):
            new[x] = None
        elif parts == list(children(x)):
            new[x] = x
        else:
            new[x] = _with_parts(x, [p for p in parts if p is not None], inside)
    return new[e]


def _with_parts(e: Expr, parts: list[Expr], inside: Expr) -> Expr:
    """A scalar op or a load with other subexpressions; what is loaded lies in the array only where `inside`."""
    if isinstance(e, Scalar):
        return Scalar(e.op, tuple(parts), e.dtype)
    assert isinstance(e, Load)
    guard = inside if e.guard is None else apply("bitand", parts.pop(), inside)
    return Load(e.buffer, tuple(parts), guard)


def _index(dim: Dim, var: str, k: Expr) -> Expr | None:
    c = coefficient(dim, var)
    if not isinstance(c, int):
        return None
    rest = dim - c * symbol(var)
    if var in symbols(rest):
        return None
    scaled = k if c == 1 else apply("mul", k, const(c, int64))
    return scaled if rest == 0 else apply("add", scaled, Index(rest))
