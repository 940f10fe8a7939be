"""Schedule a declarative kernel for a CPU: vector, parallel and register loops.

Contractions go to `schedule_contraction` and `schedule_scatter`. All other kernels keep their loop
order: adjacent loops over contiguous memory are merged, the innermost is vectorized, reductions become
accumulators (`schedule_reduction`), and the outermost loops are given to threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace as with_fields

from ..ir.dims import (
    Dim,
    at_most,
    bound,
    coefficient,
    dim_min,
    equal,
    floordiv,
    mod,
    substitute,
    symbol,
    symbols,
)
from ..ir.loops import (
    Alloc,
    Expr,
    For,
    If,
    Index,
    Kernel,
    Let,
    Load,
    Prefetch,
    Reduce,
    Scalar,
    Stmt,
    Store,
    flat_index,
    free_symbols,
    reads_counter,
    replace,
    statements,
    walk,
)  # fmt: skip
from ..ir.scalars import SCALARS
from .cpu_model import CpuModel
from .schedule_contraction import Choice, schedule_contraction
from .schedule_parts import schedule_parts
from .schedule_random import drawing_loop, with_draws_apart
from .schedule_reduction import INTERLEAVE, abreast, lower_reductions, serial_reduction, vector_axis
from .schedule_rows import keep_rows
from .schedule_scatter import schedule_scatter
from .schedule_transposition import in_blocks

__all__ = ["accesses", "merge_loops", "merge_parallel", "rename", "schedule_cpu", "vectorize"]

BLOCK = 8192
"""Elements of a one-dimensional map that one thread takes at a time."""

COLUMNS = 256
"""The same where each is reduced from many."""

ABREAST = 8
"""Vectors of columns that are reduced at once."""

SHORT_TERM = 12
"""Expressions in a term up to which so many fit into registers."""

PLAIN = ("add", "mul", "max", "min")


def schedule_cpu(kernel: Kernel, cpu: CpuModel, choice: Choice | None = None) -> Kernel:
    """The scheduled form of a declarative kernel, with the same meaning; a contraction's by `choice`, if given."""
    special = schedule_scatter(kernel, cpu) or schedule_parts(kernel, cpu) or schedule_contraction(kernel, cpu, choice)
    if special is not None:
        return special
    body: list[Stmt] = []
    rows = itertools.count()
    for s in kernel.body:
        body.extend(_nest(s, cpu, rows) if isinstance(s, For) else _scalar(s, cpu))
    return with_fields(kernel, body=tuple(body))


def _scalar(s: Stmt, cpu: CpuModel) -> list[Stmt]:
    return lower_reductions([s], cpu) if isinstance(s, Let) and isinstance(s.value, Reduce) else [s]


def _nest(s: For, cpu: CpuModel, rows: Iterator[int]) -> list[Stmt]:
    drawing = _drawing(s, cpu)
    if drawing is not None:
        return [drawing]
    merged = merge_loops(s)
    blocks = in_blocks(merged, cpu)
    if blocks is not None:
        return [_parallel(vectorize(b, cpu)) for b in blocks]
    return [_parallel(vectorize(keep_rows(merged, rows), cpu))]


def _drawing(s: For, cpu: CpuModel) -> For | None:
    """The schedule of a loop that reads random bits at the position that it counts."""
    apart, draws = with_draws_apart(s)
    if not draws:
        return None
    inner = vectorize(merge_loops(apart), cpu)
    if inner.kind != "vector":
        return None
    return with_fields(drawing_loop(inner, draws, cpu), kind="parallel")


# --- merging loops over contiguous memory --------------------------------------------------------


def accesses(s: Stmt) -> list[Load | Store]:
    """All loads and stores under a statement."""
    found: list[Load | Store] = []
    for t in statements((s,)):
        roots: list[Expr] = []
        if isinstance(t, Store):
            found.append(t)
            roots = [t.value, *t.indices]
        elif isinstance(t, Let):
            roots = [t.value]
        elif isinstance(t, If):
            roots = [t.condition]
        found += [e for r in roots for e in walk(r) if isinstance(e, Load)]
    return found


def merge_loops(s: For) -> For:
    """Merge a perfectly nested pair of loops where every access is linear in the merged counter."""
    if len(s.body) == 1 and isinstance(s.body[0], For):
        inner = merge_loops(s.body[0])
        s = with_fields(s, body=(inner,))
        if _mergeable(s.var, inner.var, inner.extent, inner):
            values: dict[str, Dim] = {s.var: 0, inner.var: symbol(inner.var)}
            body = tuple(_flatten(t, values) for t in inner.body)
            return For(inner.var, s.extent * inner.extent, body)
    return s


def _mergeable(outer: str, inner: str, extent: Dim, loop: For) -> bool:
    if not all(isinstance(t, Store) or isinstance(t, Let) and not isinstance(t.value, Reduce) for t in loop.body):
        return False
    for access in accesses(loop):
        position = flat_index(access)
        if position is None:
            return False
        a, b = coefficient(position, outer), coefficient(position, inner)
        if a is None or b is None or a != extent * b:
            return False
    values = [t.value for t in loop.body if isinstance(t, (Let, Store))]
    return not any(reads_counter(v, {outer, inner}) for v in values)


def _flatten(s: Stmt, values: dict[str, Dim]) -> Stmt:
    """Address every access by its position, with the outer counter absorbed by the inner."""
    assert isinstance(s, (Let, Store))
    memo: dict[Expr, Expr] = {}
    for e in walk(s.value):
        if isinstance(e, Load):
            memo[e] = Load(e.buffer, (Index(substitute(_position(e), values)),), e.guard)
    if isinstance(s, Let):
        return Let(s.name, replace(s.value, memo=memo))
    return Store(s.buffer, (Index(substitute(_position(s), values)),), replace(s.value, memo=memo), s.combiner)


def _position(access: Load | Store) -> Dim:
    position = flat_index(access)
    assert position is not None
    return position


# --- vectors -------------------------------------------------------------------------------------


def vectorize(s: For, cpu: CpuModel) -> For:
    """Vectorize the innermost loops and turn reductions into accumulators; an op's own vector loops get lanes."""
    if s.kind == "vector":
        return _own_vectors(s, cpu)
    s = with_fields(s, body=tuple(map(_in_a_row, s.body)))
    stores = [t for t in s.body if isinstance(t, Store)]
    dtypes = [a.buffer.dtype for a in accesses(s) if not a.buffer.dtype.is_bool and _varies(a, s)]
    lanes = min((cpu.lanes(d) for d in dtypes), default=cpu.vector_bytes)
    innermost = not any(isinstance(t, For) for t in s.body)
    body: list[Stmt] = []
    across = innermost and bool(stores) and all(_unit(t, s.var) for t in stores) and independent(s)
    across = across and not any(isinstance(t, Let) and vector_axis(t.value, cpu, s) for t in s.body)
    for t, *more in abreast(s.body):
        if isinstance(t, For):
            body.append(vectorize(t, cpu))
        elif isinstance(t, Let) and isinstance(t.value, Reduce):
            together = [t, *(u for u in more if isinstance(u, Let))]
            body.extend(serial_reduction(together) if across else lower_reductions(together, cpu))
        else:
            body.append(t)
    if across and lanes > 1:
        count = _abreast(s) if any(isinstance(t, For) for t in body) else _side_by_side(s, cpu)
        lanes = interleaved(lanes, s.extent, count)
        return For(s.var, s.extent, tuple(body), "vector", lanes)
    return with_fields(s, body=tuple(body))


def _in_a_row(s: Stmt) -> Stmt:
    """A reduction over axes that lie one behind the other in memory, as one over a single axis."""
    e = s.value if isinstance(s, Let) else None
    if not isinstance(s, Let) or not isinstance(e, Reduce) or "arg" in e.combiner or len(e.axes) < 2:
        return s
    nest: Stmt = Let(s.name, e.body)
    for var, extent in reversed(e.axes):
        nest = For(var, extent, (nest,))
    assert isinstance(nest, For)
    nest, axes = merge_loops(nest), []
    while isinstance(nest, For):
        axes.append((nest.var, nest.extent))
        (nest,) = nest.body
    assert isinstance(nest, Let)
    return Let(s.name, Reduce(e.combiner, tuple(axes), nest.value, e.dtype))


def _own_vectors(s: For, cpu: CpuModel) -> For:
    """A vector loop of an op with lanes, if it stores to neighbouring places of a row; which row may be data."""
    stores = [t for t in s.body if isinstance(t, Store)]
    if s.lanes > 1 or len(stores) < len(s.body) or not all(_along_row(t, s.var) for t in stores):
        return s
    lanes = min(cpu.lanes(a.buffer.dtype) for a in accesses(s) if not a.buffer.dtype.is_bool)
    return with_fields(s, lanes=interleaved(lanes, s.extent))


def _along_row(access: Load | Store, var: str) -> bool:
    *outer, last = access.indices
    inside = isinstance(last, Index) and coefficient(last.dim, var) == 1
    return inside and all(var not in free_symbols(i) for i in outer) and not access.buffer.dtype.is_bool


def _abreast(s: For) -> int:
    """Vectors of columns that are reduced side by side: then each row gives whole lines of cache, and sums overlap."""
    reductions = [t.value for t in s.body if isinstance(t, Let) and isinstance(t.value, Reduce)]
    plain = all(r.combiner in PLAIN and len(set(walk(r.body))) <= SHORT_TERM for r in reductions)
    return max(ABREAST // len(reductions), 1) if reductions and plain else 1


def _side_by_side(s: For, cpu: CpuModel) -> int:
    """Vectors of a map that are computed side by side: more where chains are long, and registers many."""
    values = [t.value for t in s.body if isinstance(t, (Let, Store))]
    long = any(isinstance(e, Scalar) and not SCALARS[e.op].machine for v in values for e in walk(v))
    return 2 * INTERLEAVE if long and cpu.registers >= 32 else INTERLEAVE


def interleaved(lanes: int, extent: Dim, count: int = INTERLEAVE) -> int:
    """The lanes of several vectors, so that their chains of dependent operations overlap."""
    while count > 1 and isinstance(extent, int) and extent < count * lanes:
        count //= 2
    return count * lanes


def _varies(access: Load | Store, s: For) -> bool:
    """Whether a loop's iterations access several elements."""
    position = flat_index(access)
    return position is None or s.var in symbols(position) or any(isinstance(t, For) for t in s.body)


def _unit(access: Load | Store, var: str) -> bool:
    position = flat_index(access)
    return position is not None and coefficient(position, var) == 1


# --- threads -------------------------------------------------------------------------------------


def _parallel(s: For) -> For:
    """Give the outermost loop, or the two outermost if it is short, to threads."""
    if s.extent == 0:
        return s
    if not independent(s):
        return _columns_apart(s) or s
    if s.kind == "vector":
        return _blocks(s)
    inner = s.body[0]
    nested = len(s.body) == 1 and isinstance(inner, For) and inner.kind == "serial" and inner.extent != 0
    if nested and isinstance(inner, For) and _short(s.extent) and independent(inner):
        return merge_parallel(s, inner)
    return with_fields(s, kind="parallel")


def independent(s: For) -> bool:
    """Whether each iteration stores to places of its own, and reads no place that another one stores to.

    The rows of a scatter may collide, for one, and the elements of a running sum build on each other.
    """
    own = {t.buffer.name for t in statements(s.body) if isinstance(t, Alloc)}
    stores: list[Load | Store] = [
        t for t in statements(s.body) if isinstance(t, Store) and t.buffer.name not in own
    ]
    stored: dict[str, list[Load | Store]] = {}
    for t in stores:
        stored.setdefault(t.buffer.name, []).append(t)
    reads = [t for t in accesses(s) if isinstance(t, Load) and t.buffer.name in stored]
    return all(_apart(t, u, s) for t in [*stores, *reads] for u in stored[t.buffer.name])


def _apart(t: Load | Store, like: Load | Store, s: For) -> bool:
    """Whether two accesses meet, if at all, in the same iteration of a loop."""
    return len(t.indices) == len(like.indices) and any(
        isinstance(i, Index) and isinstance(j, Index) and _never_meet(i.dim, j.dim, s)
        for i, j in zip(t.indices, like.indices)
    )


def _never_meet(a: Dim, b: Dim, s: For) -> bool:
    """Whether places along an axis differ in different iterations: equal ones, or too far apart to be reached."""
    step = coefficient(a, s.var)
    if step is None or step == 0 or step != coefficient(b, s.var):
        return False
    if equal(a, b) or s.extent != 0 and mod(a - b, step * s.extent) == 0:
        return True
    one, other = (_reach(i - step * symbol(s.var), s) for i in (a, b))
    if one is None or other is None:
        return False
    return at_most(one[1] - other[0] + 1, step) and at_most(other[1] - one[0] + 1, step)


def _reach(index: Dim, s: For) -> tuple[Dim, Dim] | None:
    """The least and the greatest that an index may be, over the loops inside another; None if that is not known."""
    loops = [t for t in statements(s.body) if isinstance(t, For)]
    counters = {s.var, *(t.var for t in loops)}
    low = high = index
    for var in dict.fromkeys(t.var for t in loops if t.var in symbols(index)):
        c, extents = coefficient(index, var), {bound(t.extent) for t in loops if t.var == var}
        numbers = [n for n in extents if isinstance(n, int)]
        most = extents.pop() if len(extents) == 1 else max(numbers) if len(numbers) == len(extents) else None
        if not isinstance(c, int) or most is None or symbols(most) & counters:
            return None
        ends = (0, most - 1) if c > 0 else (most - 1, 0)
        low, high = (substitute(d, {var: end}) for d, end in zip((low, high), ends))
    return None if (symbols(low) | symbols(high)) & counters else (low, high)


def _short(extent: Dim) -> bool:
    return not isinstance(extent, int) or extent < 64


def merge_parallel(outer: For, inner: For) -> For:
    """One parallel loop over both counters."""
    var = f"{outer.var}{inner.var}"
    values = {outer.var: floordiv(symbol(var), inner.extent), inner.var: mod(symbol(var), inner.extent)}
    return For(var, outer.extent * inner.extent, rename(inner.body, values), "parallel")


def _blocks(s: For) -> For:
    """A parallel loop over blocks of a vector loop."""
    size = COLUMNS if any(isinstance(t, For) for t in s.body) else BLOCK
    if isinstance(s.extent, int) and s.extent <= size:
        return s
    return For(f"{s.var}b", floordiv(s.extent + (size - 1), size), (_block(s, size),), "parallel")


def _block(s: For, size: int) -> For:
    """The part of a vector loop that its block is to do."""
    start = symbol(f"{s.var}b") * size
    body = rename(s.body, {s.var: start + symbol(s.var)})
    count = size if mod(s.extent, size) == 0 else dim_min(size, s.extent - start)
    return For(s.var, count, body, "vector", s.lanes)


def _columns_apart(s: For) -> For | None:
    """A parallel loop over blocks of columns; in each, the rows of a scatter, which may collide, are in order."""
    levels, inner = [s], s.body[-1]
    while isinstance(inner, For) and inner.kind == "serial":
        levels.append(inner)
        inner = inner.body[-1]
    plain = all(isinstance(t, Let) and not isinstance(t.value, Reduce) for level in levels for t in level.body[:-1])
    if not plain or not isinstance(inner, For) or inner.kind != "vector" or not independent(inner):
        return None
    if isinstance(inner.extent, int) and inner.extent <= COLUMNS or symbols(inner.extent) & {v.var for v in levels}:
        return None
    nest = _block(inner, COLUMNS)
    for level in reversed(levels):
        nest = with_fields(level, body=(*level.body[:-1], nest))
    return For(f"{inner.var}b", floordiv(inner.extent + (COLUMNS - 1), COLUMNS), (nest,), "parallel")


def rename(body: tuple[Stmt, ...], values: dict[str, Dim]) -> tuple[Stmt, ...]:
    """Statements with loop variables replaced."""
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            out.append(with_fields(s, extent=substitute(s.extent, values), body=rename(s.body, values)))
        elif isinstance(s, Let):
            out.append(Let(s.name, replace(s.value, values)))
        elif isinstance(s, Store):
            indices = tuple(replace(i, values) for i in s.indices)
            out.append(Store(s.buffer, indices, replace(s.value, values), s.combiner))
        elif isinstance(s, Prefetch):
            out.append(Prefetch(s.buffer, tuple(replace(i, values) for i in s.indices)))
        elif isinstance(s, If):
            condition = replace(s.condition, values)
            out.append(If(condition, rename(s.then, values), rename(s.otherwise, values)))
        else:
            out.append(s)
    return tuple(out)
