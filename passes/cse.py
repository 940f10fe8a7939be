"""Common subexpression elimination.

Interning already shares values that are built equal. This pass shares those that differ only in
spelling: the order of commutative operands, attributes of another Python type or of more precision
than their dtype has, and regions that are equal graphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..ir.dtypes import rounded
from ..ir.graph import Graph, Literal, Value, attr_key, make, topological

__all__ = ["cse"]

_LEAVES = ("input", "state")


def cse(graph: Graph) -> Graph:
    """The graph with values shared that are equal up to spelling; the same object if there are none."""
    return _Sharing().graph(graph)


class _Sharing:
    """Rebuilds graphs value by value in one spelling."""

    def __init__(self) -> None:
        self.regions: dict[Any, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        new = self.values(graph)
        result = graph.with_roots([new[v] for v in graph.roots])
        if result is graph:
            return graph
        names = {new[v]: name for v, name in graph.names.items() if v in new}
        return Graph(result.name, result.inputs, result.states, result.outputs, result.updates, names)

    def values(self, graph: Graph) -> dict[Value, Value]:
        """The shared form of each value. The order of commutative operands is that of their first use."""
        new: dict[Value, Value] = {}
        position: dict[Value, int] = {}
        for value in graph:
            new[value] = self.shared(value, new, position)
            position.setdefault(new[value], len(position))
        return new

    def shared(self, value: Value, new: Mapping[Value, Value], position: Mapping[Value, int]) -> Value:
        if value.op.name in _LEAVES:
            return value
        operands = [new[o] for o in value.operands]
        if value.op.commutative:
            operands.sort(key=lambda o: (o.op.name in ("full", "constant"), position[o]))
        attrs = value.attrs
        if not all(map(is_normal, attrs.values())):
            attrs = {name: normalized(attr) for name, attr in attrs.items()}
        if value.op.name == "full":
            attrs = {**attrs, "value": rounded(attrs["value"], attrs["dtype"])}
        if value.regions or attrs is not value.attrs:
            return make(value.op, operands, attrs, tuple(map(self.region, value.regions)), value.locs)
        return value.with_operands(operands)

    def region(self, region: Graph) -> Graph:
        region = self.graph(region)
        return self.regions.setdefault(structure(region), region)


def is_normal(attr: Any) -> bool:
    """Whether an attribute is made of plain Python types."""
    if type(attr) is tuple:
        return all(map(is_normal, attr))
    return not isinstance(attr, (np.generic, list, tuple))


def normalized(attr: Any) -> Any:
    """An attribute in plain Python types, lists as tuples."""
    if isinstance(attr, (tuple, list)):
        return tuple(map(normalized, attr))
    if isinstance(attr, np.generic):
        return attr.item()
    return attr


def structure(graph: Graph) -> Any:
    """A key that is equal for graphs of the same inputs (up to names), values and roots."""
    number: dict[Value, int] = {}
    rows: list[Any] = []
    declared: Iterable[Value] = (*graph.inputs, *graph.states)
    for value in topological((*declared, *graph.roots)):
        number[value] = len(number)
        attrs = {k: v for k, v in value.attrs.items() if not (value.op.name == "input" and k == "name")}
        rows.append((
            value.op.name,
            tuple(number[o] for o in value.operands),
            tuple(sorted((k, _key(v)) for k, v in attrs.items())),
            tuple(map(id, value.regions)),
        ))
    ends = (graph.inputs, graph.states, graph.outputs, tuple(v for pair in graph.updates for v in pair))
    return tuple(rows), tuple(tuple(number[v] for v in end) for end in ends)


def _key(attr: Any) -> Any:
    return attr.key if isinstance(attr, Literal) else attr_key(attr)
