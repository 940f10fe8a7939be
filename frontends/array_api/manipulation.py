"""Tensors with the same elements in another arrangement."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ...errors import DTypeError, GraphError, ShapeError
from ...ir.broadcasting import broadcast_shapes
from ...ir.broadcasting import broadcast_to as broadcast_value
from ...ir.dims import Dim, equal, floordiv, product
from ...ir.dtypes import promote
from ...ir.types import Shape, shape_text
from ..shapes import as_axes, as_axis, as_dim, as_shape, fail
from ..source import located
from ..tensor import ArrayLike, Tensor, apply
from .creation import asarray

__all__ = [
    "broadcast_arrays", "broadcast_to", "concat", "expand_dims", "flatten", "flip", "moveaxis", "pad",
    "permute_dims", "repeat", "reshape", "roll", "split", "squeeze", "stack", "swapaxes", "tile", "transpose",
    "unstack",
]


@located
def reshape(x: ArrayLike, shape: Any) -> Tensor:
    """The same elements in row-major order under another shape; one dimension may be -1.

    Raises
    ------
    ShapeError
        If the number of elements differs, or cannot be shown to be the same for all values of
        the symbolic dimensions.
    """
    x = asarray(x)
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    unknown = [k for k, d in enumerate(sizes) if isinstance(d, int) and d == -1]
    if len(unknown) > 1:
        fail("reshape", ShapeError, f"more than one -1 in {tuple(sizes)}", [x])
    dims = [1 if k in unknown else as_dim(d, "reshape") for k, d in enumerate(sizes)]
    if unknown:
        known = product(dims)
        if known == 0:
            fail("reshape", ShapeError, f"-1 beside a dimension 0 in {tuple(sizes)} has no one value", [x])
        dims[unknown[0]] = floordiv(x.size, known)
    if not equal(product(dims), x.size):
        fail(
            "reshape", ShapeError, f"cannot give {x.size} elements the shape [{shape_text(dims)}]", [x],
            "the numbers of elements must be equal, for all values of the symbolic dimensions",
        )
    return x if tuple(dims) == x.shape else apply("reshape", x, shape=tuple(dims))


@located
def flatten(x: ArrayLike, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """The axes from `start_axis` to `end_axis` joined into one."""
    x = asarray(x)
    if x.ndim == 0:
        return reshape(x, (1,))
    a, b = as_axis(start_axis, x.ndim, "flatten"), as_axis(end_axis, x.ndim, "flatten")
    if a > b:
        fail("flatten", ShapeError, f"the start axis {a} stands after the end axis {b}", [x])
    return reshape(x, (*x.shape[:a], product(x.shape[a:b + 1]), *x.shape[b + 1:]))


@located
def permute_dims(x: ArrayLike, axes: Sequence[int]) -> Tensor:
    """Axis k of the result is axis ``axes[k]`` of `x`."""
    x = asarray(x)
    perm = tuple(as_axis(a, x.ndim, "permute_dims") for a in axes)
    if sorted(perm) != list(range(x.ndim)):
        fail("permute_dims", ShapeError, f"{tuple(axes)} is not a permutation of the {x.ndim} axes", [x])
    return x if perm == tuple(range(x.ndim)) else apply("transpose", x, perm=perm)


@located
def transpose(x: ArrayLike, axes: Sequence[int] | None = None) -> Tensor:
    """`permute_dims`; without `axes`, all axes reversed."""
    x = asarray(x)
    return permute_dims(x, tuple(range(x.ndim))[::-1] if axes is None else axes)


@located
def moveaxis(x: ArrayLike, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Axes moved to other positions; the others keep their order."""
    x = asarray(x)
    sources, targets = (
        [as_axis(a, x.ndim, "moveaxis") for a in ([axes] if isinstance(axes, int) else axes)]
        for axes in (source, destination)
    )
    if len(sources) != len(targets) or len(set(sources)) < len(sources) or len(set(targets)) < len(targets):
        fail("moveaxis", GraphError, f"cannot move axes {source} to {destination}", [x])
    order = [a for a in range(x.ndim) if a not in sources]
    for target, axis in sorted(zip(targets, sources)):
        order.insert(target, axis)
    return permute_dims(x, order)


@located
def swapaxes(x: ArrayLike, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    x = asarray(x)
    order = list(range(x.ndim))
    a, b = as_axis(axis1, x.ndim, "swapaxes"), as_axis(axis2, x.ndim, "swapaxes")
    order[a], order[b] = b, a
    return permute_dims(x, order)


@located
def expand_dims(x: ArrayLike, axis: int | Sequence[int] = 0) -> Tensor:
    """New axes of size 1 at these positions of the result."""
    x = asarray(x)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    rank = x.ndim + len(axes)
    new = as_axes(axes, rank, "expand_dims")
    sizes = iter(x.shape)
    return reshape(x, tuple(1 if k in new else next(sizes) for k in range(rank)))


@located
def squeeze(x: ArrayLike, axis: int | Sequence[int] | None = None) -> Tensor:
    """Axes of size 1 removed: those given, or all of them.

    Raises
    ------
    ShapeError
        If a given axis does not have size 1.
    """
    x = asarray(x)
    if axis is None:
        axes = tuple(k for k, d in enumerate(x.shape) if d == 1)
    else:
        axes = as_axes(axis, x.ndim, "squeeze")
    for a in axes:
        if x.shape[a] != 1:
            fail(
                "squeeze", ShapeError, f"axis {a} has size {x.shape[a]}, not 1", [x],
                "only axes of size 1 can be left out; gw.sum or an index takes others away",
            )
    return reshape(x, tuple(d for k, d in enumerate(x.shape) if k not in axes))


@located
def broadcast_to(x: ArrayLike, shape: Any) -> Tensor:
    """`x` repeated along new axes and axes of size 1.

    Raises
    ------
    ShapeError
        If the shape of `x` does not broadcast to `shape`.
    """
    x, dims = asarray(x), as_shape(shape, "broadcast_to")
    common = broadcast_shapes(x.shape, dims)
    if common is None or len(common) != len(dims) or not all(map(equal, common, dims)):
        fail(
            "broadcast_to", ShapeError, f"[{shape_text(x.shape)}] does not broadcast to [{shape_text(dims)}]", [x],
            "dimensions must be equal or 1, aligned at the last axis",
        )
    return Tensor(broadcast_value(x._value, dims))


@located
def broadcast_arrays(*arrays: ArrayLike) -> list[Tensor]:
    """The tensors broadcast to their common shape."""
    tensors = [asarray(a) for a in arrays]
    shape: Shape | None = ()
    for t in tensors:
        shape = None if shape is None else broadcast_shapes(shape, t.shape)
    if shape is None:
        fail("broadcast_arrays", ShapeError, "the shapes do not broadcast", tensors)
    return [Tensor(broadcast_value(t._value, shape)) for t in tensors]


def _common(name: str, arrays: Sequence[ArrayLike]) -> list[Tensor]:
    """Tensors of one dtype, at least one."""
    tensors = [asarray(a) for a in arrays]
    if not tensors:
        fail(name, GraphError, "needs at least one tensor")
    dtype = tensors[0].dtype
    for t in tensors[1:]:
        try:
            dtype = promote(dtype, t.dtype)
        except DTypeError as error:
            fail(name, DTypeError, str(error), tensors)
    return [asarray(t, dtype) for t in tensors]


@located
def concat(arrays: Sequence[ArrayLike], axis: int | None = 0) -> Tensor:
    """Tensors one after another along an axis; flattened first if `axis` is None.

    Raises
    ------
    ShapeError
        If the other dimensions differ.
    """
    tensors = _common("concat", arrays)
    if axis is None:
        tensors, axis = [reshape(t, (-1,)) for t in tensors], 0
    if any(t.ndim != tensors[0].ndim for t in tensors) or tensors[0].ndim == 0:
        fail("concat", ShapeError, "the tensors need one rank, at least 1", tensors, "stack adds a new axis")
    axis = as_axis(axis, tensors[0].ndim, "concat")
    return tensors[0] if len(tensors) == 1 else apply("concat", *tensors, axis=axis)


@located
def stack(arrays: Sequence[ArrayLike], axis: int = 0) -> Tensor:
    """Tensors of one shape along a new axis."""
    tensors = _common("stack", arrays)
    first = tensors[0].shape
    if any(t.ndim != len(first) or not all(map(equal, t.shape, first)) for t in tensors):
        fail(
            "stack", ShapeError, "the tensors need one shape", tensors,
            "gw.concat joins tensors along an axis that they have",
        )
    axis = as_axis(axis, len(first) + 1, "stack")
    return concat([expand_dims(t, axis) for t in tensors], axis)


@located
def unstack(x: ArrayLike, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts along an axis whose size is a known integer, without that axis."""
    x = asarray(x)
    axis = as_axis(axis, x.ndim, "unstack")
    size = x.shape[axis]
    if not isinstance(size, int):
        fail("unstack", ShapeError, f"axis {axis} has the symbolic size {size}", [x])
    before = (slice(None),) * axis
    return tuple(x[(*before, k)] for k in range(size))


@located
def split(x: ArrayLike, sections: int | Sequence[int | Dim], axis: int = 0) -> tuple[Tensor, ...]:
    """Consecutive parts along an axis: `sections` equal ones, or cut at the given positions.

    Raises
    ------
    ShapeError
        If the axis is not divisible into equal parts.
    """
    x = asarray(x)
    axis = as_axis(axis, x.ndim, "split")
    size = x.shape[axis]
    if isinstance(sections, int):
        part = floordiv(size, sections) if sections > 0 else 0
        if sections < 1 or not equal(part * sections, size):
            fail(
                "split", ShapeError, f"axis {axis} of size {size} is not divisible into {sections} parts", [x],
                "give the positions to split at, as a list, for unequal parts",
            )
        cuts: list[Any] = [part * k for k in range(sections + 1)]
    else:
        cuts = [0, *sections, size]
    before = (slice(None),) * axis
    return tuple(x[(*before, slice(a, b))] for a, b in pairwise(cuts))


@located
def flip(x: ArrayLike, axis: int | Sequence[int] | None = None) -> Tensor:
    """The elements along the given axes (default: all) in reverse order."""
    x = asarray(x)
    axes = as_axes(axis, x.ndim, "flip")
    return apply("reverse", x, axes=axes) if axes else x


@located
def roll(x: ArrayLike, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """The elements moved along axes by `shift` places; those that leave at one end enter at the other."""
    x = asarray(x)
    if axis is None:
        return reshape(roll(reshape(x, (-1,)), shift, 0), x.shape)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        fail("roll", GraphError, f"{len(shifts)} shifts for {len(axes)} axes", [x])
    for a, places in zip(axes, shifts):
        x = _roll(x, places, as_axis(a, x.ndim, "roll"))
    return x


def _roll(x: Tensor, places: int, axis: int) -> Tensor:
    """Gather from ``(i - places) mod size``: right for every size, also a symbolic one."""
    size = x.shape[axis]
    if places == 0 or size == 0:
        return x
    if isinstance(size, int):
        cut = -places % size
        before = (slice(None),) * axis
        return x if cut == 0 else concat([x[(*before, slice(cut, None))], x[(*before, slice(0, cut))]], axis)
    from .creation import arange

    return apply("take", x, (arange(size) - places) % size, axis=axis)


@located
def repeat(x: ArrayLike, repeats: int, axis: int | None = None) -> Tensor:
    """Each element `repeats` times in a row along an axis; flattened first if `axis` is None."""
    x = asarray(x)
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 0:
        fail("repeat", GraphError, f"the number of repeats must be a Python integer >= 0, got {repeats!r}", [x])
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    axis = as_axis(axis, x.ndim, "repeat")
    head, tail = x.shape[:axis + 1], x.shape[axis + 1:]
    dims = tuple(k for k in range(x.ndim + 1) if k != axis + 1)
    spread = apply("broadcast", x, shape=(*head, repeats, *tail), dims=dims)
    return apply("reshape", spread, shape=(*head[:-1], head[-1] * repeats, *tail))


@located
def tile(x: ArrayLike, repetitions: int | Sequence[int]) -> Tensor:
    """The whole tensor repeated along each axis."""
    x = asarray(x)
    counts = tuple(repetitions) if isinstance(repetitions, (tuple, list)) else (repetitions,)
    try:
        counts = tuple(operator.index(c) for c in counts)
    except TypeError:
        fail("tile", GraphError, f"the repetitions must be integers, got {repetitions!r}", [x])
    rank = max(x.ndim, len(counts))
    counts = (1,) * (rank - len(counts)) + counts
    shape = (1,) * (rank - x.ndim) + x.shape
    paired = tuple(d for pair in zip(counts, shape) for d in pair)
    dims = tuple(2 * k + 1 for k in range(rank))
    spread = apply("broadcast", reshape(x, shape), shape=as_shape(paired, "tile"), dims=dims)
    return reshape(spread, tuple(c * d for c, d in zip(counts, shape)))


@located
def pad(x: ArrayLike, pad_width: Any, constant_values: bool | int | float = 0) -> Tensor:
    """`x` with `constant_values` around it.

    `pad_width` is one number, a pair (before, after) for all axes, or one pair per axis.
    """
    x = asarray(x)
    if isinstance(pad_width, int):
        pairs: Any = [(pad_width, pad_width)] * x.ndim
    elif len(pad_width) == 2 and all(isinstance(p, int) for p in pad_width):
        pairs = [tuple(pad_width)] * x.ndim
    else:
        pairs = list(pad_width)
    if len(pairs) != x.ndim or any(len(p) != 2 for p in pairs):
        fail(
            "pad", ShapeError, f"{pad_width} is not one pair (before, after) per axis", [x],
            "give a number, one pair, or as many pairs as there are axes",
        )
    low, high = (tuple(as_dim(p[k], "pad") for p in pairs) for k in (0, 1))
    if not any(low) and not any(high):
        return x
    return apply("pad", x, value=constant_values, low=low, high=high, interior=(0,) * x.ndim)
