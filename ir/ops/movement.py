"""Ops that move elements: broadcast, reshape, transpose, slice, pad, concat, reverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import DTypeError, GraphError, IndexRangeError, ShapeError
from ..batching import aligned_with, shifted
from ..dims import Dim, at_most, dim_max, equal, floordiv, mod
from ..dtypes import result_dtype_with_scalar
from ..graph import Value
from ..loops import Expr, Index
from ..op import LINEAR, REQUIRED, Definition, Op, Read, Sample, Typing, register
from ..scalars import apply, conjunction, const, less, select
from ..types import Type, shape_text

__all__ = ["broadcast", "concat", "pad", "reshape", "reverse", "slice_", "slice_axis", "transpose"]


def _array(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape)


# --- broadcast -----------------------------------------------------------------------------------


def _infer_broadcast(t: Typing) -> Type:
    (x,), shape, dims = t.types, t["shape"], t["dims"]
    fits = len(dims) == x.rank and list(dims) == sorted(set(dims)) and all(
        0 <= k < len(shape) and equal(d, shape[k]) for k, d in zip(dims, x.shape)
    )
    if not fits:
        t.fail(ShapeError, f"axes {dims} of the result [{shape_text(shape)}] are not the operand's")
    t.require_sizes([d for k, d in enumerate(shape) if k not in dims])
    return x.with_shape(shape)


def _broadcast(x: Any, shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    own = [1] * len(shape)
    for k, d in zip(dims, x.shape):
        own[k] = d
    return np.broadcast_to(np.reshape(x, own), shape)


def _define_broadcast(d: Definition, read: Read) -> Expr:
    return read([d.index[k] for k in d["dims"]])


def _vjp_broadcast(ct: Value, out: Value, x: Value, shape: Any, dims: Any) -> tuple[Value]:
    from .reduction import sum_

    return (sum_(ct, axes=tuple(k for k in range(len(shape)) if k not in dims)),)


broadcast = register(Op(
    "broadcast", "map", _infer_broadcast, _broadcast, _define_broadcast, vjp=_vjp_broadcast, jvp=LINEAR, arity=1,
    attrs={"shape": REQUIRED, "dims": REQUIRED}, cost=0,
    batch=aligned_with(lambda attrs, n: {"shape": (n, *attrs["shape"]), "dims": (0, *shifted(attrs["dims"]))}),
    samples=lambda: [
        Sample((_array(3),), {"shape": (2, 3), "dims": (1,)}),
        Sample((_array(2, 3),), {"shape": (2, 5, 3), "dims": (0, 2)}),
        Sample((_array(),), {"shape": (4,), "dims": ()}),
    ],
    doc="Repeat along new axes; `dims` are the result's axes that the operand has.",
))


# --- reshape -------------------------------------------------------------------------------------


def linearize(index: tuple[Dim, ...], shape: tuple[Dim, ...]) -> Dim:
    """The row-major position of an index."""
    position: Dim = 0
    for i, d in zip(index, shape):
        position = position * d + i
    return position


def delinearize(position: Dim, shape: tuple[Dim, ...]) -> list[Dim]:
    """The index at a row-major position."""
    index: list[Dim] = []
    for k, d in enumerate(reversed(shape)):
        index.append(mod(position, d) if k < len(shape) - 1 else position)
        position = floordiv(position, d) if d != 0 else 0
    return index[::-1]


def _infer_reshape(t: Typing) -> Type:
    (x,), shape = t.types, t["shape"]
    new = x.with_shape(shape)
    if not equal(new.size, x.size):
        t.fail(ShapeError, f"cannot give {x.size} elements the shape [{shape_text(shape)}] of {new.size}")
    t.require_sizes([d for d in shape if d not in x.shape])
    return new


def _significant(shape: tuple[Dim, ...]) -> list[Dim]:
    return [d for d in shape if d != 1]


def _define_reshape(d: Definition, read: Read) -> Expr:
    own, new = d.types[0].shape, d.out.shape
    if _significant(own) == _significant(new):  # only axes of size 1 come or go
        kept = iter([i for i, n in zip(d.index, new) if n != 1])
        return read([0 if n == 1 else next(kept) for n in own])
    return read(delinearize(linearize(d.index, new), own))


def _vjp_reshape(ct: Value, out: Value, x: Value, shape: Any) -> tuple[Value]:
    return (reshape(ct, shape=x.tensor.shape),)


reshape = register(Op(
    "reshape", "view", _infer_reshape, lambda x, shape: np.reshape(x, shape), _define_reshape,
    vjp=_vjp_reshape, jvp=LINEAR, attrs={"shape": REQUIRED}, cost=0, arity=1,
    batch=aligned_with(lambda attrs, n: {"shape": (n, *attrs["shape"])}),
    samples=lambda: [
        Sample((_array(2, 6),), {"shape": s}) for s in ((12,), (3, 4), (2, 1, 6), (2, 3, 2))
    ],
    doc="The same elements in row-major order under another shape.",
))


# --- transpose -----------------------------------------------------------------------------------


def _infer_transpose(t: Typing) -> Type:
    (x,), perm = t.types, t["perm"]
    if sorted(perm) != list(range(x.rank)):
        t.fail(ShapeError, f"{perm} is not a permutation of the {x.rank} axes")
    return x.with_shape([x.shape[p] for p in perm])


def _define_transpose(d: Definition, read: Read) -> Expr:
    index: list[Dim] = [0] * len(d.index)
    for k, p in enumerate(d["perm"]):
        index[p] = d.index[k]
    return read(index)


def _vjp_transpose(ct: Value, out: Value, x: Value, perm: Any) -> tuple[Value]:
    return (transpose(ct, perm=tuple(int(k) for k in np.argsort(perm))),)


transpose = register(Op(
    "transpose", "map", _infer_transpose, lambda x, perm: np.transpose(x, perm), _define_transpose,
    vjp=_vjp_transpose, jvp=LINEAR, attrs={"perm": REQUIRED}, cost=0, arity=1,
    batch=aligned_with(lambda attrs, n: {"perm": (0, *shifted(attrs["perm"]))}),
    samples=lambda: [Sample((_array(2, 3, 4),), {"perm": p}) for p in ((0, 1, 2), (2, 0, 1), (1, 0, 2))],
    api="permute_dims", doc="Axis k of the result is axis perm[k] of the operand.",
))


# --- slice ---------------------------------------------------------------------------------------


def dilated(extent: Dim, interior: int) -> Dim:
    """The length of `extent` elements with `interior` places between neighbours."""
    return extent if interior == 0 else dim_max(0, extent * (interior + 1) - interior)


def _check_rank(t: Typing, *names: str) -> None:
    for name in names:
        if len(t[name]) != t.types[0].rank:
            t.fail(ShapeError, f"{name} {t[name]} must have one entry for each of the {t.types[0].rank} axes")


def _infer_slice(t: Typing) -> Type:
    (x,) = t.types
    _check_rank(t, "start", "shape", "step")
    for k, (start, n, step, extent) in enumerate(zip(t["start"], t["shape"], t["step"], x.shape)):
        if step < 1:
            t.fail(
                GraphError, f"step {step} of axis {k} is not positive", "reverse the axis for a negative step"
            )
        inside = f"{n} elements from {start} in steps of {step} on axis {k} must lie within its {extent}"
        t.require_at_most(0, start, inside)
        t.require_at_most(0, n, inside)
        t.require_at_most(start + dilated(n, step - 1), extent, inside)
    return x.with_shape(t["shape"])


def _slice(x: Any, start: Sequence[int], shape: Sequence[int], step: Sequence[int]) -> Any:
    return x[tuple(slice(a, a + n * s, s) for a, n, s in zip(start, shape, step))]


def _define_slice(d: Definition, read: Read) -> Expr:
    return read([a + i * s for i, a, s in zip(d.index, d["start"], d["step"])])


def _vjp_slice(ct: Value, out: Value, x: Value, start: Any, shape: Any, step: Any) -> tuple[Value]:
    high = tuple(
        extent - a - dilated(n, s - 1) for extent, a, n, s in zip(x.tensor.shape, start, shape, step)
    )
    return (pad(ct, low=start, high=high, interior=tuple(s - 1 for s in step)),)


def _samples_slice() -> list[Sample]:
    rows = [
        ((5,), (1,), (3,), (1,)), ((5,), (0,), (3,), (2,)), ((7,), (1,), (2,), (3,)),
        ((4,), (2,), (0,), (2,)),
        ((4, 5), (1, 0), (2, 5), (1, 1)), ((3, 6), (0, 1), (2, 2), (2, 3)), ((0, 3), (0, 0), (0, 2), (1, 2)),
        ((), (), (), ()),
    ]
    return [Sample((_array(*own),), {"start": a, "shape": n, "step": s}) for own, a, n, s in rows]


slice_ = register(Op(
    "slice", "map", _infer_slice, _slice, _define_slice, vjp=_vjp_slice, jvp=LINEAR, cost=0, arity=1,
    attrs={"start": REQUIRED, "shape": REQUIRED, "step": REQUIRED}, samples=_samples_slice,
    batch=aligned_with(lambda attrs, n: {k: (x, *attrs[k]) for k, x in (("start", 0), ("shape", n), ("step", 1))}),
    doc="Along each axis the elements start, start + step, ...: as many as the result's shape says.",
))


def slice_axis(x: Value, axis: int, start: Dim, extent: Dim) -> Value:
    """The part ``start .. start + extent`` of one axis."""
    shape = list(x.tensor.shape)
    shape[axis] = extent
    first: list[Dim] = [0] * len(shape)
    first[axis] = start
    return slice_(x, start=tuple(first), shape=tuple(shape), step=(1,) * len(shape))


# --- pad -----------------------------------------------------------------------------------------


def _infer_pad(t: Typing) -> Type:
    (x,) = t.types
    _check_rank(t, "low", "high", "interior")
    try:
        if not (x.dtype.is_bool and t["value"] in (0, 1)):
            result_dtype_with_scalar(x.dtype, t["value"])
    except DTypeError as error:
        t.fail(DTypeError, str(error))
    for low, high, interior in zip(t["low"], t["high"], t["interior"]):
        problem = f"low {low}, high {high} and interior {interior} must not be negative"
        for amount in (low, high, interior):
            t.require_at_most(0, amount, problem, "take a slice to remove elements")
    pads = zip(t["low"], t["high"], t["interior"], x.shape)
    return x.with_shape([low + dilated(n, i) + high for low, high, i, n in pads])


def _pad(x: Any, low: Sequence[int], high: Sequence[int], interior: Sequence[int], value: float) -> Any:
    inner: list[Any] = [dilated(n, i) for n, i in zip(x.shape, interior)]
    out = np.full([a + n + b for a, n, b in zip(low, inner, high)], value, x.dtype)
    out[tuple(slice(a, a + n, i + 1) for a, n, i in zip(low, inner, interior))] = x
    return out


def _define_pad(d: Definition, read: Read) -> Expr:
    conditions: list[Expr] = []
    index: list[Dim] = []
    for i, n, low, high, interior in zip(d.index, d.types[0].shape, d["low"], d["high"], d["interior"]):
        position = i - low
        if not at_most(low, 0):
            conditions.append(less(low - 1, i))
        if not at_most(high, 0):
            conditions.append(less(i, low + dilated(n, interior)))
        if interior:
            conditions.append(apply("eq", Index(mod(position, interior + 1)), Index(0)))
        index.append(floordiv(position, interior + 1))
    guard = conjunction(conditions)
    if guard is None:
        return read(index)
    inner, value = read(index, guard=guard), d["value"]
    plain_zero = value == 0 and math.copysign(1, value) > 0
    return inner if plain_zero else select(guard, inner, const(value, d.out.dtype))


def _vjp_pad(ct: Value, out: Value, x: Value, low: Any, high: Any, interior: Any, value: Any) -> tuple[Value]:
    return (slice_(ct, start=low, shape=x.tensor.shape, step=tuple(i + 1 for i in interior)),)


def _samples_pad() -> list[Sample]:
    rows = [
        ((3,), (1,), (2,), (0,), 0), ((3,), (0,), (1,), (2,), 0), ((2, 3), (1, 0), (0, 2), (0, 0), -1),
        ((2, 2), (1, 1), (0, 1), (1, 0), 7), ((0,), (1,), (1,), (1,), 0), ((2, 2), (0, 0), (0, 0), (0, 0), 0),
        ((), (), (), (), 0),
    ]
    return [
        Sample((_array(*own),), {"low": a, "high": b, "interior": i, "value": v}) for own, a, b, i, v in rows
    ]


pad: Op = register(Op(
    "pad", "map", _infer_pad, _pad, _define_pad, vjp=_vjp_pad, cost=2, arity=1, samples=_samples_pad,
    jvp=lambda y, t: t[0] and pad(t[0], **{**y.attrs, "value": 0}),
    attrs={"low": REQUIRED, "high": REQUIRED, "interior": REQUIRED, "value": 0},
    batch=aligned_with(lambda attrs, n: {k: (0, *attrs[k]) for k in ("low", "high", "interior")}),
    doc="Add `low` values before, `high` after and `interior` between the elements of each axis.",
))


# --- concat --------------------------------------------------------------------------------------


def _infer_concat(t: Typing) -> Type:
    if not t.types:
        t.fail(GraphError, "needs at least one operand")
    first, axis = t.types[0], t["axis"]
    if not 0 <= axis < first.rank:
        t.fail(IndexRangeError, f"axis {axis} is out of range for rank {first.rank}")
    total: Dim = 0
    for x in t.types:
        if x.dtype != first.dtype:
            t.fail(DTypeError, "operands must have one dtype", "cast with astype")
        fits = x.rank == first.rank and all(
            k == axis or equal(p, q) for k, (p, q) in enumerate(zip(x.shape, first.shape))
        )
        if not fits:
            advice = "choose another axis, or cut or pad the operands"
            t.fail(ShapeError, f"operands must have the same shape except along axis {axis}", advice)
        total = total + x.shape[axis]
    return first.with_shape([*first.shape[:axis], total, *first.shape[axis + 1:]])


def _define_concat(d: Definition, *reads: Read) -> Expr:
    axis, i = d["axis"], d.index[d["axis"]]
    start: Dim = 0
    pieces: list[tuple[Dim, Expr]] = []
    for k, (x, read) in enumerate(zip(d.types, reads)):
        end = start + x.shape[axis]
        after = [] if k == 0 else [less(start - 1, i)]
        before = [] if k == len(reads) - 1 else [less(i, end)]
        index = [*d.index[:axis], i - start, *d.index[axis + 1:]]
        pieces.append((end, read(index, guard=conjunction(after + before))))
        start = end
    result = pieces[-1][1]
    for end, piece in reversed(pieces[:-1]):
        result = select(less(i, end), piece, result)
    return result


def _vjp_concat(ct: Value, out: Value, *operands: Value, axis: int) -> list[Value]:
    start: Dim = 0
    parts = []
    for x in operands:
        parts.append(slice_axis(ct, axis, start, x.tensor.shape[axis]))
        start = start + x.tensor.shape[axis]
    return parts


concat = register(Op(
    "concat", "map", _infer_concat, lambda *x, axis: np.concatenate(x, axis), _define_concat, vjp=_vjp_concat,
    jvp=LINEAR, attrs={"axis": REQUIRED}, cost=2, batch=aligned_with(lambda attrs, n: {"axis": attrs["axis"] + 1}),
    samples=lambda: [
        Sample((_array(2), _array(3)), {"axis": 0}),
        Sample((_array(2, 1), _array(2, 3), _array(2, 2)), {"axis": 1}),
        Sample((_array(1, 3), _array(0, 3), _array(2, 3)), {"axis": 0}), Sample((_array(2, 2),), {"axis": 1}),
    ],
    doc="The operands one after the other along an axis.",
))


# --- reverse -------------------------------------------------------------------------------------


def _infer_reverse(t: Typing) -> Type:
    (x,), axes = t.types, t["axes"]
    if list(axes) != sorted(set(axes)) or any(not 0 <= a < x.rank for a in axes):
        t.fail(IndexRangeError, f"axes {axes} are not distinct, sorted axes of rank {x.rank}")
    return x


def _define_reverse(d: Definition, read: Read) -> Expr:
    shape = d.types[0].shape
    return read([shape[k] - 1 - i if k in d["axes"] else i for k, i in enumerate(d.index)])


reverse: Op = register(Op(
    "reverse", "map", _infer_reverse, lambda x, axes: np.flip(x, axes), _define_reverse,
    vjp=lambda g, y, x, axes: (reverse(g, axes=axes),), jvp=LINEAR, attrs={"axes": REQUIRED}, cost=0, arity=1,
    batch=aligned_with(lambda attrs, n: {"axes": shifted(attrs["axes"])}),
    samples=lambda: [Sample((_array(3, 4),), {"axes": a}) for a in ((0,), (1,), (0, 1), ())],
    api="flip", doc="The elements in the opposite order along axes.",
))
