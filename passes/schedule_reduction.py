"""Reductions as loops over accumulators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import CompileError
from ..ir.dims import Dim, ceildiv, coefficient, dim_min, floordiv, mod, product, symbol
from ..ir.dtypes import DType, bool_, int32, int64
from ..ir.loops import (
    Alloc,
    Buffer,
    Const,
    Expr,
    For,
    Index,
    Let,
    Load,
    Reduce,
    Stmt,
    Store,
    Temp,
    flat_index,
    replace,
    walk,
)  # fmt: skip
from ..ir.scalars import apply, cast, const, select
from .cpu_model import CpuModel

__all__ = ["abreast", "identity", "lower_reductions", "serial_reduction", "vector_axis"]

UNROLL = 8
"""Vectors of partial results, so that one addition need not wait for the one before."""

BLOCK = 512
"""Terms after which a sum of floats starts anew, before it is added to the rest: else rounding errors pile up."""

INTERLEAVE = 2
"""Vectors that are computed side by side, so that chains of dependent operations overlap."""


def identity(combiner: str, dtype: DType) -> Const:
    """The neutral element of a combiner."""
    if combiner in ("add", "mul"):
        return const(0 if combiner == "add" else 1, dtype)
    if combiner in ("and", "or"):
        return const(combiner == "and", dtype)
    low = combiner in ("max", "argmax")
    if dtype.is_float:
        return const(-math.inf if low else math.inf, dtype)
    if dtype.is_bool:
        return const(not low, dtype)
    info = np.iinfo(dtype.numpy)
    return const(info.min if low else info.max, dtype)


def vector_axis(e: Expr, cpu: CpuModel, outer: For | None = None) -> bool:
    """Whether a reduction's last axis runs along memory, and is long enough for vectors."""
    if not isinstance(e, Reduce) or e.combiner not in ("add", "mul", "max", "min", "and", "or"):
        return False
    var, extent = e.axes[-1]
    lanes = cpu.lanes(e.dtype) if not e.dtype.is_bool else cpu.vector_bytes
    if isinstance(extent, int) and extent < lanes:
        return False
    along = across = 0
    for load in (x for x in walk(e.body) if isinstance(x, Load)):
        position = flat_index(load)
        if position is None:
            return False
        along += coefficient(position, var) == 1
        across += outer is not None and coefficient(position, outer.var) == 1
    return along > across


def lower_reductions(group: Sequence[Let], cpu: CpuModel) -> list[Stmt]:
    """Replace each `Let` of a reduction over the same extents by loops.

    The last axis may be vectorized, with partial results that are combined in a fixed order.
    """
    found = [s.value for s in group if isinstance(s.value, Reduce)]
    plain = [vector_axis(e, cpu) and not any(isinstance(x, Reduce) for x in walk(e.body)) for e in found]
    if all(plain) and len({e.dtype for e in found}) == 1:
        return _lower_vector(group, found, cpu)
    if len(group) > 1:
        return [t for s in group for t in lower_reductions([s], cpu)]
    return serial_reduction(group)


def abreast(body: Sequence[Stmt]) -> list[list[Stmt]]:
    """The statements in their order; those that reduce over the same axes, one after the other, together."""
    groups: list[list[Stmt]] = []
    for s in body:
        if groups and _alike(groups[-1], s):
            groups[-1].append(s)
        else:
            groups.append([s])
    return groups


def _alike(group: Sequence[Stmt], s: Stmt) -> bool:
    """Whether a reduction has the extents of others, and needs none of them."""
    first = group[0]
    if not (isinstance(s, Let) and isinstance(s.value, Reduce) and isinstance(first, Let)):
        return False
    if not isinstance(first.value, Reduce) or any("arg" in t.combiner for t in (s.value, first.value)):
        return False
    names = {t.name for t in group if isinstance(t, Let)}
    same = [n for _, n in s.value.axes] == [n for _, n in first.value.axes]
    return same and not any(isinstance(x, Temp) and x.name in names for x in walk(s.value.body))


def serial_reduction(group: Sequence[Let]) -> list[Stmt]:
    """Bind names to reductions over the same extents, by loops over an accumulator of each.

    In the order of the axes; long sums block by block.
    """
    found = [s.value for s in group if isinstance(s.value, Reduce)]
    first = found[0]
    if any(isinstance(x, Reduce) for e in found for x in walk(e.body)):
        raise CompileError("a reduction inside a reduction that depends on it")
    if first.combiner in ("argmax", "argmin"):
        return _lower_arg(group[0].name, first)
    totals = [Buffer(f"{s.name}.acc", e.dtype, ()) for s, e in zip(group, found)]

    def update(to: Sequence[Buffer], at: Places) -> list[Stmt]:
        return [Store(t, (), replace(_counted_alike(e, first), at), e.combiner) for t, e in zip(to, found)]

    return [
        *(Alloc(t, "register") for t in totals),
        *(Store(t, (), identity(e.combiner, e.dtype)) for t, e in zip(totals, found)),
        *_nested(totals, found, first.axes, update),
        *(Let(s.name, Load(t, ())) for s, t in zip(group, totals)),
    ]


def _counted_alike(e: Reduce, like: Reduce) -> Expr:
    """The terms of a reduction, in terms of another's counters."""
    values: Places = {v: symbol(name) for (v, _), (name, _) in zip(e.axes, like.axes) if v != name}
    return replace(e.body, values) if values else e.body


Places = dict[str, Dim]
"""Where the counters of loops stand, in terms of the counters of blocks and of loops in them."""
Update = Callable[[Sequence[Buffer], Places], list[Stmt]]


def _nested(
    totals: Sequence[Buffer], reductions: Sequence[Reduce], axes: Sequence[tuple[str, Dim]], update: Update,
    at: Places | None = None, lanes: int = 1,
) -> list[Stmt]:
    """Loops over axes, in which `update` adds to what it is given.

    A long sum of floats is one of blocks, which are summed first: errors grow with the lengths of both, not with their
    product.
    """
    at = at or {}
    if not axes:
        return update(totals, at)
    (var, extent), *rest = axes
    long = [e.combiner == "add" and e.dtype.is_float for e in reductions]
    if not any(long) or isinstance(extent, int) and extent <= BLOCK:
        return [For(var, extent, tuple(_nested(totals, reductions, rest, update, at, lanes)))]
    parts = [Buffer(f"{t.name}.p", t.dtype, t.shape) if of else t for t, of in zip(totals, long)]
    block = symbol(f"{var}.b")
    start = block * BLOCK
    inside = _nested(parts, reductions, rest, update, {**at, var: start + symbol(var)}, lanes)
    count = BLOCK if mod(extent, BLOCK) == 0 else dim_min(BLOCK, extent - start)
    sums = [(t, p) for t, p in zip(totals, parts) if p is not t]
    body = (
        *(Alloc(p, "register") for _, p in sums),
        *(_each(p, identity("add", p.dtype), None, lanes) for _, p in sums),
        For(var, count, tuple(inside)),
        *(_each(t, p, "add", lanes) for t, p in sums),
    )
    return [For(f"{var}.b", ceildiv(extent, BLOCK), body)]


def _each(to: Buffer, value: Expr | Buffer, combiner: str | None, lanes: int) -> Stmt:
    """Store to all of a buffer that is one number or a few vectors: a number, or another such buffer."""
    if not to.shape:
        return Store(to, (), Load(value, ()) if isinstance(value, Buffer) else value, combiner)
    (width,), var = to.shape, f"{to.name}.e"
    index = (Index(symbol(var)),)
    store = Store(to, index, Load(value, index) if isinstance(value, Buffer) else value, combiner)
    return For(var, width, (store,), "vector", lanes)


def _loops(axes: tuple[tuple[str, Dim], ...], *body: Stmt) -> Stmt:
    for var, extent in reversed(axes):
        body = (For(var, extent, body),)
    return body[0]


def _lower_arg(name: str, e: Reduce) -> list[Stmt]:
    """The first best position: a NaN beats every number, and the first of equals stays.

    Nothing is worse than the start, so position 0 is right until something better is found.
    """
    key = e.body.dtype
    count = product(n for _, n in e.axes)
    short = isinstance(count, int) and count < 2**31  # lanes as narrow as the key's
    best, where = Buffer(f"{name}.best", key, ()), Buffer(f"{name}.where", int32 if short else int64, ())
    position: Dim = 0
    for var, extent in e.axes:
        position = position * extent + symbol(var)
    x, old = Temp(f"{name}.x", key), Load(best, ())
    better: Expr = apply("gt" if e.combiner == "argmax" else "lt", x, old)
    if key.is_float:
        nan = apply("bitand", apply("ne", x, x), apply("eq", old, old))
        better = apply("bitor", better, nan)
    wins = Temp(f"{name}.wins", bool_)
    body: list[Stmt] = [
        Let(x.name, e.body),
        Let(wins.name, better),
        Store(best, (), select(wins, x, old)),
        Store(where, (), select(wins, cast(Index(position), where.dtype), Load(where, ()))),
    ]
    return [
        Alloc(best, "register"),
        Alloc(where, "register"),
        Store(best, (), identity(e.combiner, key)),
        Store(where, (), const(0, where.dtype)),
        _loops(e.axes, *body),
        Let(name, cast(Load(where, ()), int64)),
    ]


def _lower_vector(group: Sequence[Let], found: Sequence[Reduce], cpu: CpuModel) -> list[Stmt]:
    """Partial results in the lanes of a few vectors; then those combined pairwise."""
    first, name = found[0], group[0].name
    lanes = cpu.lanes(first.dtype) if not first.dtype.is_bool else cpu.vector_bytes
    var, extent = first.axes[-1]
    width = lanes * max(UNROLL // len(group), 1)
    while isinstance(extent, int) and width > lanes and extent < width:
        width //= 2
    totals = [Buffer(f"{s.name}.acc", e.dtype, (width,)) for s, e in zip(group, found)]
    lane, chunk = symbol(f"{name}.l"), f"{name}.c"

    def step(to: Sequence[Buffer], start: Dim, count: Dim, at: Places) -> Stmt:
        bodies = [replace(_counted_alike(e, first), {**at, var: start + lane}) for e in found]
        vector = isinstance(count, int) or all(_maskable(body, cpu) for body in bodies)
        place = (Index(lane if vector else 0),)
        adds = tuple(Store(t, place, body, e.combiner) for t, body, e in zip(to, bodies, found))
        if not vector:
            return For(f"{name}.l", count, adds)
        wide = min(width, lanes * INTERLEAVE) if isinstance(count, int) else width
        return For(f"{name}.l", count, adds, "vector", wide)

    def chunks(to: Sequence[Buffer], at: Places) -> list[Stmt]:
        return [step(to, at.get(chunk, symbol(chunk)) * width, width, at)]

    def row(to: Sequence[Buffer], at: Places) -> list[Stmt]:
        inner = _nested(to, found, [(chunk, floordiv(extent, width))], chunks, at, lanes)
        rest = mod(extent, width)
        return inner if rest == 0 else [*inner, step(to, floordiv(extent, width) * width, rest, at)]

    return [
        *(Alloc(t, "register") for t in totals),
        *(_each(t, identity(e.combiner, e.dtype), None, lanes) for t, e in zip(totals, found)),
        *_nested(totals, found, first.axes[:-1], row, lanes=lanes),
        *(s for t, e in zip(totals, found) for s in fold_lanes(t, (), width, lanes, e.combiner)),
        *(Let(s.name, Load(t, (Index(0),))) for s, t in zip(group, totals)),
    ]


def _maskable(body: Expr, cpu: CpuModel) -> bool:
    """Whether what a body loads can be masked, so that a part of a vector takes one step."""
    sizes = [x.buffer.dtype.itemsize for x in walk(body) if isinstance(x, Load)]
    return 0 < cpu.masked_bytes <= min(sizes, default=0)


def fold_lanes(acc: Buffer, prefix: tuple[Expr, ...], width: int, lanes: int, combiner: str) -> list[Stmt]:
    """Combine ``acc[prefix, 0..width]`` pairwise into ``acc[prefix, 0]``."""
    out: list[Stmt] = []
    lane = symbol(f"{acc.name}.f")
    while width > 1:
        width //= 2
        far = Load(acc, (*prefix, Index(lane + width)))
        step = (Store(acc, (*prefix, Index(lane)), far, combiner),)
        kind = "vector" if width > 1 else "unroll"
        out.append(For(f"{acc.name}.f", width, step, kind, min(lanes, width)))
    return out

