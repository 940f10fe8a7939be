"""Prune loops: carries, outputs and operands that nobody needs are removed; what a loop only passes on goes around it.

- A carry is dead if its final value is not used, and no result that is depends on it.
- A carry that no step changes is a capture; its final value is its initial one.
- An output that is an element of a sequence is that sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Graph, Value, topological
from ..ir.op import OPS
from .loop_parts import Scan, map_scans

__all__ = ["prune_loops"]


def prune_loops(graph: Graph) -> Graph:
    """The graph with its loops pruned (those in regions not); the same object if there is nothing to remove."""
    return map_scans(graph, _pruned)


def _pruned(scan: Scan, used: set[int]) -> Sequence[Value | None] | None:
    n = len(scan.carries)
    found: list[Value | None] = [None] * (n + len(scan.rows))
    same = [k for k in range(n) if scan.new[k] is scan.carries[k]]
    for k in same:
        found[k] = scan.initial[k]
    if not scan.counted:
        for j, row in enumerate(scan.rows):
            if row in scan.elements:
                found[n + j] = scan.over[scan.elements.index(row)]
    rows = [j for j in range(len(scan.rows)) if n + j in used and found[n + j] is None]
    live = _live_carries(scan, {k for k in used if k < n and k not in same}, [scan.rows[j] for j in rows], set(same))
    before = scan.build()
    _keep(scan, sorted(live), same, rows)
    if not scan.new and not scan.rows:
        return found
    after = scan.build()
    if after is before:
        return None
    for position, k in enumerate([*sorted(live), *(n + j for j in rows)]):
        found[k] = OPS["item"](after, index=position)
    return found


def _live_carries(scan: Scan, needed: set[int], rows: list[Value], same: set[int]) -> set[int]:
    """The carries that change and that results depend on, those needed among them."""
    position = {c: k for k, c in enumerate(scan.carries)}
    live, frontier = set(needed), [*rows, *(scan.new[k] for k in needed)]
    while frontier:
        reached = {position[v] for v in topological(frontier) if v in position} - live - same
        live |= reached
        frontier = [scan.new[k] for k in reached]
    return live


def _keep(scan: Scan, live: list[int], same: list[int], rows: list[int]) -> None:
    """Leave these carries and rows, captures for carries that stay the same, and operands that are read."""
    captures = [*zip(scan.captures, scan.captured), *((scan.initial[k], scan.carries[k]) for k in same)]
    scan.new, scan.rows = [scan.new[k] for k in live], [scan.rows[j] for j in rows]
    scan.initial, scan.carries = [scan.initial[k] for k in live], [scan.carries[k] for k in live]
    read = set(topological([*scan.new, *scan.rows]))
    changes: dict[Value, Value] = {}
    scan.over, scan.elements = _once([*zip(scan.over, scan.elements)], read, changes)
    scan.captures, scan.captured = _once(captures, read, changes)
    if changes:
        scan.replace(changes)


def _once(
    pairs: list[tuple[Value, Value]], read: set[Value], changes: dict[Value, Value]
) -> tuple[list[Value], list[Value]]:
    """The operands that are read, each once; the inputs of others are changed to that of the first."""
    first: dict[Value, Value] = {}
    for outer, inside in pairs:
        if inside in read and first.setdefault(outer, inside) is not inside:
            changes[inside] = first[outer]
    return list(first), list(first.values())
