"""The graph's history through the passes: which value after a pass is which value before it.

A pass returns a new graph, in which whatever lies downstream of a change is a new object. To show what
a pass did, values are followed: one that computes the same from the same values is the same one; one of
the same op, type and source line whose operands were replaced is the same one, *rewired*; others are *new*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.graph import Graph, Value, attr_key
from ...ir.printer import value_parts

__all__ = ["Node", "flatten", "trace"]

NEW, REWIRED = "new", "rewired"


@dataclass(eq=False)
class Node:
    """One value of a graph, those inside fusions and bodies included.

    Attributes
    ----------
    operands : nodes, or literals as text.
    name, attrs : as the graph's text has them.
    fusion : the fusion it is a part of.
    identity : the same number for what is the same value in other stages.
    mark : what the pass did to it: ``"new"``, ``"rewired"`` or nothing.
    """

    value: Value
    operands: tuple[Node | str, ...]
    name: str
    attrs: str
    fusion: Value | None
    identity: int = -1
    mark: str = ""


def flatten(graph: Graph) -> tuple[list[Node], dict[Value, Node]]:
    """All nodes in order, and the node of each value of the graph itself (not of its fusions' regions)."""
    nodes: list[Node] = []
    return nodes, _flatten(graph, nodes, {}, None)


def _flatten(graph: Graph, nodes: list[Node], bound: Mapping[Value, Node], fusion: Value | None) -> dict[Value, Node]:
    parts = value_parts(graph)
    made = dict(bound)
    results: dict[Value, list[Node]] = {}
    for v in graph:
        if v in made or v not in parts:
            continue
        if v.op.name == "fusion":
            region = v.regions[0]
            inside = _flatten(region, nodes, {p: made[o] for p, o in zip(region.inputs, v.operands)}, v)
            results[v] = [inside[o] for o in region.outputs]
            made[v] = results[v][0]
        elif v.op.name == "item" and v.operands[0] in results:
            made[v] = results[v.operands[0]][v.attrs["index"]]
        else:
            for region in v.regions:  # the body of a loop or branch, before it
                _flatten(region, nodes, {}, None)
            name, operands, attrs = parts[v]
            made[v] = Node(v, tuple(o if isinstance(o, str) else made[o] for o in operands), name, attrs, fusion)
            nodes.append(made[v])
    return made


def trace(stages: Sequence[Sequence[Node]]) -> int:
    """Give the nodes of successive stages their identities and marks; returns how many identities there are."""
    count = 0
    before: Sequence[Node] = ()
    for position, stage in enumerate(stages):
        count = _follow(before, stage, count)
        if position == 0:
            for node in stage:
                node.mark = ""
        before = stage
    return count


def _what(node: Node) -> tuple[Any, ...]:
    v = node.value
    attrs = tuple(sorted((name, attr_key(a)) for name, a in v.attrs.items()))
    return v.op.name, attrs if v.attrs else (), str(v.type), tuple(map(id, v.regions))


def _from(operands: Iterable[Node | str]) -> tuple[int | str, ...]:
    return tuple(o if isinstance(o, str) else o.identity for o in operands)


def _follow(before: Sequence[Node], after: Sequence[Node], count: int) -> int:
    exact: dict[Any, list[Node]] = {}
    similar: dict[Any, list[Node]] = {}
    for node in before:
        what = _what(node)
        exact.setdefault((what, _from(node.operands)), []).append(node)
        similar.setdefault((what, node.value.loc), []).append(node)
    kept = {node.value for node in after}
    taken: set[Node] = set()
    for node in after:
        what = _what(node)
        operands = _from(node.operands)
        same = next((n for n in exact.get((what, operands), ()) if n not in taken), None)
        if same is None:
            others = [n for n in similar.get((what, node.value.loc), ()) if n not in taken and n.value not in kept]
            same = max(others, key=lambda n: _shared(n, operands), default=None)
            node.mark = NEW if same is None else REWIRED
        if same is None:
            node.identity, count = count, count + 1
        else:
            node.identity = same.identity
            taken.add(same)
    return count


def _shared(node: Node, operands: tuple[int | str, ...]) -> int:
    return sum(a == b for a, b in zip(_from(node.operands), operands))
