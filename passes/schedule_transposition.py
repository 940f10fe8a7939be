"""Transpositions: square blocks that are loaded along one axis and stored along the other.

A map whose result runs along one axis, and an operand along another, would gather one number from each line of cache.
In blocks of one vector each way, lines are loaded and stored whole, and exchanged in registers
(`compiler.llvm.transpose`); blocks beside each other use up the lines that they share. Where other operands run as the
result does, only what is computed from those that do not is exchanged, into a small block that the rest then reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields

from ..ir.dims import Dim, coefficient, dim_min, floordiv, mod, substitute, symbol, symbols
from ..ir.loops import (
    Alloc,
    Buffer,
    Const,
    Expr,
    For,
    Index,
    Load,
    Stmt,
    Store,
    children,
    flat_index,
    replace,
    walk,
)  # fmt: skip
from .cpu_model import CpuModel

__all__ = ["in_blocks"]

LINE = 64
"""Bytes of a cache line."""

LEAST_BLOCK, MOST_BLOCK = 4, 16
"""Elements along the side of a block."""

MOST_PARTS = 2
"""Blocks that are exchanged for one result."""


@dataclass(frozen=True)
class _Turned:
    """A nest around one store: loops around both axes, that which operands run along, that which the result does.

    `parts` are what is exchanged of the value that is stored, unless it is all of it.
    """

    others: tuple[For, ...]
    across: For
    along: For
    store: Store
    parts: tuple[Expr, ...] = ()


def in_blocks(s: For, cpu: CpuModel) -> list[For] | None:
    """The loops of a transposition in blocks, with what blocks leave over; None if a nest is something else."""
    found = _recognize(s)
    if found is None:
        return None
    side = cpu.lanes(found.store.buffer.dtype)
    extents = found.across.extent, found.along.extent
    small = any(isinstance(n, int) and n < side for n in extents)
    if not LEAST_BLOCK <= side <= MOST_BLOCK or small or found.store.buffer.dtype.is_bool:
        return None
    nest = _blocks(found, side)
    for loop in reversed(found.others):
        nest = [with_fields(loop, body=tuple(nest))]
    return nest


def _recognize(s: For) -> _Turned | None:
    loops, inner = [s], s.body
    while len(inner) == 1 and isinstance(inner[0], For) and inner[0].kind == "serial":
        loops.append(inner[0])
        inner = inner[0].body
    if s.kind != "serial" or len(loops) < 2 or len(inner) != 1 or not isinstance(inner[0], Store):
        return None
    store, along = inner[0], loops[-1]
    position = flat_index(store)
    if store.combiner is not None or position is None or coefficient(position, along.var) != 1:
        return None
    loads = [e for e in walk(store.value) if isinstance(e, Load)]
    across = next((v for v in loops[:-1] if any(_runs(e, v.var, along.var) for e in loads)), None)
    if across is None or any(symbols(v.extent) & {w.var for w in loops} for v in loops):
        return None
    others = tuple(v for v in loops[:-1] if v is not across)
    if all(_fits(e, across.var, along.var) for e in loads):
        return _Turned(others, across, along, store)
    parts = tuple(dict.fromkeys(_parts(store.value, across.var, along.var)))
    rest = _without(store.value, {e: Const(0, e.dtype) for e in parts})
    loads = [e for e in walk(rest) if isinstance(e, Load)]
    alike = all(e.dtype.itemsize == store.buffer.dtype.itemsize for e in parts)
    if not alike or len(parts) > MOST_PARTS or not all(_fits(e, along.var, across.var) for e in loads):
        return None
    return _Turned(others, across, along, store, parts)


def _parts(e: Expr, across: str, along: str) -> list[Expr]:
    """The largest parts of an expression that run along `across`, and read nothing that does not fit a block."""

    def loads(x: Expr) -> list[Load]:
        return [y for y in walk(x) if isinstance(y, Load)]

    def runs(x: Expr) -> bool:
        return any(_runs(y, across, along) for y in loads(x))

    def fits(x: Expr) -> bool:
        return all(_fits(y, across, along) for y in loads(x)) and not x.dtype.is_bool

    largest = walk(e, lambda x: children(x) if runs(x) and not fits(x) else ())
    return [x for x in largest if runs(x) and fits(x)]


def _without(e: Expr, instead: dict[Expr, Expr]) -> Expr:
    """An expression with others in place of parts of it."""
    return replace(e, memo=dict(instead))


def _runs(e: Load, across: str, along: str) -> bool:
    """Whether neighbours along the one axis are neighbours in memory, and those along the other are not."""
    position = flat_index(e)
    if position is None or coefficient(position, across) != 1:
        return False
    return coefficient(position, along) not in (0, 1, None)


def _fits(e: Load, across: str, along: str) -> bool:
    """Whether a load is a vector, or one number, for all of a block's numbers along `across`."""
    position = flat_index(e)
    if position is None or e.guard is not None:
        return False
    return coefficient(position, across) in (0, 1) and coefficient(position, along) is not None


def _blocks(t: _Turned, side: int) -> list[For]:
    i, j = t.across, t.along
    rows, columns = floordiv(i.extent, side), floordiv(j.extent, side)
    group = max(LINE // (side * t.store.buffer.dtype.itemsize), 1)
    outer, beside, lane = (symbol(f"{i.var}{x}") for x in "bgl")
    across = (outer * group + beside) * side + lane
    along = symbol(f"{j.var}b") * side + symbol(f"{j.var}l")
    inside = _at(t.store, {i.var: across, j.var: along})
    parts = [replace(e, {i.var: across, j.var: along}) for e in t.parts]
    whole = mod(rows, group) == 0
    count = group if whole else dim_min(group, rows - outer * group)
    block = For(f"{i.var}g", count, tuple(_block(inside, parts, f"{i.var}l", f"{j.var}l", side)))
    blocks: list[Stmt] = [For(f"{j.var}b", columns, (block,))]
    if columns * side != j.extent:
        rest = _rest(j, columns * side, _at(t.store, {i.var: symbol(i.var) + outer * (group * side)}))
        beside_rest = group * side if whole else dim_min(group * side, rows * side - outer * (group * side))
        blocks.append(For(i.var, beside_rest, (rest,)))
    found = [For(f"{i.var}b", floordiv(rows + (group - 1), group), tuple(blocks))]
    if rows * side != i.extent:
        found.append(_rest(i, rows * side, with_fields(j, body=(t.store,))))
    return found


def _block(store: Store, parts: Sequence[Expr], i: str, j: str, side: int) -> list[Stmt]:
    """One block: loaded along `i`, stored along `j`."""

    def exchanged(store: Store) -> For:
        return For(i, side, (For(j, side, (store,), "unroll"),), "vector", side)

    if not parts:
        return [exchanged(store)]
    places = (Index(symbol(i)), Index(symbol(j)))
    memory = [Buffer(f"block{k}", e.dtype, (side, side)) for k, e in enumerate(parts)]
    value = _without(store.value, {e: Load(b, places) for e, b in zip(parts, memory)})
    last = For(j, side, (with_fields(store, value=value),), "vector", side)
    fill = [s for e, b in zip(parts, memory) for s in (Alloc(b, "local"), exchanged(Store(b, places, e)))]
    return [*fill, For(i, side, (last,))]


def _rest(loop: For, start: Dim, body: Stmt) -> For:
    """The iterations of a loop from some on."""
    values: dict[str, Dim] = {loop.var: symbol(loop.var) + start}
    if isinstance(body, For):
        (store,) = body.body
        assert isinstance(store, Store)
        moved: Stmt = with_fields(body, body=(_at(store, values),))
    else:
        assert isinstance(body, Store)
        moved = _at(body, values)
    return For(loop.var, loop.extent - start, (moved,))


def _at(store: Store, values: dict[str, Dim]) -> Store:
    indices = tuple(Index(substitute(i.dim, values)) if isinstance(i, Index) else i for i in store.indices)
    return Store(store.buffer, indices, replace(store.value, values))
