"""Merge loops: those that run the same steps become one loop with the outputs of all.

Differentiation makes a loop again with what it must keep as further outputs (`passes.control_gradients`); the loop
whose values the program returns is a part of that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.graph import Graph, Value, attr_key, make
from ..ir.op import OPS

__all__ = ["merge_loops"]


def merge_loops(graph: Graph) -> Graph:
    """The graph with loops merged, those in regions as well; the same object if there are none to merge."""
    while (merged := _Merging().graph(graph)) is not graph:
        graph = merged
    return graph


class _Merging:
    """One walk over a graph; loops that are alike only once others are merged need another."""

    def __init__(self) -> None:
        self.regions: dict[Graph, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        order = list(graph)
        groups: dict[Any, list[Value]] = {}
        for value in order:
            if value.op.name in ("scan", "while"):
                groups.setdefault(_steps(value), []).append(value)
        joined: dict[Value, tuple[list[Value], list[Value]]] = {}
        for members in groups.values():
            if len(members) > 1:
                joined |= dict.fromkeys(members, (members, _outputs(members)))
        new: dict[Value, Value] = {}
        for value in order:
            new[value] = self._rebuilt(value, new, joined)
        return graph.with_values(new)

    def _rebuilt(
        self, value: Value, new: dict[Value, Value], joined: dict[Value, tuple[list[Value], list[Value]]]
    ) -> Value:
        operands = [new[o] for o in value.operands]
        if value in joined:
            members, outputs = joined[value]
            regions = [self._region(r) for r in _with_outputs(members[0], outputs)]
            return make(value.op, operands, value.attrs, regions, value.locs)
        if value.op.name == "item" and value.operands[0] in joined:
            loop, index = value.operands[0], value.attrs["index"]
            position = _position(loop, index, joined[loop][1])
            return make(OPS["item"], operands, {"index": position}, loc=value.locs)
        if value.regions:
            regions = [self._region(r) for r in value.regions]
            if any(a is not b for a, b in zip(regions, value.regions)):
                return make(value.op, operands, value.attrs, regions, value.locs)
        return value.with_operands(operands)

    def _region(self, region: Graph) -> Graph:
        if region not in self.regions:
            self.regions[region] = self.graph(region)
        return self.regions[region]


def _steps(loop: Value) -> Any:
    """A key that is equal for loops that pass through the same states."""
    body, n = loop.regions[-1], loop.attrs["carries"]
    parts = (loop.operands, body.inputs, body.outputs[:n], loop.regions[:-1])
    attrs = tuple(sorted((name, attr_key(value)) for name, value in loop.attrs.items()))
    return loop.op.name, attrs, tuple(tuple(map(id, part)) for part in parts)


def _outputs(members: Sequence[Value]) -> list[Value]:
    """What the bodies give at every step, each once; first those of the loop that gives most."""
    most_first = sorted(members, key=lambda loop: -len(loop.regions[-1].outputs))
    return list(dict.fromkeys(v for loop in most_first for v in loop.regions[-1].outputs[loop.attrs["carries"]:]))


def _with_outputs(loop: Value, outputs: Sequence[Value]) -> tuple[Graph, ...]:
    body, n = loop.regions[-1], loop.attrs["carries"]
    return (*loop.regions[:-1], Graph(body.name, body.inputs, (), (*body.outputs[:n], *outputs)))


def _position(loop: Value, index: int, outputs: Sequence[Value]) -> int:
    """Where a result of a loop stands among those of the merged one."""
    n = loop.attrs["carries"]
    first = n + (loop.op.name == "while")
    return index if index < first else first + outputs.index(loop.regions[-1].outputs[n + index - first])
