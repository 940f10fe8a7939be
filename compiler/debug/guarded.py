"""A function under a debugger: it runs on copies of its variables, so that a refused call changes none."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any, NoReturn

from ...errors import ExportError
from ...ir.graph import Graph, Loc, Value
from ...runtime.buffers import Array, Cell
from ...runtime.executable import Executable
from ...runtime.structure import unflatten
from ..driver import CpuLowered, host_target, machine_code
from ..target import CpuTarget

__all__ = ["Fused", "Guarded", "describe", "kernel_names", "lines", "native", "where"]


class Fused(CpuLowered):
    """A graph that has been through the passes already, on its way to machine code."""

    @cached_property
    def optimized(self) -> Graph:
        return self.graph


class Guarded(ABC):
    """A function that debugs itself; it stands where `compiler.driver.Compiled` stands otherwise.

    Attributes
    ----------
    graph : what it computes.
    lowered : the same on its way to machine code, as without a debugger.
    cells : the memory of its variables; `copies` is what its code works on.
    """

    def __init__(
        self, graph: Graph, cells: Sequence[Cell], structure: Any, target: CpuTarget | None = None
    ) -> None:
        self.graph, self.cells, self.structure = graph, tuple(cells), structure
        self.lowered = CpuLowered(graph, target or host_target())
        self.copies = tuple(Cell(c.name, c.array) for c in cells)
        self._lock = threading.RLock()  # calls share the copies
        self.executable = self
        self.inner = self.build()

    @abstractmethod
    def build(self) -> Executable:
        """The code that takes the arguments."""

    @abstractmethod
    def run(self, arguments: list[Array]) -> tuple[list[Array], list[Array]]:
        """The outputs, and the new values of all variables, whose present ones stand in `copies`; or raise."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; see `frontends.function.Function.__call__`."""
        arguments = self.inner.arguments(args, kwargs)
        with ExitStack() as locks:
            locks.enter_context(self._lock)
            for cell in sorted(set(self.cells), key=id):
                locks.enter_context(cell.lock)
            for copy, cell in zip(self.copies, self.cells):
                copy.array[...] = cell.array
            outputs, states = self.run(arguments)
            for cell, new in zip(self.cells, states):
                cell.array[...] = new
                cell.touch()
        return unflatten(self.structure, outputs)

    def ir(self, stage: str = "optimized") -> str:
        """The IR of one stage, without the debugger."""
        return self.lowered.text(stage)

    def memory(self, **dims: int) -> int | str:
        """Scratch memory of the debugged code, in bytes."""
        return self.inner.memory(**dims)

    def entry(self) -> NoReturn:
        """A function under a debugger is not shipped."""
        raise ExportError(f"{self.graph.name} was compiled with debug=...; export one compiled without")


def native(lowered: CpuLowered, cells: Sequence[Cell], kind: str = "program") -> Executable:
    """The machine code of a graph, which gives its outputs as a list; `kind` tells it apart in the cache."""
    structure = ["list", *["*"] * len(lowered.graph.outputs)]
    image, signature = machine_code(lowered, structure, kind=kind)
    return Executable(image, signature.name, signature, cells)


def kernel_names(lowered: CpuLowered) -> dict[int, str]:
    """The names of a program's kernels, by the identity of the regions they compute."""
    used = {step.kernel.name for step in lowered.program.calls}
    return {id(region): name for name, region in lowered.regions.items() if name in used}


def where(loc: Loc | None) -> str:
    """A source line, as messages end."""
    if loc is None:
        return "at an unknown line"
    role = f" (gradient of {loc.of})" if loc.of else f" ({loc.role})" if loc.role else ""
    return f"at {loc.file}:{loc.line}{role}"


def lines(values: Iterable[Value]) -> list[str]:
    """The source lines of values, each once."""
    return list(dict.fromkeys(where(v.loc) for v in values if v.loc is not None))


def describe(value: Value, depth: int = 2) -> str:
    """A value as an expression, a few ops deep."""
    if value.op.kind == "leaf" and "name" in value.attrs:
        return str(value.attrs["name"])
    if value.op.name == "full":
        return str(value.attrs["value"])
    if depth <= 1:
        return f"{value.op.name}({'...' if value.operands else ''})"
    attrs = [f"{k}={v}" for k, v in value.attrs.items() if isinstance(v, (bool, int, float, tuple))]
    operands = [describe(o, depth - 1) for o in value.operands]
    return f"{value.op.name}({', '.join([*operands, *attrs])})"

