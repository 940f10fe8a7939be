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

FACTOR = RuleSet("factors of sums")


@FACTOR.rule("sum", "sum(-x) -> -sum(x)")
def _sign(value: Value) -> Value | None:
    (x,) = value.operands
    return -OPS["sum"](x.operands[0], axes=value.attrs["axes"]) if x.op.name == "neg" and floating(x) else None


@FACTOR.rule("sum", "sum(x * broadcast(c)) ~> sum(x) * c, c being constant along the axes", exact=False)
def _factor(value: Value) -> Value | None:
    (x,) = value.operands
    axes = tuple(value.attrs["axes"])
    return _sum_of(x, axes) if floating(x) and _has_factor(x, axes) else None


def _sum_of(x: Value, axes: tuple[int, ...]) -> Value:
    if x.op.name == "add":
        a, b = (_sum_of(o, axes) for o in x.operands)
        return a + b
    varying, constant = _factors(x, axes)
    total = OPS["sum"](reduce(Value.__mul__, varying), axes=axes)
    return reduce(Value.__mul__, (_without(c, axes) for c in constant), total)


def _has_factor(x: Value, axes: tuple[int, ...]) -> bool:
    """Whether each term has a factor that varies along the axes, and one that does not and is not just a number."""
    if x.op.name == "add":
        return all(_has_factor(o, axes) for o in x.operands)
    varying, constant = _factors(x, axes)
    return bool(varying) and any(not splat(c) for c in constant)


def _factors(x: Value, axes: Sequence[int]) -> tuple[list[Value], list[Value]]:
    """The factors of a product that vary along some of the axes, and those that do not."""
    if x.op.name == "mul":
        found = [_factors(o, axes) for o in x.operands]
        return [v for varying, _ in found for v in varying], [c for _, constant in found for c in constant]
    return ([], [x]) if splat(x) or _is_constant(x, axes) else ([x], [])


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
