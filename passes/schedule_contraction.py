"""Schedule a contraction for a CPU: register tiles, packed panels, lanes over the result or the sum.

The kernel ``C[...] = epilogue(sum_k A * B)`` is tiled over one axis that only A has (`rows`) and the
innermost axis of the result, which only B has (`columns`). A tile of rows x columns accumulates in
registers while k runs; the epilogue acts on the tile. Two forms:

- *columns in lanes*: B is read along the columns, from memory or from panels packed beforehand
  (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 2008); A is
  broadcast.
- *k in lanes*: where A and B both run along memory with k (`schedule_lanes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as with_fields
from itertools import product as product_of
from typing import TypeVar

from ..ir.dims import Dim, ceildiv, dim_min, floordiv, product, symbol
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
    Prefetch,
    Stmt,
    Store,
    Temp,
    free_symbols,
    replace,
    walk,
)  # fmt: skip
from ..ir.scalars import apply, const
from .contraction import Contraction, Order, Tile, at_least, below, divides, either, recognize, strides
from .cpu_model import CpuModel
from .flatten_contraction import flatten_contraction
from .pack_panels import Panels
from .schedule_lanes import lanes_over_k
from .tiles import (
    PACK_ROWS,
    TRANSPOSE_ROWS,
    epilogue,
    is_long,
    longest_row,
    panel_width,
    row_tile,
    row_values,
    rows_inside,
    slides,
)  # fmt: skip

__all__ = ["Choice", "choices", "schedule_contraction"]

T = TypeVar("T")

NEAR: set[Dim | None] = {1, 2, 3, 4}
"""Distances between elements that are still read as whole vectors."""

PREFETCH_DEPTH = 64
"""Products summed for an element from which there is time to prefetch what the epilogue reads."""

BLOCK_BYTES = 1 << 21
"""Bytes of A that are read for all columns before the next are: they come from a near cache again."""

LEAST_BLOCK = 128
"""Rows of a block at least: for each block, B is packed again."""

MIRROR_DEPTH = 512
"""Products summed for an element from which it may be stored apart from its neighbours."""

BAND = 2
"""Tiles of rows that share columns of B, where B is not packed."""

LINE = 64
"""Bytes of a cache line."""

LEAST_ROWS = 3
"""Rows for which a wider tile leaves registers, beside a line of B."""

SHORT = 8
"""Columns of a line up to which a tile has several."""


@dataclass(frozen=True)
class Choice:
    """What a schedule with columns in lanes is free to choose; the order of each element's sum is not part of it.

    Attributes
    ----------
    rows, columns : of one register tile.
    lanes : elements of one vector.
    packed : whether B is copied into panels first.
    overlap : whether the last tile of columns begins earlier, computing some again, instead of having an edge.
    lines : short rows of a convolution's result that make a tile together.
    """

    rows: int
    columns: int
    lanes: int
    packed: bool
    overlap: bool = False
    lines: int = 1

    def __str__(self) -> str:
        return f"tiles of {self.rows} x {self.columns}, {self.lanes} lanes, {'packed' if self.packed else 'not packed'}"


def schedule_contraction(kernel: Kernel, cpu: CpuModel, choice: Choice | None = None) -> Kernel | None:
    """The kernel tiled and vectorized; None if it is not a contraction that tiling helps.

    `choice` is used instead of the cost model's, where columns lie in lanes.
    """
    planned = _plan(kernel, cpu)
    if planned is None:
        return None
    c, form = planned
    if isinstance(form, str):
        return with_fields(kernel, body=lanes_over_k(c, cpu, form))
    if choice is None:
        return with_fields(kernel, body=_lanes_over_columns(c, cpu, form))
    notes = (*kernel.notes, f"measured: {choice}")
    return with_fields(kernel, body=_lanes_over_columns(c, cpu, choice), notes=notes)


def choices(kernel: Kernel, cpu: CpuModel) -> tuple[Choice, ...]:
    """The schedules that are worth measuring, the cost model's first; none where there is nothing to choose."""
    planned = _plan(kernel, cpu)
    if planned is None:
        return ()
    c, model = planned
    if isinstance(model, str) or model.overlap or model.lines > 1 or panel_width(c):
        return ()
    row, found = longest_row(c), [model]
    may_pack = not _windowed(c) and row is not None
    packings = [True, False] if may_pack and strides(c.b, c.column) <= {0, 1} else [model.packed]
    for packed, vectors in product_of([model.packed, *(x for x in packings if x != model.packed)], (1, 2, 3)):
        most = (cpu.registers - vectors - 1) // vectors
        for rows in (1,) if row is None else (4, 6, 8, 12):
            small = row is not None and not at_least(c.extent(row), rows)
            if rows <= most and not small and at_least(c.extent(c.column), vectors * model.lanes):
                found.append(Choice(rows, vectors * model.lanes, model.lanes, packed))
    return tuple(dict.fromkeys(found))


def _plan(kernel: Kernel, cpu: CpuModel) -> tuple[Contraction, Choice | str] | None:
    """What the cost model makes of a kernel: a choice for columns in lanes, or the axis of k in lanes."""
    c = recognize(kernel)
    if c is None or any(isinstance(n, int) and n == 0 for _, n in (*c.loops, *c.axes)):
        return None
    c = _along_outputs(c)
    windowed = _windowed(c)
    c = flatten_contraction(c)
    width = panel_width(c)
    if width is not None:
        return c, _prepared(c, cpu, width)
    c = _mirrored(c, cpu)
    lanes = cpu.lanes(c.total.dtype)
    lane_axis = _lane_axis(c, lanes)
    unit = strides(c.b, c.column) <= {0, 1}
    rows = product(c.extent(r) for r in c.rows)
    many_rows = at_least(rows, PACK_ROWS if unit else TRANSPOSE_ROWS)
    if lane_axis and (windowed and not at_least(c.extent(c.column), lanes) or not unit and not many_rows):
        return c, lane_axis
    if windowed and not unit and lane_axis:
        return c, lane_axis
    if not unit and not many_rows and not at_least(c.extent(c.column), lanes):
        return None
    pack = not windowed and many_rows
    overlap = not pack and not kernel.inplace and _overlaps(c, cpu)
    return c, _choose(c, cpu, pack, overlap)


def _mirrored(c: Contraction, cpu: CpuModel) -> Contraction:
    """The product with its operands exchanged, where the rows of the result fill tiles better than its columns.

    So it is with gradients of weights ``[outputs, inputs]``, whose sum runs over a batch. Elements are then stored
    apart, which costs little after a long sum.
    """
    if len(c.loops) != 2 or len(c.axes) != 1 or len(c.rows) != 1:
        return c
    (k, depth), = c.axes
    row, column = (v for v, _ in c.loops)
    along = strides(c.a, row) == strides(c.b, column) == {1} and k not in (row, column)
    m, n = c.extent(row), c.extent(column)
    wide = cpu.tile_lanes(c.total.dtype, symbol("N")) * 2
    if not along or not at_least(depth, MIRROR_DEPTH) or not isinstance(m, int) or not isinstance(n, int):
        return c
    if n < wide or m % wide or m < 2 * n:
        return c
    return with_fields(c, loops=((column, n), (row, m)), a=c.b, b=c.a)


def _along_outputs(c: Contraction) -> Contraction:
    """A convolution whose kernel lies in panels of its outputs, with these as its columns."""
    for at, (var, _) in enumerate(c.loops[:-1]):
        turned = with_fields(c, loops=(*c.loops[:at], *c.loops[at + 1 :], c.loops[at]), a=c.b, b=c.a)
        if var not in free_symbols(c.b) and panel_width(turned) is not None:
            return turned
    return c


def _prepared(c: Contraction, cpu: CpuModel, width: int) -> Choice:
    """The choice where B lies in panels already, which say how wide a tile is."""
    row, lanes = longest_row(c), cpu.tile_lanes(c.total.dtype, width)
    lanes = lanes if width % lanes == 0 else width
    rows = row_tile(c.extent(row), width // lanes, cpu, 14) if row is not None else 1
    return Choice(rows, width, lanes, packed=False)


def _windowed(c: Contraction) -> bool:
    """Whether B slides, as in a convolution."""
    return slides(c.b, c)


def _lane_axis(c: Contraction, lanes: int) -> str | None:
    """A summation variable along which A and B both run through memory; B perhaps in strides, as of a window."""
    for var, extent in c.axes:
        if strides(c.a, var) == {1} and strides(c.b, var) <= NEAR and at_least(extent, lanes):
            return var
    return None


def _column_vectors(extent: Dim, lanes: int) -> int:
    if not isinstance(extent, int):
        return 2
    needed = -(-extent // lanes)
    return 3 if needed in (3, 6, 9) else min(2, needed)


# --- columns in lanes ----------------------------------------------------------------------------


def _overlaps(c: Contraction, cpu: CpuModel) -> bool:
    """Whether the last tile of columns had better begin earlier, computing some again, than read under a mask.

    So it is where B is read in strides: a vector of elements that lie apart is several loads, each with its mask.
    """
    n, apart = c.extent(c.column), strides(c.b, c.column) - {0, 1}
    masks = 0 < cpu.masked_bytes <= c.total.dtype.itemsize
    least = cpu.lanes(c.total.dtype) if masks else 4
    return isinstance(n, int) and n >= least and bool(apart) and apart <= NEAR


def _column_tile(c: Contraction, cpu: CpuModel, overlap: bool) -> tuple[int, int]:
    """The lanes of a tile's vectors, and how many vectors make a row of it."""
    n, dtype = c.extent(c.column), c.total.dtype
    lanes = cpu.tile_lanes(dtype, n)
    if not isinstance(n, int):
        return lanes, _column_vectors(n, lanes)
    if _windowed(c) and not overlap:
        narrow, wide = cpu.lanes(dtype), cpu.tile_lanes(dtype, symbol("N"))
        lanes = wide if ceildiv(n, wide) * wide == ceildiv(n, narrow) * narrow else narrow
        if divides(lanes, n) and n // lanes % 2 and n // lanes <= _most_vectors(cpu):
            return lanes, n // lanes  # pairs would not fill a row
    while lanes > 4 and n <= lanes // 2:
        lanes //= 2
    while overlap and lanes > n:
        lanes //= 2
    return lanes, 1 if overlap and not divides(2 * lanes, n) else _column_vectors(n, lanes)


def _choose(c: Contraction, cpu: CpuModel, pack: bool, overlap: bool) -> Choice:
    """The cost model's choice."""
    row = longest_row(c)
    lanes, vectors = _column_tile(c, cpu, overlap)
    limit, enough = (16, 16) if _windowed(c) else (14, 10)
    lines = _lines(c, lanes * vectors, _most_vectors(cpu)) if row is not None else 1
    rows = row_tile(c.extent(row), lines * vectors, cpu, limit, enough) if row is not None else 1
    return Choice(rows, vectors * lanes, lanes, pack, overlap, lines)


def _lanes_over_columns(c: Contraction, cpu: CpuModel, choice: Choice) -> tuple[Stmt, ...]:
    n, row, lanes = c.extent(c.column), longest_row(c), choice.lanes
    pack, overlap, prepared = choice.packed, choice.overlap, panel_width(c) is not None
    tile = Tile(choice.rows, choice.columns, choice.lines)
    block = _row_block(c, tile, row) if pack or prepared else None
    band = 1 if pack or prepared or row is None else _band(c.extent(row), tile)
    order = Order(c, tile, row, columns_first=pack or prepared, block=block, band=band, outermost=prepared)
    in_order = strides(c.b, c.column) == {1} and n == tile.columns  # as a panel would be
    panels = Panels(c, tile, lanes, cpu) if pack and not in_order else None
    which = floordiv(order.start[c.column], tile.columns)
    b = _in_panel(c.b, which, symbol("tn")) if prepared else panels.read(which, symbol("tn")) if panels else c.b
    if overlap:
        order.start[c.column] = dim_min(order.start[c.column], n - tile.columns)
    end = order.start[c.column] + tile.columns
    whole: Expr | None = None if overlap or divides(tile.columns, n) else apply("le", Index(end), Index(n))

    def tile_body(order: Order) -> list[Stmt]:
        tile = order.tile
        if panels or prepared:  # they are padded: only the result has an edge
            sums = _column_sums(c, tile, lanes, order, b, None)
            results = either(whole, lambda edge: _column_results(c, tile, lanes, order, edge))
            return [*_prefetched(c, tile, order, whole), *sums, *results]
        return either(whole, lambda edge: [
            *_column_sums(c, tile, lanes, order, b, _inside(c, order, edge)),
            *_column_results(c, tile, lanes, order, edge),
        ])  # fmt: skip

    def tile_alone(order: Order) -> list[Stmt]:
        body = tile_body(order)
        return body if order.tile.sums == tile.sums else [Alloc(_accumulator(c, order.tile), "register"), *body]

    body = (Alloc(_accumulator(c, tile), "register"), *order.by_rows(tile_alone, single=tile.lines == 1))
    if panels is None:
        return order.wrap(body)
    if panels.many:
        return (panels.alloc(), *order.wrap(body, panels.fill(which)))
    return (panels.alloc(), *panels.fill_all(), *order.wrap(body))


def _in_panel(b: Expr, which: Dim, lane: Dim) -> Load:
    """An element of a panel that lies in memory already."""
    assert isinstance(b, Load)
    column = b.indices[-1]
    at = next(k for k, i in enumerate(b.indices) if free_symbols(i) & free_symbols(column))
    return Load(b.buffer, (*b.indices[:at], Index(which), *b.indices[at + 1 : -1], Index(lane)))


def _most_vectors(cpu: CpuModel) -> int:
    """Vectors in a tile's row that leave registers for the least rows."""
    return (cpu.registers - 1) // (LEAST_ROWS + 1)


def _lines(c: Contraction, columns: int, most: int) -> int:
    """Short rows of a convolution's result that make a tile together, so that each weight loaded serves them all."""
    if not _windowed(c) or columns > SHORT or not strides(c.b, c.column) <= {0, 1} or len(c.loops) < 2:
        return 1
    var, extent = c.loops[-2]
    if not isinstance(extent, int) or var in free_symbols(c.a) or var not in free_symbols(c.b):
        return 1
    return max(n for n in range(1, most + 1) if extent % n == 0)


def _row_block(c: Contraction, tile: Tile, row: str | None) -> int | None:
    """Tiles in a block of rows that stays in cache while all columns pass; None where one block is all."""
    depth = product(n for _, n in c.axes)
    if row is None or not isinstance(depth, int) or ceildiv(c.extent(c.column), tile.columns) == 1:
        return None
    tiles = max(BLOCK_BYTES // (depth * c.total.dtype.itemsize), LEAST_BLOCK) // tile.rows
    return tiles if at_least(c.extent(row), 2 * tiles * tile.rows) else None


def _band(extent: Dim, tile: Tile) -> int:
    """Tiles of a band of rows: each thread has its own bands, whose tiles follow each other with the same columns."""
    count = ceildiv(extent, tile.rows)
    return BAND if isinstance(count, int) and count % BAND == 0 and count > BAND else 1


def _accumulator(c: Contraction, tile: Tile) -> Buffer:
    return Buffer(tile.sums, c.total.dtype, (tile.rows, *_of_lines(tile, tile.lines), tile.columns))


def _of_lines(tile: Tile, x: T) -> tuple[T, ...]:
    """What stands for the axis of lines, if a tile has one."""
    return (x,) if tile.lines > 1 else ()


def _across(tile: Tile, lanes: int, *body: Stmt) -> For:
    """Statements for all of a tile's columns, line by line."""
    loop = For("tn", tile.columns, body, "vector", lanes)
    return loop if tile.lines == 1 else For("tl", tile.lines, (loop,), "unroll")


def _inside(c: Contraction, order: Order, edge: bool) -> Expr | None:
    """Whether a tile's column exists, if that is in question."""
    return below(order.start[c.column] + symbol("tn"), c.extent(c.column)) if edge else None


def _prefetched(c: Contraction, tile: Tile, order: Order, whole: Expr | None) -> list[Stmt]:
    """Hints for what the epilogue will read, a line of cache each: lines of many rows, which no processor foresees."""
    if order.row is None or not at_least(product(n for _, n in c.axes), PREFETCH_DEPTH):
        return []
    values = row_values(c, order, symbol("tm"), order.ragged)
    loads = [e for s in c.epilogue if isinstance(s, (Let, Store)) for e in walk(s.value) if isinstance(e, Load)]
    hints: list[Stmt] = []
    for load in dict.fromkeys(loads):
        step, row = (strides(load, v) for v in (c.column, order.row))
        if step == {1} and row != {0} and load.guard is None:
            line = max(LINE // load.dtype.itemsize, 1)
            apart = {**values, c.column: order.start[c.column] + symbol("tn") * line}
            hint = Prefetch(load.buffer, tuple(replace(i, apart) for i in load.indices))
            hints.append(For("tn", -(-tile.columns // line), (hint,), "unroll"))
    loop: list[Stmt] = [For("tm", tile.rows, tuple(hints), "unroll")] if hints else []
    return [If(whole, tuple(loop))] if loop and whole is not None else loop


def _column_sums(
    c: Contraction, tile: Tile, lanes: int, order: Order, b: Expr, inside: Expr | None
) -> list[Stmt]:
    """The tile's sums, in registers."""
    dtype, acc = c.total.dtype, _accumulator(c, tile)
    line = Buffer("line", dtype, (*_of_lines(tile, tile.lines), tile.columns))
    u, at = symbol("tm"), _columns(tile)

    def across(*body: Stmt) -> For:
        return _across(tile, lanes, *body)

    b_value = replace(b, _column_values(c, order), guard=inside)
    a_value = replace(c.a, row_values(c, order, u, order.ragged))
    product_ = apply("mul", Temp("left", dtype), Load(line, at))
    add = Store(acc, (Index(u), *at), product_, "add")
    update: list[Stmt] = [
        across(Store(line, at, b_value)),
        For("tm", tile.rows, (Let("left", a_value), across(add)), "unroll"),
    ]
    return [
        Alloc(line, "register"),
        For("tm", tile.rows, (across(Store(acc, (Index(u), *at), const(0, dtype))),), "unroll"),
        *_k_loops(c, update),
    ]


def _column_results(c: Contraction, tile: Tile, lanes: int, order: Order, edge: bool) -> list[Stmt]:
    """The epilogue for the tile's elements that exist; a long one in a loop, from memory."""
    acc, u, at = _accumulator(c, tile), symbol("tm"), _columns(tile)
    values = _column_values(c, order)

    def finish(total: Buffer, kind: str) -> For:
        results = epilogue(c, order, {c.total.name: Load(total, (Index(u), *at))}, values, _inside(c, order, edge))
        row = rows_inside(c, order, u, [_across(tile, lanes, *results)])
        return For("tm", tile.rows, tuple(row), kind)

    if not is_long(c):
        return [finish(acc, "unroll")]
    tile_memory = Buffer("sums", acc.dtype, acc.shape)
    copy = Store(tile_memory, (Index(u), *at), Load(acc, (Index(u), *at)))
    spill = For("tm", tile.rows, (_across(tile, lanes, copy),), "unroll")
    return [Alloc(tile_memory, "local"), spill, finish(tile_memory, "serial")]


def _columns(tile: Tile) -> tuple[Index, ...]:
    """The indices of a column in a tile."""
    return (*_of_lines(tile, Index(symbol("tl"))), Index(symbol("tn")))


def _column_values(c: Contraction, order: Order) -> dict[str, Dim]:
    """The column, and the line, that those of a tile stand for."""
    values = {c.column: order.start[c.column] + symbol("tn")}
    return values if order.line is None else {**values, order.line: order.start[order.line] + symbol("tl")}


def _k_loops(c: Contraction, body: list[Stmt]) -> list[Stmt]:
    for var, extent in reversed(c.axes):
        body = [For(var, extent, tuple(body))]
    return body
