"""What schedules of contractions share: the rows of a register tile, and what is done with its sums."""

from __future__ import annotations

from ..ir.dims import Dim, dim_min, floordiv, mod, symbol, symbols
from ..ir.loops import Expr, If, Index, Let, Load, Scalar, Stmt, Store, free_symbols, replace, walk
from ..ir.scalars import SCALARS
from .contraction import Contraction, Order, below, divides
from .cpu_model import CpuModel

__all__ = [
    "PACK_ROWS", "TRANSPOSE_ROWS", "epilogue", "is_long", "longest_row", "panel_read", "panel_width", "row_tile",
    "row_values", "rows_inside", "size", "slides",
]  # fmt: skip

PACK_ROWS = 40
"""Rows of A from which packing B pays: each packed element is then used several times."""

TRANSPOSE_ROWS = 24
"""The same where B runs along k, and lanes over k are the alternative."""

LEAST_PANEL = 4
"""Columns of a panel at least: fewer are not a vector, and one index of B may be so by chance."""

SHORT_EPILOGUE = 2
"""Scalar operations up to which the epilogue acts on registers, unrolled; a longer one loops over memory."""


def longest_row(c: Contraction) -> str | None:
    """The axis of a tile's rows: the longest; of a convolution along its outputs, the last of the result."""
    if panel_width(c) is not None and slides(c.a, c):
        return c.rows[-1] if c.rows else None
    return max(c.rows, key=lambda v: (size(c.extent(v)), v), default=None)


def row_tile(extent: Dim, vectors: int, cpu: CpuModel, limit: int, enough: int = 10) -> int:
    """Rows that keep the registers busy, with sums in `enough` of them, and waste few of the last tile."""
    most = max(1, min(limit, (cpu.registers - vectors - 1) // vectors))
    if not isinstance(extent, int):  # whole tiles, if possible; batches are multiples of 8 more often than of others
        whole = [n for n in range(most, 0, -1) if n * vectors >= enough and divides(n, extent)]
        return whole[0] if whole else min(most, 8)
    most = min(most, extent)

    def score(rows: int) -> float:
        padded = -(-extent // rows) * rows
        busy = min(1.0, rows * vectors / enough)
        return busy * extent / padded

    return max(range(1, most + 1), key=lambda rows: (score(rows), rows))


def row_values(c: Contraction, order: Order, u: Dim, clamp: bool) -> dict[str, Dim]:
    """The row a tile's row stands for; beyond the last one, the last one."""
    if order.row is None:
        return {}
    extent = c.extent(order.row)
    row = order.start[order.row] + u
    if clamp:
        row = dim_min(row, extent - 1)
    return {order.row: row}


def rows_inside(c: Contraction, order: Order, u: Dim, body: list[Stmt]) -> list[Stmt]:
    """Statements for a tile's row, if it is one of the result."""
    if order.row is None or not order.ragged:
        return body
    return [If(below(order.start[order.row] + u, c.extent(order.row)), tuple(body))]


def epilogue(
    c: Contraction, order: Order, temps: dict[str, Expr], values: dict[str, Dim], inside: Expr | None = None,
) -> list[Stmt]:
    """The statements after the sums, for one element of the tile; `temps` says where the sums are."""
    values = {**values, **row_values(c, order, symbol("tm"), clamp=False)}
    out: list[Stmt] = []
    for s in c.epilogue:
        if isinstance(s, Let):
            out.append(Let(s.name, replace(s.value, values, temps)))
        elif isinstance(s, Store):
            indices = tuple(replace(i, values, temps) for i in s.indices)
            out.append(Store(s.buffer, indices, replace(s.value, values, temps), s.combiner))
    return [If(inside, tuple(out))] if inside is not None else out


def is_long(c: Contraction) -> bool:
    """Whether the epilogue is too much code to stand there once for each row of the tile."""
    roots = [s.value for s in c.epilogue if isinstance(s, (Let, Store))]
    ops = [e.op for r in roots for e in walk(r) if isinstance(e, Scalar)]
    return len(ops) > SHORT_EPILOGUE or not all(SCALARS[op].machine for op in ops)


def size(extent: Dim) -> float:
    return extent if isinstance(extent, int) else 1e9


def panel_read(b: Expr, column: str) -> tuple[int, int] | None:
    """The columns of a panel, and which panel the first column is in, if B lies in panels already (`ir.ops.panels`)."""
    if not isinstance(b, Load) or b.guard is not None or len(b.indices) < 3:
        return None
    width, counter = b.buffer.shape[-1], symbol(column)
    if not isinstance(width, int) or width < LEAST_PANEL or b.indices[-1] != Index(mod(counter, width)):
        return None
    others = [i for i in b.indices[:-1] if column in free_symbols(i)]
    if len(others) != 1 or not isinstance(others[0], Index):
        return None
    first = others[0].dim - floordiv(counter, width)
    return (width, first) if isinstance(first, int) else None


def panel_width(c: Contraction) -> int | None:
    """The columns of a panel, if B lies in panels, from the first one on."""
    found = panel_read(c.b, c.column)
    return found[0] if found is not None and found[1] == 0 else None


def slides(e: Expr, c: Contraction) -> bool:
    """Whether an index mixes result and summation variables."""
    sums = {v for v, _ in c.axes}
    results = {v for v, _ in c.loops}
    for load in (x for x in walk(e) if isinstance(x, Load)):
        for i in load.indices:
            if isinstance(i, Index) and symbols(i.dim) & sums and symbols(i.dim) & results:
                return True
    return False
