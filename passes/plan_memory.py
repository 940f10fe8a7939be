"""Plan memory: every temp gets an offset in one arena, valid for all values of the symbolic dimensions.

Buffers that are never alive together share bytes; what a loop uses and what is used beside it lives during
the whole loop. Placement is greedy by size (Pisarchyk and Lee,
"Efficient memory management for deep neural net inference", 2020), decided at a typical size of the
symbolic dimensions; offsets are then formulas: a buffer starts where another ends, at a place that
is free whatever the dimensions are.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from dataclasses import replace as with_fields

from ..ir.dims import Dim, align, at_most, evaluate, join
from ..ir.program import ALIGNMENT, Call, Program, Slot, Timeline, nbytes, timeline, workspace_buffers

__all__ = ["plan_memory"]

TYPICAL = 64
"""The size of a symbolic dimension at which placement decisions are taken."""


@dataclass(eq=False)
class _Block:
    """Memory that one or more temps (each dying where the next is made) or a workspace needs."""

    key: object
    size: Dim
    first: int
    last: int
    offset: Dim | None = None

    @property
    def start(self) -> Dim:
        assert self.offset is not None, "the block has no place yet"
        return self.offset

    @property
    def end(self) -> Dim:
        return self.start + self.size

    def meets(self, other: _Block) -> bool:
        return self.first <= other.last and other.first <= self.last


def plan_memory(program: Program) -> Program:
    """The program with offsets for all temps and workspaces, and the arena's size."""
    moments = timeline(program)
    lives = _liveness(program, moments)
    owner = _share_in_place(program, moments, lives)
    blocks: dict[object, _Block] = {}
    for name, (first, last) in lives.items():
        key = _find(owner, name)
        size = align(nbytes(program.slot(name).buffer), ALIGNMENT)
        block = blocks.setdefault(key, _Block(key, size, first, last))
        block.first, block.last = min(block.first, first), max(block.last, last)
        block.size = join(block.size, size)
    number = itertools.count()
    for k, (_, call) in enumerate(moments.touched):
        if call is not None:
            n = next(number)
            for w, buffer in enumerate(workspace_buffers(call.kernel)):
                blocks[n, w] = _Block((n, w), align(nbytes(buffer), ALIGNMENT), k, k)
    arena = _place(list(blocks.values()), dict.fromkeys(program.symbols, TYPICAL))

    def offset_of(slot: Slot) -> Slot:
        if slot.kind != "temp" or slot.alias is not None:
            return slot
        block = blocks.get(_find(owner, slot.buffer.name))
        return with_fields(slot, offset=block.offset if block else 0)

    number = itertools.count()

    def place_workspaces(call: Call) -> Call:
        n = next(number)
        offsets = tuple(blocks[n, w].start for w in range(len(workspace_buffers(call.kernel))))
        return with_fields(call, workspaces=offsets) if offsets else call

    placed = program.with_calls(place_workspaces)
    return with_fields(placed, slots=tuple(map(offset_of, program.slots)), arena=arena)


Lives = dict[str, tuple[int, int]]


def _liveness(program: Program, moments: Timeline) -> Lives:
    """The first and the last moment at which each temp is in use."""
    lives = moments.lives(lambda name: program.place(name)[0])
    temps = {s.buffer.name for s in program.slots if s.kind == "temp" and s.alias is None}
    return {name: life for name, life in lives.items() if name in temps}


def _share_in_place(program: Program, moments: Timeline, lives: Lives) -> dict[str, str]:
    """Let a result take over the memory of an operand that dies in the call, where the kernel allows."""
    owner: dict[str, str] = {}
    for k, (_, call) in enumerate(moments.touched):
        if call is None:
            continue
        taken: set[str] = set()
        reads = [program.place(r) for r in call.reads]
        for o, i in call.kernel.inplace:
            out, (source, position) = call.writes[o], reads[i]
            fits = out in lives and source in lives and out not in taken and source not in taken and position == 0
            read_once = sum(root == source for root, _ in reads) == 1
            if fits and read_once and lives[source][1] == k and lives[out][0] == k:
                owner[out] = _find(owner, source)
                taken |= {out, source}
    return owner


def _find(owner: dict[str, str], name: str) -> str:
    while name in owner:
        name = owner[name]
    return name


def _place(blocks: list[_Block], typical: dict[str, int]) -> Dim:
    """Give every block an offset; returns the size of the arena."""
    size = {b: evaluate(b.size, typical) for b in blocks}
    placed: list[_Block] = []
    for block in sorted(blocks, key=lambda b: (-size[b], b.first, str(b.key))):
        rivals = [b for b in placed if b.meets(block)]
        block.offset = _gap(block, rivals, typical)
        placed.append(block)
    return join(0, *(b.end for b in placed))


def _gap(block: _Block, rivals: list[_Block], typical: dict[str, int]) -> Dim:
    """The lowest place that is certainly free: each rival ends before it, or begins after it."""
    ends: list[Dim] = [0, *(r.end for r in rivals)]
    for start in sorted(dict.fromkeys(ends), key=lambda e: evaluate(e, typical)):
        above = [r for r in rivals if not at_most(r.end, start)]
        if all(at_most(start + block.size, r.start) for r in above):
            return start
    return join(*ends)
