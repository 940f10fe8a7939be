"""Dead code elimination: drop what no output or update needs.

Values that no root reaches are not part of a graph in the first place; what remains to drop are
updates that assign a state its own value, equal updates listed twice, and the names of values that
are gone (they would keep them alive). Inputs stay: they are the function's signature.
"""

from __future__ import annotations

from ..ir.graph import Graph, topological

__all__ = ["dce"]


def dce(graph: Graph) -> Graph:
    """The graph without dead parts; the same object if there are none."""
    updates = tuple((state, new) for state, new in dict.fromkeys(graph.updates) if new is not state)
    live = set(topological((*graph.inputs, *graph.states, *graph.outputs, *(new for _, new in updates))))
    names = {value: name for value, name in graph.names.items() if value in live}
    if len(updates) == len(graph.updates) and len(names) == len(graph.names):
        return graph
    return Graph(graph.name, graph.inputs, graph.states, graph.outputs, updates, names)
