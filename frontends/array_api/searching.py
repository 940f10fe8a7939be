"""Choosing and finding elements: where, positions of extremes, gathers."""

from __future__ import annotations

from ...errors import DTypeError, ShapeError
from ...ir.dims import product
from ..shapes import as_axis, fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply
from .creation import arange, asarray
from .manipulation import moveaxis, reshape

__all__ = ["argmax", "argmin", "argsort", "sort", "take", "take_along_axis", "where"]


@located
def where(condition: ArrayLike, x1: ArrayLike, x2: ArrayLike) -> Tensor:
    """Elements of `x1` where the condition holds, of `x2` elsewhere.

    The gradient of the branch that is not taken is exactly 0, even where its derivative is infinite or NaN.
    """
    condition = asarray(condition)
    if not condition.dtype.is_bool:
        fail("where", DTypeError, f"the condition must be bool, got {condition.dtype!r}", [condition], "compare with 0")
    return apply("where", condition, x1, x2)


def _position(name: str, x: ArrayLike, axis: int | None, keepdims: bool) -> Tensor:
    x = asarray(x)
    axes = tuple(range(x.ndim)) if axis is None else (as_axis(axis, x.ndim, name),)
    if product(x.shape[a] for a in axes) == 0:
        fail(name, ShapeError, "there is no extreme of no elements", [x])
    result = apply(name, x, axes=axes)
    return reshape(result, tuple(1 if k in axes else d for k, d in enumerate(x.shape))) if keepdims else result


@located
def argmax(x: ArrayLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position (int64) of the first largest element along `axis`, or in the flattened tensor."""
    return _position("argmax", x, axis, keepdims)


@located
def argmin(x: ArrayLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position (int64) of the first smallest element along `axis`, or in the flattened tensor."""
    return _position("argmin", x, axis, keepdims)


def _indices(name: str, x: Tensor, indices: ArrayLike) -> Tensor:
    positions = asarray(indices)
    if not positions.dtype.is_integer:
        fail(name, DTypeError, f"indices must be integers, got {positions.dtype!r}", [x, positions], "cast with astype")
    return positions


@located
def take(x: ArrayLike, indices: ArrayLike, axis: int | None = None) -> Tensor:
    """The parts of `x` at `indices` along `axis`, whose place the axes of `indices` take.

    A negative index counts from the end; one out of range is clamped to the nearest element. `axis`
    may be left out for a 1-d tensor.
    """
    x = asarray(x)
    if axis is None and x.ndim != 1:
        fail(
            "take", ShapeError, f"the axis must be given for a tensor of rank {x.ndim}", [x],
            "for rows: gw.take(x, indices, axis=0)",
        )
    axis = as_axis(axis or 0, x.ndim, "take")
    return apply("take", x, _indices("take", x, indices), axis=axis)


@located
def take_along_axis(x: ArrayLike, indices: ArrayLike, axis: int = -1) -> Tensor:
    """``x[..., indices[..., j], ...]`` along `axis`; the other dimensions of both are equal.

    Indices are read as by `take`.
    """
    x = asarray(x)
    positions = _indices("take_along_axis", x, indices)
    axis = as_axis(axis, x.ndim, "take_along_axis")
    if positions.ndim != x.ndim:
        fail(
            "take_along_axis", ShapeError, "the indices need the rank of the tensor", [x, positions],
            "add axes to the indices with gw.expand_dims",
        )
    rows, columns = moveaxis(x, axis, -1), moveaxis(positions, axis, -1)
    if rows.shape[:-1] != columns.shape[:-1]:
        fail("take_along_axis", ShapeError, "the dimensions other than the axis differ", [x, positions])
    size, number = rows.shape[-1], product(rows.shape[:-1])
    columns = asarray(columns, "int64")
    columns = apply("clip", apply("where", columns < 0, columns + size, columns), 0, size - 1)
    offsets = reshape(arange(number) * size, (*rows.shape[:-1], 1))
    picked = apply("take", reshape(rows, (-1,) if number != 0 else (0,)), columns + offsets, axis=0)
    return moveaxis(picked, -1, axis)


@located
def argsort(x: ArrayLike, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The positions (int64) of the elements of `x` along `axis` in ascending order, or in descending order.

    Equal elements keep their order, whatever `stable` says; NaN is last.
    """
    x = asarray(x)
    if not x.ndim:
        fail("argsort", ShapeError, "a scalar has no axis to sort along", [x])
    axis = as_axis(axis, x.ndim, "argsort")
    return moveaxis(apply("argsort", moveaxis(x, axis, -1), descending=bool(descending)), -1, axis)


@located
def sort(x: ArrayLike, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements of `x` along `axis` in ascending order, or in descending order; NaN is last.

    The gradient of an element goes to where it came from.
    """
    x = asarray(x)
    return take_along_axis(x, argsort(x, axis, descending), axis)
