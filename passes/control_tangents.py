"""Forward mode through loops, branches and calls: tangents are further carries, sequences, outputs and results.

A tangent of a loop's results comes from a second loop of the same steps, over the values and their tangents; the first
one is a part of it, and `passes.merge_loops` leaves one. No states are kept, so that a loop without a bound has
tangents, though it has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import DifferentiationError
from ..ir.graph import Graph, Value, make
from ..ir.op import OPS
from ..ir.region import Trace, instantiate, stand_in, substitute_values
from .control_gradients import dependents, own_captures
from .pushforward import Tangents, pushforward, transpose, zero_like

__all__ = ["region_tangents"]


def region_tangents(value: Value, tangents: Tangents) -> Tangents:
    """The tangents of the results of an op that runs regions, from those of its operands.

    Raises
    ------
    DifferentiationError
        If the op has no derivative.
    """
    rule = _RULES.get(value.op.name)
    if rule is None:
        raise DifferentiationError(f"{value.op.name} of type {value.type} has no derivative")
    return rule(value, tangents)


def _items(value: Value, positions: Sequence[int], count: int, first: int) -> list[Value | None]:
    """Results of a value from the `first` on, at some of `count` places, None at the others."""
    found: list[Value | None] = [None] * count
    for k, position in enumerate(positions):
        found[position] = OPS["item"](value, index=first + k)
    return found


# --- loops ---------------------------------------------------------------------------------------


class _Loop:
    """The body of a loop with tangents of the inputs that have one.

    Attributes
    ----------
    carries, sequences, captures : the inputs of each kind that have tangents.
    outputs : the outputs of the steps that have them.
    """

    def __init__(self, value: Value, body: Graph, sequences: int, tangents: Tangents) -> None:
        self.value, self.n, self.m, self.tangents = value, value.attrs["carries"], sequences, tangents
        self.body = body
        n, m, total = self.n, self.m, len(body.inputs)
        self.active = self._active()
        self.carries, self.sequences, self.captures = (
            [k for k in kind if self.active[k]] for kind in (range(n), range(n, n + m), range(n + m, total))
        )
        self.outputs: list[int] = []

    def _active(self) -> list[bool]:
        """The inputs with tangents; carries get one by any number of steps."""
        body = self.body
        active = [t is not None for t in self.tangents[: len(body.inputs)]]
        while True:
            reached = dependents({v for v, a in zip(body.inputs, active) if a}, body.outputs)
            grown = [
                a or k < self.n and v.tensor.dtype.is_float and body.outputs[k] in reached
                for k, (v, a) in enumerate(zip(body.inputs, active))
            ]
            if grown == active:
                return active
            active = grown

    def both(self, values: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
        """What stands for each input and each tangent, in the order of the inputs of the new body."""
        n, m = self.n, self.m
        bounds = ((0, n, self.carries), (n, n + m, self.sequences), (n + m, len(self.body.inputs), self.captures))
        ordered: list[Any] = []
        for start, stop, chosen in bounds:
            ordered += [*values[start:stop], *(tangents[k] for k in chosen)]
        return ordered

    def trace(self) -> tuple[Trace, list[Value], list[Value], list[Value | None]]:
        """A trace of stand-ins for inputs and tangents; those of the inputs; the body's results and their tangents."""
        names = [v.attrs["name"] for v in self.body.inputs]
        inputs = [stand_in(name, v.tensor) for name, v in zip(names, self.body.inputs)]
        trace = Trace()
        seeds = [stand_in("d", v.tensor) if a else None for v, a in zip(inputs, self.active)]
        for name, v in zip(self.both(names, _tangent_names(names)), self.both(inputs, seeds)):
            trace.bind(name, v)
        results = instantiate(self.body, inputs)
        return trace, inputs, results, pushforward(results, inputs, seeds)

    def step(self, results: Sequence[Value], tangents: Sequence[Value | None]) -> list[Value]:
        """What the new body gives: carries, their tangents, outputs, their tangents."""
        n = self.n
        self.outputs = [k for k in range(n, len(results)) if tangents[k] is not None]
        after = [tangents[k] or zero_like(results[k].tensor) for k in self.carries]
        return [*results[:n], *after, *results[n:], *(t for t in tangents[n:] if t is not None)]

    def operands(self, captured: Sequence[Value]) -> list[Value]:
        """The operands of the new loop."""
        seeds = [
            t or zero_like(o.tensor) if a else None
            for t, o, a in zip(self.tangents, self.value.operands, self.active)
        ]
        count = len(self.body.inputs)
        return [*self.both(self.value.operands[:count], seeds), *captured, *self.value.operands[count:]]

    def results(self, loop: Value, between: int = 0) -> Tangents:
        """The tangents among the new loop's results; `between` results stand between carries and outputs."""
        n, carried = self.n, self.n + len(self.carries)
        steps = len(self.body.outputs) - n
        carries = _items(loop, self.carries, n, n)
        outputs = _items(loop, [k - n for k in self.outputs], steps, carried + between + steps)
        return [*carries, *[None] * between, *outputs]


def _tangent_names(names: Sequence[str]) -> list[str]:
    """A name for each input's tangent, which no other input has."""
    taken = set(names)
    found = []
    for name in names:
        while name in taken:
            name = f"d{name}"
        taken.add(name)
        found.append(name)
    return found


def _scan(value: Value, tangents: Tangents) -> Tangents:
    loop = _Loop(value, value.regions[0], value.attrs["sequences"], tangents)
    trace, _, results, found = loop.trace()
    regions, captured = trace.close({value.regions[0].name: loop.step(results, found)})
    attrs = {
        **value.attrs, "carries": loop.n + len(loop.carries), "sequences": loop.m + len(loop.sequences),
    }
    return loop.results(make(value.op, loop.operands(captured), attrs, regions))


def _while(value: Value, tangents: Tangents) -> Tangents:
    condition, body = value.regions
    loop = _Loop(value, body, 0, tangents)
    trace, inputs, results, found = loop.trace()
    holds = instantiate(condition, inputs)
    regions, captured = trace.close({condition.name: holds, body.name: loop.step(results, found)})
    attrs = {**value.attrs, "carries": loop.n + len(loop.carries)}
    return loop.results(make(value.op, loop.operands(captured), attrs, regions), between=1)


# --- branches and calls --------------------------------------------------------------------------


def _switch(value: Value, tangents: Tangents) -> Tangents:
    trace = Trace()
    inputs = trace.inputs_like("k", [v.tensor for v in value.operands[1:]])
    seeds = [t and trace.input(f"d{k}", t.tensor) for k, t in enumerate(tangents[1:])]
    branches = [instantiate(region, inputs) for region in value.regions]
    found = [pushforward(results, inputs, seeds) for results in branches]
    reached = [k for k in range(len(branches[0])) if any(row[k] is not None for row in found)]
    if not reached:
        return [None] * len(branches[0])
    bodies = {
        region.name if region.name != "region" else f"branch{j}":
        [row[k] or zero_like(results[k].tensor) for k in reached]
        for j, (region, results, row) in enumerate(zip(value.regions, branches, found))
    }
    regions, more = trace.close(bodies, hoist=False)
    assert not more
    chosen = make(OPS["switch"], [*value.operands, *(t for t in tangents[1:] if t is not None)], {}, regions)
    return _items(chosen, reached, len(branches[0]), 0)


def _call(value: Value, tangents: Tangents) -> Tangents:
    """Of what is computed again for a gradient, the tangents as of any other; else by the function's own gradient."""
    if value.attrs["rule"] != "custom":
        inputs = [stand_in("x", o.tensor) for o in value.operands]
        found = pushforward(instantiate(value.regions[0], inputs), inputs, tangents)
        given = [t for t in found if t is not None]
        actual = iter(substitute_values(given, dict(zip(inputs, value.operands))))
        return [t and next(actual) for t in found]
    n, forward = value.attrs["arguments"], value.regions[0]
    own_captures(value, [t is not None for t in tangents])
    seeds = [stand_in("g", v.tensor) for v in forward.outputs if v.tensor.dtype.is_float]
    cotangents = iter(instantiate(value.regions[1], [*value.operands[:n], *seeds, *value.operands[n:]]))
    pairs = [
        (next(cotangents), t) for o, t in zip(value.operands[:n], tangents[:n]) if o.tensor.dtype.is_float
    ]
    transposed = iter(transpose([c for c, t in pairs if t], [t for _, t in pairs if t], seeds, value))
    return [next(transposed) if v.tensor.dtype.is_float else None for v in forward.outputs]


_RULES: dict[str, Callable[[Value, Tangents], Tangents]] = {
    "scan": _scan, "while": _while, "switch": _switch, "call": _call,
}
