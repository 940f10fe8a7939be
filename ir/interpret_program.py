"""The meaning of a program: its steps run in order by the interpreter of loops, over memory laid out as planned.

Before it is planned, each temp has memory of its own. Memory is poisoned, so that a program that reads
what nothing wrote, or what something else has overwritten, shows it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .dims import evaluate
from .interpret_loops import interpret_kernel
from .program import Branch, Call, Loop, Program, Step, While, nbytes

__all__ = ["interpret_program"]

Array = np.ndarray[Any, np.dtype[Any]]
_POISON = 0xFB
"""The byte that memory begins with: a NaN in floats."""


def interpret_program(
    program: Program, inputs: Sequence[Array], states: Sequence[Array], dims: Mapping[str, int]
) -> tuple[list[Array], list[Array]]:
    """Run a program.

    Parameters
    ----------
    inputs, states : one array per slot of the kind, of its dtype and shape.
    dims : values of the symbolic dimensions.

    Returns
    -------
    The outputs, and the states afterwards.
    """
    machine = _Machine(program, inputs, states, dims)
    machine.run(program.steps)
    by_kind: dict[str, list[Array]] = {"output": [], "state": []}
    for slot in program.slots:
        if slot.kind in by_kind:
            by_kind[slot.kind].append(machine.array(slot.buffer.name).copy())
    return by_kind["output"], by_kind["state"]


class _Machine:
    """The memory of a run, in bytes, and the indices of its loops."""

    def __init__(
        self, program: Program, inputs: Sequence[Array], states: Sequence[Array], dims: Mapping[str, int]
    ) -> None:
        self.program, self.dims = program, dict(dims)
        self.memory = {name: _bytes(array) for name, array in program.constants.items()}
        given = {"input": iter(inputs), "state": iter(states)}
        planned = any(s.offset is not None and s.alias is None for s in program.slots)
        arena = np.full(evaluate(program.arena, dims) if planned else 0, _POISON, np.uint8)
        for slot in program.slots:
            name, size = slot.buffer.name, evaluate(nbytes(slot.buffer), dims)
            if slot.kind in given:
                self.memory[name] = _bytes(next(given[slot.kind]))
            elif slot.alias is None and slot.offset is not None:
                start = evaluate(slot.offset, dims)
                self.memory[name] = arena[start : start + size]
            elif slot.alias is None:
                self.memory[name] = np.full(size, _POISON, np.uint8)

    def array(self, name: str) -> Array:
        """A buffer as it is now: a view of its memory."""
        slot = self.program.by_name.get(name)
        if slot is None:
            return self.program.constants[name]
        root, position = self.program.place(name)
        start, size = evaluate(position, self.dims), evaluate(nbytes(slot.buffer), self.dims)
        part = self.memory[root][start : start + size]
        assert part.size == size, f"%{name} at bytes {start}..{start + size} is not inside %{root}"
        shape = tuple(evaluate(d, self.dims) for d in slot.buffer.shape)
        return np.ndarray(shape, slot.buffer.dtype.numpy, part) if size else np.empty(shape, slot.buffer.dtype.numpy)

    def run(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, Call):
                self.call(step)
            elif isinstance(step, Loop):
                self.loop(step)
            elif isinstance(step, While):
                self.repeat(step)
            else:
                self.branch(step)

    def call(self, call: Call) -> None:
        symbols = {s: self.dims[s] for s in call.kernel.symbols}
        with np.errstate(all="ignore"):
            results = interpret_kernel(call.kernel, [self.array(n).copy() for n in call.reads], symbols)
        for name, result in zip(call.writes, results):
            self.array(name)[...] = result

    def loop(self, step: Loop) -> None:
        count = evaluate(step.extent, self.dims)
        if step.count is not None:
            count = min(max(int(self.array(step.count)[()]), 0), count)
        for i in reversed(range(count)) if step.reverse else range(count):
            self.dims[step.index] = i
            self.run(step.body)
        self.dims.pop(step.index, None)

    def repeat(self, step: While) -> None:
        limit = None if step.limit is None else evaluate(step.limit, self.dims)
        for i in itertools.count():
            self.dims[step.index] = i
            self.run(step.test)
            if i == limit or not self.array(step.condition)[()]:
                break
            self.run(step.body)
        self.dims.pop(step.index, None)
        if step.steps is not None:
            self.array(step.steps)[...] = i

    def branch(self, step: Branch) -> None:
        number = int(self.array(step.index)[()])
        self.run(step.branches[min(max(number, 0), len(step.branches) - 1)])


def _bytes(array: Array) -> Array:
    return np.frombuffer(bytearray(np.ascontiguousarray(array).tobytes()), np.uint8)
