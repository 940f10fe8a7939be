"""Inline: the ops of a region in the place of what runs it.

`inline` is the inverse of fusion, so that the text of a fused graph can be compiled again. `inline_calls` is for
`call`, which only differentiation must know.
"""

from __future__ import annotations

from ..ir.graph import Graph, Value, make
from ..ir.region import instantiate

__all__ = ["inline", "inline_calls"]


def inline(graph: Graph) -> Graph:
    """The graph with the ops of each `fusion` in its place; the same object if there is none."""
    return _Inlining("fusion").graph(graph)


def inline_calls(graph: Graph) -> Graph:
    """The graph with the ops of each `call` in its place, in regions as well; the same object if there is none."""
    return _Inlining("call").graph(graph)


class _Inlining:
    def __init__(self, op: str) -> None:
        self.op = op
        self.regions: dict[Graph, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        new: dict[Value, Value] = {}
        results: dict[Value, list[Value]] = {}
        for v in graph:
            if v.op.name == self.op:
                results[v] = instantiate(self.region(v.regions[0]), [new[o] for o in v.operands])
                new[v] = results[v][0] if results[v] else v
            elif v.op.name == "item" and v.operands[0] in results:
                new[v] = results[v.operands[0]][v.attrs["index"]]
            else:
                new[v] = self.rebuilt(v, [new[o] for o in v.operands])
        return graph.with_roots([new[v] for v in graph.roots])

    def rebuilt(self, value: Value, operands: list[Value]) -> Value:
        regions = [self.region(r) for r in value.regions]
        if any(a is not b for a, b in zip(regions, value.regions)):
            return make(value.op, operands, value.attrs, regions, value.locs)
        return value.with_operands(operands)

    def region(self, region: Graph) -> Graph:
        if region not in self.regions:
            self.regions[region] = self.graph(region)
        return self.regions[region]
