"""Rows that are read again: what several passes over a row compute from its elements is kept, not computed anew.

A softmax, for one, needs ``exp(x[i] - m)`` for its sum and again for its result. A row fits the first-level
cache, so it is written to a local buffer once, and read twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as with_fields

from ..ir.dims import symbol, symbols
from ..ir.loops import (
    Alloc,
    Buffer,
    Expr,
    For,
    Index,
    Let,
    Load,
    Reduce,
    Scalar,
    Stmt,
    Store,
    Temp,
    replace,
    walk,
)
from ..ir.scalars import SCALARS

__all__ = ["keep_rows"]

MOST_BYTES = 1 << 15
"""Bytes of the rows that are kept at once: the first cache holds them, and the stack."""

_ROW = "row"
Pass = tuple[str, int, list[Expr]]  # the counter, its extent, what is computed


def keep_rows(s: For, names: Iterator[int]) -> For:
    """A nest, with costly values of the same row that several passes compute kept in local buffers.

    `names` gives numbers that no other row of the kernel has.
    """
    inner = tuple(keep_rows(t, names) if isinstance(t, For) else t for t in s.body)
    return with_fields(s, body=_keep(inner, names, MOST_BYTES))


def _keep(body: tuple[Stmt, ...], names: Iterator[int], room: int) -> tuple[Stmt, ...]:
    passes = {k: p for k, s in enumerate(body) if (p := _pass(s)) is not None}
    if len(passes) < 2:
        return body
    found: dict[tuple[int, Expr], list[int]] = {}
    for k, (var, extent, roots) in passes.items():
        s = body[k]
        bound = {t.name for t in s.body if isinstance(t, Let)} if isinstance(s, For) else set()
        costly = {e for root in roots for e in walk(root) if _costly(e) and _of_row(e, var, bound)}
        for e in costly:
            found.setdefault((extent, _at(e, var, _ROW)), []).append(k)
    shared = [
        (extent, e, at) for (extent, e), at in found.items() if len(at) > 1 and extent * e.dtype.itemsize <= room
    ]
    if not shared:
        return body
    extent, e, at = max(shared, key=lambda s: (_size(s[1]), -s[2][0]))
    first = min(at)
    var = passes[first][0]
    row = Buffer(f"{var}.{_ROW}{next(names)}", e.dtype, (extent,))
    fill = For(var, extent, (Store(row, (Index(symbol(var)),), _at(e, _ROW, var)),))
    kept = [_with_row(s, passes[k][0], e, row) if k in at else s for k, s in enumerate(body)]
    return _keep((*kept[:first], Alloc(row), fill, *kept[first:]), names, room - extent * e.dtype.itemsize)


def _pass(s: Stmt) -> Pass | None:
    """A statement that runs over a row."""
    if isinstance(s, Let) and isinstance(s.value, Reduce) and len(s.value.axes) == 1:
        (var, extent), roots = s.value.axes[0], [s.value.body]
    elif isinstance(s, For) and all(isinstance(t, (Let, Store)) for t in s.body):
        var, extent, roots = s.var, s.extent, [t.value for t in s.body if isinstance(t, (Let, Store))]
    else:
        return None
    return (var, extent, roots) if isinstance(extent, int) and extent > 1 else None


def _costly(e: Expr) -> bool:
    return isinstance(e, Scalar) and not e.dtype.is_bool and any(
        isinstance(x, Scalar) and not SCALARS[x.op].machine for x in walk(e)
    )


def _of_row(e: Expr, var: str, bound: set[str]) -> bool:
    """Whether an expression varies along a row, with nothing in it that is bound there."""
    if any(isinstance(x, Reduce) or (isinstance(x, Temp) and x.name in bound) for x in walk(e)):
        return False
    return any(isinstance(x, Index) and var in symbols(x.dim) for x in walk(e))


def _at(e: Expr, var: str, to: str) -> Expr:
    return replace(e, {var: symbol(to)})


def _size(e: Expr) -> int:
    return sum(1 for _ in walk(e))


def _with_row(s: Stmt, var: str, e: Expr, row: Buffer) -> Stmt:
    """A pass that reads the row instead of computing it."""
    known: dict[Expr, Expr] = {_at(e, _ROW, var): Load(row, (Index(symbol(var)),))}
    if isinstance(s, Let):
        assert isinstance(s.value, Reduce)
        body = replace(s.value.body, memo=known)
        return Let(s.name, Reduce(s.value.combiner, s.value.axes, body, s.value.dtype))
    assert isinstance(s, For)
    return For(s.var, s.extent, tuple(_reading(t, known) for t in s.body))


def _reading(s: Stmt, known: dict[Expr, Expr]) -> Stmt:
    if isinstance(s, Let):
        return Let(s.name, replace(s.value, memo=known))
    assert isinstance(s, Store)
    return Store(s.buffer, s.indices, replace(s.value, memo=known), s.combiner)
