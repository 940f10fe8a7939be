"""From the shapes of a call's arguments to its dimensions, and from these to all its sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ..errors import ArgumentError, DimensionError
from .signature import (
    INT64_MAX,
    Formula,
    Signature,
    Slot,
    compile_formula,
    formula_symbols,
    formula_text,
)

__all__ = ["Binder", "Plan", "Shape"]

Shape = tuple[int, ...]
_CACHED_PLANS = 256


@dataclass(frozen=True)
class Plan:
    """All sizes of a call, for one choice of the symbolic dimensions.

    Attributes
    ----------
    dims : values of the signature's symbols.
    inputs, outputs : the shapes.
    sizes : bytes of each output.
    arena : bytes of scratch memory.
    """

    dims: tuple[int, ...]
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    sizes: tuple[int, ...]
    arena: int


@dataclass(frozen=True)
class _Source:
    """Where a symbol's value is read: one axis of an input (or state), directly or by solving."""

    slot: Slot
    index: int
    axis: int
    is_state: bool

    @property
    def formula(self) -> Formula:
        return self.slot.shape[self.axis]

    def __str__(self) -> str:
        return f"{'variable' if self.is_state else 'input'} {self.slot.name!r} (axis {self.axis})"


class Binder:
    """Finds the dimensions of calls of one function, and caches the plans.

    Parameters
    ----------
    signature : the function's.
    states : shapes of the cells; their symbols are bound once.

    Raises
    ------
    DimensionError
        If the inputs do not determine a symbol, or the states contradict the signature.
    """

    def __init__(self, signature: Signature, states: Sequence[Shape]) -> None:
        self.signature = signature
        self._states = tuple(states)
        symbols = signature.symbols
        compiled = [tuple(compile_formula(d, symbols) for d in s.shape) for s in _slots(signature)]
        n, m = len(signature.inputs), len(signature.states)
        self._inputs, self._cells, self._outputs = compiled[:n], compiled[n : n + m], compiled[n + m :]
        self._arena = compile_formula(signature.arena, symbols)
        self._requires = [
            (compile_formula(a, symbols), compile_formula(b, symbols), problem)
            for a, b, problem in signature.requires
        ]
        self._sources = _find_sources(signature)
        self._direct = tuple(
            (s.index, s.axis) for s in self._sources.values() if not s.is_state and isinstance(s.formula, str)
        )
        self._simple = list(self._sources) == list(symbols) and len(self._direct) == len(symbols)
        self._plans: dict[tuple[int, ...], Plan] = {}

    def plan(self, shapes: Sequence[Shape]) -> Plan:
        """The sizes of a call whose inputs have these shapes.

        Raises
        ------
        ArgumentError
            If a shape does not fit the signature; inputs are named.
        DimensionError
            If two inputs contradict each other, or a size is negative or too large.
        """
        try:
            if self._simple:
                plan = self._plans[tuple([shapes[i][axis] for i, axis in self._direct])]
            else:
                plan = self._plans[self._bind(shapes)]
        except (KeyError, IndexError):
            plan = self._new_plan(shapes)
        for shape, expected in zip(shapes, plan.inputs):
            if shape != expected:
                self._explain(shapes)
        return plan

    def plan_for(self, values: Sequence[int]) -> Plan:
        """The sizes for given values of the symbols.

        Raises
        ------
        DimensionError
            If a size is negative or too large.
        """
        signature, values = self.signature, tuple(values)
        inputs = tuple(tuple(f(values) for f in axes) for axes in self._inputs)
        outputs = tuple(tuple(f(values) for f in axes) for axes in self._outputs)
        for role, slots, shapes in (
            ("input", signature.inputs, inputs),
            ("output", signature.outputs, outputs),
        ):
            for slot, shape in zip(slots, shapes, strict=True):
                self._check_size(f"{role} {slot}", shape, slot.itemsize, values)
        for a, b, problem in self._requires:
            if a(values) > b(values):
                given = ", ".join(f"{s} = {v}" for s, v in zip(signature.symbols, values))
                raise DimensionError(f"{signature.name}: {problem} (with {given})")
        arena = self._arena(values)
        self._check_size(f"the scratch memory ({signature.arena_text} bytes)", (arena,), 1, values)
        sizes = tuple(
            math.prod(shape) * slot.itemsize for slot, shape in zip(signature.outputs, outputs, strict=True)
        )
        return Plan(values, inputs, outputs, sizes, arena)

    def _new_plan(self, shapes: Sequence[Shape]) -> Plan:
        """Check everything, slowly and with good messages; then remember the plan."""
        for i, (slot, shape) in enumerate(zip(self.signature.inputs, shapes, strict=True)):
            if len(shape) != len(slot.shape):
                self._refuse(i, shape, f"rank {len(slot.shape)}, not {len(shape)}")
        self._check_states(self._bind(shapes))
        self._explain(shapes, fail=False)
        plan = self.plan_for(self._bind(shapes))
        if len(self._plans) >= _CACHED_PLANS:
            self._plans.clear()
        self._plans[plan.dims] = plan
        return plan

    def _bind(self, shapes: Sequence[Shape]) -> tuple[int, ...]:
        found: dict[str, int] = {}
        for symbol, source in self._sources.items():
            size = (self._states if source.is_state else shapes)[source.index][source.axis]
            found[symbol] = size if isinstance(source.formula, str) else _solve(symbol, source, size, found)
        return tuple([found[s] for s in self.signature.symbols])

    def _check_states(self, values: tuple[int, ...]) -> None:
        """Raise DimensionError if a cell's shape contradicts the dimensions."""
        for i, (axes, shape) in enumerate(zip(self._cells, self._states, strict=True)):
            slot = self.signature.states[i]
            if len(axes) != len(shape):
                raise DimensionError(f"{self.signature.name}: variable {slot} has a cell of shape {shape}")
            for axis, f in enumerate(axes):
                if f(values) != shape[axis]:
                    self._contradict(_Source(slot, i, axis, True), shape[axis], f(values), values)

    def _explain(self, shapes: Sequence[Shape], fail: bool = True) -> None:
        """Raise the error that says which input does not fit, if any."""
        for i, (slot, shape) in enumerate(zip(self.signature.inputs, shapes, strict=True)):
            if len(shape) != len(slot.shape):
                self._refuse(i, shape, f"rank {len(slot.shape)}, not {len(shape)}")
            for axis, d in enumerate(slot.shape):
                if isinstance(d, int) and shape[axis] != d:
                    self._refuse(i, shape, f"{d} in axis {axis}, not {shape[axis]}")
        values = self._bind(shapes)
        for i, (axes, shape) in enumerate(zip(self._inputs, shapes, strict=True)):
            for axis, f in enumerate(axes):
                if f(values) != shape[axis]:
                    source = _Source(self.signature.inputs[i], i, axis, False)
                    self._contradict(source, shape[axis], f(values), values)
        if fail:
            raise AssertionError("shapes that fit were refused")

    def _refuse(self, index: int, shape: Shape, wanted: str) -> NoReturn:
        slot = self.signature.inputs[index]
        raise ArgumentError(
            f"{self.signature.name}: input {slot} got an array of shape {shape}; it must have {wanted}"
        )

    def _contradict(self, at: _Source, size: int, expected: int, values: tuple[int, ...]) -> NoReturn:
        known = dict(zip(self.signature.symbols, values, strict=True))
        origins = ", ".join(
            f"{s} is {known[s]} in {self._sources[s]}" for s in sorted(formula_symbols(at.formula))
        )
        text = formula_text(at.formula)
        wanted = text if text in known else f"{text} = {expected}"
        raise DimensionError(
            f"{self.signature.name}: {at} has size {size}, but should have {wanted}"
            + (f": {origins}" if origins else "")
        )

    def _check_size(self, what: str, shape: Shape, itemsize: int, values: tuple[int, ...]) -> None:
        dims = ", ".join(f"{s} = {v}" for s, v in zip(self.signature.symbols, values, strict=True))
        where = f" for {dims}" if dims else ""
        if any(d < 0 for d in shape):
            raise DimensionError(
                f"{self.signature.name}: {what} would have the negative size {min(shape)}{where}"
            )
        if max((*shape, math.prod(shape) * itemsize)) > INT64_MAX:
            raise DimensionError(f"{self.signature.name}: {what} would not fit 64-bit sizes{where}")


def _slots(signature: Signature) -> tuple[Slot, ...]:
    return signature.inputs + signature.states + signature.outputs


def _find_sources(signature: Signature) -> dict[str, _Source]:
    """A place to read each symbol from, in an order in which they can be solved."""
    places = [
        _Source(slot, i, axis, is_state)
        for is_state, slots in ((False, signature.inputs), (True, signature.states))
        for i, slot in enumerate(slots)
        for axis in range(len(slot.shape))
    ]
    found: dict[str, _Source] = {}
    for place in places:
        if isinstance(place.formula, str):
            found.setdefault(place.formula, place)
    found = {s: found[s] for s in signature.symbols if s in found}
    progress = True
    while progress and len(found) < len(signature.symbols):
        progress = False
        for place in places:
            unknown = formula_symbols(place.formula) - set(found)
            if len(unknown) == 1:
                found[unknown.pop()] = place
                progress = True
    for s in signature.symbols:
        if s not in found:
            raise DimensionError(
                f"{signature.name}: no input determines the dimension {s}; "
                f"it must be a dimension of an input, or the only unknown of one"
            )
    return found


def _solve(symbol: str, source: _Source, size: int, known: dict[str, int]) -> int:
    """The value of `symbol` that gives a linear formula this size; any value if there is none.

    The caller compares the formula's value with the size, and reports what does not fit.
    """
    f: Callable[[int], int] = _function_of(symbol, source.formula, known)
    offset = f(0)
    slope = f(1) - offset
    return max((size - offset) // slope, 0) if slope else 0


def _function_of(symbol: str, formula: Formula, known: dict[str, int]) -> Callable[[int], int]:
    names = [*known, symbol]
    compiled = compile_formula(formula, names)
    return lambda value: compiled([*known.values(), value])
