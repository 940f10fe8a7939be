"""Ops whose positions are data: gathering rows by index, and its transpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import DTypeError, IndexRangeError, ShapeError
from ..batching import to_front, with_lanes
from ..dims import Dim, equal, symbol
from ..dtypes import int64
from ..graph import Value
from ..loops import Expr, For, Index, Let, Load, Stmt, Store, Temp
from ..op import LINEAR, OPS, REQUIRED, Definition, Lanes, Lowering, Op, Read, Sample, Typing, register
from ..scalars import apply, cast, const, select
from ..types import TensorType, Type

__all__ = ["scatter_add", "take"]


def normalized(position: Expr, extent: Dim) -> Expr:
    """An index as an ``i64`` within ``0..extent``: negative ones count from the end, others are clamped."""
    i = cast(position, int64)
    from_end = select(apply("lt", i, const(0, int64)), apply("add", i, Index(extent)), i)
    return apply("max", apply("min", from_end, Index(extent - 1)), const(0, int64))


def _normalized(indices: Any, extent: int) -> Any:
    i = np.asarray(indices).astype(np.int64)
    return np.clip(np.where(i < 0, i + extent, i), 0, max(extent - 1, 0))


def _rows_of_lanes(indices: Value, extent: Dim, size: Dim) -> Value:
    """Indices with lanes, as rows of an axis on which the lanes stand one after the other, `extent` rows each."""
    n = OPS["dim"](value=extent, dtype=int64)
    i = OPS["cast"](indices, dtype=int64)
    i = OPS["max"](OPS["min"](OPS["where"](i < 0, i + n, i), n - 1), 0)
    return i + OPS["iota"](shape=indices.tensor.shape, axis=0, dtype=int64) * n


def _check_indices(t: Typing, indices: TensorType, extent: Dim) -> None:
    if not indices.dtype.is_integer:
        t.fail(DTypeError, f"indices must be integers, got {indices.dtype!r}", "cast them with astype")
    if not equal(indices.size, 0):
        t.require_at_most(1, extent, f"an axis of {extent} elements has none to index")


# --- take ----------------------------------------------------------------------------------------


def _infer_take(t: Typing) -> Type:
    (x, indices), axis = t.types, t["axis"]
    if not 0 <= axis < x.rank:
        t.fail(IndexRangeError, f"axis {axis} is out of range for rank {x.rank}")
    _check_indices(t, indices, x.shape[axis])
    return x.with_shape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1:]])


def _take(x: Any, indices: Any, axis: int) -> Any:
    return np.take(x, _normalized(indices, x.shape[axis]), axis)


def _define_take(d: Definition, read: Read, read_index: Read) -> Expr:
    axis, (x, indices) = d["axis"], d.types
    end = axis + indices.rank
    row = normalized(read_index(d.index[axis:end]), x.shape[axis])
    return read([*d.index[:axis], row, *d.index[end:]])


def _batch_take(value: Value, operands: Sequence[Lanes], size: Dim) -> Value:
    ((x, x_lanes), (indices, i_lanes)), axis = operands, value.attrs["axis"]
    if not i_lanes:
        return take(x, indices, axis=axis + 1)
    if not x_lanes:
        return to_front(take(x, indices, axis=axis), axis)
    rows = _rows_of_lanes(indices, x.tensor.shape[axis + 1], size)
    order = (0, axis + 1, *(k for k in range(1, x.tensor.rank) if k != axis + 1))
    x = OPS["transpose"](x, perm=order)
    shape = x.tensor.shape
    picked = take(OPS["reshape"](x, shape=(shape[0] * shape[1], *shape[2:])), rows, axis=0)
    return _between(picked, indices.tensor.rank, axis)


def _between(x: Value, count: int, axis: int) -> Value:
    """Axes 1 to `count` of x behind the `axis` axes that follow them: where indices stand in a result."""
    rest = range(count, count + axis)
    return OPS["transpose"](x, perm=(0, *rest, *range(1, count), *range(count + axis, x.tensor.rank)))


def _samples_take() -> list[Sample]:
    x = np.random.default_rng(0).normal(size=(4, 3, 5))
    picks: list[Any] = [2, [0, 3, 3], [[1, -1], [0, 2]], [7, -9, 1], []]
    return [
        Sample((x, np.array(i, np.int64)), {"axis": a}) for a in (0, 1, 2) for i in picks
    ] + [Sample((x, np.array([1, 0], np.uint8)), {"axis": 0})]


take: Op = register(Op(
    "take", "map", _infer_take, _take, _define_take, arity=2, random_access=(0,), cost=3,
    vjp=lambda g, y, x, i, axis: (scatter_add(i, g, axis=axis, size=x.tensor.shape[axis]), None), jvp=LINEAR,
    batch=_batch_take,
    attrs={"axis": REQUIRED}, samples=_samples_take,
    doc="Elements of an axis at given indices: negative ones count from the end, then all are clamped.",
))


# --- scatter_add ---------------------------------------------------------------------------------


def _infer_scatter_add(t: Typing) -> Type:
    (indices, updates), axis, size = t.types, t["axis"], t["size"]
    end = axis + indices.rank
    if not 0 <= axis <= end <= updates.rank:
        t.fail(
            IndexRangeError,
            f"axis {axis} and the {indices.rank} axes of the indices exceed the updates' rank",
        )
    if not all(map(equal, indices.shape, updates.shape[axis:end])):
        t.fail(ShapeError, f"axes {axis}..{end} of the updates must be those of the indices")
    if updates.dtype.is_bool:
        t.fail(DTypeError, "does not add bools", "cast with astype")
    t.require_at_most(0, size, f"size {size} is negative")
    _check_indices(t, indices, size)
    return updates.with_shape([*updates.shape[:axis], size, *updates.shape[end:]])


def _scatter_add(indices: Any, updates: Any, axis: int, size: int) -> Any:
    lead, trail = updates.shape[:axis], updates.shape[axis + indices.ndim:]
    out = np.zeros((*lead, size, *trail), updates.dtype)
    flat = updates.reshape((*lead, indices.size, *trail))
    np.add.at(out, (*(slice(None),) * axis, _normalized(indices, size).ravel()), flat)
    return out


def _nest(loops: Sequence[tuple[str, Dim]], body: Sequence[Stmt], kind: str = "serial") -> tuple[Stmt, ...]:
    """The body in loops, outermost first; `kind` is that of the innermost."""
    nest = tuple(body)
    for k, (var, extent) in enumerate(reversed(loops)):
        nest = (For(var, extent, nest, kind if k == 0 else "serial"),)
    return nest


def _lower_scatter_add(kernel: Lowering) -> Sequence[Stmt]:
    (indices, updates), (out,), axis = kernel.inputs, kernel.outputs, kernel.attrs["axis"]
    end = axis + len(indices.shape)
    clear = [(kernel.fresh("z"), n) for n in out.shape]
    zero = Store(out, tuple(Index(symbol(v)) for v, _ in clear), const(0, out.dtype))
    loops = [(kernel.fresh("i"), n) for n in updates.shape]
    at = tuple(Index(symbol(v)) for v, _ in loops)
    row = kernel.fresh("row")
    find = Let(row, normalized(Load(indices, at[axis:end]), kernel.attrs["size"]))
    add = Store(out, (*at[:axis], Temp(row, int64), *at[end:]), Load(updates, at), "add")
    # Rows may collide, so only the trailing axes are independent.
    body = (find, *_nest(loops[end:], [add], "vector"))
    return (*_nest(clear, [zero], "vector"), *_nest(loops[:end], body))


def _batch_scatter_add(value: Value, operands: Sequence[Lanes], size: Dim) -> Value:
    (indices, lanes), axis, extent = operands[0], value.attrs["axis"], value.attrs["size"]
    updates = with_lanes(operands[1], size)
    if not lanes:
        return scatter_add(indices, updates, axis=axis + 1, size=extent)
    rows, count = _rows_of_lanes(indices, extent, size), indices.tensor.rank
    lead = range(1, axis + 1)
    order = (0, *range(axis + 1, axis + count), *lead, *range(axis + count, updates.tensor.rank))
    total = scatter_add(rows, OPS["transpose"](updates, perm=order), axis=0, size=size * extent)
    total = OPS["reshape"](total, shape=(size, extent, *total.tensor.shape[1:]))
    return _between(total, 2, axis)


def _samples_scatter_add() -> list[Sample]:
    updates = np.random.default_rng(0).normal
    return [
        Sample((np.array([0, 3, 3]), updates(size=(3, 2))), {"axis": 0, "size": 4}),
        Sample((np.array([[1, -1], [0, 2]]), updates(size=(3, 2, 2))), {"axis": 1, "size": 3}),
        Sample((np.array([7, -9, 1, 1]), updates(size=(4,))), {"axis": 0, "size": 5}),
        Sample((np.array(2), updates(size=(3, 5))), {"axis": 1, "size": 4}),
        Sample((np.array([], np.int64), updates(size=(0, 3))), {"axis": 0, "size": 2}),
    ]


scatter_add: Op = register(Op(
    "scatter_add", "opaque", _infer_scatter_add, _scatter_add, lower=_lower_scatter_add, arity=2,
    vjp=lambda g, y, i, updates, axis, size: (None, take(g, i, axis=axis)), jvp=LINEAR,
    batch=_batch_scatter_add,
    attrs={"axis": REQUIRED, "size": REQUIRED}, random_access=(), cost=4, samples=_samples_scatter_add,
    doc="Zeros with updates added at given indices of an axis (treated as by take): the transpose of take.",
))
