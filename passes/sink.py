"""Sink: take out of a loop, after it, sums over its steps.

A carry that only adds up a contraction, ``acc + dot(a, b)``, becomes one contraction over all steps, whose operands
are stacked: so the weight gradients of a recurrent network are one product each. A carry that adds up what is stacked
anyway becomes its sum. The order of the additions changes, as in any contraction, and depends on shapes only.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Graph, Value, source_location, users
from ..ir.op import OPS
from .batching import Batching
from .loop_parts import Loop, depends_on, map_loops
from .predicates import splat, value_of

__all__ = ["sink"]

_MOVES = ("transpose", "reshape")
"""Ops of which the sum of the results is the result of the sum."""


def sink(graph: Graph) -> Graph:
    """The graph with sums over steps after its loops (those in regions not)."""
    return map_loops(graph, _sunk, ("scan",))


class _Sum:
    """A carry that is only added to: what is added, under ops that move its elements, and its source lines."""

    def __init__(self, k: int, total: Value, added: Value) -> None:
        self.k, self.total, self.moves = k, total, list[Value]()
        while added.op.name in _MOVES:
            self.moves.append(added)
            added = added.operands[0]
        self.added = added


def _sunk(loop: Loop, used: set[int]) -> Sequence[Value | None] | None:
    if loop.counted:
        return None
    sums = _sums(loop)
    varying = depends_on(loop.body, (*loop.carries, *loop.elements))
    products = [s for s in sums if s.added.op.name == "dot" and varying.issuperset(s.added.operands)]
    old = len(loop.carries)
    rows = len(loop.rows)
    plan = _Stacks(loop)
    operands = {s: [plan.add(o) for o in s.added.operands] for s in products}
    gone = list(operands) + [s for s in sums if s not in operands and s.added in loop.rows]
    if not gone:
        return None
    initial = [loop.initial[s.k] for s in gone]
    for s in gone[len(operands) :]:
        operands[s] = [plan.add(s.added)]
    kept = [k for k in range(old) if k not in {s.k for s in gone}]
    for name in ("initial", "carries", "new"):
        setattr(loop, name, [getattr(loop, name)[k] for k in kept])
    after = loop.build()
    found: list[Value | None] = [None] * (old + rows)
    for position, k in enumerate([*kept, *range(old, old + rows)]):
        found[k] = OPS["item"](after, index=position)
    for s, start in zip(gone, initial):
        with source_location(s.added.locs or s.total.locs):
            total = _total(s, [plan.get(after, o) for o in operands[s]])
            found[s.k] = total if splat(start) and value_of(start) == 0 else start + total
    return found


def _sums(loop: Loop) -> list[_Sum]:
    """The carries that are read by nothing but the addition to them."""
    readers = users(loop.body)
    found = []
    outputs = [*loop.new, *loop.rows]
    for k, (carry, new) in enumerate(zip(loop.carries, loop.new)):
        alone = readers.get(carry) == [new] and outputs.count(new) == 1 and not readers.get(new)
        if alone and new.op.name == "add" and new.dtype.is_float and new.operands.count(carry) == 1:
            (added,) = (o for o in new.operands if o is not carry)
            found.append(_Sum(k, new, added))
    return found


def _total(s: _Sum, stacks: list[Value]) -> Value:
    """The sum over all steps, from stacks of what is added or of its factors."""
    total = OPS["sum"](stacks[0], axes=(0,)) if len(stacks) == 1 else _product(s.added, *stacks)
    for move in reversed(s.moves):
        total = move.with_operands([total])
    return total


def _product(dot: Value, a: Value, b: Value) -> Value:
    (ca, cb), (ba, bb) = dot.attrs["contract"], dot.attrs["batch"]
    if tuple(ca) == tuple(cb) == (0,) and not ba:  # rows of all steps, one after another
        a, b = (OPS["reshape"](x, shape=(x.shape[0] * x.shape[1], *x.shape[2:])) for x in (a, b))
        return OPS["dot"](a, b, contract=((0,), (0,)))
    contract, batch = ((0, *(k + 1 for k in c)) for c in (ca, cb)), (tuple(k + 1 for k in c) for c in (ba, bb))
    return OPS["dot"](a, b, contract=tuple(contract), batch=tuple(batch))


class _Stacks:
    """Where the values of all steps are to be had: outside the loop, or as one more output of it."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.carried = depends_on(loop.body, loop.carries)
        known = {
            **{inside: (outer, True) for outer, inside in zip(loop.over, loop.elements)},
            **{inside: (outer, False) for outer, inside in zip(loop.captures, loop.captured)},
        }
        self.batched = Batching(loop.value.attrs["length"], known)

    def add(self, v: Value) -> Value | int:
        """A value outside, or the position of a row of the loop."""
        stack = None if v in self.carried or v in self.loop.rows else self.batched.stacked(v)
        return self.loop.row(v) if stack is None else stack

    def get(self, loop: Value, place: Value | int) -> Value:
        if isinstance(place, Value):
            return place
        return OPS["item"](loop, index=loop.attrs["carries"] + place)
