"""What rewrite rules ask about values, and the small computations on attributes that they share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..ir.broadcasting import full
from ..ir.dims import Dim, equal
from ..ir.dtypes import DType
from ..ir.graph import Value
from ..ir.types import Shape, TensorType

__all__ = [
    "VIEWS", "complement", "compose", "floating", "full_like", "integer", "is_static", "lossless", "nonnegative",
    "positive", "power_of_two", "same_shape", "splat", "through_views", "value_of",
]

VIEWS = ("broadcast", "reshape", "transpose", "stop_gradient")
"""Ops whose elements are elements of the operand."""

_DEPTH = 6
_NONNEGATIVE_OF_ANY = ("exp", "exp2", "abs", "square", "sigmoid", "softplus")
_NONNEGATIVE_IF_ALL = (
    "add", "div", "sqrt", "max", "sum", "prod", "amax", "amin", "cumsum", "slice", "reverse", "concat", *VIEWS,
)


def integer(x: Value) -> bool:
    """Whether the elements are integers."""
    return x.tensor.dtype.is_integer


def floating(x: Value) -> bool:
    """Whether the elements are floats."""
    return x.tensor.dtype.is_float


def splat(x: Value) -> bool:
    """Whether all elements are one known number."""
    return x.op.name == "full"


def value_of(x: Value) -> float:
    """The number that a splat repeats."""
    return x.attrs["value"]  # type: ignore[no-any-return]


def positive(x: Value) -> bool:
    """Whether the elements are one known, finite number above 0."""
    return splat(x) and 0 < value_of(x) < math.inf


def power_of_two(x: Value) -> bool:
    """Whether the elements are one known power of two (of either sign) whose inverse is a normal number."""
    if not splat(x) or not floating(x) or not math.isfinite(value_of(x)):
        return False
    mantissa, exponent = math.frexp(value_of(x))
    return abs(mantissa) == 0.5 and abs(exponent) < -np.finfo(x.tensor.dtype.numpy).minexp


def nonnegative(x: Value, depth: int = _DEPTH) -> bool:
    """Whether no element is below 0 or is ``-0.0``; NaN is allowed."""
    name, operands = x.op.name, x.operands
    if x.tensor.dtype.kind in "bu" or name in _NONNEGATIVE_OF_ANY:
        return True
    if name == "full":
        return math.copysign(1, value_of(x)) > 0
    if depth == 0 or not operands:
        return False
    if name == "mul":
        same = operands[0] is operands[1]
        return same or all(nonnegative(o, depth - 1) for o in operands)
    if name == "max" and any(map(positive, operands)):
        return True
    if name == "where":
        operands = operands[1:]
    elif name not in _NONNEGATIVE_IF_ALL:
        return False
    return all(nonnegative(o, depth - 1) for o in operands)


def lossless(source: DType, target: DType) -> bool:
    """Whether each number of one dtype is a number of the other."""
    rounds = source.is_integer and source.bits == 64 and target.is_float  # NumPy calls this one safe
    return bool(np.can_cast(source.numpy, target.numpy, "safe")) and not rounds


def same_shape(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    """Whether two shapes are equal for all values of their symbols."""
    return len(a) == len(b) and all(map(equal, a, b))


def compose(outer: Sequence[int], inner: Sequence[int]) -> tuple[int, ...]:
    """The axis map that goes through `inner`, then `outer`: ``outer[inner[k]]``."""
    return tuple(outer[k] for k in inner)


def complement(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """The axes of a rank that are not among `axes`."""
    return tuple(k for k in range(rank) if k not in axes)


def through_views(x: Value) -> Value:
    """The value whose elements `x` shows."""
    while x.op.name in VIEWS:
        x = x.operands[0]
    return x


def full_like(type_: TensorType, value: float) -> Value:
    """A splat of a type."""
    return full(type_.shape, value, type_.dtype)


def is_static(shape: Shape) -> bool:
    """Whether all dimensions are known."""
    return all(isinstance(d, int) for d in shape)
