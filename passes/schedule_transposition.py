"""Transpositions: square blocks that are loaded along one axis and stored along the other.

A map whose result runs along one axis, and an operand along another, would gather one number from each line of cache.
In blocks of one vector each way, lines are loaded and stored whole, and exchanged in registers
(`compiler.llvm.transpose`); blocks beside each other use up the lines that they share.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as with_fields

from ..ir.dims import Dim, coefficient, dim_min, floordiv, mod, substitute, symbol, symbols
from ..ir.loops import For, Index, Load, Stmt, Store, flat_index, replace, walk
from .cpu_model import CpuModel

__all__ = ["in_blocks"]

LINE = 64
"""Bytes of a cache line."""

LEAST_BLOCK, MOST_BLOCK = 4, 16
"""Elements along the side of a block."""


@dataclass(frozen=True)
class _Turned:
    """A nest around one store: loops around both axes, that which operands run along, that which the result does."""

    others: tuple[For, ...]
    across: For
    along: For
    store: Store


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
    if across is None or not all(_fits(e, across.var, along.var) for e in loads):
        return None
    if any(symbols(v.extent) & {w.var for w in loops} for v in loops):
        return None
    return _Turned(tuple(v for v in loops[:-1] if v is not across), across, along, store)


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
    block = For(f"{j.var}l", side, (_at(t.store, {i.var: across, j.var: along}),), "unroll")
    block = For(f"{i.var}l", side, (block,), "vector", side)
    count = group if mod(rows, group) == 0 else dim_min(group, rows - outer * group)
    block = For(f"{i.var}g", count, (block,))
    blocks: list[Stmt] = [For(f"{j.var}b", columns, (block,))]
    if columns * side != j.extent:
        rest = _rest(j, columns * side, _at(t.store, {i.var: symbol(i.var) + outer * (group * side)}))
        blocks.append(For(i.var, dim_min(group * side, rows * side - outer * (group * side)), (rest,)))
    found = [For(f"{i.var}b", floordiv(rows + (group - 1), group), tuple(blocks))]
    if rows * side != i.extent:
        found.append(_rest(i, rows * side, with_fields(j, body=(t.store,))))
    return found


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
