"""Checks and small steps that the neural functions share."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.dims import Dim, equal
from ...ir.types import shape_text
from ..array_api import asarray, mean, reshape, sum
from ..shapes import fail
from ..tensor import ArrayLike, Tensor

__all__ = ["along_channels", "floating", "reduced", "same_shape", "tuple_of"]

IntOrTuple = int | Sequence[int]


def floating(name: str, x: ArrayLike) -> Tensor:
    """A tensor that must be floating-point."""
    x = asarray(x)
    if not x.dtype.is_float:
        fail(name, DTypeError, f"needs a floating-point tensor, got {x.dtype!r}", [x], "cast with astype")
    return x


def tuple_of(name: str, argument: str, value: IntOrTuple, n: int, least: int) -> tuple[int, ...]:
    """`n` integers, each at least `least`, from one or from a sequence."""
    values = tuple(value) if isinstance(value, Iterable) else (value,) * n
    try:
        numbers = tuple(operator.index(v) for v in values)
    except TypeError:
        numbers = ()
    if len(numbers) != n or any(v < least for v in numbers):
        fail(name, GraphError, f"{argument} must be an integer >= {least} or {n} of them, got {value!r}")
    return numbers


def same_shape(name: str, *operands: Tensor) -> None:
    """Require operands of one shape: a loss of broadcast operands is nearly always a mistake."""
    first = operands[0].shape
    for x in operands[1:]:
        if x.ndim != len(first) or not all(map(equal, x.shape, first)):
            fail(
                name, ShapeError, f"the shapes [{shape_text(first)}] and [{shape_text(x.shape)}] differ", operands,
                "give both the same shape, with reshape or broadcast_to",
            )


def reduced(name: str, values: Tensor, reduction: str) -> Tensor:
    """The mean, the sum, or all of the values."""
    if reduction not in ("mean", "sum", "none"):
        fail(name, GraphError, f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    return values if reduction == "none" else mean(values) if reduction == "mean" else sum(values)


def along_channels(x: Tensor, rank: int, axis: int = 1) -> Tensor:
    """A vector shaped so that it broadcasts along one axis of a tensor of the given rank."""
    shape: list[Dim] = [1] * rank
    shape[axis] = x.shape[0]
    return reshape(x, tuple(shape))
