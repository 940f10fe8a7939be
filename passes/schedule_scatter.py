"""Schedule the gradient of a convolution by its input for a CPU: products scattered over the result.

As defined, each element of the result gathers from wherever a window covers it; near the border most
of that is nothing. Turned around, each tile of the cotangent is multiplied by the taps of a kernel
row, summed over the channels in registers, and added to the result at the taps' offsets: no
multiplication is wasted, and no operand needs padding or reversal.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as with_fields

from ..ir.dims import Dim, ceildiv, coefficient, equal, mod, symbol
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
    Scalar,
    Stmt,
    Store,
    Temp,
    replace,
)
from ..ir.scalars import apply, const
from .contraction import Contraction, recognize
from .cpu_model import CpuModel

__all__ = ["schedule_scatter"]


@dataclass(frozen=True)
class Slide:
    """An axis along which the kernel slides: ``position = source + step * tap``."""

    position: str
    tap: str
    step: int
    taps: Dim
    extent: Dim

    @property
    def source(self) -> str:
        """The loop over the cotangent's axis."""
        return f"e{self.position}"


def schedule_scatter(kernel: Kernel, cpu: CpuModel) -> Kernel | None:
    """The kernel in scattered form; None if it is not the gradient of a convolution without strides."""
    c = recognize(kernel)
    slides = _slides(c) if c is not None else []
    if c is None or not slides or slides[-1].position != c.column:
        return None
    taps = slides[-1].taps
    if not isinstance(taps, int) or taps + 2 > cpu.registers:
        return None
    return with_fields(kernel, body=_Scatter(c, slides, taps, cpu).body())


def _slides(c: Contraction) -> list[Slide]:
    """The sliding axes of the cotangent, if it is read nowhere but inside its bounds; else none."""
    plain = len(c.epilogue) == 1 and isinstance(c.epilogue[0], Store) and c.epilogue[0].value == c.total
    b = c.b
    if not plain or not isinstance(b, Load) or b.guard is None or not isinstance(c.a, Load) or c.a.guard is not None:
        return []
    found: list[Slide] = []
    bounds: set[Expr] = set()
    for index, extent in zip(b.indices, b.buffer.shape, strict=True):
        if not isinstance(index, Index):
            return []
        slide = _slide(c, index.dim, extent)
        if slide is not None:
            found.append(slide)
            bounds |= {apply("lt", Index(-1), index), apply("lt", index, Index(extent))}
    return found if set(_conditions(b.guard)) == bounds else []


def _slide(c: Contraction, index: Dim, extent: Dim) -> Slide | None:
    for position, size in c.loops:
        for tap, taps in c.axes:
            step = coefficient(index, tap)
            if isinstance(step, int) and step < 0 and index == symbol(position) + step * symbol(tap):
                covers = equal(size, extent - step * (taps - 1))
                return Slide(position, tap, -step, taps, extent) if covers else None
    return None


def _conditions(guard: Expr) -> list[Expr]:
    if isinstance(guard, Scalar) and guard.op == "bitand":
        return [c for a in guard.args for c in _conditions(a)]
    return [guard]


class _Scatter:
    """The loops of one such kernel."""

    def __init__(self, c: Contraction, slides: list[Slide], taps: int, cpu: CpuModel) -> None:
        self.c, self.slides, self.taps = c, slides, taps
        self.across = slides[-1]
        self.down = slides[-2] if len(slides) > 1 else None
        self.dtype = c.total.dtype
        self.lanes = cpu.lanes(self.dtype)
        while isinstance(self.across.extent, int) and self.lanes > 4 and self.across.extent <= self.lanes // 2:
            self.lanes //= 2
        self.rows = _rows(self.down.extent, (cpu.registers - 1) // (taps + 1)) if self.down else 1
        self.acc = Buffer("acc", self.dtype, (taps, self.rows, self.lanes))
        self.line = Buffer("line", self.dtype, (self.rows, self.lanes))

    def body(self) -> tuple[Stmt, ...]:
        from .schedule_cpu import merge_parallel

        sliding = {s.position for s in self.slides}
        outer = [(v, n) for v, n in self.c.loops if v not in sliding]
        body = (*self._zero(), *self._over_taps())
        for var, extent in reversed(outer[2:]):
            body = (For(var, extent, body),)
        if len(outer) > 1:
            return (merge_parallel(For(*outer[0], ()), For(*outer[1], body)),)
        return (For(*outer[0], body, "parallel"),) if outer else body

    def _store(self) -> Store:
        store = self.c.epilogue[0]
        assert isinstance(store, Store)
        return store

    def _zero(self) -> tuple[Stmt, ...]:
        body: tuple[Stmt, ...] = (with_fields(self._store(), value=const(0, self.dtype)),)
        for k, s in enumerate(reversed(self.slides)):
            extent = self.c.extent(s.position)
            body = (For(s.position, extent, body, *(("vector", self.lanes) if k == 0 else ())),)
        return body

    def _over_taps(self) -> tuple[Stmt, ...]:
        """For each kernel row and block of the cotangent: its sums, added in place."""
        body: tuple[Stmt, ...] = tuple(self._tile())
        body = (For("chunk", ceildiv(self.across.extent, self.lanes), body),)
        if self.down is not None:
            body = (For("block", ceildiv(self.down.extent, self.rows), body),)
        for s in reversed(self.slides[:-2]):
            body = (For(s.source, s.extent, body),)
        for s in reversed(self.slides[:-1]):
            body = (For(s.tap, s.taps, body),)
        return body

    def _sources(self) -> dict[str, Dim]:
        """Where in the cotangent a tile's element stands, by sliding position."""
        found: dict[str, Dim] = {s.position: symbol(s.source) for s in self.slides}
        if self.down is not None:
            found[self.down.position] = symbol("block") * self.rows + symbol("row")
        found[self.across.position] = symbol("chunk") * self.lanes + symbol("lane")
        return found

    def _tile(self) -> list[Stmt]:
        at = (Index(symbol("tap")), Index(symbol("row")), Index(symbol("lane")))
        sources, edge = self._sources(), self._edge()
        # with every tap at 0, the guarded position is the cotangent's own
        still: dict[str, Dim] = {**sources, **{s.tap: 0 for s in self.slides}}
        assert isinstance(self.c.b, Load)
        value = Load(self.c.b.buffer, tuple(replace(i, still) for i in self.c.b.indices), edge)
        weight = replace(self.c.a, {self.across.tap: symbol("tap")})
        update = Store(self.acc, at, apply("mul", Temp("left", self.dtype), Load(self.line, at[1:])), "add")
        sums: list[Stmt] = [
            self._rows(self._lanes(Store(self.line, at[1:], value))),
            For("tap", self.taps, (Let("left", weight), self._rows(self._lanes(update))), "unroll"),
        ]
        for var, extent in reversed([a for a in self.c.axes if a[0] not in {s.tap for s in self.slides}]):
            sums = [For(var, extent, tuple(sums))]
        start = self._rows(self._lanes(Store(self.acc, at, const(0, self.dtype))))
        return [
            Alloc(self.acc, "register"),
            Alloc(self.line, "register"),
            For("tap", self.taps, (start,), "unroll"),
            *sums,
            For("tap", self.taps, (self._rows(self._lanes(*self._results(at, sources, edge))),), "unroll"),
        ]

    def _results(self, at: tuple[Expr, ...], sources: dict[str, Dim], edge: Expr | None) -> list[Stmt]:
        taps: dict[str, Dim] = {s.tap: symbol("tap") if s is self.across else symbol(s.tap) for s in self.slides}
        places = {s.position: sources[s.position] + taps[s.tap] * s.step for s in self.slides}
        indices = tuple(replace(i, places) for i in self._store().indices)
        add = Store(self._store().buffer, indices, Load(self.acc, at), "add")
        return [If(edge, (add,))] if edge is not None else [add]

    def _edge(self) -> Expr | None:
        """Whether a tile's element exists, where that is in question."""
        conditions: list[Expr] = []
        sources = self._sources()
        for s, size in ((self.down, self.rows), (self.across, self.lanes)):
            if s is not None and mod(s.extent, size) != 0:
                conditions.append(apply("lt", Index(sources[s.position]), Index(s.extent)))
        if not conditions:
            return None
        return conditions[0] if len(conditions) == 1 else apply("bitand", *conditions)

    def _rows(self, *body: Stmt) -> For:
        return For("row", self.rows, body, "unroll")

    def _lanes(self, *body: Stmt) -> For:
        return For("lane", self.lanes, body, "vector", self.lanes)


def _rows(extent: Dim, most: int) -> int:
    """Rows of a tile: as many as the registers hold, wasting few of the last tile."""
    if not isinstance(extent, int):
        return max(1, min(most, 4))
    return max(range(1, max(1, min(most, extent)) + 1), key=lambda n: (extent / (-(-extent // n) * n), n))
