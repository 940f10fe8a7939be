"""Tensors made from nothing: constants, counters, and patterns."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.broadcasting import full as full_value
from ...ir.dims import Dim, Poly, ceildiv, dim_max
from ...ir.dtypes import DType, as_dtype, default_dtype, elements, float32, holds, int64, number_shown
from ...ir.types import Shape
from ..shapes import as_dim, as_shape, fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply, to_value

__all__ = [
    "arange", "asarray", "empty", "empty_like", "eye", "full", "full_like", "linspace", "meshgrid", "one_hot",
    "ones", "ones_like", "tril", "triu", "zeros", "zeros_like",
]


@located
def asarray(obj: ArrayLike, dtype: object = None) -> Tensor:
    """A tensor from an array, a number, nested lists, a dimension, or a tensor.

    Python integers become int64 and Python floats float32 unless `dtype` says otherwise; arrays keep
    their dtype. The array is copied.
    """
    wanted = None if dtype is None else as_dtype(dtype)
    value = to_value(obj, wanted)
    return Tensor(value) if wanted in (None, value.tensor.dtype) else apply("cast", value, dtype=wanted)


@located
def full(shape: Any, fill_value: ArrayLike, dtype: object = None) -> Tensor:
    """A tensor whose elements are all `fill_value`: a number, or a 0-d tensor.

    `shape` has integers, dimensions, or their names.
    """
    dims = as_shape(shape, "full")
    if isinstance(fill_value, (Tensor, Poly, np.ndarray)):
        value = asarray(fill_value, dtype)
        if value.ndim:
            fail("full", ShapeError, "the fill value must have no axes", [value])
        return apply("broadcast", value, shape=dims, dims=())
    scalar = operator.index(fill_value) if isinstance(fill_value, np.integer) else fill_value
    scalar = scalar.item() if isinstance(scalar, np.generic) else scalar
    if not isinstance(scalar, (bool, int, float)):
        fail("full", GraphError, f"cannot fill with {fill_value!r} of type {type(fill_value).__name__}")
    kind = _fitting(default_dtype(scalar) if dtype is None else as_dtype(dtype), scalar)
    return Tensor(full_value(dims, scalar, kind))


def _fitting(dtype: DType, scalar: bool | int | float) -> DType:
    if not dtype.is_bool and not holds(dtype, scalar):
        problem = f"{number_shown(scalar)} is not an element of {dtype!r}"
        fail("full", DTypeError, problem, advice=f"{dtype!r} needs {elements(dtype)}")
    return dtype


@located
def zeros(shape: Any, dtype: object = float32) -> Tensor:
    """A tensor of zeros (of False for bool)."""
    return full(shape, 0, dtype)


@located
def ones(shape: Any, dtype: object = float32) -> Tensor:
    """A tensor of ones (of True for bool)."""
    return full(shape, 1, dtype)


@located
def full_like(x: ArrayLike, fill_value: ArrayLike, dtype: object = None) -> Tensor:
    """`full` with the shape and, unless given, the dtype of `x`."""
    x = asarray(x)
    return full(x.shape, fill_value, x.dtype if dtype is None else dtype)


@located
def zeros_like(x: ArrayLike, dtype: object = None) -> Tensor:
    """Zeros with the shape and, unless given, the dtype of `x`."""
    return full_like(x, 0, dtype)


@located
def ones_like(x: ArrayLike, dtype: object = None) -> Tensor:
    """Ones with the shape and, unless given, the dtype of `x`."""
    return full_like(x, 1, dtype)


empty, empty_like = zeros, zeros_like  # there is no uninitialized memory to hand out


def iota(shape: Shape, axis: int, dtype: DType = int64) -> Tensor:
    """The position along one axis."""
    return apply("iota", shape=shape, axis=axis, dtype=dtype)


@located
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: object = None) -> Tensor:
    """``start, start + step, ...`` up to, not including, `stop`; from 0 if only one bound is given.

    Bounds may be dimensions, ``gw.arange(x.shape[0])``; with them the step must be a positive integer.
    """
    if stop is None:
        start, stop = 0, start
    bounds = (start, stop, step)
    if any(isinstance(b, Tensor) for b in bounds):
        fail("arange", GraphError, "bounds must be numbers or dimensions", bounds, "the shape must be known")
    if any(isinstance(b, (Poly, str)) for b in bounds):
        return _symbolic_range(as_dim(start, "arange"), as_dim(stop, "arange"), step, dtype)
    if step == 0:
        fail("arange", GraphError, "the step must not be 0")
    is_float = any(isinstance(b, (float, np.floating)) for b in bounds)
    kind = as_dtype(dtype) if dtype is not None else float32 if is_float else int64
    if is_float or not kind.is_integer:
        return asarray(np.arange(start, stop, step).astype(kind.numpy))
    return _count(len(range(start, stop, step)), start, step, kind)


def _symbolic_range(start: Dim, stop: Dim, step: Any, dtype: object) -> Tensor:
    step = as_dim(step, "arange")
    if not isinstance(step, int) or step == 0:
        fail("arange", GraphError, f"the step between dimensions must be a positive integer, got {step}")
    length = dim_max(0, ceildiv(stop - start, step))
    return _count(length, start, step, int64 if dtype is None else as_dtype(dtype))


def _count(length: Dim, start: Dim, step: int, dtype: DType) -> Tensor:
    counter = iota((length,), 0, dtype)
    if step != 1:
        counter = counter * step
    return counter if start == 0 else counter + start


@located
def linspace(start: float, stop: float, num: int, dtype: object = float32, endpoint: bool = True) -> Tensor:
    """`num` evenly spaced numbers from `start` to `stop`."""
    array = np.linspace(start, stop, num, endpoint=endpoint)
    return asarray(array.astype(as_dtype(dtype).numpy))


@located
def eye(n_rows: Any, n_cols: Any = None, k: int = 0, dtype: object = float32) -> Tensor:
    """A matrix with ones on diagonal `k` (above the main one if positive) and zeros elsewhere."""
    rows = as_dim(n_rows, "eye")
    shape = (rows, rows if n_cols is None else as_dim(n_cols, "eye"))
    return astype_bool(iota(shape, 0) + k == iota(shape, 1), as_dtype(dtype))


def astype_bool(condition: Tensor, dtype: DType) -> Tensor:
    """1 where a condition holds, 0 elsewhere."""
    return condition if dtype.is_bool else apply("cast", condition, dtype=dtype)


def _triangle(name: str, x: ArrayLike, k: int, lower: bool) -> Tensor:
    x = asarray(x)
    if x.ndim < 2:
        fail(name, ShapeError, "needs at least two axes", [x])
    diagonal, column = iota(x.shape, x.ndim - 2) + k, iota(x.shape, x.ndim - 1)
    return apply("where", diagonal >= column if lower else diagonal <= column, x, zeros_like(x))


@located
def tril(x: ArrayLike, k: int = 0) -> Tensor:
    """The matrices in the last two axes with zeros above diagonal `k`."""
    return _triangle("tril", x, k, lower=True)


@located
def triu(x: ArrayLike, k: int = 0) -> Tensor:
    """The matrices in the last two axes with zeros below diagonal `k`."""
    return _triangle("triu", x, k, lower=False)


@located
def meshgrid(*arrays: ArrayLike, indexing: str = "xy") -> list[Tensor]:
    """Coordinate tensors from 1-d coordinates; ``"xy"`` exchanges the first two axes, ``"ij"`` does not."""
    if indexing not in ("xy", "ij"):
        fail("meshgrid", GraphError, f"indexing must be 'xy' or 'ij', got {indexing!r}")
    vectors = [asarray(a) for a in arrays]
    if any(v.ndim != 1 for v in vectors):
        fail("meshgrid", ShapeError, "needs 1-d tensors", vectors)
    axes = list(range(len(vectors)))
    if indexing == "xy" and len(axes) > 1:
        axes[:2] = [1, 0]
    shape: list[Dim] = [0] * len(axes)
    for axis, v in zip(axes, vectors):
        shape[axis] = v.shape[0]
    return [apply("broadcast", v, shape=tuple(shape), dims=(axis,)) for axis, v in zip(axes, vectors)]


@located
def one_hot(x: ArrayLike, num_classes: int, dtype: object = int64) -> Tensor:
    """A new last axis with 1 at the position `x` and 0 elsewhere; all 0 for a position out of range."""
    x = asarray(x)
    if not x.dtype.is_integer:
        fail("one_hot", DTypeError, f"needs integers, got {x.dtype!r}", [x], "cast with astype")
    x = asarray(x, int64) if x.dtype.bits < 32 else x  # all positions must fit the dtype
    shape = (*x.shape, as_dim(num_classes, "one_hot"))
    spread = apply("broadcast", x, shape=shape, dims=tuple(range(x.ndim)))
    return astype_bool(spread == iota(shape, x.ndim, x.dtype), as_dtype(dtype))

