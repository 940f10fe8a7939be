"""Hoist: take out of a loop, before it, what does not depend on its carries.

What depends on captures only is computed once, but for what is free, such as a broadcast: that moves into the loop.
What depends on elements of sequences as well is computed for all steps at once where it is a contraction:
``x_t @ W`` of all t is one product, which runs faster than many small ones. Maps alone stay, being cheaper where they
are used than written and read again.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Graph, Value, users
from .batching import Batching
from .loop_parts import Loop, depends_on, map_loops

__all__ = ["hoist"]

_FREE = {"broadcast", "transpose", "reshape", "slice", "reverse", "full", "iota", "constant", "input", "stop_gradient"}
"""Ops that cost next to nothing where their result is read."""

_MADE_INSIDE = ("broadcast", "full", "iota")
"""Of these, those that are larger than what they read."""


def hoist(graph: Graph) -> Graph:
    """The graph with invariants and per-step products before its loops (those in regions not)."""
    return map_loops(graph, _hoisted)


def _hoisted(loop: Loop, used: set[int]) -> Sequence[Value] | None:
    body = loop.body
    varying = depends_on(body, (*loop.carries, *loop.elements))
    carried = depends_on(body, loop.carries)
    outside: dict[Value, tuple[Value, bool]] = {
        **{inside: (outer, True) for outer, inside in zip(loop.over, loop.elements)},
        **{inside: (outer, False) for outer, inside in zip(loop.captures, loop.captured)},
    }
    batched = Batching(loop.value.attrs.get("length", 1), outside)
    changes = _moved_in(loop)
    for v in _invariants(body, varying):
        found = batched(v)
        if found is not None:
            changes[v] = loop.capture(found[0])
    for v in _products(body, varying - carried, carried):
        stack = batched.stacked(v)
        if stack is not None:
            changes[v] = loop.element(stack)
    if not changes:
        return None
    loop.replace(changes)
    return loop.results(loop.build())


def _moved_in(loop: Loop) -> dict[Value, Value]:
    """Captures that are free to compute, which then need no memory: what they are in the body instead."""
    readers = users(loop.body)
    pairs = list(zip(loop.captures, loop.captured))
    free = [(o, p) for o, p in pairs if o.op.name in _MADE_INSIDE or _turned_factor(o, p, readers.get(p, []))]
    kept = [pair for pair in pairs if pair not in free]
    loop.captures, loop.captured = [outer for outer, _ in kept], [p for _, p in kept]
    return {p: outer.with_operands([loop.capture(o) for o in outer.operands]) for outer, p in free}


def _turned_factor(outer: Value, inside: Value, readers: Sequence[Value]) -> bool:
    """Whether a capture is a transposed matrix that only products read: they decide how (`passes.lay_out`)."""
    turned = outer.op.name == "transpose" and outer.tensor.rank == 2
    return turned and all(u.op.name == "dot" and u.operands[0] is not inside for u in readers)


def _invariants(body: Graph, varying: set[Value]) -> list[Value]:
    """The last values that do not depend on the step, but for what is free to compute again."""
    readers = users(body)
    frontier = [
        v for v in body
        if v not in varying and (v in body.outputs or any(u in varying for u in readers[v]))
    ]  # fmt: skip
    found: dict[Value, None] = {}
    while frontier:
        v = frontier.pop()
        if v.op.name in _FREE:
            frontier.extend(v.operands)
        else:
            found[v] = None
    return list(found)


def _products(body: Graph, stepwise: set[Value], carried: set[Value]) -> list[Value]:
    """Contractions that depend on the step but on no carry, with the maps that only they feed."""
    readers = users(body)
    feeds: set[Value] = set()  # what is needed for a contraction that is taken out
    found: list[Value] = []
    for v in reversed(list(body)):
        if v.op.kind == "contract" and v in stepwise and v not in feeds:
            last = v
            while last not in body.outputs and len(readers[last]) == 1 and _follows(readers[last][0], last, stepwise):
                last = readers[last][0]
            found.append(last)
            feeds.add(v)
        if v in feeds:
            feeds.update(v.operands)
    return found


def _follows(u: Value, v: Value, stepwise: set[Value]) -> bool:
    return u in stepwise and u.op.elementwise and u.tensor.nbytes == v.tensor.nbytes
