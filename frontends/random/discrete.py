"""Discrete distributions whose numbers come from bits by comparison, multiplication, or a maximum."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.broadcasting import broadcast_shapes
from ...ir.dtypes import DType, as_dtype, bool_, float64, int64, uint32, uint64
from ...ir.types import Shape
from ..array_api import argmax, asarray, astype, broadcast_to, clip, full, moveaxis
from ..shapes import as_axis, as_shape, fail
from ..source import located
from ..tensor import ArrayLike, Tensor
from .continuous import gumbel
from .keys import Source
from .parameters import drawn, known, probability, shape_of, source_of

__all__ = ["bernoulli", "categorical", "integers"]


def below(source: Source, shape: Shape, p: Any) -> Tensor:
    """True with probability `p`, to the nearest multiple of 2**-32: 32 bits are compared with ``p * 2**32``."""
    if not isinstance(p, Tensor):
        threshold = round(float(p) * 2**32)
        if threshold in (0, 2**32):
            return full(shape, threshold > 0, bool_)
        return source.bits(shape) < asarray(np.array(threshold, np.uint32))
    scaled = astype(p, float64) * 2.0**32
    return (source.bits(shape) < astype(clip(scaled, 0, 2.0**32 - 1), uint32)) | (p >= 1)


@located
def bernoulli(key: Any, shape: Any = None, p: ArrayLike = 0.5) -> Tensor:
    """True with probability `p`, to the nearest multiple of 2**-32, else False.

    Parameters
    ----------
    key : a key, or a `Generator`.
    shape : integers, dimensions, or their names (default: that of the parameter).
    p : a number from 0 to 1, or a tensor that broadcasts to the shape.

    Raises
    ------
    GraphError
        If `p` is known and no probability. Beyond 0 and 1, a `p` that is known only at a call counts as these.
    """
    d = drawn("bernoulli", shape, None, p=(p, probability))
    return below(source_of("bernoulli", key), d.shape, d.parameters[0])


@located
def integers(
    key: Any, low: ArrayLike, high: ArrayLike | None = None, shape: Any = None, dtype: object = int64,
) -> Tensor:
    """Integers from `low` up to, not including, `high`; from 0 if only one bound is given.

    The upper half of a product of random bits with the number n of choices. The chances of two integers differ by
    at most ``n * 2**-64`` of their mean where n is known and at most 2**32, else by ``n * 2**-128``.

    Parameters
    ----------
    key : a key, or a `Generator`.
    low, high : integers, or integer tensors that broadcast to the shape.
    shape : integers, dimensions, or their names (default: that of the bounds).
    dtype : of the result.

    Raises
    ------
    GraphError
        If there is no integer between known bounds. Between bounds that are known only at a call, it is `low`.
    DTypeError
        If bounds are no integers, or `dtype` is not that of integers.
    """
    if high is None:
        low, high = 0, low
    kind = as_dtype(dtype)
    if not kind.is_integer:
        fail("integers", DTypeError, f"dtype must be that of integers, got {kind!r}")
    bounds = [_bound(name, x) for name, x in (("low", low), ("high", high))]
    least, most = (known(b) for b in bounds)
    if least is not None and most is not None and not np.all(least < most):
        fail("integers", GraphError, f"low = {low} is not below high = {high}", (), "high itself is not drawn")
    for name, value, limit in (("low", least, 0), ("high", most, 1)):
        if value is not None and value.size and not _fits(value, kind, limit):
            fail("integers", GraphError, f"{name} = {(low, high)[limit]} is not in {kind!r}")
    dims = shape_of("integers", shape, [b for b in bounds if isinstance(b, Tensor)])
    offset = _wrapped(bounds[0])
    source = source_of("integers", key)
    if least is None or most is None:
        number = _upper_product(source, dims, _wrapped(bounds[1]) - offset)
    else:
        number = _below(source, dims, np.asarray(most.astype(object) - least.astype(object), object))
    return astype(number + offset, kind)


def _fits(bound: Any, dtype: DType, beyond: int) -> bool:
    info = np.iinfo(dtype.numpy)
    return info.min <= int(bound.min()) and int(bound.max()) <= int(info.max) + beyond


def _bound(name: str, x: Any) -> Any:
    if isinstance(x, (int, np.integer)) and not isinstance(x, bool):
        return int(x)
    value = asarray(x)
    if not value.dtype.is_integer:
        fail("integers", DTypeError, f"{name} must be an integer, got {value.dtype!r}", [value], "cast with astype")
    return value


def _wrapped(x: Any) -> Tensor:
    """An integer modulo 2**64."""
    return astype(x, uint64) if isinstance(x, Tensor) else asarray(np.array(x % 2**64, np.uint64))


def _below(source: Source, shape: Shape, choices: np.ndarray[Any, Any]) -> Tensor:
    """A number below each known number of choices, of Python integers."""
    if np.all(choices == 2**64):
        return source.bits(shape, uint64)
    n = asarray(choices.astype(np.uint64))
    if np.any(choices > 2**32):
        return _upper_product(source, shape, n)
    bits = source.bits(shape, uint64)  # for n = 2**32, too, no product reaches 2**64
    return ((bits >> 32) * n + ((bits & 0xFFFFFFFF) * n >> 32)) >> 32


def _upper_product(source: Source, shape: Shape, n: Tensor) -> Tensor:
    """The part above the point of n times a random number of 128 bits below 1."""
    first, second = (part.bits(shape, uint64) for part in source.parts(2))
    low = first * n + _upper(second, n)
    return _upper(first, n) + astype(low < first * n, uint64)


def _upper(a: Tensor, b: Tensor) -> Tensor:
    """The upper 64 bits of a product of 64-bit integers."""
    a0, a1, b0, b1 = a & 0xFFFFFFFF, a >> 32, b & 0xFFFFFFFF, b >> 32
    middle = a1 * b0 + (a0 * b0 >> 32)
    cross = a0 * b1 + (middle & 0xFFFFFFFF)
    return a1 * b1 + (middle >> 32) + (cross >> 32)


@located
def categorical(key: Any, logits: ArrayLike, axis: int = -1, shape: Any = None) -> Tensor:
    """The position, int64, of one of several classes, drawn with the probabilities ``softmax(logits, axis)``.

    The largest of the logits with independent Gumbel noise (E. J. Gumbel, 1954).

    Parameters
    ----------
    key : a key, or a `Generator`.
    logits : floating-point; minus infinity for a class that is never drawn.
    axis : that of the classes.
    shape : of the result, to which the other axes of the logits broadcast (default: those axes).
    """
    x = asarray(logits)
    if not x.dtype.is_float:
        fail("categorical", DTypeError, f"logits must be floating-point, got {x.dtype!r}", [x], "cast with astype")
    if not x.ndim:
        fail("categorical", ShapeError, "logits need an axis, that of the classes", [x])
    x = moveaxis(x, as_axis(axis, x.ndim, "categorical"), -1)
    dims = x.shape[:-1] if shape is None else as_shape(shape, "categorical")
    if broadcast_shapes(x.shape[:-1], dims) != dims:
        fail("categorical", ShapeError, f"the axes of the logits do not broadcast to {dims}", [x])
    full_shape = (*dims, x.shape[-1])
    return argmax(broadcast_to(x, full_shape) + gumbel(key, full_shape, dtype=x.dtype), axis=-1)
