"""Lower a fused graph to a program: kernels over buffers, in an order in which states can be updated in place."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace as with_fields
from typing import Any

import numpy as np

from ..ir.dims import Dim
from ..ir.graph import Graph, Loc
from ..ir.loops import Buffer, Kernel
from ..ir.op import OPS
from ..ir.program import Call, Loop, Program, Slot, Step, While, parts
from ..ir.types import TensorType
from .lower_block import Block

__all__ = ["lower_to_program"]

LowerKernel = Callable[[Graph, str], Kernel]


def lower_to_program(graph: Graph, lower_kernel: LowerKernel) -> Program:
    """The program of a fused graph; temps have no offsets yet (`plan_memory`).

    `lower_kernel` makes the kernel of a region; each distinct region is lowered once.
    """
    module = Module(graph, lower_kernel)
    given = {v: module.external(v.attrs["name"], v.tensor, v.op.name) for v in (*graph.inputs, *graph.states)}
    block = Block(graph, module, given)
    block.values()
    outputs = []
    for k, v in enumerate(graph.outputs):
        outputs.append(f"out.{k}")
        module.external(outputs[-1], v.tensor, "output")
        block.write(v, outputs[-1])
    block.update(graph.updates)
    block.settle()  # once it is known who reads what
    return module.program([block.buffers[v] for v in (*graph.inputs, *graph.states)], outputs, block.steps())


class Module:
    """What all blocks of a program share: its buffers, constants and kernels."""

    def __init__(self, graph: Graph, lower_kernel: LowerKernel) -> None:
        self.graph = graph
        self.lower_kernel = lower_kernel
        self.slots: dict[str, Slot] = {}
        self.rename: dict[str, str] = {}  # temp -> the buffer whose memory it takes
        self.constants: dict[str, np.ndarray[Any, Any]] = {}
        self.kernels: dict[tuple[int, ...], Kernel] = {}
        self.lines: dict[int, tuple[Loc, ...]] = {}
        self.names = {graph.name}  # the program and its kernels are functions of one module
        self._regions: list[Graph] = []
        self._indices = itertools.count()

    # --- buffers ---

    def external(self, name: str, t: TensorType, kind: str) -> str:
        self.slots[name] = Slot(Buffer(name, t.dtype, t.shape), kind)
        return name

    def temp(self, t: TensorType, alias: str | None = None, offset: Dim = 0, prefix: str = "tmp") -> str:
        """A new temp, or a view of (a part of) another buffer's memory."""
        # a dot keeps our names apart from the user's
        name = f"{'view' if alias else prefix}.{len(self.slots)}"
        self.slots[name] = Slot(Buffer(name, t.dtype, t.shape), "temp", None if offset == 0 else offset, alias)
        return name

    def constant(self, array: np.ndarray[Any, Any]) -> str:
        name = f"const.{len(self.constants)}"
        self.constants[name] = array
        return name

    def index(self) -> str:
        """A new name for the index of a loop."""
        return next(name for k in self._indices if (name := f"t{k}") not in self.graph.symbols)

    def place(self, name: str) -> str:
        """The buffer that a step is given: the memory a temp takes, or the temp as a view of it."""
        while (target := self.rename.get(name)) is not None and self._alike(target, name):
            name = target
        return name

    def _alike(self, a: str, b: str) -> bool:
        return self.slots[a].buffer.shape == self.slots[b].buffer.shape

    # --- kernels ---

    def kernel(self, region: Graph) -> Kernel:
        key = (*map(id, region.inputs), 0, *map(id, region.outputs))  # the kernel's owner keeps the region alive
        kernel = self.kernels.get(key)
        if kernel is None:
            name = _kernel_name(region)
            candidates = (name, *(f"{name}_{k}" for k in range(1, len(self.names) + 1)))
            name = next(n for n in candidates if n not in self.names)
            self.names.add(name)
            kernel = self.kernels[key] = self.lower_kernel(region, name)
            self._regions.append(region)
        return kernel

    def source_lines(self, region: Graph) -> tuple[Loc, ...]:
        """The lines that a region computes."""
        if id(region) not in self.lines:  # whose call keeps the region alive
            made = [m for m in region if m.loc is not None]  # leaves may stand for an equal one at another line
            lines = [m.loc for m in made if m.operands and m.loc] or [m.loc for m in made if m.loc]
            self.lines[id(region)] = tuple(dict.fromkeys(Loc(line.file, line.line, line.role) for line in lines))
        return self.lines[id(region)]

    # --- the program ---

    def program(self, given: Sequence[str], outputs: Sequence[str], steps: tuple[Step, ...]) -> Program:
        fixed = [*given, *outputs]
        used = self._used(_buffers(steps), set(fixed))
        temps = [n for n in self.slots if n in used and n not in fixed]
        slots = tuple(self._final(self.slots[n]) for n in (*fixed, *temps))
        return Program(self.graph.name, self.graph.symbols, slots, steps, 0, self.constants)

    def _used(self, names: Iterable[str], fixed: set[str]) -> set[str]:
        """The buffers that steps touch, and those whose memory they are parts of."""
        used: set[str] = set()
        stack = list(names)
        while stack:
            name = stack.pop()
            if name in self.slots and name not in used:
                used.add(name)
                alias = self._final(self.slots[name]).alias
                stack.extend(() if alias is None else (alias,))
        return used

    def _final(self, s: Slot) -> Slot:
        target = self.rename.get(s.buffer.name)
        if target is not None:
            return Slot(s.buffer, s.kind, None, self.place(target))
        return s if s.alias is None else with_fields(s, alias=self.place(s.alias))


def _buffers(steps: Iterable[Step]) -> Iterator[str]:
    """The buffers that steps name."""
    for step in steps:
        if isinstance(step, Call):
            yield from step.arguments
            continue
        if isinstance(step, Loop):
            yield from () if step.count is None else (step.count,)
        elif isinstance(step, While):
            yield step.condition
            yield from () if step.steps is None else (step.steps,)
        else:
            yield step.index
        for part in parts(step):
            yield from _buffers(part)


def _kernel_name(region: Graph) -> str:
    """A readable name: the ops of the region, the weightiest first kept."""
    ops = [v.op.name for v in region if v.op.kind not in ("leaf", "view") and v.op.name not in ("full", "broadcast")]
    heavy = [n for n in ops if OPS[n].kind != "map"]
    light = [n for n in dict.fromkeys(ops) if OPS[n].kind == "map"]
    return "_".join([*dict.fromkeys(heavy), *light][:4]) or "fill"
