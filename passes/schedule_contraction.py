"""Schedule a contraction for a CPU: register tiles, packed panels, lanes over the result or the sum.

The kernel ``C[...] = epilogue(sum_k A * B)`` is tiled over one axis that only A has (`rows`) and the
innermost axis of the result, which only B has (`columns`). A tile of rows x columns accumulates in
registers while k runs; the epilogue acts on the tile. Two forms:

- *columns in lanes*: B is read along the columns, from memory or from panels packed beforehand
  (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 2008); A is
  broadcast.
- *k in lanes*: where A and B both run along memory with k; partial sums are combined at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from dataclasses import replace as with_fields

from ..ir.dims import Dim, ceildiv, coefficient, dim_min, floordiv, mod, product, symbol, symbols
from ..ir.dtypes import DType
from ..ir.loops import (
    Alloc,
    Buffer,
    Expr,
    For,
    If,
    Index,
    Kernel,
    Let,
    Load,
    Reduce,
    Scalar,
    Stmt,
    Store,
    Temp,
    flat_index,
    free_symbols,
    replace,
    walk,
)  # fmt: skip
from ..ir.scalars import SCALARS, apply, const
from .cpu_model import CpuModel
from .schedule_reduction import fold_lanes

__all__ = ["schedule_contraction"]

PACK_ROWS = 24
"""Rows of A from which packing B pays: each packed element is then used several times."""


SHORT_EPILOGUE = 2
"""Scalar operations up to which the epilogue acts on registers, unrolled; a longer one loops over memory."""


@dataclass(frozen=True)
class Contraction:
    """A kernel recognized as a contraction.

    `loops` are the result's (variable, extent) pairs; `a` depends on `rows`, `b` on the innermost
    variable; `epilogue` are the statements after the sum, which read it as the temporary `total`.
    """

    loops: tuple[tuple[str, Dim], ...]
    axes: tuple[tuple[str, Dim], ...]
    a: Expr
    b: Expr
    total: Temp
    epilogue: tuple[Stmt, ...]

    @property
    def column(self) -> str:
        return self.loops[-1][0]

    def extent(self, var: str) -> Dim:
        return dict((*self.loops, *self.axes))[var]

    @property
    def rows(self) -> list[str]:
        """Result variables that only A has, innermost last."""
        has_a, has_b = free_symbols(self.a), free_symbols(self.b)
        return [v for v, _ in self.loops if v in has_a and v not in has_b]


def recognize(kernel: Kernel) -> Contraction | None:
    """The contraction a kernel computes, if it is one perfect nest around a sum of products."""
    loops: list[tuple[str, Dim]] = []
    body: Sequence[Stmt] = kernel.body
    while len(body) == 1 and isinstance(body[0], For):
        loops.append((body[0].var, body[0].extent))
        body = body[0].body
    if not loops or not body or not isinstance(body[0], Let) or not isinstance(body[0].value, Reduce):
        return None
    reduce, rest = body[0].value, tuple(body[1:])
    product_ = reduce.body
    simple = all(isinstance(s, Store) or isinstance(s, Let) and not isinstance(s.value, Reduce) for s in rest)
    if reduce.combiner != "add" or not simple or not isinstance(product_, Scalar) or product_.op != "mul":
        return None
    if not reduce.dtype.is_float:
        return None
    a, b = product_.args
    column = loops[-1][0]
    if column in free_symbols(a):
        a, b = b, a
    if column not in free_symbols(b) or column in free_symbols(a):
        return None
    return Contraction(tuple(loops), reduce.axes, a, b, Temp(body[0].name, reduce.dtype), rest)


def _strides(e: Expr, var: str) -> set[Dim | None]:
    """How far each load of an expression moves when a variable advances."""
    found: set[Dim | None] = set()
    for load in (x for x in walk(e) if isinstance(x, Load)):
        position = flat_index(load)
        found.add(None if position is None else coefficient(position, var))
    return found


def _long(extent: Dim, least: int) -> bool:
    return not isinstance(extent, int) or extent >= least


def schedule_contraction(kernel: Kernel, cpu: CpuModel) -> Kernel | None:
    """The kernel tiled and vectorized; None if it is not a contraction that tiling helps."""
    c = recognize(kernel)
    if c is None or any(isinstance(n, int) and n == 0 for _, n in (*c.loops, *c.axes)):
        return None
    lanes = cpu.lanes(c.total.dtype)
    lane_axis = _lane_axis(c, lanes)
    unit = _strides(c.b, c.column) <= {0, 1}
    windowed = _windowed(c)
    many_rows = _long(product(c.extent(r) for r in c.rows), PACK_ROWS)
    if lane_axis and (windowed and not _long(c.extent(c.column), lanes) or not unit and not many_rows):
        return with_fields(kernel, body=_lanes_over_k(c, cpu, lane_axis))
    if windowed and not unit and lane_axis:
        return with_fields(kernel, body=_lanes_over_k(c, cpu, lane_axis))
    if not unit and not many_rows and not _long(c.extent(c.column), lanes):
        return None
    pack = not windowed and many_rows
    return with_fields(kernel, body=_lanes_over_columns(c, cpu, pack))


def _windowed(c: Contraction) -> bool:
    """Whether B slides: an index of it mixes result and summation variables, as in a convolution."""
    sums = {v for v, _ in c.axes}
    results = {v for v, _ in c.loops}
    for load in (x for x in walk(c.b) if isinstance(x, Load)):
        for i in load.indices:
            if isinstance(i, Index) and symbols(i.dim) & sums and symbols(i.dim) & results:
                return True
    return False


def _lane_axis(c: Contraction, lanes: int) -> str | None:
    """A summation variable along which A and B both run through memory."""
    for var, extent in c.axes:
        if _strides(c.a, var) == {1} and _strides(c.b, var) == {1} and _long(extent, lanes):
            return var
    return None


# --- tiles ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tile:
    """Rows x columns of one register tile."""

    rows: int
    columns: int


def _row_tile(extent: Dim, vectors: int, cpu: CpuModel, limit: int) -> int:
    """Rows that keep the registers busy and waste few of the last tile."""
    most = max(1, min(limit, (cpu.registers - vectors - 1) // vectors))
    if not isinstance(extent, int):  # batches are multiples of 8 more often than of anything else
        return min(most, 8)
    most = min(most, extent)

    def score(rows: int) -> float:
        padded = -(-extent // rows) * rows
        busy = min(1.0, rows * vectors / 10)
        return busy * extent / padded

    return max(range(1, most + 1), key=lambda rows: (score(rows), rows))


def _column_vectors(extent: Dim, lanes: int) -> int:
    if not isinstance(extent, int):
        return 2
    needed = -(-extent // lanes)
    return 3 if needed in (3, 6, 9) else min(2, needed)


class _Order:
    """The loops outside a tile: which, in which order, and where a tile starts in them."""

    def __init__(self, c: Contraction, tile: Tile, row: str | None, columns_first: bool) -> None:
        self.c, self.tile, self.row = c, tile, row
        self.ragged = False  # whether the tile's last rows may not exist
        counts: dict[str, tuple[str, Dim]] = {}
        for var, extent in c.loops:
            size = self._size(var)
            counts[var] = (var if size == 1 else f"{var}t", extent if size == 1 else ceildiv(extent, size))
        order = [v for v, _ in c.loops]
        if columns_first and row is not None:
            order.remove(c.column)
            order.insert(order.index(row), c.column)
        self.loops = [counts[v] for v in order if counts[v] != (f"{v}t", 1)]
        self.start: dict[str, Dim] = {
            var: 0 if counts[var] == (f"{var}t", 1) else symbol(counts[var][0]) * self._size(var)
            for var in (row, c.column) if var is not None
        }  # fmt: skip

    def _size(self, var: str) -> int:
        return self.tile.rows if var == self.row else self.tile.columns if var == self.c.column else 1

    def by_rows(self, make: Callable[[_Order], list[Stmt]]) -> list[Stmt]:
        """``make(order)`` for tiles whose rows all exist; and, if there are others, for a ragged one."""
        if self.row is None or _divides(self.tile.rows, self.c.extent(self.row)):
            return make(self)
        ragged = copy(self)
        ragged.ragged = True
        whole = apply("le", Index(self.start[self.row] + self.tile.rows), Index(self.c.extent(self.row)))
        return _either(whole, lambda edge: make(ragged if edge else self))

    def wrap(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        """The outer loops around a tile; the two outermost are given to threads as one."""
        for var, extent in reversed(self.loops[2:]):
            body = (For(var, extent, body),)
        if len(self.loops) > 1:
            from .schedule_cpu import merge_parallel

            (v0, n0), (v1, n1) = self.loops[:2]
            return (merge_parallel(For(v0, n0, ()), For(v1, n1, body)),)
        if self.loops:
            (v0, n0), = self.loops
            body = (For(v0, n0, body, "parallel"),)
        return body


def _below(index: Dim, extent: Dim) -> Expr:
    return apply("lt", Index(index), Index(extent))


def _divides(size: int, extent: Dim) -> bool:
    return mod(extent, size) == 0


def _either(condition: Expr | None, make: Callable[[bool], list[Stmt]]) -> list[Stmt]:
    """``make(False)`` where the tile is whole; else, where `condition` fails, ``make(True)``: guarded."""
    if condition is None:
        return make(False)
    assert isinstance(condition, Scalar)
    end, extent = condition.args
    if isinstance(end, Index) and isinstance(extent, Index) and not symbols(end.dim) | symbols(extent.dim):
        return make(True)  # a single tile, with an edge
    return [If(condition, tuple(make(False)), tuple(make(True)))]


# --- columns in lanes ----------------------------------------------------------------------------


def _lanes_over_columns(c: Contraction, cpu: CpuModel, pack: bool) -> tuple[Stmt, ...]:
    n = c.extent(c.column)
    lanes = cpu.tile_lanes(c.total.dtype, n)
    while isinstance(n, int) and lanes > 4 and n <= lanes // 2:
        lanes //= 2
    vectors = _column_vectors(n, lanes)
    row = max(c.rows, key=lambda v: (_size(c.extent(v)), v), default=None)
    rows = _row_tile(c.extent(row), vectors, cpu, 14) if row is not None else 1
    tile = Tile(rows, vectors * lanes)
    order = _Order(c, tile, row, columns_first=pack)
    prelude: list[Stmt] = []
    b: Callable[[Expr], Expr] = lambda _: c.b  # noqa: E731
    if pack:
        prelude, b = _pack(c, tile, lanes, order)
    end = order.start[c.column] + tile.columns
    whole: Expr | None = None if _divides(tile.columns, n) else apply("le", Index(end), Index(n))

    def tile_body(order: _Order) -> list[Stmt]:
        if pack:  # panels are padded: only the result has an edge
            sums = _column_sums(c, tile, lanes, order, b, None)
            return [*sums, *_either(whole, lambda edge: _column_results(c, tile, lanes, order, edge))]
        return _either(whole, lambda edge: [
            *_column_sums(c, tile, lanes, order, b, _inside(c, order, edge)),
            *_column_results(c, tile, lanes, order, edge),
        ])  # fmt: skip

    body = (Alloc(_accumulator(c, tile), "register"), *order.by_rows(tile_body))
    return (*prelude, *order.wrap(body))


def _accumulator(c: Contraction, tile: Tile) -> Buffer:
    return Buffer("acc", c.total.dtype, (tile.rows, tile.columns))


def _inside(c: Contraction, order: _Order, edge: bool) -> Expr | None:
    """Whether a tile's column exists, if that is in question."""
    return _below(order.start[c.column] + symbol("tn"), c.extent(c.column)) if edge else None


def _size(extent: Dim) -> float:
    return extent if isinstance(extent, int) else 1e9


def _panel_axes(c: Contraction) -> tuple[Dim, Dim]:
    """The summation index in row-major order, and its extent."""
    position: Dim = 0
    for var, extent in c.axes:
        position = position * extent + symbol(var)
    return position, product(n for _, n in c.axes)


def _pack(c: Contraction, tile: Tile, lanes: int, order: _Order) -> tuple[list[Stmt], Callable[[Expr], Expr]]:
    """Copy B into panels of one tile's columns, k by k, so that tiles read it in order."""
    n = c.extent(c.column)
    batch = [(v, e) for v, e in c.loops if v in free_symbols(c.b) and v != c.column]
    k, count = _panel_axes(c)
    panels = ceildiv(n, tile.columns)
    shape = (*(e for _, e in batch), panels, count, tile.columns)
    panel = Buffer("panel", c.total.dtype, shape)
    at, column = symbol("pn"), symbol("panel_at")
    index = column * tile.columns + at
    guard = None if _divides(tile.columns, n) else _below(index, n)
    value = replace(c.b, {c.column: index}, guard=guard)
    if guard is not None and not isinstance(c.b, Load):
        value = apply("select", guard, value, const(0, value.dtype))
    where = (*(Index(symbol(v)) for v, _ in batch), Index(column), Index(k), Index(at))
    body: tuple[Stmt, ...] = (For("pn", tile.columns, (Store(panel, where, value),), "vector", lanes),)
    if _strides(c.b, c.column) != {1}:  # a transposition: read along k instead
        body = (For("pn", tile.columns, (Store(panel, where, value),), "unroll"),)
    for var, extent in reversed(c.axes):
        body = (For(var, extent, body),)
    body = (For("panel_at", panels, body, "parallel" if not batch else "serial"),)
    for level, (var, extent) in reversed(list(enumerate(batch))):
        body = (For(var, extent, body, "parallel" if level == 0 else "serial"),)
    start = order.start[c.column]

    def read(lane: Expr) -> Expr:
        assert isinstance(lane, Index)
        which = floordiv(start, tile.columns)
        return Load(panel, (*(Index(symbol(v)) for v, _ in batch), Index(which), Index(k), lane))

    return [Alloc(panel, "workspace"), *body], read


def _column_sums(
    c: Contraction, tile: Tile, lanes: int, order: _Order, b: Callable[[Expr], Expr], inside: Expr | None
) -> list[Stmt]:
    """The tile's sums, in registers."""
    dtype, acc = c.total.dtype, _accumulator(c, tile)
    line = Buffer("line", dtype, (tile.columns,))
    u, j = symbol("tm"), symbol("tn")

    def across(*body: Stmt) -> For:
        return For("tn", tile.columns, body, "vector", lanes)

    b_value = replace(b(Index(j)), {c.column: order.start[c.column] + j}, guard=inside)
    a_value = replace(c.a, _row_values(c, order, u, order.ragged))
    product_ = apply("mul", Temp("left", dtype), Load(line, (Index(j),)))
    add = Store(acc, (Index(u), Index(j)), product_, "add")
    update: list[Stmt] = [
        across(Store(line, (Index(j),), b_value)),
        For("tm", tile.rows, (Let("left", a_value), across(add)), "unroll"),
    ]
    return [
        Alloc(line, "register"),
        For("tm", tile.rows, (across(Store(acc, (Index(u), Index(j)), const(0, dtype))),), "unroll"),
        *_k_loops(c, update),
    ]


def _column_results(c: Contraction, tile: Tile, lanes: int, order: _Order, edge: bool) -> list[Stmt]:
    """The epilogue for the tile's elements that exist; a long one in a loop, from memory."""
    acc, u, j = _accumulator(c, tile), symbol("tm"), symbol("tn")
    values = {c.column: order.start[c.column] + j}

    def finish(total: Buffer, kind: str) -> For:
        results = _epilogue(c, order, Load(total, (Index(u), Index(j))), values, _inside(c, order, edge))
        row = _rows_inside(c, order, u, [For("tn", tile.columns, tuple(results), "vector", lanes)])
        return For("tm", tile.rows, tuple(row), kind)

    if not _is_long(c):
        return [finish(acc, "unroll")]
    tile_memory = Buffer("sums", acc.dtype, acc.shape)
    copy = Store(tile_memory, (Index(u), Index(j)), Load(acc, (Index(u), Index(j))))
    spill = For("tm", tile.rows, (For("tn", tile.columns, (copy,), "vector", lanes),), "unroll")
    return [Alloc(tile_memory, "local"), spill, finish(tile_memory, "serial")]


def _is_long(c: Contraction) -> bool:
    """Whether the epilogue is too much code to stand there once for each row of the tile."""
    roots = [s.value for s in c.epilogue if isinstance(s, (Let, Store))]
    ops = [e.op for r in roots for e in walk(r) if isinstance(e, Scalar)]
    return len(ops) > SHORT_EPILOGUE or not all(SCALARS[op].machine for op in ops)


def _k_loops(c: Contraction, body: list[Stmt]) -> list[Stmt]:
    for var, extent in reversed(c.axes):
        body = [For(var, extent, tuple(body))]
    return body


def _row_values(c: Contraction, order: _Order, u: Dim, clamp: bool) -> dict[str, Dim]:
    """The row a tile's row stands for; beyond the last one, the last one."""
    if order.row is None:
        return {}
    extent = c.extent(order.row)
    row = order.start[order.row] + u
    if clamp:
        row = dim_min(row, extent - 1)
    return {order.row: row}


def _rows_inside(c: Contraction, order: _Order, u: Dim, body: list[Stmt]) -> list[Stmt]:
    if order.row is None or not order.ragged:
        return body
    return [If(_below(order.start[order.row] + u, c.extent(order.row)), tuple(body))]


def _epilogue(c: Contraction, order: _Order, total: Expr, values: dict[str, Dim], inside: Expr | None) -> list[Stmt]:
    """The statements after the sum, for one element of the tile."""
    values = {**values, **_row_values(c, order, symbol("tm"), clamp=False)}
    temps: dict[str, Expr] = {c.total.name: total}
    out: list[Stmt] = []
    for s in c.epilogue:
        if isinstance(s, Let):
            out.append(Let(s.name, replace(s.value, values, temps)))
        elif isinstance(s, Store):
            indices = tuple(replace(i, values, temps) for i in s.indices)
            out.append(Store(s.buffer, indices, replace(s.value, values, temps), s.combiner))
    return [If(inside, tuple(out))] if inside is not None else out


# --- k in lanes ----------------------------------------------------------------------------------


def _lanes_over_k(c: Contraction, cpu: CpuModel, lane_axis: str) -> tuple[Stmt, ...]:
    dtype = c.total.dtype
    lanes = cpu.lanes(dtype)
    n, row = c.extent(c.column), max(c.rows, key=lambda v: (_size(c.extent(v)), v), default=None)
    columns = n if isinstance(n, int) and n <= 5 else 4
    rows = _row_tile(c.extent(row), columns, cpu, 6) if row is not None else 1
    tile = Tile(rows, columns)
    order = _Order(c, tile, row, columns_first=True)
    return order.wrap(tuple(order.by_rows(lambda o: _lane_tile(c, tile, lanes, o, lane_axis))))


def _lane_tile(c: Contraction, tile: Tile, lanes: int, order: _Order, lane_axis: str) -> list[Stmt]:
    dtype: DType = c.total.dtype
    acc = Buffer("acc", dtype, (tile.rows, tile.columns, lanes))
    lines = [Buffer("left", dtype, (tile.rows, lanes)), Buffer("right", dtype, (tile.columns, lanes))]
    u, w, q = symbol("tm"), symbol("tn"), symbol("lane")
    n, extent = c.extent(c.column), c.extent(lane_axis)
    column = order.start[c.column] + w
    clamped = column if _divides(tile.columns, n) else dim_min(column, n - 1)

    def across(*body: Stmt) -> For:
        return For("lane", lanes, body, "vector", lanes)

    def step(at: Dim, guard: Expr | None) -> list[Stmt]:
        left = replace(c.a, {lane_axis: at, **_row_values(c, order, u, order.ragged)}, guard=guard)
        right = replace(c.b, {lane_axis: at, c.column: clamped}, guard=guard)
        product_ = apply("mul", Load(lines[0], (Index(u), Index(q))), Load(lines[1], (Index(w), Index(q))))
        update = across(Store(acc, (Index(u), Index(w), Index(q)), product_, "add"))
        return [
            For("tm", tile.rows, (across(Store(lines[0], (Index(u), Index(q)), left)),), "unroll"),
            For("tn", tile.columns, (across(Store(lines[1], (Index(w), Index(q)), right)),), "unroll"),
            For("tm", tile.rows, (For("tn", tile.columns, (update,), "unroll"),), "unroll"),
        ]

    inner: list[Stmt] = [For("chunk", floordiv(extent, lanes), tuple(step(symbol("chunk") * lanes + q, None)))]
    if not _divides(lanes, extent):
        at = floordiv(extent, lanes) * lanes + q
        rest = step(at, _below(at, extent))
        inner += rest if isinstance(extent, int) else [If(_below(floordiv(extent, lanes) * lanes, extent), tuple(rest))]
    for var, size in reversed(c.axes):
        if var != lane_axis:
            inner = [For(var, size, tuple(inner))]
    start = across(Store(acc, (Index(u), Index(w), Index(q)), const(0, dtype)))
    folds = fold_lanes(acc, (Index(u), Index(w)), lanes, lanes, "add")
    total = Load(acc, (Index(u), Index(w), Index(0)))
    kind = "unroll"
    gather: list[Stmt] = []
    if _is_long(c):  # a loop, from memory
        sums = Buffer("sums", dtype, (tile.rows, tile.columns))
        keep = (*folds, Store(sums, (Index(u), Index(w)), total))
        gather = [Alloc(sums, "local"), For("tm", tile.rows, (For("tn", tile.columns, keep, "unroll"),), "unroll")]
        folds, total, kind = [], Load(sums, (Index(u), Index(w))), "serial"
    finish: list[Stmt] = _epilogue(c, order, total, {c.column: column}, None)
    if not _divides(tile.columns, n):
        finish = [If(_below(column, n), tuple(finish))]
    finish = [*folds, *_rows_inside(c, order, u, finish)]
    return [
        Alloc(acc, "register"),
        *(Alloc(b, "register") for b in lines),
        For("tm", tile.rows, (For("tn", tile.columns, (start,), "unroll"),), "unroll"),
        *inner,
        *gather,
        For("tm", tile.rows, (For("tn", tile.columns, tuple(finish), kind),), kind),
    ]

