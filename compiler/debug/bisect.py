"""Which pass, and which firing of which rule, first makes a program differ from the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import GraphwrightError, VerifyError
from ...ir.dims import evaluate
from ...ir.graph import Graph, Loc, Value
from ...ir.interpret_loops import interpret_kernel
from ...ir.interpreter import bind_symbols, evaluate_values
from ...ir.loops import Kernel, statements
from ...passes.lower_to_loops import lower_to_loops
from ...passes.manager import Pass
from ...passes.pipelines import GRAPH
from ...passes.rewrite import limited
from ...runtime.buffers import Array, Cell
from ..driver import CpuLowered, host_target
from ..llvm.cost import work
from ..target import CpuTarget
from .check import Exposed, KernelFault
from .compare import Difference, Reference
from .guarded import Fused, describe, kernel_names, native, where

__all__ = ["Culprit", "bisect_graph"]

_INTERPRETED = 20_000_000
"""Scalar operations up to which a scheduled kernel is interpreted, one at a time."""


@dataclass(frozen=True)
class Culprit:
    """What makes a program differ from the interpreter.

    Attributes
    ----------
    pass_name : the pass (or ``"llvm"``, ``"plan-memory"``).
    rule : the rewrite rule, for a pass that has rules.
    firing : which of its `firings` it was, counted over all rules of the pass.
    before, after : what the rule replaced, and by what.
    kernel : the kernel, where one errs.
    loc : the user's line.
    difference : how the result differs.
    """

    pass_name: str
    difference: Difference | None
    rule: str | None = None
    firing: int = 0
    firings: int = 0
    before: str = ""
    after: str = ""
    kernel: str | None = None
    loc: Loc | None = None

    def __str__(self) -> str:
        text = [f"pass {self.pass_name!r}" + (f", rule {self.rule!r}" if self.rule else "")]
        if self.rule:
            text.append(f"  firing {self.firing} of {self.firings}, {where(self.loc)}")
            text.append(f"  {self.before}\n  -> {self.after}")
        elif self.kernel:
            text.append(f"  kernel @{self.kernel}, {where(self.loc)}")
        if self.difference:
            text.append(f"  {self.difference}")
        return "\n".join(text)


def bisect_graph(
    graph: Graph, inputs: Sequence[Array], states: Sequence[Array], target: CpuTarget | None = None
) -> Culprit | None:
    """The culprit, for given arguments and values of the variables; None if all agree with the interpreter."""
    search = _Search(graph, [*inputs, *states])
    ir: Graph = graph
    for p in GRAPH:
        new: Graph = p.run(ir)
        found = search.difference(new)
        if found is not None:
            return search.in_pass(p, ir, found)
        ir = new
    return search.in_kernels(ir, len(inputs), target or host_target())


class _Search:
    def __init__(self, graph: Graph, given: Sequence[Array]) -> None:
        self.given = given
        self.reference = Reference(graph, given)
        leaves = (*graph.inputs, *graph.states)
        self.env = bind_symbols([v.tensor for v in leaves], [a.shape for a in given])

    def difference(self, graph: Graph) -> Difference | None:
        """How a graph differs from the first one."""
        known = dict(zip((*graph.inputs, *graph.states), self.given))
        try:
            arrays = evaluate_values(graph.roots, known, self.env)
        except (GraphwrightError, ValueError, IndexError):  # it can no longer be run at all
            return Difference("an error", "a value", (), float("inf"), 1, 1)
        found = self.reference.first_difference(arrays)
        return found[1] if found else None

    # --- passes over the graph ---

    def in_pass(self, p: Pass, before: Graph, difference: Difference) -> Culprit:
        """The first firing of the pass after which the result differs."""
        with limited() as limit:
            p.run(before)
        good, bad = 0, limit.fired
        if not bad or self._after(p, before, 0)[0] is not None:
            return Culprit(p.name, difference)
        while bad - good > 1:
            middle = (good + bad) // 2
            if self._after(p, before, middle)[0] is None:
                good = middle
            else:
                bad = middle
        found, last = self._after(p, before, bad)
        assert last is not None, "a firing was counted"
        rule, old, new = last
        return Culprit(
            p.name, found or difference, rule, bad, limit.fired, describe(old, 3), describe(new, 3), loc=old.loc
        )

    def _after(self, p: Pass, before: Graph, firings: int) -> tuple[Difference | None, tuple[str, Value, Value] | None]:
        with limited(firings) as limit:
            new = p.run(before)
        return self.difference(new), limit.last

    # --- kernels ---

    def in_kernels(self, fused: Graph, inputs: int, target: CpuTarget) -> Culprit | None:
        """The kernel that errs, or the program that calls them."""
        cells = [Cell(v.attrs["name"], a) for v, a in zip(fused.states, self.given[inputs:])]
        kernels = Exposed(fused)
        lowered = Fused(kernels.graph, target)
        arguments = self.given[:inputs]
        known = dict(zip((*fused.inputs, *fused.states), self.given))
        known |= dict(zip(kernels.values, native(lowered, cells)(*arguments)))
        fault = kernels.fault(known, kernel_names(lowered))
        if fault is not None:
            return Culprit(
                self._in_kernel(fault, lowered), fault.difference, kernel=fault.kernel, loc=fault.value.loc
            )
        return self._in_program(fused, cells, arguments, target)

    def _in_kernel(self, fault: KernelFault, lowered: CpuLowered) -> str:
        """The pass after which the kernel's loops differ from its ops; ``"llvm"`` if none does."""
        env = self.env
        reference = Reference(fault.region, fault.operands, env=env)
        kernel: Kernel = lower_to_loops(fault.region, fault.kernel)
        passes: list[Pass] = [Pass("lower-to-loops", lambda k: k), *lowered.kernel_pipeline()]
        for p in passes:
            kernel = p.run(kernel)
            if _effort(kernel, env) > _INTERPRETED:
                return "lower-to-loops, schedule or llvm (smaller arguments tell which)"
            try:
                arrays = interpret_kernel(kernel, fault.operands, env)
            except VerifyError:
                return p.name
            if reference.first_difference(arrays) is not None:
                return p.name
        return "llvm"

    def _in_program(
        self, fused: Graph, cells: Sequence[Cell], arguments: Sequence[Array], target: CpuTarget
    ) -> Culprit | None:
        outputs = native(Fused(fused, target), cells)(*arguments)
        states = dict(zip(fused.states, cells))
        found = self.reference.first_difference([*outputs, *(states[s].array for s, _ in fused.updates)])
        return Culprit("plan-memory", found[1]) if found is not None else None


def _effort(kernel: Kernel, env: dict[str, int]) -> int:
    variables = {s.var: 0 for s in statements(kernel.body) if hasattr(s, "var")}
    return sum(evaluate(work(s), {**variables, **env}) for s in kernel.body)
