"""Ops along an axis in which each element depends on the one before: running sums and linear recurrences."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import DTypeError, IndexRangeError
from ..batching import aligned_with
from ..broadcasting import full
from ..dims import Dim, dim_max, dim_min, symbol
from ..graph import Value
from ..loops import Alloc, Buffer, Expr, For, Index, Load, Stmt, Store
from ..op import LINEAR, REQUIRED, Lowering, Op, Sample, Typing, register
from ..scalars import apply
from ..types import Type
from .elementwise import eq, where

__all__ = ["cumsum", "previous", "recurrence", "running_product"]

Step = Callable[[Expr | None, Sequence[Expr]], Expr]


def _infer(t: Typing) -> Type:
    t.same_shape()
    x = t.types[0]
    if any(other.dtype != x.dtype for other in t.types):
        t.fail(DTypeError, "operands must have one dtype", "cast with astype")
    if x.dtype.is_bool:
        t.fail(DTypeError, "does not take bools", "cast with astype")
    if not 0 <= t["axis"] < x.rank:
        t.fail(IndexRangeError, f"axis {t['axis']} is out of range for rank {x.rank}")
    return x


# --- in NumPy ------------------------------------------------------------------------------------


def _cumsum(x: Any, axis: int, reverse: bool) -> Any:
    x = np.flip(x, axis) if reverse else x
    y = np.cumsum(x, axis, dtype=x.dtype)
    return np.flip(y, axis) if reverse else y


def _recurrence(a: Any, b: Any, axis: int, reverse: bool) -> Any:
    y = np.array(b)
    rows, factors = np.moveaxis(y, axis, 0), np.moveaxis(a, axis, 0)
    order = range(len(rows))[::-1] if reverse else range(len(rows))
    for earlier, t in itertools.pairwise(order):
        rows[t] += factors[t] * rows[earlier]
    return y


# --- loops ---------------------------------------------------------------------------------------


def _lower(kernel: Lowering, step: Step) -> Sequence[Stmt]:
    """``out[t] = step(out[t - 1], operands at t)``; the other axes are independent."""
    (out,), axis, shape = kernel.outputs, kernel.attrs["axis"], kernel.outputs[0].shape
    names = [kernel.fresh("i") for _ in shape]
    extent, t = shape[axis], symbol(names[axis])
    last: Buffer | None = None
    if axis == len(shape) - 1:  # the running value stays in a register
        last = Buffer(kernel.fresh("last"), out.dtype, (1,))

    def at(position: Dim) -> tuple[Expr, ...]:
        place = extent - 1 - position if kernel.attrs["reverse"] else position
        return tuple(Index(place if k == axis else symbol(n)) for k, n in enumerate(names))

    def write(position: Dim, before: Expr | None) -> list[Stmt]:
        value = step(before, [Load(b, at(position)) for b in kernel.inputs])
        if last is None:
            return [Store(out, at(position), value)]
        return [Store(last, (Index(0),), value), Store(out, at(position), Load(last, (Index(0),)))]

    def loops(body: Sequence[Stmt], axes: Sequence[int]) -> list[Stmt]:
        for k in reversed(axes):
            body = [For(names[k], shape[k], tuple(body))]
        return list(body)

    inner = range(axis + 1, len(shape))
    before = Load(out, at(t)) if last is None else Load(last, (Index(0),))
    first = For(names[axis], dim_min(1, extent), tuple(loops(write(t, None), inner)))
    rest = For(names[axis], dim_max(extent - 1, 0), tuple(loops(write(t + 1, before), inner)))
    memory = [Alloc(last, "register")] if last is not None else []
    return loops([*memory, first, rest], range(axis))


def _lower_cumsum(kernel: Lowering) -> Sequence[Stmt]:
    return _lower(kernel, lambda y, x: x[0] if y is None else apply("add", y, x[0]))


def _lower_recurrence(kernel: Lowering) -> Sequence[Stmt]:
    return _lower(kernel, lambda y, ab: ab[1] if y is None else apply("add", apply("mul", ab[0], y), ab[1]))


# --- in the IR's arithmetic ----------------------------------------------------------------------


def previous(x: Value, axis: int, reverse: bool = False, first: float = 0) -> Value:
    """The element before each along an axis (the one after, if `reverse`); `first` where there is none."""
    from .movement import pad, slice_axis

    none = [0] * x.tensor.rank
    one = [int(k == axis) for k in range(x.tensor.rank)]
    low, high = (none, one) if reverse else (one, none)
    longer = pad(x, low=tuple(low), high=tuple(high), interior=tuple(none), value=first)
    start = int(reverse)
    return slice_axis(longer, axis, start, x.tensor.shape[axis])


def _is_first(x: Value, axis: int, reverse: bool) -> Value:
    nothing = full(x.tensor.shape, 0, x.tensor.dtype)
    return eq(previous(nothing, axis, reverse, first=1), 1)


def running_product(x: Value, axis: int, reverse: bool = False) -> Value:
    """The products of all elements up to each along an axis (from each on, if `reverse`)."""
    return recurrence(x, where(_is_first(x, axis, reverse), x, 0), axis=axis, reverse=reverse)


def _vjp_recurrence(
    g: Value, y: Value, a: Value, b: Value, axis: int, reverse: bool
) -> tuple[Value, Value]:
    """With y[t] = a[t] y[t-1] + b[t]: s[t] = g[t] + a[t+1] s[t+1], db = s, da[t] = s[t] y[t-1]."""
    s = recurrence(previous(a, axis, not reverse), g, axis=axis, reverse=not reverse)
    return where(_is_first(a, axis, reverse), 0, s * previous(y, axis, reverse)), s


_batch = aligned_with(lambda attrs, n: {"axis": attrs["axis"] + 1})


def _samples(operands: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    shapes = [((3, 5, 4), k) for k in range(3)] + [((7,), 0), ((1, 3), 0), ((0, 3), 0), ((0, 3), 1)]
    return [
        Sample(tuple(rng.normal(size=shape) for _ in range(operands)), {"axis": axis, "reverse": reverse})
        for shape, axis in shapes
        for reverse in (False, True)
    ]


cumsum: Op = register(Op(
    "cumsum", "opaque", _infer, _cumsum, lower=_lower_cumsum, arity=1,
    vjp=lambda g, y, x, axis, reverse: (cumsum(g, axis=axis, reverse=not reverse),), jvp=LINEAR,
    attrs={"axis": REQUIRED, "reverse": False}, batch=_batch, samples=lambda: _samples(1),
    doc="The sums of all elements up to each along an axis (from each on, if reverse).",
))

recurrence: Op = register(Op(
    "recurrence", "opaque", _infer, _recurrence, lower=_lower_recurrence, arity=2, vjp=_vjp_recurrence,
    attrs={"axis": REQUIRED, "reverse": False}, batch=_batch, cost=2, samples=lambda: _samples(2),
    doc="y[t] = a[t] * y[t-1] + b[t] along an axis, from y[0] = b[0] (from the end, if reverse).",
))
