"""``debug="bounds"``: every load and store of generated code is guarded (`passes.guard_bounds`)."""

from __future__ import annotations

from dataclasses import replace as with_fields
from functools import cached_property
from typing import NoReturn

from ...errors import BoundsError
from ...ir.graph import Graph
from ...ir.loops import Kernel
from ...ir.program import Program
from ...passes.guard_bounds import LENGTH, Access, guard_bounds
from ...passes.manager import Pass, Pipeline
from ...runtime.buffers import Array
from ...runtime.executable import Executable
from ..driver import CpuLowered, machine_code
from ..instrument import report_cell, with_report, with_report_slot
from ..target import CpuTarget
from .guarded import Guarded, lines

__all__ = ["BoundsGuard"]

_NAME = "debug.report"


class _Guarding(CpuLowered):
    """A graph on its way to code whose accesses are guarded; the report is one more variable."""

    def __init__(self, graph: Graph, target: CpuTarget) -> None:
        super().__init__(graph, target)
        self.accesses: list[Access] = []

    def kernel_pipeline(self) -> Pipeline:
        def guard(kernel: Kernel) -> Kernel:
            return guard_bounds(kernel, self.accesses)

        why = "no access leaves its buffer"
        return Pipeline([*super().kernel_pipeline(), Pass("guard-bounds", guard, requires=("scheduled",), why=why)])

    @cached_property
    def program(self) -> Program:
        plain = super().program
        reporting = with_report(plain, _NAME, LENGTH)
        return reporting.with_calls(lambda call: with_fields(call, arguments=(*call.arguments, _NAME)))


class BoundsGuard(Guarded):
    """Stops when generated code would load or store outside a buffer."""

    def build(self) -> Executable:
        self.guarding = _Guarding(self.graph, self.lowered.target)
        self.report = report_cell(_NAME, LENGTH)
        structure = ["list", *["*"] * len(self.graph.outputs)]
        image, plain = machine_code(self.guarding, structure, kind="bounds")
        signature = with_report_slot(plain, _NAME, LENGTH)
        return Executable(image, signature.name, signature, (*self.copies, self.report))

    def run(self, arguments: list[Array]) -> tuple[list[Array], list[Array]]:
        self.report.array[...] = 0
        outputs = self.inner(*arguments)
        number, *indices = map(int, self.report.array)
        if number:
            self._fail(number - 1, indices)
        return outputs, [c.array for c in self.copies]

    def _fail(self, number: int, indices: list[int]) -> NoReturn:
        program = self.guarding.program  # numbers the accesses, also where the code comes from the cache
        access = self.guarding.accesses[number]
        calls = [s for s in program.calls if s.kernel.name == access.kernel]
        names = [b.name for b in (*calls[0].kernel.inputs, *calls[0].kernel.outputs)]
        given = [s.arguments[names.index(access.buffer.name)] for s in calls if access.buffer.name in names]
        called = f" (there {' or '.join(dict.fromkeys(given))})" if given else ""
        index = ", ".join(map(str, indices[: len(access.extents)]))
        region = self.guarding.regions[access.kernel]
        places = ", ".join(lines(v for v in region if v.operands)) or "at unknown lines"
        buffer = access.buffer
        raise BoundsError(
            f"{self.graph.name}: kernel @{access.kernel} {access.kind}s %{buffer.name}[{index}]{called}, "
            f"which is {buffer.dtype}[{', '.join(map(str, buffer.shape))}]\n"
            f"  the kernel computes what stands {places}\n  no variable was updated"
        )
