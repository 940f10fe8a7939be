"""Factors that do not vary along the axes of a sum are multiplied once, by the sum.

The sums of batch norm's gradient are then those that its scale and shift need as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from ..ir.graph import Value
from ..ir.op import OPS
from .predicates import complement, floating, full_like, splat, value_of
from .rewrite import RuleSet

__all__ = ["FACTOR"]

MOST_LEAVES = 16
"""Terms, and factors of each, up to which a sum is looked at."""

FACTOR = RuleSet("factors of sums")


@FACTOR.rule("sum", "sum(-x) -> -sum(x)")
def _sign(value: Value) -> Value | None:
    (x,) = value.operands
    return -OPS["sum"](x.operands[0], axes=value.attrs["axes"]) if x.op.name == "neg" and floating(x) else None


@FACTOR.rule("sum", "sum(x * broadcast(c)) ~> sum(x) * c, c being constant along the axes", exact=False)
def _factor(value: Value) -> Value | None:
    (x,) = value.operands
    axes = tuple(value.attrs["axes"])
    terms = [_factors(t, axes) for t in _leaves(x, "add")] if floating(x) else []
    if not terms or not all(varying and any(not splat(c) for c in constant) for varying, constant in terms):
        return None
    return reduce(Value.__add__, (_total(varying, constant, axes) for varying, constant in terms))


def _total(varying: Sequence[Value], constant: Sequence[Value], axes: tuple[int, ...]) -> Value:
    total = OPS["sum"](reduce(Value.__mul__, varying), axes=axes)
    return reduce(Value.__mul__, (_without(c, axes) for c in constant), total)


def _factors(x: Value, axes: Sequence[int]) -> tuple[list[Value], list[Value]]:
    """The factors of a product that vary along some of the axes, and those that do not."""
    leaves = _leaves(x, "mul")
    varying = [v for v in leaves if not splat(v) and not _is_constant(v, axes)]
    return varying, [v for v in leaves if v not in varying]


def _leaves(x: Value, op: str) -> list[Value]:
    """The operands of a tree of one op; none if there are too many, as of a value that is used again and again."""
    found: list[Value] = []
    waiting = [x]
    while waiting:
        v = waiting.pop()
        if v.op.name == op:
            waiting += v.operands[::-1]
        else:
            found.append(v)
        if len(found) + len(waiting) > MOST_LEAVES:
            return []
    return found


def _is_constant(x: Value, axes: Sequence[int]) -> bool:
    return x.op.name == "broadcast" and not set(axes) & set(x.attrs["dims"])


def _without(c: Value, axes: tuple[int, ...]) -> Value:
    """A factor with the shape of the sum."""
    rest = complement(axes, c.tensor.rank)
    kept = c.tensor.with_shape([c.tensor.shape[k] for k in rest])
    if splat(c):
        return full_like(kept, value_of(c))
    inner, dims = c.operands[0], tuple(rest.index(k) for k in c.attrs["dims"])
    return inner if len(dims) == len(rest) else OPS["broadcast"](inner, dims=dims, shape=kept.shape)
