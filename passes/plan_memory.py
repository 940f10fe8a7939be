"""Plan memory: every temp gets an offset in one arena, valid for all values of the symbolic dimensions.

Buffers that are never alive together share bytes; what a loop uses and what is used beside it lives during
the whole loop. `place_blocks` finds the places.
"""

from __future__ import annotations

import itertools
from dataclasses import replace as with_fields

from ..ir.dims import align, join, with_remainders
from ..ir.program import ALIGNMENT, Call, Program, Slot, Timeline, nbytes, timeline, workspace_buffers
from .place_blocks import Block, place_blocks

__all__ = ["plan_memory"]

TYPICAL = 64
"""The size of a symbolic dimension at which placement decisions are taken."""


def plan_memory(program: Program) -> Program:
    """The program with offsets for all temps and workspaces, and the arena's size."""
    moments = timeline(program.steps)
    lives = _liveness(program, moments)
    owner = _share_in_place(program, moments, lives)
    workspaces = {kernel: workspace_buffers(kernel) for kernel in program.kernels}
    blocks: dict[object, Block] = {}
    for name, (first, last) in lives.items():
        key = _find(owner, name)
        size = align(with_remainders(nbytes(program.slot(name).buffer)), ALIGNMENT)
        block = blocks.setdefault(key, Block(key, size, first, last))
        block.first, block.last = min(block.first, first), max(block.last, last)
        block.size = join(block.size, size)
    number = itertools.count()
    for k, (_, call) in enumerate(moments.touched):
        if call is not None:
            n = next(number)
            for w, buffer in enumerate(workspaces[call.kernel]):
                blocks[n, w] = Block((n, w), align(nbytes(buffer), ALIGNMENT), k, k)
    arena = place_blocks(list(blocks.values()), dict.fromkeys(program.symbols, TYPICAL))

    def offset_of(slot: Slot) -> Slot:
        if slot.kind != "temp" or slot.alias is not None:
            return slot
        block = blocks.get(_find(owner, slot.buffer.name))
        return with_fields(slot, offset=block.offset if block else 0)

    number = itertools.count()

    def place_workspaces(call: Call) -> Call:
        n = next(number)
        offsets = tuple(blocks[n, w].start for w in range(len(workspaces[call.kernel])))
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
