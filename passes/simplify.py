"""Algebraic simplification: fewer and cheaper ops with the same meaning.

Each row with ``->`` keeps every bit, NaN, infinities and signed zeros included; hence no
``x + 0 -> x`` (it is ``0.0`` for ``-0.0``) nor ``x * 0 -> 0`` for floats, and no reassociation of them.
Runs after differentiation, because it removes `stop_gradient`.
"""

from __future__ import annotations

import functools

from ..ir.dims import equal
from ..ir.dtypes import DType
from ..ir.graph import Graph, Value
from ..ir.ops import OPS
from .canonicalize import CANONICALIZE
from .factor import FACTOR
from .predicates import (
    compose,
    floating,
    full_like,
    integer,
    lossless,
    nonnegative,
    splat,
    value_of,
)
from .rewrite import RuleSet, rewrite, rules

__all__ = ["SIMPLIFY", "simplify"]


def negated(c: Value) -> Value:
    """The negative of a splat."""
    return full_like(c.tensor, -value_of(c))


def ordered(a: Value, b: Value) -> bool:
    """Whether both are splats and the first is at most the second."""
    return splat(a) and splat(b) and value_of(a) <= value_of(b)


def widens(x: Value, dtype: DType) -> bool:
    """Whether a cast of `x` to `dtype` keeps each number."""
    return lossless(x.tensor.dtype, dtype)


def merged(inner: tuple[int, ...], outer: tuple[int, ...], x: Value) -> tuple[int, ...]:
    """The axes of `x` that reductions over `inner`, then over `outer` of what is left, combine."""
    left = [k for k in range(x.tensor.rank) if k not in inner]
    return tuple(sorted((*inner, *compose(left, outer))))


_ARITHMETIC = rules("arithmetic", """
    x + 0                     -> x                      if integer(x)
    x * 0                     -> 0                      if integer(x)
    x - x                     -> 0                      if integer(x)
    (x + a) + b               -> x + (a + b)            if integer(x) and splat(a) and splat(b)
    (x * a) * b               -> x * (a * b)            if integer(x) and splat(a) and splat(b)
    x * -1                    -> neg(x)
    x / -1                    -> neg(x)
    -0.0 - x                  -> neg(x)
    0 - x                     -> neg(x)                 if integer(x)
    1 / (1 / x)               ~> x
    stop_gradient(x)          -> x

    neg(a - b)                -> b - a                  if integer(a)
    a + neg(b)                -> a - b
    a - neg(b)                -> a + b
    neg(a) * neg(b)           -> a * b
    neg(a) / neg(b)           -> a / b
    neg(x) * c                -> x * negated(c)         if splat(c) and floating(c)
    neg(x) / c                -> x / negated(c)         if splat(c)
    c / neg(x)                -> negated(c) / x         if splat(c)
    neg(x * c)                -> x * negated(c)         if splat(c) and floating(c)
    neg(a) * b                -> neg(a * b)             if not splat(b)
    neg(a) / b                -> neg(a / b)             if not splat(b)
    a / neg(b)                -> neg(a / b)             if not splat(a)

    abs(neg(x))               -> abs(x)
    abs(x)                    -> x                      if nonnegative(x)
    abs(abs(x))               -> abs(x)
    abs(x) * abs(x)           -> x * x
    sign(sign(x))             -> sign(x)
    log(sqrt(x))              ~> log(x) * 0.5
    log1p(expm1(x))           ~> x
    exp(log1p(x))             ~> 1 + x                  if nonnegative(x)
    expm1(log1p(x))           ~> x                      if nonnegative(x)
    cos(neg(x))               -> cos(x)
    cosh(neg(x))              -> cosh(x)
    floor(floor(x))           -> floor(x)
    ceil(ceil(x))             -> ceil(x)
    trunc(trunc(x))           -> trunc(x)
    round(round(x))           -> round(x)
""", [floating, integer, negated, nonnegative, splat])

_CHOICE = rules("choice", """
    where(c, x, x)                      -> x
    where(True, a, b)                   -> a
    where(False, a, b)                  -> b
    where(logical_not(c), a, b)         -> where(c, b, a)
    where(c, where(c, a, b), d)         -> where(c, a, d)
    where(c, a, where(c, b, d))         -> where(c, a, d)
    where(c, True, False)               -> c
    where(c, False, True)               -> logical_not(c)
    max(x, x)                           -> x
    min(x, x)                           -> x
    max(max(x, a), a)                   -> max(x, a)
    min(min(x, a), a)                   -> min(x, a)
    max(x, -inf)                        -> x
    min(x, inf)                         -> x
    relu(relu(x))                       -> relu(x)
    relu(x)                             -> x            if nonnegative(x)
    max(x, 0)                           -> x            if nonnegative(x)
    clip(clip(x, a, b), a, b)           -> clip(x, a, b) if ordered(a, b)
    cast(cast(x, dtype=d), dtype=e)     -> cast(x, dtype=e)  if widens(x, d)

    logical_not(logical_not(c))         -> c
    logical_and(c, c)                   -> c
    logical_or(c, c)                    -> c
    logical_and(c, True)                -> c
    logical_and(c, False)               -> False
    logical_or(c, False)                -> c
    logical_or(c, True)                 -> True
    logical_xor(c, False)               -> c
    logical_xor(c, True)                -> logical_not(c)
    logical_not(a == b)                 -> a != b
    logical_not(a != b)                 -> a == b
    logical_not(a < b)                  -> a >= b       if integer(a)
    logical_not(a <= b)                 -> a > b        if integer(a)
    logical_not(a > b)                  -> a <= b       if integer(a)
    logical_not(a >= b)                 -> a < b        if integer(a)
    bitwise_invert(bitwise_invert(x))   -> x
    c == True                           -> c
    c == False                          -> logical_not(c)
    c != False                          -> c
    c != True                           -> logical_not(c)
    x < x                               -> False
    x > x                               -> False
    x == x                              -> True         if not floating(x)
    x <= x                              -> True         if integer(x)
    x >= x                              -> True         if integer(x)
    x != x                              -> False        if not floating(x)
""", [floating, integer, nonnegative, ordered, widens])

_REDUCTIONS = rules("reductions", """
    sum(sum(x, axes=a), axes=b)         ~> sum(x, axes=merged(a, b, x))
    prod(prod(x, axes=a), axes=b)       ~> prod(x, axes=merged(a, b, x))
    amax(amax(x, axes=a), axes=b)       -> amax(x, axes=merged(a, b, x))
    amin(amin(x, axes=a), axes=b)       -> amin(x, axes=merged(a, b, x))
    any(any(x, axes=a), axes=b)         -> any(x, axes=merged(a, b, x))
    all(all(x, axes=a), axes=b)         -> all(x, axes=merged(a, b, x))
""", [merged])

SIMPLIFY = RuleSet("simplify", [*_ARITHMETIC, *_CHOICE, *_REDUCTIONS])
"""Rules that leave less to compute."""


@SIMPLIFY.rule("add", "pad(x) + pad(y) + ..., side by side -> pad(concat(x, y)) + ...", exact=False)
def _joined_pads(value: Value) -> Value | None:
    """The gradient of a tensor that was cut into parts is put together, not added up."""
    parts = _padded_parts(value)
    for k, a in enumerate(parts):
        for b in parts[k + 1:]:
            joined = _joined(a, b) or _joined(b, a)
            if joined is not None:
                rest = [p for p in parts if p is not a and p is not b]
                return functools.reduce(Value.__add__, rest, joined)
    return None


def _padded_parts(value: Value) -> list[Value]:
    """The operands of a tree of additions, if all are pads with zeros; else none."""
    parts: list[Value] = []
    pending = [value]
    while pending:
        v = pending.pop()
        if v.op.name != "add":
            parts.append(v)
        elif all(o.op.name == "add" or _pads_with_zeros(o) for o in v.operands):  # so a long chain is soon left
            pending.extend(reversed(v.operands))
        else:
            return []
    return parts


def _pads_with_zeros(v: Value) -> bool:
    return v.op.name == "pad" and v.attrs["value"] == 0 and not any(v.attrs["interior"])


def _joined(a: Value, b: Value) -> Value | None:
    """One pad of both operands, if that of `b` begins where that of `a` ends."""
    (x,), (y,) = a.operands, b.operands
    sides = list(zip(a.attrs["low"], a.attrs["high"], b.attrs["low"], b.attrs["high"]))
    axes = [k for k, (low, high, low2, high2) in enumerate(sides) if (low, high) != (low2, high2)]
    if len(axes) != 1:
        return None
    axis = axes[0]
    if not equal(a.attrs["low"][axis] + x.tensor.shape[axis], b.attrs["low"][axis]):
        return None
    both = OPS["concat"](x, y, axis=axis)
    return OPS["pad"](both, **{**a.attrs, "high": b.attrs["high"]})


_RULES = SIMPLIFY + FACTOR + CANONICALIZE


def simplify(graph: Graph) -> Graph:
    """The graph with `SIMPLIFY` applied until no rule fires; it stays canonical."""
    return rewrite(graph, _RULES)
