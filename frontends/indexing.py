"""Basic indexing: integers, slices with steps, ellipsis, None, and one integer tensor along an axis.

Bounds follow NumPy, symbolic dimensions included: ``x[1:]`` of N elements has ``max(0, N - 1)``. An integer
on a symbolic axis must lie inside it whenever the function runs.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..errors import DTypeError, GraphError, IndexRangeError
from ..ir.dims import Dim, Poly, at_most, ceildiv, dim_max, dim_min
from ..ir.graph import make
from ..ir.op import OPS
from .shapes import fail
from .tensor import Tensor, apply, to_value

__all__ = ["index"]

_FULL = slice(None)


def index(x: Tensor, key: Any) -> Tensor:
    """``x[key]``.

    Raises
    ------
    IndexRangeError
        If there are more indices than axes, or an integer lies outside its axis.
    GraphError
        If an index is of another kind.
    """
    keys = _expand(x, key if isinstance(key, tuple) else (key,))
    x, keys = _take(x, keys)
    starts: list[Dim] = []
    lengths: list[Dim] = []
    steps: list[int] = []
    flipped: list[int] = []
    shape: list[Dim] = []  # the result's: without integer axes, with new ones
    for k in keys:
        if k is None:
            shape.append(1)
            continue
        axis = len(starts)
        size = x.shape[axis]
        if isinstance(k, slice):
            start, length, step = _slice(x, k, size)
            shape.append(length)
        else:
            start, length, step = _integer(x, k, size, axis), 1, 1
        if step < 0:  # read forward from the last element, then flip
            flipped.append(axis)
            start, step = start + (length - 1) * step if length != 0 else 0, -step
        starts.append(start)
        lengths.append(length)
        steps.append(step)
    value = x._value
    if tuple(lengths) != x.shape:
        value = make(OPS["slice"], (value,), {"start": tuple(starts), "shape": tuple(lengths), "step": tuple(steps)})
    if flipped:
        value = make(OPS["reverse"], (value,), {"axes": tuple(flipped)})
    if tuple(shape) != value.shape:
        value = make(OPS["reshape"], (value,), {"shape": tuple(shape)})
    return Tensor(value)


def _expand(x: Tensor, keys: tuple[Any, ...]) -> list[Any]:
    """One key per axis: the ellipsis written out, missing keys added."""
    keys = tuple(np.asarray(k) if isinstance(k, list) else k for k in keys)
    ellipses = [n for n, k in enumerate(keys) if k is Ellipsis]
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if len(ellipses) > 1:
        fail("index", GraphError, "more than one ellipsis", [x])
    if used > x.ndim:
        fail(
            "index", IndexRangeError, f"{used} indices for {x.ndim} axes", [x],
            "give one index for each axis, or fewer",
        )
    at = ellipses[0] if ellipses else len(keys)
    return [*keys[:at], *[_FULL] * (x.ndim - used), *keys[at + 1:]]


def _take(x: Tensor, keys: list[Any]) -> tuple[Tensor, list[Any]]:
    """Apply the one array index, if there is one; its axes then stand in place of its own."""
    arrays = [n for n, k in enumerate(keys) if isinstance(k, (Tensor, np.ndarray)) and not _is_integer(k)]
    if not arrays:
        return x, keys
    n = arrays[0]
    indices = Tensor(to_value(keys[n]))
    if indices.dtype.is_bool:
        fail(
            "index", DTypeError, "a bool mask selects a number of elements that is not known before the run",
            [x, indices], "keep the shape and use gw.where(mask, x, other)",
        )
    if not indices.dtype.is_integer:
        fail("index", DTypeError, "an index tensor must be of an integer dtype", [x, indices], "cast with astype")
    if len(arrays) > 1:
        fail(
            "index", GraphError, "only one index may be a tensor or an array", [x],
            "index one axis after the other with gw.take, or use gw.take_along_axis",
        )
    if any(_is_integer(k) for k in keys):
        fail(
            "index", GraphError, "integers beside an array index are not supported", [x],
            "index in two steps: x[integers, ...] and then the array",
        )
    axis = sum(k is not None for k in keys[:n])
    taken = apply("take", x, indices, axis=axis)
    return taken, [*keys[:n], *[_FULL] * indices.ndim, *keys[n + 1:]]


def _is_integer(k: object) -> bool:
    if isinstance(k, (bool, np.bool_, Tensor)) or (isinstance(k, np.ndarray) and (k.ndim or k.dtype.kind not in "iu")):
        return False
    return isinstance(k, Poly) or hasattr(k, "__index__")


def _integer(x: Tensor, k: Any, size: Dim, axis: int) -> Dim:
    if not _is_integer(k):
        fail(
            "index", GraphError, f"cannot index with {k!r} of type {type(k).__name__}", [x],
            "an index is an integer, a slice, None, ..., or an integer tensor",
        )
    position: Dim = k if isinstance(k, Poly) else operator.index(k)
    if isinstance(position, int) and position < 0:
        position = size + position
    inside = at_most(0, position) or not isinstance(position, int)
    if not inside or at_most(size, position):
        advice = f"indices are -{size} .. {size - 1}" if isinstance(size, int) and size else ""
        fail("index", IndexRangeError, f"index {k} is out of range for axis {axis} of size {size}", [x], advice)
    return position


def _bound(x: Tensor, bound: Any) -> Dim:
    if isinstance(bound, Poly):
        return bound
    if isinstance(bound, Tensor) or not hasattr(bound, "__index__"):
        fail(
            "index", GraphError, f"a slice bound must be an integer or a dimension, got {bound!r}", [x],
            "the shape of a slice must be known; select elements with gw.where or gw.take",
        )
    return operator.index(bound)


def _slice(x: Tensor, k: slice, size: Dim) -> tuple[Dim, Dim, int]:
    """Start, length and step of a slice."""
    step = 1 if k.step is None else _bound(x, k.step)
    if not isinstance(step, int) or step == 0:
        fail("index", GraphError, f"a slice step must be an integer other than 0, got {step}", [x])
    bounds = [None if b is None else _bound(x, b) for b in (k.start, k.stop)]
    first, last = bounds
    if isinstance(size, int) and not isinstance(first, Poly) and not isinstance(last, Poly):
        positions = range(size)[first:last:step]
        return (positions[0] if positions else 0), len(positions), step
    if step < 0:
        return _backward(x, bounds, size, step)
    start, stop = (0 if bounds[0] is None else bounds[0]), (size if bounds[1] is None else bounds[1])
    start, stop = (size + b if isinstance(b, int) and b < 0 else b for b in (start, stop))
    length = _length(start, stop, size)
    first = size - length if at_most(size, stop) else dim_min(dim_max(0, start), size)
    return first, ceildiv(length, step), step


def _length(start: Dim, stop: Dim, size: Dim) -> Dim:
    """How many of `size` elements stand from `start` to `stop`, which may lie outside."""
    length = dim_max(0, stop - start)
    if not at_most(0, start):  # it begins before the first element if the axis is short
        length = dim_min(length, dim_max(0, stop))
    if not at_most(stop, size):  # it ends after the last one
        length = dim_min(length, dim_max(0, size - start), size)
    return length


def _backward(x: Tensor, bounds: list[Dim | None], size: Dim, step: int) -> tuple[Dim, Dim, int]:
    if bounds != [None, None]:
        fail(
            "index", GraphError, "a slice with a negative step of a symbolic axis must have no bounds", [x],
            "slice forward first, then flip: x[a:b][::-1]",
        )
    return size - 1, ceildiv(size, -step), step
