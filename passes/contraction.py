"""Contractions ``C[...] = epilogue(sum_k A * B)``: what they are, and the loops around their tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from dataclasses import replace as with_fields

from ..ir.dims import Dim, ceildiv, coefficient, dim_min, mod, substitute, symbol, symbols
from ..ir.loops import (
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
    walk,
)  # fmt: skip
from ..ir.scalars import apply

__all__ = ["Contraction", "Order", "Tile", "at_least", "below", "divides", "either", "recognize", "strides"]


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


def strides(e: Expr, var: str) -> set[Dim | None]:
    """How far each load of an expression moves when a variable advances."""
    found: set[Dim | None] = set()
    for load in (x for x in walk(e) if isinstance(x, Load)):
        position = flat_index(load)
        found.add(None if position is None else coefficient(position, var))
    return found


def at_least(extent: Dim, least: int) -> bool:
    return not isinstance(extent, int) or extent >= least


@dataclass(frozen=True)
class Tile:
    """Rows x columns of one register tile; the columns perhaps on several `lines`, of the axis before theirs.

    `sums` is the name of its accumulator.
    """

    rows: int
    columns: int
    lines: int = 1
    sums: str = "acc"


class Order:
    """The loops outside a tile: which, in which order, and where a tile starts in them."""

    def __init__(
        self, c: Contraction, tile: Tile, row: str | None, columns_first: bool, block: int | None = None,
        band: int = 1, outermost: bool = False,
    ) -> None:  # fmt: skip
        self.c, self.tile, self.row = c, tile, row
        self.line = c.loops[-2][0] if tile.lines > 1 else None
        self.ragged = False  # whether the tile's last rows may not exist
        counts: dict[str, tuple[str, Dim]] = {}
        for var, extent in c.loops:
            size = self._size(var)
            counts[var] = (var if size == 1 else f"{var}t", extent if size == 1 else ceildiv(extent, size))
        order = [v for v, _ in c.loops]
        if columns_first and row is not None:
            order.remove(c.column)
            order.insert(min(map(order.index, c.rows)) if outermost else order.index(row), c.column)
        self.loops = [(v, *counts[v]) for v in order if counts[v] != (f"{v}t", 1)]
        self.start: dict[str, Dim] = {
            var: 0 if counts[var] == (f"{var}t", 1) else symbol(counts[var][0]) * self._size(var)
            for var in (row, self.line, c.column) if var is not None
        }  # fmt: skip
        self.blocks: For | None = None
        self.band: For | None = None
        if row is not None and block is not None:
            self._take_blocks(row, block)
        elif row is not None and band > 1:
            self._take_bands(row, band)

    def _take_blocks(self, row: str, tiles: int) -> None:
        """Loop over blocks of so many tiles' rows, outside all other loops."""
        at = f"{row}b"
        counter, count = next((counter, count) for v, counter, count in self.loops if v == row)
        self.blocks = For(at, ceildiv(self.c.extent(row), tiles * self.tile.rows), ())
        first = symbol(at) * tiles
        inside = dim_min(tiles, count - first)
        self.loops = [(v, t, inside if v == row else n) for v, t, n in self.loops]
        self.start[row] = substitute(self.start[row], {counter: first + symbol(counter)})

    def _take_bands(self, row: str, tiles: int) -> None:
        """Loop over so many tiles' rows inside all other loops: they share their columns of B."""
        at, counter = f"{row}b", f"{row}t"
        self.band = For(counter, tiles, ())
        self.loops = [(v, at, n // tiles) if v == row else (v, t, n) for v, t, n in self.loops]
        self.start[row] = substitute(self.start[row], {counter: symbol(at) * tiles + symbol(counter)})

    def _size(self, var: str) -> int:
        sizes = {self.row: self.tile.rows, self.c.column: self.tile.columns, self.line: self.tile.lines}
        return sizes.get(var, 1)

    def by_rows(self, make: Callable[[Order], list[Stmt]], single: bool = False) -> list[Stmt]:
        """``make(order)`` for a tile; if rows may be left over, for one that reads and keeps only rows that exist.

        With `single`, a row that is the only one left, as of a batch of one, is a tile of its own.
        """
        if self.row is None or divides(self.tile.rows, self.c.extent(self.row)):
            return make(self)
        extent, start = self.c.extent(self.row), self.start[self.row]
        ragged, one = copy(self), copy(self)
        ragged.ragged = True
        if not single or isinstance(extent, int):
            return make(ragged)
        one.tile = Tile(1, self.tile.columns, self.tile.lines, "row")
        return [If(apply("eq", Index(start + 1), Index(extent)), tuple(make(one)), tuple(make(ragged)))]

    def wrap(self, body: tuple[Stmt, ...], panel: Sequence[Stmt] = ()) -> tuple[Stmt, ...]:
        """The outer loops around a tile; the two outermost are given to threads as one.

        `panel` are statements for all tiles that share their columns: they stand before the loops that only A has.
        """
        outer = self.loops
        body = body if self.band is None else (with_fields(self.band, body=body),)
        if panel:
            shared = free_symbols(self.c.b)
            outer = [x for x in self.loops if x[0] in shared]
            for var, counter, count in reversed(self.loops):
                body = body if var in shared else (For(counter, count, body),)
            body = (*panel, *body)
        body = self._parallel(outer, body)
        return body if self.blocks is None else (with_fields(self.blocks, body=body),)

    @staticmethod
    def _parallel(outer: Sequence[tuple[str, str, Dim]], body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        for _, counter, count in reversed(outer[2:]):
            body = (For(counter, count, body),)
        loops = [For(counter, count, ()) for _, counter, count in outer[:2]]
        if len(loops) > 1:
            from .schedule_cpu import merge_parallel

            return (merge_parallel(loops[0], with_fields(loops[1], body=body)),)
        return (with_fields(loops[0], body=body, kind="parallel"),) if loops else body


def below(index: Dim, extent: Dim) -> Expr:
    return apply("lt", Index(index), Index(extent))


def divides(size: int, extent: Dim) -> bool:
    return mod(extent, size) == 0


def either(condition: Expr | None, make: Callable[[bool], list[Stmt]]) -> list[Stmt]:
    """``make(False)`` where the tile is whole; else, where `condition` fails, ``make(True)``: guarded."""
    if condition is None:
        return make(False)
    assert isinstance(condition, Scalar)
    end, extent = condition.args
    if isinstance(end, Index) and isinstance(extent, Index) and not symbols(end.dim) | symbols(extent.dim):
        return make(True)  # a single tile, with an edge
    return [If(condition, tuple(make(False)), tuple(make(True)))]
