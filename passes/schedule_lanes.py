"""Contractions with k in lanes: both operands run along memory with k; partial sums are combined at the end."""

from __future__ import annotations

from ..ir.dims import Dim, dim_min, floordiv, symbol
from ..ir.dtypes import DType
from ..ir.loops import Alloc, Buffer, Expr, For, If, Index, Load, Stmt, Store, replace
from ..ir.scalars import apply, const
from .contraction import Contraction, Order, Tile, below, divides
from .cpu_model import CpuModel
from .schedule_reduction import fold_lanes
from .tiles import epilogue, is_long, longest_row, row_tile, row_values, rows_inside

__all__ = ["lanes_over_k"]


def lanes_over_k(c: Contraction, cpu: CpuModel, lane_axis: str) -> tuple[Stmt, ...]:
    """The loops of a contraction, with a vector of partial sums along `lane_axis` for each element of a tile."""
    dtype = c.total.dtype
    lanes = cpu.lanes(dtype)
    n, row = c.extent(c.column), longest_row(c)
    columns = n if isinstance(n, int) and n <= 5 else 4
    rows = row_tile(c.extent(row), columns, cpu, 6) if row is not None else 1
    tile = Tile(rows, columns)
    order = Order(c, tile, row, columns_first=True)
    return order.wrap(tuple(order.by_rows(lambda o: _lane_tile(c, tile, lanes, o, lane_axis))))


def _lane_tile(c: Contraction, tile: Tile, lanes: int, order: Order, lane_axis: str) -> list[Stmt]:
    dtype: DType = c.total.dtype
    acc = Buffer("acc", dtype, (tile.rows, tile.columns, lanes))
    lines = [Buffer("left", dtype, (tile.rows, lanes)), Buffer("right", dtype, (tile.columns, lanes))]
    u, w, q = symbol("tm"), symbol("tn"), symbol("lane")
    n, extent = c.extent(c.column), c.extent(lane_axis)
    column = order.start[c.column] + w
    clamped = column if divides(tile.columns, n) else dim_min(column, n - 1)

    def across(*body: Stmt) -> For:
        return For("lane", lanes, body, "vector", lanes)

    def step(at: Dim, guard: Expr | None) -> list[Stmt]:
        left = replace(c.a, {lane_axis: at, **row_values(c, order, u, order.ragged)}, guard=guard)
        right = replace(c.b, {lane_axis: at, c.column: clamped}, guard=guard)
        product_ = apply("mul", Load(lines[0], (Index(u), Index(q))), Load(lines[1], (Index(w), Index(q))))
        update = across(Store(acc, (Index(u), Index(w), Index(q)), product_, "add"))
        return [
            For("tm", tile.rows, (across(Store(lines[0], (Index(u), Index(q)), left)),), "unroll"),
            For("tn", tile.columns, (across(Store(lines[1], (Index(w), Index(q)), right)),), "unroll"),
            For("tm", tile.rows, (For("tn", tile.columns, (update,), "unroll"),), "unroll"),
        ]

    inner: list[Stmt] = [For("chunk", floordiv(extent, lanes), tuple(step(symbol("chunk") * lanes + q, None)))]
    if not divides(lanes, extent):
        at = floordiv(extent, lanes) * lanes + q
        rest = step(at, below(at, extent))
        inner += rest if isinstance(extent, int) else [If(below(floordiv(extent, lanes) * lanes, extent), tuple(rest))]
    for var, size in reversed(c.axes):
        if var != lane_axis:
            inner = [For(var, size, tuple(inner))]
    start = across(Store(acc, (Index(u), Index(w), Index(q)), const(0, dtype)))
    folds = fold_lanes(acc, (Index(u), Index(w)), lanes, lanes, "add")
    total = Load(acc, (Index(u), Index(w), Index(0)))
    kind = "unroll"
    gather: list[Stmt] = []
    if is_long(c):  # a loop, from memory
        sums = Buffer("sums", dtype, (tile.rows, tile.columns))
        keep = (*folds, Store(sums, (Index(u), Index(w)), total))
        gather = [Alloc(sums, "local"), For("tm", tile.rows, (For("tn", tile.columns, keep, "unroll"),), "unroll")]
        folds, total, kind = [], Load(sums, (Index(u), Index(w))), "serial"
    finish: list[Stmt] = epilogue(c, order, {c.total.name: total}, {c.column: column})
    if not divides(tile.columns, n):
        finish = [If(below(column, n), tuple(finish))]
    finish = [*folds, *rows_inside(c, order, u, finish)]
    return [
        Alloc(acc, "register"),
        *(Alloc(b, "register") for b in lines),
        For("tm", tile.rows, (For("tn", tile.columns, (start,), "unroll"),), "unroll"),
        *inner,
        *gather,
        For("tm", tile.rows, (For("tn", tile.columns, tuple(finish), kind),), kind),
    ]
