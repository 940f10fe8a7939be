"""Random order, and random choice from what there is."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.dims import Dim, Poly, equal, product
from ...ir.dtypes import float64, int64, uint64
from ...ir.ops.movement import slice_axis
from ..array_api import (
    argsort,
    asarray,
    astype,
    broadcast_to,
    cumulative_sum,
    expand_dims,
    log,
    reshape,
    sum,
    take,
)
from ..shapes import as_axis, as_dim, as_shape, fail
from ..source import located
from ..tensor import ArrayLike, Tensor
from .discrete import integers
from .parameters import at_least, check, known, source_of
from .uniforms import half_open, minus_log

__all__ = ["choice", "permutation"]


def _choices(function: str, a: Any, axis: int = 0) -> tuple[Tensor | None, Dim]:
    """A tensor whose parts along an axis are chosen, or None for their positions; and how many there are."""
    if isinstance(a, (int, str, Poly, np.integer)) and not isinstance(a, bool):
        return None, as_dim(a, function)
    x = asarray(a)
    if not x.ndim:
        advice = "give a number of positions, or a tensor with axes"
        fail(function, ShapeError, "a scalar tensor has no parts to choose from", [x], advice)
    return x, x.shape[axis]


@located
def permutation(key: Any, x: Any, axis: int = 0) -> Tensor:
    """A random order: of the parts of a tensor along an axis, or of the integers from 0 to ``x - 1``.

    Random 64-bit numbers are sorted. That two of them are equal has a chance of ``n**2 * 2**-65``.

    Parameters
    ----------
    key : a key, or a `Generator`.
    x : a tensor, or an integer or dimension.
    axis : of the tensor; its parts along it stay whole.
    """
    array = None if isinstance(x, (int, str, Poly, np.integer)) else asarray(x)
    axis = as_axis(axis, array.ndim, "permutation") if array is not None and array.ndim else 0
    parts, n = _choices("permutation", x, axis)
    order = argsort(source_of("permutation", key).bits((n,), uint64))
    return order if parts is None else take(parts, order, axis=axis)


@located
def choice(
    key: Any, a: Any, shape: Any = (), replace: bool = True, p: ArrayLike | None = None,
) -> Tensor:
    """Random parts of a tensor along its first axis, or random integers from 0 to ``a - 1``.

    Parameters
    ----------
    key : a key, or a `Generator`.
    a : a tensor, or an integer or dimension.
    shape : how many, with their arrangement.
    replace : whether a part may be chosen again. Without, and with `p`, the next part is chosen with the
        probabilities of those that are left (S. Efraimidis, P. Spirakis, 2006).
    p : how likely each part is: a vector, which need not have the sum 1 (default: all are).

    Raises
    ------
    ShapeError
        If `p` is not a vector of as many numbers, or without replacement there are too few parts.
    GraphError
        If a known `p` is negative.
    """
    parts, n = _choices("choice", a)
    dims = as_shape(shape, "choice")
    if n == 0 and product(dims) != 0:
        fail("choice", GraphError, "there is nothing to choose from")
    weights = None if p is None else _weights(p, n)
    if replace:
        found = integers(key, 0, _count(n), dims) if weights is None else _weighted(key, weights, dims)
    else:
        found = _distinct(key, n, weights, dims)
    return found if parts is None else take(parts, found, axis=0)


def _count(n: Dim) -> Any:
    return n if isinstance(n, int) else asarray(n, int64)


def _weights(p: ArrayLike, n: Dim) -> Tensor:
    weights = asarray(p)
    if not weights.dtype.is_float:
        fail("choice", DTypeError, f"p must be floating-point, got {weights.dtype!r}", [weights])
    if weights.ndim != 1 or not equal(weights.shape[0], n):
        fail("choice", ShapeError, f"p must be a vector of {n} numbers", [weights])
    check("choice", "p", weights, at_least)
    value = known(weights)
    if value is not None and value.size and not value.sum() > 0:
        fail("choice", GraphError, "all of p are 0")
    return weights


def _weighted(key: Any, weights: Tensor, dims: tuple[Dim, ...]) -> Tensor:
    """Positions with these weights, with replacement: how many sums of weights lie below a part of the whole."""
    sums = cumulative_sum(astype(weights, float64))
    u = half_open(source_of("choice", key), dims, float64) * sums[-1]
    return sum(astype(expand_dims(u, -1) >= broadcast_to(sums[:-1], (*dims, sums.shape[0] - 1)), int64), axis=-1)


def _distinct(key: Any, n: Dim, weights: Tensor | None, dims: tuple[Dim, ...]) -> Tensor:
    size = product(dims)
    if isinstance(size, int) and isinstance(n, int) and size > n:
        fail("choice", ShapeError, f"{size} parts of {n} cannot be chosen without replacement")
    if weights is None:
        order = permutation(key, n)
    else:
        times = minus_log(source_of("choice", key), (n,), weights.dtype)
        order = argsort(log(times) - log(weights))
    return reshape(Tensor(slice_axis(order._value, 0, 0, size)), dims)
