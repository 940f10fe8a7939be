"""Reductions: combine elements along axes (which the result does not keep)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import DTypeError, IndexRangeError
from ..batching import aligned_with, shifted
from ..dims import Dim, product
from ..dtypes import int64
from ..graph import Value
from ..loops import Expr, Reduce
from ..op import LINEAR, REQUIRED, VJP, ZERO_GRADIENT, Definition, Op, Read, Sample, Typing, register
from ..scalars import const
from ..types import Type
from .elementwise import cast, eq, where

__all__ = ["all_", "amax", "amin", "any_", "argmax", "argmin", "prod", "sum_"]

Samples = Callable[[], Sequence[Sample]]


def reduced_shape(shape: Sequence[Dim], axes: Sequence[int]) -> tuple[Dim, ...]:
    """A shape without the given axes."""
    return tuple(d for k, d in enumerate(shape) if k not in axes)


def count(x: Value, axes: Sequence[int]) -> Dim:
    """How many elements a reduction combines into one."""
    return product(x.tensor.shape[a] for a in axes)


def spread(x: Value, like: Value, axes: Sequence[int]) -> Value:
    """Repeat a reduction's result along the reduced axes, back to the operand's shape."""
    from .movement import broadcast

    shape = like.tensor.shape
    return broadcast(x, shape=shape, dims=tuple(k for k in range(len(shape)) if k not in axes))


def define_reduce(combiner: str) -> Callable[[Definition, Read], Expr]:
    """The definition of a reduction over the attribute ``axes``."""

    def define(d: Definition, read: Read) -> Expr:
        shape, axes, kept = d.types[0].shape, d["axes"], iter(d.index)
        index = [d.axis(n) if k in axes else next(kept) for k, n in enumerate(shape)]
        if not axes:
            return const(0, int64) if combiner.startswith("arg") else read(index)
        return Reduce(combiner, tuple(d.axes), read(index), d.out.dtype)

    return define


def _samples(shape: tuple[int, ...] = (3, 5, 4)) -> list[Sample]:
    x = np.random.default_rng(0).normal(size=shape)
    return [Sample((x,), {"axes": a}) for a in ((0,), (1,), (2,), (0, 2), (0, 1, 2), ())]


def _samples_of_nothing() -> list[Sample]:
    empty = [Sample((np.zeros((0, 3)),), {"axes": a}) for a in ((0,), (1,), (0, 1))]
    return [*_samples(), *empty, Sample((np.ones((1,)),), {"axes": (0,)})]


def _samples_tied() -> list[Sample]:
    tied = np.array([[1.0, 3, 3], [2, 2, 2], [0, -1, 0], [5, 4, 3]])
    return [*_samples(), *(Sample((tied,), {"axes": a}) for a in ((0,), (1,), (0, 1)))]


def _samples_bool() -> list[Sample]:
    x = np.random.default_rng(0).random((3, 5, 4)) < 0.5
    return [Sample((v,), s.attrs) for s in _samples() for v in (x, x | True, x & False)]


def reduction(
    name: str,
    reference: Callable[[Any, tuple[int, ...]], Any],
    combiner: str,
    doc: str,
    *,
    vjp: VJP = ZERO_GRADIENT,
    kinds: str = "iuf",
    result: str = "same",
    nonempty: bool = False,
    samples: Samples = _samples_of_nothing,
    **facts: Any,
) -> Op:
    """Register a reduction over the attribute ``axes``: distinct, sorted, none negative.

    Parameters
    ----------
    combiner : that of `Reduce`.
    kinds : dtype kinds it takes, letters of ``"biuf"``.
    result : ``"same"`` or ``"int64"``.
    nonempty : it has no value for no elements.
    """

    def infer(t: Typing) -> Type:
        (x,), axes = t.types, t["axes"]
        if list(axes) != sorted(set(axes)) or any(not 0 <= a < x.rank for a in axes):
            t.fail(IndexRangeError, f"axes {axes} are not distinct, sorted axes of rank {x.rank}")
        if x.dtype.kind not in kinds:
            wanted = "bool" if kinds == "b" else "numeric"
            t.fail(DTypeError, f"does not take {x.dtype!r}; it takes {wanted} operands", "cast with astype")
        if nonempty:
            for a in axes:
                t.require_at_most(1, x.shape[a], f"axis {a} is empty, and nothing has no {name}")
        out = x.with_shape(reduced_shape(x.shape, axes))
        return out.with_dtype(int64) if result == "int64" else out

    return register(Op(
        name, "reduce", infer, reference, define_reduce(combiner), vjp=vjp, arity=1,
        attrs={"axes": REQUIRED}, batch=aligned_with(lambda attrs, n: {"axes": shifted(attrs["axes"])}),
        samples=samples, doc=doc, **facts,
    ))


# --- gradients -----------------------------------------------------------------------------------


def _vjp_extremum(g: Value, y: Value, x: Value, axes: tuple[int, ...]) -> tuple[Value]:
    best = eq(x, spread(y, x, axes))
    ties = sum_(cast(best, dtype=x.tensor.dtype), axes=axes)
    return (where(best, spread(g / ties, x, axes), 0),)


def _jvp_extremum(y: Value, tangents: Sequence[Value | None]) -> Value | None:
    """The mean of the tangents of the largest elements: of ties, each has an equal share."""
    (x,), (t,), axes = y.operands, tangents, y.attrs["axes"]
    best = eq(x, spread(y, x, axes))
    return t and sum_(where(best, t, 0), axes=axes) / sum_(cast(best, dtype=x.tensor.dtype), axes=axes)


def _others(x: Value) -> Value:
    """For each element of the last axis the product of all others: of those before and those after.

    Exact where elements are zero, with O(n) multiplications, and differentiable any number of times.
    """
    from .cumulative import previous, running_product

    axis = x.tensor.rank - 1
    before, after = (running_product(previous(x, axis, r, first=1), axis, r) for r in (False, True))
    return before * after


def _vjp_prod(g: Value, y: Value, x: Value, axes: tuple[int, ...]) -> tuple[Value]:
    from .movement import reshape, transpose

    shape = x.tensor.shape
    kept = tuple(k for k in range(len(shape)) if k not in axes)
    perm, n = (*kept, *axes), count(x, axes)
    moved = transpose(x, perm=perm)
    flat = reshape(moved, shape=(*(shape[k] for k in kept), n))
    back = tuple(int(k) for k in np.argsort(perm))
    return (spread(g, x, axes) * transpose(reshape(_others(flat), shape=moved.tensor.shape), perm=back),)


# --- the reductions ------------------------------------------------------------------------------


def _flattened(x: Any, axes: tuple[int, ...]) -> Any:
    """`x` with the given axes moved to the end and joined into one, which exists also for none."""
    kept = [k for k in range(x.ndim) if k not in axes]
    n = int(np.prod([x.shape[a] for a in axes], dtype=int))
    return np.transpose(x, (*kept, *axes)).reshape([*(x.shape[k] for k in kept), n])


sum_: Op = reduction(
    "sum", lambda x, axes: np.sum(x, axis=axes, dtype=x.dtype), "add", "Sum along axes; 0 of nothing.",
    vjp=lambda g, y, x, axes: (spread(g, x, axes),), jvp=LINEAR,
)
prod: Op = reduction(
    "prod", lambda x, axes: np.prod(x, axis=axes, dtype=x.dtype), "mul", "Product along axes; 1 of nothing.",
    vjp=_vjp_prod,
)
amax = reduction(
    "amax", lambda x, axes: np.max(x, axis=axes), "max",
    "Largest along axes; NaN wins. Ties share the gradient.",
    vjp=_vjp_extremum, jvp=_jvp_extremum, nonempty=True, samples=_samples, api="max",
)
amin = reduction(
    "amin", lambda x, axes: np.min(x, axis=axes), "min",
    "Smallest along axes; NaN wins. Ties share the gradient.",
    vjp=_vjp_extremum, jvp=_jvp_extremum, nonempty=True, samples=_samples, api="min",
)
any_ = reduction(
    "any", lambda x, axes: np.any(x, axis=axes), "or", "Whether one is true along axes; bools only.",
    kinds="b", samples=_samples_bool,
)
all_ = reduction(
    "all", lambda x, axes: np.all(x, axis=axes), "and", "Whether all are true along axes; bools only.",
    kinds="b", samples=_samples_bool,
)
argmax = reduction(
    "argmax", lambda x, axes: np.argmax(_flattened(x, axes), axis=-1), "argmax",
    "Row-major position, within the axes, of the first largest; NaN wins.",
    result="int64", nonempty=True, samples=_samples_tied,
)
argmin = reduction(
    "argmin", lambda x, axes: np.argmin(_flattened(x, axes), axis=-1), "argmin",
    "Row-major position, within the axes, of the first smallest; NaN wins.",
    result="int64", nonempty=True, samples=_samples_tied,
)
