"""Loops, branches and calls for all lanes of a mapped axis at once.

A loop's carries get lanes if what they begin with has them, or if they depend on what has. A while loop whose condition
has lanes runs until all are done; a lane that is done keeps its carries. A branch chosen by an index with lanes becomes
a choice between the results of all branches, which all run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import GraphError
from ..ir.batching import with_lanes
from ..ir.broadcasting import full
from ..ir.dims import Dim
from ..ir.dtypes import int64
from ..ir.graph import Graph, Value, make
from ..ir.op import OPS, Lanes
from ..ir.region import Trace, instantiate, stand_in
from ..ir.types import TensorType
from .control_gradients import dependents
from .vectorize_map import vectorize

__all__ = ["region_lanes"]


def region_lanes(value: Value, operands: Sequence[Lanes], size: Dim) -> list[Lanes]:
    """The results, for all lanes, of an op that runs regions.

    Raises
    ------
    GraphError
        If the op has no rule.
    """
    rule = _RULES.get(value.op.name)
    if rule is None:
        raise GraphError(f"vmap: {value.op.name} of type {value.type} has no batching rule")
    return rule(value, operands, size)


def _lanes(t: TensorType, size: Dim) -> TensorType:
    return t.with_shape((size, *t.shape))


def _swapped(x: Value) -> Value:
    """The first two axes exchanged: a sequence of lanes for lanes of sequences, and back."""
    return OPS["transpose"](x, perm=(1, 0, *range(2, x.tensor.rank)))


def _mask(active: Value, x: Value, other: Value) -> Value:
    """Lanes of `x` where they are active, of another value elsewhere."""
    condition = OPS["broadcast"](active, shape=x.tensor.shape, dims=(0,))
    return make(OPS["where"], (condition, x, other))


class _Body:
    """Stand-ins for a region's inputs, with lanes or without, and what the region computes of them.

    Attributes
    ----------
    inner : the inputs of one lane, which `instantiate` takes.
    bound : the inputs of the new region.
    """

    def __init__(self, region: Graph, flags: Sequence[bool], size: Dim) -> None:
        self.size, self.flags = size, flags
        self.trace = Trace()
        self.inner: list[Value] = []
        self.bound: list[Value] = []
        for v, has_lanes in zip(region.inputs, flags):
            self.inner.append(stand_in(v.attrs["name"], v.tensor))
            outer = stand_in(v.attrs["name"], _lanes(v.tensor, size)) if has_lanes else self.inner[-1]
            self.bound.append(self.trace.bind(v.attrs["name"], outer))

    def run(self, region: Graph, without: Sequence[int] = ()) -> list[Lanes]:
        """The results of a region that takes these inputs, but for some."""
        mapped = {a: b for a, b, has_lanes in zip(self.inner, self.bound, self.flags) if has_lanes}
        inputs = [v for k, v in enumerate(self.inner) if k not in without]
        return vectorize(instantiate(region, inputs), mapped, self.size)


def _flags(body: Graph, carries: int, flags: Sequence[bool]) -> list[bool]:
    """Which inputs of a loop's body have lanes; carries get them by any number of steps."""
    flags = list(flags)
    while True:
        reached = dependents({v for v, has in zip(body.inputs, flags) if has}, body.outputs)
        grown = [has or k < carries and body.outputs[k] in reached for k, has in enumerate(flags)]
        if grown == flags:
            return grown
        flags = grown


def _all(operands: Sequence[Lanes], flags: Sequence[bool], size: Dim) -> list[Value]:
    return [with_lanes(o, size) if has else o[0] for o, has in zip(operands, flags)]


def _results(loop: Value, flags: Sequence[bool], first: int = 0, swap: bool = False) -> list[Lanes]:
    items = [OPS["item"](loop, index=first + k) for k in range(len(flags))]
    return [(_swapped(x) if swap and has else x, has) for x, has in zip(items, flags)]


# --- scan ----------------------------------------------------------------------------------------


def _scan(value: Value, operands: Sequence[Lanes], size: Dim) -> list[Lanes]:
    body, attrs = value.regions[0], dict(value.attrs)
    n, m, total = attrs["carries"], attrs["sequences"], len(body.inputs)
    steps = operands[total:]
    masked = any(has for _, has in steps)
    flags = [True] * n + [has for _, has in operands[n:total]] if masked else _flags(
        body, n, [has for _, has in operands[:total]]
    )
    given = _all(operands, flags, size)
    given[n:n + m] = [_swapped(x) if has else x for x, has in zip(given[n:n + m], flags[n:n + m])]
    inside = _Body(body, flags, size)
    results = inside.run(body)
    after = [with_lanes(r, size) if has else r[0] for r, has in zip(results[:n], flags)]
    rows = [r for r, _ in results[n:]]
    kept = [has for _, has in results[n:]]
    if masked:
        active = _counted(inside, n + m)
        after = [_mask(active, new, old) for new, old in zip(after, inside.bound)]
        rows = [_mask(active, with_lanes(r, size), _zero(r, size)) for r in results[n:]]
        kept = [True] * len(rows)
        index = OPS["iota"](shape=(attrs["length"],), axis=0, dtype=int64)
        given = [*given[:n + m], index, *given[n + m:], steps[0][0]]
        attrs |= {"sequences": m + 1, "counted": False}
        steps = []
    regions, captured = inside.trace.close({body.name: [*after, *rows]})
    loop = make(value.op, [*given, *captured, *(s for s, _ in steps)], attrs, regions)
    return [*_results(loop, flags[:n]), *_results(loop, kept, n, swap=True)]


def _counted(inside: _Body, position: int) -> Value:
    """Which lanes take a step, of loops that have numbers of steps of their own: the whole length is run."""
    index, steps = stand_in("i", TensorType(int64, ())), stand_in("n", TensorType(int64, (inside.size,)))
    inside.trace.insert(position, "i", index)
    inside.trace.insert(len(inside.trace.inputs), "n", steps)
    return OPS["lt"](index, steps)


def _zero(result: Lanes, size: Dim) -> Value:
    t = with_lanes(result, size).tensor
    return full(t.shape, 0, t.dtype)


# --- while ---------------------------------------------------------------------------------------


def _while(value: Value, operands: Sequence[Lanes], size: Dim) -> list[Lanes]:
    condition, body = value.regions
    n = value.attrs["carries"]
    flags = _flags(body, n, [has for _, has in operands])
    reached = dependents({v for v, has in zip(condition.inputs, flags) if has}, condition.outputs)
    if condition.outputs[0] in reached:
        return _masked_while(value, operands, size)
    inside = _Body(body, flags, size)
    results = inside.run(body)
    after = [with_lanes(r, size) if has else r[0] for r, has in zip(results[:n], flags)]
    rows = [r for r, _ in results[n:]]
    ((holds, _),) = inside.run(condition)
    regions, captured = inside.trace.close({condition.name: [holds], body.name: [*after, *rows]})
    loop = make(value.op, [*_all(operands, flags, size), *captured], value.attrs, regions)
    kept = [has for _, has in results[n:]]
    return [*_results(loop, [*flags[:n], False]), *_results(loop, kept, n + 1, swap=True)]


def _masked_while(value: Value, operands: Sequence[Lanes], size: Dim) -> list[Lanes]:
    """A loop until the conditions of all lanes are false, with each lane's number of steps as a further carry."""
    condition, body = value.regions
    n = value.attrs["carries"]
    flags = [True] * n + [has for _, has in operands[n:]]
    inside = _Body(body, flags, size)
    counts = stand_in("steps", TensorType(int64, (size,)))
    inside.trace.insert(n, "steps", counts)
    active = with_lanes(inside.run(condition)[0], size)
    results = inside.run(body)
    after = [_mask(active, with_lanes(r, size), old) for r, old in zip(results[:n], inside.bound)]
    after.append(counts + OPS["cast"](active, dtype=int64))
    rows = [_mask(active, with_lanes(r, size), _zero(r, size)) for r in results[n:]]
    going = OPS["any"](active, axes=(0,))
    regions, captured = inside.trace.close({condition.name: [going], body.name: [*after, *rows]})
    given = _all(operands, flags, size)
    given.insert(n, full((size,), 0, int64))
    attrs = {**value.attrs, "carries": n + 1}
    loop = make(value.op, [*given, *captured], attrs, regions)
    return [*_results(loop, [True] * (n + 1)), *_results(loop, [True] * len(rows), n + 2, swap=True)]


# --- branches and calls --------------------------------------------------------------------------


def _switch(value: Value, operands: Sequence[Lanes], size: Dim) -> list[Lanes]:
    (index, by_lane), *captures = operands
    if by_lane:
        return _select(value, index, captures, size)
    inside = _Body(value.regions[0], [has for _, has in captures], size)
    branches = [inside.run(region) for region in value.regions]
    flags = [any(has for _, has in column) for column in zip(*branches)]
    names = [r.name if r.name != "region" else f"branch{k}" for k, r in enumerate(value.regions)]
    bodies = {name: _all(results, flags, size) for name, results in zip(names, branches)}
    regions, captured = inside.trace.close(bodies, hoist=False)
    return _results(make(value.op, [index, *(x for x, _ in captures), *captured], {}, regions), flags)


def _select(value: Value, index: Value, captures: Sequence[Lanes], size: Dim) -> list[Lanes]:
    """The results of all branches, and of each lane those of its own."""
    mapped: dict[Value, Value] = {}
    inner: list[Value] = []
    for x, has_lanes in captures:
        t = x.tensor.with_shape(x.tensor.shape[1:]) if has_lanes else x.tensor
        inner.append(stand_in("k", t) if has_lanes else x)
        if has_lanes:
            mapped[inner[-1]] = x
    chosen: list[Value] = []
    for k, region in enumerate(value.regions):
        results = [with_lanes(r, size) for r in vectorize(instantiate(region, inner), mapped, size)]
        if k == 0:
            chosen = results
        else:
            from_here = OPS["ge"](index, k)
            chosen = [_mask(from_here, new, old) for new, old in zip(results, chosen)]
    return [(x, True) for x in chosen]


def _call(value: Value, operands: Sequence[Lanes], size: Dim) -> list[Lanes]:
    if value.attrs["rule"] == "custom":
        return _custom(value, operands, size)
    inside = _Body(value.regions[0], [has for _, has in operands], size)
    results = inside.run(value.regions[0])
    regions, captured = inside.trace.close({value.regions[0].name: [x for x, _ in results]}, hoist=False)
    given = [*(x for x, _ in operands), *captured]
    attrs = {**value.attrs, "arguments": len(given)}
    return _results(make(value.op, given, attrs, regions), [has for _, has in results])


def _custom(value: Value, operands: Sequence[Lanes], size: Dim) -> list[Lanes]:
    """All arguments get lanes, so that the gradient of each has them as well."""
    forward, gradient = value.regions
    n, seeds = value.attrs["arguments"], len(gradient.inputs) - len(forward.inputs)
    captured_flags = [has for _, has in operands[n:]]
    inside = _Body(gradient, [*[True] * (n + seeds), *captured_flags], size)
    grads = [with_lanes(r, size) for r in inside.run(gradient)]
    results = [with_lanes(r, size) for r in inside.run(forward, without=range(n, n + seeds))]
    regions, captured = inside.trace.close({forward.name: results, gradient.name: grads}, hoist=False)
    inputs = regions[0].inputs
    alone = Graph(forward.name, (*inputs[:n], *inputs[n + seeds:]), (), regions[0].outputs)
    given = _all(operands, [*[True] * n, *captured_flags], size)
    called = make(value.op, [*given, *captured], value.attrs, (alone, regions[1]))
    return _results(called, [True] * len(results))


_RULES: dict[str, Callable[[Value, Sequence[Lanes], Dim], list[Lanes]]] = {
    "scan": _scan, "while": _while, "switch": _switch, "call": _call,
}
