"""Gradients of loops and branches: loops that run backward, branches of gradients.

A scan's gradient is a scan in the other direction. Its carries are the cotangents of the forward carries, and the
sums of the captures' cotangents; its sequences are the cotangents of the outputs, and what the forward scan kept of
each step (`passes.residuals` chooses), which it gives as further outputs. A bounded while is differentiated in the
same way, by a scan that counts its steps. A switch's gradient is a switch of its branches' gradients, which compute
again what they need of the branch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from ..errors import DifferentiationError
from ..ir.broadcasting import full
from ..ir.dims import Dim
from ..ir.graph import Graph, Value, make
from ..ir.op import OPS
from ..ir.region import Trace, instantiate, stand_in, substitute_values, topological_until
from ..ir.types import TensorType
from .differentiate import pullback
from .residuals import kept_values

__all__ = ["dependents", "own_captures", "region_cotangents"]

Parts = Sequence[Value | None]


def region_cotangents(value: Value, parts: Parts, wanted: Sequence[bool], masked: bool) -> list[Value | None]:
    """The cotangents of the operands of an op that runs regions, from those of its results.

    Parameters
    ----------
    wanted : whether each operand needs one.
    masked : whether the results' cotangents come out of a `where`.

    Raises
    ------
    DifferentiationError
        If the op has no derivative.
    """
    rule = _RULES.get(value.op.name)
    if rule is None:
        raise DifferentiationError(f"{value.op.name} of type {value.type} has no derivative")
    return rule(value, parts, wanted, masked)


def _zeros(t: TensorType) -> Value:
    return full(t.shape, 0, t.dtype)


# --- loops ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Loop:
    """What a scan and a bounded while have in common.

    Attributes
    ----------
    first : the index of its first stacked output among its results.
    body : which of its regions is run at every step.
    """

    value: Value
    carries: int
    sequences: int
    length: Dim
    reverse: bool
    unroll: int
    checkpoint: bool
    first: int
    body: int

    @property
    def region(self) -> Graph:
        return self.value.regions[self.body]

    @property
    def captures(self) -> tuple[Value, ...]:
        return self.value.operands[self.carries + self.sequences : len(self.region.inputs)]

    def with_outputs(self, region: Graph) -> Value:
        """The loop with another body, of the same inputs."""
        regions = tuple(region if k == self.body else r for k, r in enumerate(self.value.regions))
        return make(self.value.op, self.value.operands, self.value.attrs, regions, self.value.locs)


def _scan_loop(value: Value) -> _Loop:
    a = value.attrs
    return _Loop(
        value, a["carries"], a["sequences"], a["length"], a["reverse"], a["unroll"], a["checkpoint"], a["carries"], 0
    )


def _while_loop(value: Value) -> _Loop:
    n, limit = value.attrs["carries"], value.attrs["max_steps"]
    if limit is None:
        where = f" at {value.loc.file}:{value.loc.line}" if value.loc else ""
        raise DifferentiationError(
            f"while: a loop without a bound has no gradient: the memory for its states is not known{where}\n"
            "  give max_steps, or use gw.scan or gw.fori if the number of steps is known"
        )
    return _Loop(value, n, 0, limit, False, 1, False, n + 1, 1)


class _Backward:
    """The gradient of one loop, built step by step."""

    def __init__(self, loop: _Loop, parts: Parts, wanted: Sequence[bool], masked: bool) -> None:
        self.loop, self.masked = loop, masked
        region, n, m = loop.region, loop.carries, loop.sequences
        self.trace = Trace()
        self.inputs = [stand_in(v.attrs["name"], v.tensor) for v in region.inputs]
        self.results = instantiate(region, self.inputs)
        self.carry_parts = parts[:n]
        self.output_parts = parts[loop.first:]
        self.active = self._active(list(wanted[: len(self.inputs)]))
        self.live = self._live()  # carries whose cotangents are passed from step to step
        reached = dependents({v for v, a in zip(self.inputs, self.active) if a}, self.results)
        self.seeded = [
            n + j for j, part in enumerate(self.output_parts) if part is not None and self.results[n + j] in reached
        ]
        self.steps = [k for k in range(n, n + m) if self.active[k]]
        self.sums = [k for k in range(n + m, len(self.inputs)) if self.active[k]]

    # --- which of the body's values have cotangents ----------------------------------------------

    def _active(self, wanted: list[bool]) -> list[bool]:
        """The inputs of the body that depend on what needs a cotangent; carries by any number of steps."""
        active = [w and v.dtype.is_float for w, v in zip(wanted, self.inputs)]
        changed = True
        while changed:
            reached = dependents({v for v, a in zip(self.inputs, active) if a}, self.results)
            grown = [
                active[k] or k < self.loop.carries and v.dtype.is_float and self.results[k] in reached
                for k, v in enumerate(self.inputs)
            ]
            changed, active = grown != active, grown
        return active

    def _live(self) -> list[int]:
        """The active carries on which something with a cotangent depends."""
        n = self.loop.carries
        live = {k for k in range(n) if self.carry_parts[k] is not None}
        ends = [self.results[n + j] for j, part in enumerate(self.output_parts) if part is not None]
        while True:
            read = set(topological_until([*ends, *(self.results[k] for k in live)], ()))
            grown = live | {k for k in range(n) if self.inputs[k] in read}
            if grown == live:
                return [k for k in range(n) if k in live and self.active[k]]
            live = grown

    # --- building --------------------------------------------------------------------------------

    def run(self) -> list[Value | None]:
        found: list[Value | None] = [None] * len(self.loop.value.operands)
        if not self.live and not self.seeded:
            return found
        trace, n = self.trace, self.loop.carries
        carried = trace.inputs_like("c", [self.inputs[k].tensor for k in self.live])
        seeds = [stand_in("dy", self.results[k].tensor) for k in self.seeded]
        wrt = [*self.live, *self.steps, *self.sums]
        grads = dict(zip(wrt, pullback(
            [self.results[k] for k in (*self.live, *self.seeded)], [*carried, *seeds],
            [self.inputs[k] for k in wrt], self.masked,
        )))  # fmt: skip
        self.sums = [k for k in self.sums if grads[k] is not None]
        self.steps = [k for k in self.steps if grads[k] is not None]
        start = len(carried)
        totals = [trace.input(f"c{start + k}", self.inputs[j].tensor) for k, j in enumerate(self.sums)]
        after = [grads[k] or _zeros(self.inputs[k].tensor) for k in self.live]
        after += [t + _some(grads[k]) for t, k in zip(totals, self.sums)]
        outputs = [_some(grads[k]) for k in self.steps]
        loop = self._backward_scan(seeds, after, outputs)
        for k, j in enumerate((*self.live, *self.sums, *self.steps)):
            found[j] = OPS["item"](loop, index=k)
        assert all(k < n for k in self.live)
        return found

    def _backward_scan(self, seeds: Sequence[Value], after: Sequence[Value], outputs: Sequence[Value]) -> Value:
        loop, trace, n = self.loop, self.trace, self.loop.carries
        carried = list(trace.inputs)
        forward, kept, elements = self._forward(seeds, [*after, *outputs])
        sequences = [p for p in self.output_parts if p is not None]
        sequences = [_some(self.output_parts[k - n]) for k in self.seeded]
        sequences += [OPS["item"](forward, index=loop.first + position) for position in kept.values()]
        sequences += [loop.value.operands[k] for k in elements]
        for k, v in enumerate([*seeds, *kept, *(self.inputs[j] for j in elements)]):
            trace.bind(f"x{k}", v)
        (region,), captures = trace.close({"region": [*after, *outputs]})
        operands = dict(zip(self.inputs[n + loop.sequences:], loop.captures))
        captures = substitute_values(captures, operands)
        first = [self.carry_parts[k] or _zeros(self.inputs[k].tensor) for k in self.live]
        first += [_zeros(v.tensor) for v in carried[len(self.live):]]
        steps = self._steps(forward)
        attrs = {
            **OPS["scan"].attrs, "carries": len(first), "sequences": len(sequences), "length": loop.length,
            "reverse": not loop.reverse, "counted": bool(steps), "unroll": loop.unroll,
        }
        return make(OPS["scan"], [*first, *sequences, *captures, *steps], attrs, (region,))

    def _steps(self, forward: Value) -> list[Value]:
        """The number of steps, if it is not the length."""
        if self.loop.value.op.name == "while":
            return [OPS["item"](forward, index=self.loop.carries)]
        return [self.loop.value.operands[-1]] if self.loop.value.attrs["counted"] else []

    def _forward(
        self, seeds: Sequence[Value], roots: Sequence[Value]
    ) -> tuple[Value, dict[Value, int], list[int]]:
        """The forward loop that keeps what the backward one reads.

        Returns
        -------
        The loop, the values kept with their positions among its outputs, and the sequences to be read again.
        """
        n, m = self.loop.carries, self.loop.sequences
        given = {*self.trace.inputs, *seeds}
        order = topological_until(roots, ())
        backward = dependents(given, roots) | given
        needed = {o for v in order if v in backward for o in v.operands if o not in backward}
        needed |= {v for v in roots if v not in backward}
        forward = [v for v in order if v not in backward]
        varying = dependents(set(self.inputs[: n + m]), forward) | set(self.inputs[: n + m])
        free = {v for v in forward if v not in varying} | set(self.inputs[n : n + m])
        outputs = self.results[n:]
        kept = kept_values(
            needed, forward, set(self.inputs[:n]), free, kept_anyway=outputs, recompute=self.loop.checkpoint
        )
        position = {v: n + k for k, v in reversed(list(enumerate(outputs)))}
        more = [v for v in kept if v not in position]
        position |= {v: n + len(outputs) + k for k, v in enumerate(more)}
        read = set(topological_until(roots, kept))
        elements = [k for k in range(n, n + m) if self.inputs[k] in read]
        return self._keeping(more), {v: position[v] - n for v in kept}, elements

    def _keeping(self, more: Sequence[Value]) -> Value:
        """The forward loop with further outputs."""
        if not more:
            return self.loop.value
        names = [v.attrs["name"] for v in self.loop.region.inputs]
        parameters = dict(zip(self.inputs, self.loop.region.inputs))
        assert len(names) == len(self.inputs)
        outputs = substitute_values([*self.results, *more], parameters)
        region = Graph(self.loop.region.name, self.loop.region.inputs, (), tuple(outputs))
        return self.loop.with_outputs(region)


def _some(value: Value | None) -> Value:
    assert value is not None
    return value


def dependents(given: Collection[Value], roots: Iterable[Value]) -> set[Value]:
    """The values that depend on others, themselves included, among those that the roots need."""
    found = set(given)
    for value in topological_until(roots, given):
        if any(o in found for o in value.operands):
            found.add(value)
    return found


# --- branches ------------------------------------------------------------------------------------


def _switch_cotangents(value: Value, parts: Parts, wanted: Sequence[bool], masked: bool) -> list[Value | None]:
    index, *captures = value.operands
    trace = Trace()
    inputs = trace.inputs_like("k", [v.tensor for v in captures])
    chosen = [k for k, part in enumerate(parts) if part is not None]
    seeds = [trace.input(f"d{k}", _some(parts[k]).tensor) for k in chosen]
    wrt = [k for k, w in enumerate(wanted[1:]) if w]
    grads = []
    for region in value.regions:
        results = instantiate(region, inputs)
        grads.append(pullback([results[k] for k in chosen], seeds, [inputs[k] for k in wrt], masked))
    reached = [j for j in range(len(wrt)) if any(g[j] is not None for g in grads)]
    found: list[Value | None] = [None] * len(value.operands)
    if not reached:
        return found
    rows = [[g[j] or _zeros(inputs[wrt[j]].tensor) for j in reached] for g in grads]
    bodies = {region.name if region.name != "region" else f"branch{k}": row for k, (region, row) in enumerate(
        zip(value.regions, rows)
    )}
    regions, constants = trace.close(bodies, hoist=False)  # captures are what does not depend on the operands
    operands = [index, *captures, *(_some(parts[k]) for k in chosen), *constants]
    chosen_gradient = make(OPS["switch"], operands, {}, regions)
    for k, j in enumerate(reached):
        found[1 + wrt[j]] = OPS["item"](chosen_gradient, index=k)
    return found


# --- calls ---------------------------------------------------------------------------------------


def _call_cotangents(value: Value, parts: Parts, wanted: Sequence[bool], masked: bool) -> list[Value | None]:
    rule = _custom_cotangents if value.attrs["rule"] == "custom" else _recomputed_cotangents
    return rule(value, parts, wanted, masked)


def own_captures(value: Value, wanted: Sequence[bool]) -> None:
    """Refuse derivatives of a function with its own gradient by what is none of its arguments."""
    n = value.attrs["arguments"]
    for operand, w in zip(value.operands[n:], wanted[n:]):
        if w:
            name = repr(operand.attrs["name"]) if "name" in operand.attrs else f"the result of {operand.op.name}"
            where = f" at {operand.loc.file}:{operand.loc.line}" if operand.loc else ""
            raise DifferentiationError(
                f"custom_gradient: {name} of type {operand.type}{where} is used by the function, but is none of its "
                "arguments: its gradient is not defined\n  pass it as an argument, or stop_gradient it"
            )


def _custom_cotangents(value: Value, parts: Parts, wanted: Sequence[bool], _: bool) -> list[Value | None]:
    n = value.attrs["arguments"]
    own_captures(value, wanted)
    seeds = [
        part or _zeros(v.tensor) for part, v in zip(parts, value.regions[0].outputs) if v.dtype.is_float
    ]
    results = iter(instantiate(value.regions[1], [*value.operands[:n], *seeds, *value.operands[n:]]))
    found: list[Value | None] = [next(results) if o.dtype.is_float else None for o in value.operands[:n]]
    return found + [None] * (len(value.operands) - n)


def _recomputed_cotangents(value: Value, parts: Parts, wanted: Sequence[bool], masked: bool) -> list[Value | None]:
    """The pullback of the region computed again, of operands that are not there before the cotangents."""
    chosen = [k for k, part in enumerate(parts) if part is not None]
    seeds = [_some(parts[k]) for k in chosen]
    again = [OPS["after"](o, seeds[0]) for o in value.operands]
    results = instantiate(value.regions[0], again)
    wrt = [k for k, w in enumerate(wanted) if w]
    grads = pullback([results[k] for k in chosen], seeds, [again[k] for k in wrt], masked)
    found: list[Value | None] = [None] * len(value.operands)
    for k, grad in zip(wrt, grads):
        found[k] = grad
    return found


_RULES: dict[str, Callable[[Value, Parts, Sequence[bool], bool], list[Value | None]]] = {
    "scan": lambda value, *args: _Backward(_scan_loop(value), *args).run(),
    "while": lambda value, *args: _Backward(_while_loop(value), *args).run(),
    "switch": _switch_cotangents,
    "call": _call_cotangents,
}
