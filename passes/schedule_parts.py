"""Schedule products whose columns are read in parts: the gates of a recurrent step.

``z = h @ W`` has the columns of several gates side by side, and each element of the next state needs one of every
gate. A tile has some rows, and the same few columns of every part: when its sums are complete, all an element needs
is there, and the product itself is never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields

from ..ir.dims import floordiv, mod, symbol
from ..ir.loops import (
    Alloc,
    Buffer,
    Expr,
    For,
    Index,
    Kernel,
    Let,
    Load,
    Reduce,
    Stmt,
    Store,
    Temp,
    free_symbols,
    replace,
    walk,
)  # fmt: skip
from ..ir.scalars import apply, const
from .contraction import Contraction, Order, Tile, at_least, divides, recognize, strides
from .cpu_model import CpuModel
from .pack_panels import Panels
from .tiles import (
    PACK_ROWS,
    TRANSPOSE_ROWS,
    epilogue,
    longest_row,
    panel_read,
    row_tile,
    row_values,
    rows_inside,
)  # fmt: skip

__all__ = ["schedule_parts"]


@dataclass(frozen=True)
class _Parts:
    """Contractions over the same loops with the same left operand; `first` has the epilogue, which reads all totals."""

    first: Contraction
    totals: tuple[Temp, ...]
    rights: tuple[Expr, ...]


def schedule_parts(kernel: Kernel, cpu: CpuModel) -> Kernel | None:
    """The kernel tiled and vectorized; None if it is something else."""
    p = _recognize(kernel)
    if p is None:
        return None
    c, dtype = p.first, p.first.total.dtype
    row, width = longest_row(c), _common_width(p)
    lanes = cpu.tile_lanes(dtype, c.extent(c.column))
    if width is not None and width % lanes:
        lanes = cpu.lanes(dtype)
    if not divides(lanes, c.extent(c.column)):
        return None
    rows = row_tile(c.extent(row), len(p.totals), cpu, 14) if row is not None else 1
    many = row is not None and at_least(c.extent(row), PACK_ROWS if _unit(p) else TRANSPOSE_ROWS)
    pack = width is None and (many or not _unit(p))
    return with_fields(kernel, body=_Schedule(p, Tile(rows, lanes), row, lanes, width, pack, cpu).body())


def _recognize(kernel: Kernel) -> _Parts | None:
    """Several sums of products in one perfect nest, and statements that read them."""
    loops: list[For] = []
    body: Sequence[Stmt] = kernel.body
    while len(body) == 1 and isinstance(body[0], For):
        loops.append(body[0])
        body = body[0].body
    sums = [s for s in body if isinstance(s, Let) and isinstance(s.value, Reduce)]
    rest = tuple(s for s in body if s not in sums)
    if len(sums) < 2 or not all(isinstance(s, (Let, Store)) for s in rest):
        return None
    found = []
    for s in sums:
        nest: tuple[Stmt, ...] = (_with_axes_of(s, sums[0]), *rest)
        for loop in reversed(loops):
            nest = (with_fields(loop, body=nest),)
        c = recognize(with_fields(kernel, body=nest))
        if c is None or len(c.axes) != 1 or any(isinstance(e, Temp) for e in (*walk(c.a), *walk(c.b))):
            return None
        found.append(c)
    first = found[0]
    empty = any(isinstance(n, int) and n == 0 for _, n in (*first.loops, *first.axes))
    if empty or any(c.a != first.a or c.axes != first.axes for c in found):
        return None
    return _Parts(first, tuple(c.total for c in found), tuple(c.b for c in found))


def _with_axes_of(s: Let, like: Let) -> Let:
    """A sum whose counters have the names of another's."""
    assert isinstance(s.value, Reduce) and isinstance(like.value, Reduce)
    e, names = s.value, [v for v, _ in like.value.axes]
    if len(names) != len(e.axes):
        return s
    values = {v: symbol(name) for (v, _), name in zip(e.axes, names)}
    axes = tuple((name, n) for name, (_, n) in zip(names, e.axes))
    return Let(s.name, Reduce(e.combiner, axes, replace(e.body, values), e.dtype))


def _unit(p: _Parts) -> bool:
    return all(strides(b, p.first.column) == {1} for b in p.rights)


def _common_width(p: _Parts) -> int | None:
    """The columns of a panel, if all right operands are parts of one matrix in panels."""
    found = [panel_read(b, p.first.column) for b in p.rights]
    widths = {read and read[0] for read in found}
    return widths.pop() if len(widths) == 1 else None


@dataclass(frozen=True)
class _Schedule:
    """The loops: around tiles, and of one tile.

    `width` is that of panels in which all parts lie; with `pack`, each part is put into panels of its own first.
    """

    p: _Parts
    tile: Tile
    row: str | None
    lanes: int
    width: int | None
    pack: bool
    cpu: CpuModel

    def body(self) -> tuple[Stmt, ...]:
        c, early = self.p.first, self.pack or self.width is not None
        order = Order(c, self.tile, self.row, columns_first=early, outermost=self.width is not None)
        panels = self.panels()
        inner = tuple(order.by_rows(lambda o: self.one_tile(o, panels), single=True))
        nest = order.wrap(inner)
        fills = [s for q in panels for s in (q.alloc(), *q.fill_all())]
        return (*fills, *nest)

    def panels(self) -> list[Panels]:
        """Panels of each part, to be filled beforehand."""
        found = []
        for k, b in enumerate(self.p.rights if self.pack else ()):
            q = Panels(with_fields(self.p.first, b=b), self.tile, self.lanes, self.cpu)
            q.buffer = with_fields(q.buffer, name=f"panel{k}")
            found.append(q)
        return found

    def one_tile(self, order: Order, panels: Sequence[Panels]) -> list[Stmt]:
        """The sums of all parts, in registers; then, from memory, what is made of them."""
        c, tile, parts = self.p.first, order.tile, len(self.p.totals)
        dtype, u, w = c.total.dtype, symbol("tm"), symbol("tn")
        acc = Buffer(tile.sums, dtype, (tile.rows, parts, tile.columns))
        line, memory = Buffer("line", dtype, (parts, tile.columns)), Buffer("sums", dtype, acc.shape)

        def across(*body: Stmt) -> For:
            return For("tn", tile.columns, body, "vector", self.lanes)

        def each(make: Callable[[int], Stmt]) -> tuple[Stmt, ...]:
            return tuple(across(make(k)) for k in range(parts))

        def place(k: int) -> tuple[Index, ...]:
            return Index(u), Index(k), Index(w)

        left = replace(c.a, row_values(c, order, u, order.ragged))
        term = [apply("mul", Temp("left", dtype), Load(line, (Index(k), Index(w)))) for k in range(parts)]
        update = (
            *each(lambda k: Store(line, (Index(k), Index(w)), self._right(k, order, panels))),
            For("tm", tile.rows, (
                Let("left", left), *each(lambda k: Store(acc, place(k), term[k], "add")),
            ), "unroll"),
        )
        (axis, depth), = c.axes
        totals: dict[str, Expr] = {t.name: Load(memory, place(k)) for k, t in enumerate(self.p.totals)}
        finish = across(*epilogue(c, order, totals, {c.column: order.start[c.column] + w}))
        return [
            Alloc(acc, "register"),
            Alloc(line, "register"),
            For("tm", tile.rows, each(lambda k: Store(acc, place(k), const(0, dtype))), "unroll"),
            For(axis, depth, update),
            Alloc(memory, "local"),
            For("tm", tile.rows, each(lambda k: Store(memory, place(k), Load(acc, place(k)))), "unroll"),
            For("tm", tile.rows, tuple(rows_inside(c, order, u, [finish])), "serial"),
        ]

    def _right(self, k: int, order: Order, panels: Sequence[Panels]) -> Expr:
        """An element of the right operand of a part, in the columns of the tile."""
        c, b = self.p.first, self.p.rights[k]
        start, lane = order.start[c.column], symbol("tn")
        if panels:
            return panels[k].read(floordiv(start, self.tile.columns), lane)
        if self.width is None:
            return replace(b, {c.column: start + lane})
        assert isinstance(b, Load)
        indices = [
            Index(i.dim - floordiv(symbol(c.column), self.width) + floordiv(start, self.width))
            if isinstance(i, Index) and c.column in free_symbols(i) else i for i in b.indices[:-1]
        ]
        return Load(b.buffer, (*indices, Index(mod(start, self.width) + lane)))
