"""Passes over graphs reach into the bodies of loops and branches."""

from __future__ import annotations

from collections.abc import Callable

from ..ir.graph import Graph, Value, make

__all__ = ["is_control", "map_regions", "with_regions"]


def is_control(v: Value) -> bool:
    """Whether a value is a loop or a branch."""
    return bool(v.regions) and v.op.name != "fusion"


def with_regions(run: Callable[[Graph], Graph]) -> Callable[[Graph], Graph]:
    """A pass that does to the bodies of loops and branches, nested ones included, what it does to the graph."""

    def apply(graph: Graph) -> Graph:
        return map_regions(run(graph), apply)

    return apply


def map_regions(graph: Graph, change: Callable[[Graph], Graph]) -> Graph:
    """The graph with the bodies of its loops and branches changed, each once; the same object if none is."""
    order = list(graph)
    if not any(map(is_control, order)):
        return graph
    done: dict[int, Graph] = {}
    new: dict[Value, Value] = {}
    for v in order:
        operands = [new[o] for o in v.operands]
        regions = v.regions
        if is_control(v):
            regions = tuple(done[id(r)] if id(r) in done else done.setdefault(id(r), change(r)) for r in regions)
        same = all(a is b for a, b in zip(regions, v.regions))
        new[v] = v.with_operands(operands) if same else make(v.op, operands, v.attrs, regions, v.locs)
    return graph.with_values(new)
