"""Prune loops: carries, outputs and operands that nobody needs are removed; what a loop only passes on goes around it.

- A carry is dead if its final value is not used, and no result that is depends on it, nor the condition of a `while`.
- A carry that no step changes is a capture; its final value is its initial one.
- An output that is an element of a sequence is that sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Graph, Value, topological
from ..ir.op import OPS
from .loop_parts import Loop, map_loops

__all__ = ["prune_loops"]


def prune_loops(graph: Graph) -> Graph:
    """The graph with its loops pruned (those in regions not); the same object if there is nothing to remove."""
    return map_loops(graph, _pruned)


def _pruned(loop: Loop, used: set[int]) -> Sequence[Value | None] | None:
    n, first = len(loop.carries), loop.first_row
    found: list[Value | None] = [None] * (first + len(loop.rows))
    same = [k for k in range(n) if loop.new[k] is loop.carries[k]]
    for k in same:
        found[k] = loop.initial[k]
    if not loop.counted:
        for j, row in enumerate(loop.rows):
            if row in loop.elements:
                found[first + j] = loop.over[loop.elements.index(row)]
    rows = [j for j in range(len(loop.rows)) if first + j in used and found[first + j] is None]
    live = sorted(_live_carries(loop, {k for k in used if k < n and k not in same}, rows, set(same)))
    before = loop.build()
    _keep(loop, live, same, rows)
    if not used or not loop.new and not loop.rows and loop.test is None:
        return found
    after = loop.build()
    if after is before:
        return None
    for position, k in enumerate([*live, *range(n, first), *(first + j for j in rows)]):
        found[k] = OPS["item"](after, index=position)
    return found


def _live_carries(loop: Loop, needed: set[int], rows: list[int], same: set[int]) -> set[int]:
    """The carries that change and that results, or how long the loop runs, depend on; those needed among them."""
    position = {c: k for k, c in enumerate(loop.carries)}
    tests = [] if loop.test is None else [loop.test]
    live, frontier = set(needed), [*tests, *(loop.rows[j] for j in rows), *(loop.new[k] for k in needed)]
    while frontier:
        reached = {position[v] for v in topological(frontier) if v in position} - live - same
        live |= reached
        frontier = [loop.new[k] for k in reached]
    return live


def _keep(loop: Loop, live: list[int], same: list[int], rows: list[int]) -> None:
    """Leave these carries and rows, captures for carries that stay the same, and operands that are read."""
    captures = [*zip(loop.captures, loop.captured), *((loop.initial[k], loop.carries[k]) for k in same)]
    loop.new, loop.rows = [loop.new[k] for k in live], [loop.rows[j] for j in rows]
    loop.initial, loop.carries = [loop.initial[k] for k in live], [loop.carries[k] for k in live]
    read = set(topological([*loop.new, *loop.rows, *([] if loop.test is None else [loop.test])]))
    changes: dict[Value, Value] = {}
    loop.over, loop.elements = _once([*zip(loop.over, loop.elements)], read, changes)
    loop.captures, loop.captured = _once(captures, read, changes)
    if changes:
        loop.replace(changes)


def _once(
    pairs: list[tuple[Value, Value]], read: set[Value], changes: dict[Value, Value]
) -> tuple[list[Value], list[Value]]:
    """The operands that are read, each once; the inputs of others are changed to that of the first."""
    first: dict[Value, Value] = {}
    for outer, inside in pairs:
        if inside in read and first.setdefault(outer, inside) is not inside:
            changes[inside] = first[outer]
    return list(first), list(first.values())
