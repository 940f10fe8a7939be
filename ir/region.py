"""Regions: making closed graphs of what was traced with stand-ins, and writing a graph's values out again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from .graph import Graph, Value, make, next_serial
from .op import OPS
from .types import TensorType

__all__ = ["Trace", "instantiate", "is_stand_in", "stand_in", "substitute_values", "topological_until"]

_CHEAP = frozenset({"full", "iota", "dim"})
_SMALL = 16  # elements of a constant that a body holds itself
_numbers = itertools.count()


def is_stand_in(value: Value) -> bool:
    """Whether a value stands for an input of a body that is being traced."""
    return value.op.name == "input" and "#" in value.attrs["name"]


def stand_in(what: str, t: TensorType) -> Value:
    """An input that no graph has yet."""
    return make(OPS["input"], (), {"name": f"{what} #{next(_numbers)}", "shape": t.shape, "dtype": t.dtype})


def substitute_values(roots: Sequence[Value], replaced: Mapping[Value, Value]) -> list[Value]:
    """Roots with values replaced, all at once."""
    if not replaced:
        return list(roots)
    done: dict[Value, Value] = dict(replaced)
    for value in topological_until(roots, done):
        done[value] = value.with_operands([done[o] for o in value.operands])
    return [done[r] for r in roots]


def instantiate(region: Graph, operands: Sequence[Value]) -> list[Value]:
    """The values of a region's outputs for given operands, in the graph of these."""
    return substitute_values(region.outputs, dict(zip(region.inputs, operands, strict=True)))


def topological_until(roots: Iterable[Value], stops: Iterable[Value], since: int = -1) -> list[Value]:
    """What the roots depend on, operands first, without the stops and what only they depend on.

    Parameters
    ----------
    since : a serial; older values are stops as well: nothing older can depend on a value of that serial.
    """
    order: list[Value] = []
    seen = set(stops)
    stack = [(v, False) for v in reversed(list(roots))]
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
        elif value not in seen and value.serial >= since:
            seen.add(value)
            stack.append((value, True))
            stack.extend((o, False) for o in reversed(value.operands) if o not in seen)
    return order


class Trace:
    """Values being made for regions: stand-ins for their inputs, and what is computed from them.

    Attributes
    ----------
    inputs : the stand-ins, in order.
    """

    def __init__(self) -> None:
        self._since = next_serial()
        self.inputs: list[Value] = []
        self._names: list[str] = []

    def input(self, name: str, t: TensorType) -> Value:
        """A stand-in for the next input, which the region will call `name`."""
        return self.bind(name, stand_in(name, t))

    def inputs_like(self, prefix: str, types: Iterable[TensorType]) -> list[Value]:
        """Stand-ins named by a prefix and a number."""
        return [self.input(f"{prefix}{k}", t) for k, t in enumerate(types)]

    def bind(self, name: str, value: Value) -> Value:
        """Let a value be the next input, whatever it was computed from."""
        self.inputs.append(value)
        self._names.append(name)
        return value

    def insert(self, position: int, name: str, value: Value) -> Value:
        """Let a value be the input at a position, under that name or a longer one."""
        while name in self._names:
            name += "_"
        self.inputs.insert(position, value)
        self._names.insert(position, name)
        return value

    def close(
        self, bodies: Mapping[str, Sequence[Value]], hoist: bool = True
    ) -> tuple[tuple[Graph, ...], list[Value]]:
        """Regions over the inputs and the captures, and the values captured.

        Parameters
        ----------
        bodies : the outputs of each region, by its name.
        hoist : capture also what was made since the trace began but depends on no input; else only what was not made
            since (nor made again: what is computed in a body does not depend on what else there is).
        """
        roots = [v for outputs in bodies.values() for v in outputs]
        inside = self._inside(roots, hoist)
        read = [o for v in inside for o in v.operands] + roots
        known = {*inside, *self.inputs}
        captures = list(dict.fromkeys(v for v in read if v not in known and not _is_cheap(v)))
        names = [*self._names, *(f"k{k}" for k in _free_numbers(self._names, len(captures)))]
        parameters = tuple(
            make(OPS["input"], (), {"name": name, "shape": v.shape, "dtype": v.dtype})
            for name, v in zip(names, [*self.inputs, *captures])
        )
        renamed = dict(zip([*self.inputs, *captures], parameters))
        closed = iter(substitute_values(roots, renamed))
        regions = [
            Graph(name, parameters, (), tuple(itertools.islice(closed, len(outputs))))
            for name, outputs in bodies.items()
        ]
        return tuple(regions), captures

    def _inside(self, roots: Sequence[Value], hoist: bool) -> list[Value]:
        """The values that are computed in the regions, operands first."""
        depends = set(self.inputs)
        found = []
        for value in self._recent(roots):
            if any(o in depends for o in value.operands) or not hoist and not self._is_outer(value):
                depends.add(value)
                found.append(value)
        return found

    def _recent(self, roots: Iterable[Value]) -> list[Value]:
        """What was made since the trace began, operands first: nothing else can depend on an input."""
        order: list[Value] = []
        seen = set(self.inputs)
        stack = [(v, False) for v in reversed(list(roots))]
        while stack:
            value, done = stack.pop()
            if done:
                order.append(value)
            elif value not in seen and value.serial >= self._since:
                seen.add(value)
                stack.append((value, True))
                stack.extend((o, False) for o in reversed(value.operands))
        return order

    def _is_outer(self, value: Value) -> bool:
        """Whether a value made since is one that was there before: a result of an older op, a constant."""
        parts_of_older = value.op.name == "item" and value.operands[0].serial < self._since
        return parts_of_older or is_stand_in(value) or _is_cheap(value)


def _is_cheap(value: Value) -> bool:
    if value.op.name == "constant":
        return bool(value.attrs["value"].array.size <= _SMALL)
    return value.op.name in _CHEAP


def _free_numbers(names: Sequence[str], count: int) -> list[int]:
    taken = set(names)
    return list(itertools.islice((k for k in itertools.count() if f"k{k}" not in taken), count))
