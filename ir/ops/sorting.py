"""Sorting: the order of the elements along the last axis, by a merge sort whose loops have fixed lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import ShapeError
from ..batching import aligned
from ..dims import Dim, dim_max, symbol
from ..dtypes import int64
from ..loops import Alloc, Buffer, Expr, For, If, Index, Let, Load, Stmt, Store, Temp
from ..op import ZERO_GRADIENT, Lowering, Op, Sample, Typing, register
from ..scalars import apply, const, select
from ..types import Type

__all__ = ["argsort"]

PASSES = 48
"""Passes for an axis of unknown size: enough for 2**48 elements; those that are not needed cost a comparison."""


def _infer(t: Typing) -> Type:
    if not t.types[0].rank:
        t.fail(ShapeError, "a scalar has no axis to sort along")
    return t.types[0].with_dtype(int64)


def _argsort(x: Any, descending: bool) -> Any:
    if not descending:
        return np.argsort(x, axis=-1, kind="stable")
    if x.dtype.kind == "f":
        return np.argsort(-x, axis=-1, kind="stable")
    reverse = np.argsort(np.flip(x, -1), axis=-1, kind="stable")
    return np.flip(x.shape[-1] - 1 - reverse, -1)


def _goes_before(b: Expr, a: Expr, descending: bool) -> Expr:
    """Whether `b`, which stands after `a`, belongs before it; NaN is last."""
    if a.dtype.is_bool:
        first, second = (b, a) if descending else (a, b)
        return apply("bitand", first, apply("bitnot", second, dtype=a.dtype))
    smaller = apply("gt" if descending else "lt", b, a)
    if not a.dtype.is_float:
        return smaller
    return apply("bitor", smaller, apply("bitand", apply("ne", a, a), apply("eq", b, b)))


def _lower_argsort(kernel: Lowering) -> Sequence[Stmt]:
    """Rows of positions, of which neighbouring sorted runs are merged until there is one."""
    (x,), (out,) = kernel.inputs, kernel.outputs
    n = x.shape[-1]
    work = Buffer(kernel.fresh("work"), int64, out.shape)
    rows = [kernel.fresh("i") for _ in x.shape[:-1]]
    row = tuple(Index(symbol(r)) for r in rows)
    first, k, again, p = (kernel.fresh(name) for name in ("k", "k", "k", "p"))
    width = kernel.fresh("w")
    merge = _merge(kernel, row, k, Temp(width, int64), work)
    at_again = (*row, Index(symbol(again)))
    wide = apply("lt", Temp(width, int64), Index(n))
    passes = max(n - 1, 0).bit_length() if isinstance(n, int) else PASSES
    body: list[Stmt] = [
        For(first, n, (Store(out, (*row, Index(symbol(first))), Index(symbol(first))),)),
        For(p, passes, (
            Let(width, apply("shl", const(1, int64), Index(symbol(p)))),
            If(wide, (*merge, For(again, n, (Store(out, at_again, Load(work, at_again)),)))),
        )),
    ]
    for name, size in reversed(list(zip(rows, x.shape))):
        body = [For(name, size, tuple(body))]
    return [Alloc(work, "workspace"), *body]


def _merge(kernel: Lowering, row: tuple[Expr, ...], k: str, width: Expr, work: Buffer) -> Sequence[Stmt]:
    """One pass: pairs of runs of `width` elements become runs of twice as many."""
    (x,), (out,) = kernel.inputs, kernel.outputs
    n: Dim = x.shape[-1]
    heads = [Buffer(kernel.fresh(name), int64, (1,)) for name in ("left", "right")]
    zero = (Index(0),)
    lets: list[Stmt] = []

    def let(name: str, value: Expr) -> Expr:
        lets.append(Let(fresh := kernel.fresh(name), value))
        return Temp(fresh, value.dtype)

    position = Index(symbol(k))
    inside = let("inside", apply("bitand", position, apply("sub", apply("add", width, width), const(1, int64))))
    start = let("start", apply("sub", position, inside))
    middle = let("middle", apply("min", apply("add", start, width), Index(n)))
    end = apply("min", apply("add", middle, width), Index(n))
    begin = If(apply("eq", inside, const(0, int64)), (Store(heads[0], zero, start), Store(heads[1], zero, middle)))
    opening, lets = [*lets, begin], []
    i, j = (let("at", Load(head, zero)) for head in heads)
    last = Index(dim_max(n - 1, 0))
    a, b = (let("from", Load(out, (*row, apply("min", q, last)))) for q in (i, j))
    keys = [let("key", Load(x, (*row, q))) for q in (a, b)]
    left_empty, right_left = apply("ge", i, middle), apply("lt", j, end)
    sooner = apply("bitor", left_empty, _goes_before(keys[1], keys[0], kernel.attrs["descending"]))
    right = let("take", apply("bitand", right_left, sooner))
    one, none = const(1, int64), const(0, int64)
    closing: list[Stmt] = [
        Store(work, (*row, position), select(right, b, a)),
        Store(heads[0], zero, apply("add", i, select(right, none, one))),
        Store(heads[1], zero, apply("add", j, select(right, one, none))),
    ]
    return [*(Alloc(head, "register") for head in heads), For(k, n, (*opening, *lets, *closing))]


def _samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in ((), (1,), (0,), (3, 7), (33,), (2, 3, 64), (4, 0), (1000,))[1:]]
    arrays += [rng.integers(0, 5, 100).astype(float), np.array([1.0, np.nan, -np.inf, 0.0, -0.0, np.inf, np.nan])]
    typed = [rng.integers(0, 9, (3, 40)).astype(dtype) for dtype in ("int64", "uint8", "bool", "uint64")]
    return [Sample((x,), {"descending": d}) for x in (*arrays, *typed) for d in (False, True)]


argsort: Op = register(Op(
    "argsort", "opaque", _infer, _argsort, lower=_lower_argsort, arity=1, vjp=ZERO_GRADIENT,
    batch=aligned, attrs={"descending": False}, cost=20, samples=_samples,
    doc="The positions of the elements along the last axis in their order; equal ones stay as they are, NaN is last.",
))
