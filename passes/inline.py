"""Inline: the inverse of fusion, so that the text of a fused graph can be compiled again."""

from __future__ import annotations

from ..ir.graph import Graph, Value

__all__ = ["inline"]


def inline(graph: Graph) -> Graph:
    """The graph with the ops of each `fusion` in its place; the same object if there is none."""
    new: dict[Value, Value] = {}
    results: dict[Value, tuple[Value, ...]] = {}
    for v in graph:
        if v.op.name == "fusion":
            results[v] = _expanded(v.regions[0], [new[o] for o in v.operands])
            new[v] = results[v][0]
        elif v.op.name == "item" and v.operands[0] in results:
            new[v] = results[v.operands[0]][v.attrs["index"]]
        else:
            new[v] = v.with_operands([new[o] for o in v.operands])
    return graph.with_roots([new[v] for v in graph.roots])


def _expanded(region: Graph, operands: list[Value]) -> tuple[Value, ...]:
    inside = dict(zip(region.inputs, operands, strict=True))
    for v in region:
        if v not in inside:
            inside[v] = v.with_operands([inside[o] for o in v.operands])
    return tuple(inside[v] for v in region.outputs)
