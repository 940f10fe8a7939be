"""Packing: the second operand of a contraction, copied into panels that tiles read in order.

A panel holds the columns of one tile, k by k (Goto and van de Geijn, "Anatomy of high-performance matrix
multiplication", ACM TOMS 2008). Where memory runs along k instead, the copy is a transposition, in square
blocks of one vector each way.
"""

from __future__ import annotations

from ..ir.dims import Dim, ceildiv, floordiv, product, symbol
from ..ir.loops import Alloc, Buffer, Expr, For, If, Index, Load, Stmt, Store, free_symbols, replace
from ..ir.scalars import apply, const
from .contraction import Contraction, Tile, at_least, below, divides, strides
from .cpu_model import CpuModel

__all__ = ["Panels"]

SHARED_PANELS = 8
"""Panels from which each thread packs those that it uses; of fewer, several threads may use each."""


class Panels:
    """The panels of a contraction's second operand, one for each tile's columns and index that A shares."""

    def __init__(self, c: Contraction, tile: Tile, lanes: int, cpu: CpuModel) -> None:
        self.c, self.tile, self.lanes = c, tile, lanes
        self.batch = [(v, e) for v, e in c.loops if v in free_symbols(c.b) and v != c.column]
        self.count = ceildiv(c.extent(c.column), tile.columns)
        self.k: Dim = 0
        for var, extent in c.axes:
            self.k = self.k * extent + symbol(var)
        depth = product(n for _, n in c.axes)
        shape = (*(e for _, e in self.batch), self.count, depth, tile.columns)
        self.buffer = Buffer("panel", c.total.dtype, shape)
        self.block = min(cpu.lanes(c.total.dtype), tile.columns)

    @property
    def many(self) -> bool:
        """Whether there are enough for threads to share out."""
        return at_least(product([self.count, *(e for _, e in self.batch)]), SHARED_PANELS)

    def _at(self, which: Dim, lane: Dim, k: Dim) -> tuple[Expr, ...]:
        return tuple(Index(d) for d in (*(symbol(v) for v, _ in self.batch), which, k, lane))

    def read(self, which: Dim, lane: Dim) -> Load:
        """An element of a panel."""
        return Load(self.buffer, self._at(which, lane, self.k))

    def fill_all(self) -> list[Stmt]:
        """Pack every panel, in a loop of its own."""
        which = symbol("panel_at")
        kind = "serial" if self.batch else "parallel"
        body: tuple[Stmt, ...] = (For("panel_at", self.count, tuple(self.fill(which)), kind),)
        for level, (var, extent) in reversed(list(enumerate(self.batch))):
            body = (For(var, extent, body, "serial" if level else "parallel"),)
        return list(body)

    def fill(self, which: Dim) -> list[Stmt]:
        """Pack one panel."""
        c = self.c
        if strides(c.b, c.column) == {1}:
            across = For("pn", self.tile.columns, (self._copy(which, symbol("pn"), {}, True),), "vector", self.lanes)
            return self._k_loops([across])
        along = next((v for v, _ in c.axes if strides(c.b, v) == {1}), None)
        ragged = not divides(self.tile.columns, c.extent(c.column))
        if along is None or self.block < 4 or not at_least(c.extent(along), self.block):
            return self._k_loops([self._elements(which, {}, ragged)])
        whole = self._transposed(which, along)
        if not ragged:
            return whole
        inside = apply("le", Index((which + 1) * self.tile.columns), Index(c.extent(c.column)))
        return [If(inside, tuple(whole), tuple(self._k_loops([self._elements(which, {}, True)])))]

    def _copy(self, which: Dim, lane: Dim, values: dict[str, Dim], ragged: bool) -> Store:
        c, index = self.c, which * self.tile.columns + lane
        guard = below(index, c.extent(c.column)) if ragged and not self._even else None
        value = replace(c.b, {c.column: index, **values}, guard=guard)
        if guard is not None and not isinstance(c.b, Load):
            value = apply("select", guard, value, const(0, value.dtype))
        indices = tuple(replace(i, values) for i in self._at(which, lane, self.k))
        return Store(self.buffer, indices, value)

    @property
    def _even(self) -> bool:
        return divides(self.tile.columns, self.c.extent(self.c.column))

    def _elements(self, which: Dim, values: dict[str, Dim], ragged: bool) -> For:
        return For("pn", self.tile.columns, (self._copy(which, symbol("pn"), values, ragged),), "unroll")

    def _transposed(self, which: Dim, along: str) -> list[Stmt]:
        """A panel of existing columns, transposed block by block; what remains of k, element by element."""
        size, extent = self.block, self.c.extent(along)
        k, lane = symbol("pk") * size + symbol("pl"), symbol("pb") * size + symbol("pn")
        copy = self._copy(which, lane, {along: k}, False)
        block = For("pl", size, (For("pn", size, (copy,), "unroll"),), "vector", size)
        blocks = For("pk", floordiv(extent, size), (For("pb", self.tile.columns // size, (block,)),))
        body: list[Stmt] = [blocks]
        if not divides(size, extent):
            start = floordiv(extent, size) * size
            rest = self._elements(which, {along: start + symbol("pk")}, False)
            body.append(For("pk", extent - start, (rest,)))
        return self._k_loops(body, without=along)

    def _k_loops(self, body: list[Stmt], without: str | None = None) -> list[Stmt]:
        for var, extent in reversed(self.c.axes):
            body = body if var == without else [For(var, extent, tuple(body))]
        return body

    def alloc(self) -> Alloc:
        """The memory of all panels."""
        return Alloc(self.buffer, "workspace")
