"""``debug="check"``: compiled code is compared with the interpreter at each call, kernel by kernel.

Three things can err, and are told apart: a kernel, which is compared with its group of ops on the very
arrays that it read; a pass over the graph, which shows in the results although every kernel is right;
the plan of memory or the threads, which show where the program as a whole gives other results than its
kernels one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from ...errors import CheckError
from ...ir.graph import Graph, Value
from ...ir.interpreter import bind_symbols, evaluate_values
from ...ir.ops.structure import item
from ...ir.types import TupleType
from ...passes.pipelines import GRAPH
from ...runtime.buffers import Array
from ...runtime.executable import Executable
from .bodies import Place
from .check_bodies import BodyFault, BodyKernels
from .compare import Difference, Reference
from .guarded import Fused, Guarded, describe, kernel_names, lines, native, where

__all__ = ["CheckGuard", "Exposed", "KernelFault", "exposed"]


@dataclass(frozen=True)
class KernelFault:
    """A kernel that differs from its ops: its name, its call, the arrays it read, which result, and how."""

    kernel: str
    fusion: Value
    operands: list[Array]
    result: int
    difference: Difference

    @property
    def region(self) -> Graph:
        return self.fusion.regions[0]

    @property
    def value(self) -> Value:
        """The op whose value differs."""
        return self.region.outputs[self.result]


class Exposed:
    """A fused graph with the results of all its kernels as outputs: `graph`, after those it had."""

    def __init__(self, fused: Graph) -> None:
        self.fused = fused
        self.fusions = [v for v in fused if v.op.name == "fusion"]
        self.results = [_results(v) for v in self.fusions]
        every = dict.fromkeys((*fused.roots, *(r for results in self.results for r in results)))
        self.values = list(every)
        self.graph = Graph(fused.name, fused.inputs, fused.states, tuple(self.values))

    def fault(self, known: Mapping[Value, Array], names: Mapping[int, str]) -> KernelFault | None:
        """The first kernel whose results differ from the interpreter's; `known` holds inputs, states and `values`.

        `names` are the kernels' names by the identity of their regions.
        """
        leaves = (*self.fused.inputs, *self.fused.states)
        env = bind_symbols([v.tensor for v in leaves], [known[v].shape for v in leaves])
        for fusion, results in zip(self.fusions, self.results):
            operands = [np.asarray(a) for a in evaluate_values(fusion.operands, known, env)]
            reference = Reference(fusion.regions[0], operands, env=env)
            found = reference.first_difference([known[r] for r in results])
            if found is not None:
                return KernelFault(names.get(id(fusion.regions[0]), "?"), fusion, operands, *found)
        return None


def _results(fusion: Value) -> list[Value]:
    if not isinstance(fusion.type, TupleType):
        return [fusion]
    return [item(fusion, index=k) for k in range(len(fusion.type.items))]


def exposed(fused: Graph, guard: Guarded) -> tuple[Exposed, Executable, dict[int, str]]:
    """The kernels of a fused graph as one function that gives all their results; and their names."""
    kernels = Exposed(fused)
    lowered = Fused(kernels.graph, guard.lowered.target)
    return kernels, native(lowered, guard.copies), kernel_names(lowered)


class CheckGuard(Guarded):
    """Compares every kernel, every result and the program with the interpreter."""

    def build(self) -> Executable:
        self.kernels, self.each, self.names = exposed(self.lowered.optimized, self)
        self.bodies = BodyKernels(self.lowered.optimized, self)
        return native(self.lowered, self.copies)

    def run(self, arguments: list[Array]) -> tuple[list[Array], list[Array]]:
        before = [c.array.copy() for c in self.copies]
        given = [*arguments, *before]
        known = dict(zip((*self.graph.inputs, *self.graph.states), given))
        known |= dict(zip(self.kernels.values, self.each(*arguments)))
        fault = self.kernels.fault(known, self.names)
        if fault is not None:
            self._fail_kernel(fault.kernel, fault.value, fault.region, fault.difference)
        self._check_bodies(known)
        roots = [known[v] for v in self.kernels.fused.roots]
        reference = Reference(self.graph, given)
        found = reference.first_difference(roots)
        if found is not None:
            self._fail_pass(given, *found)
        outputs = self.inner(*arguments)
        self._compare_program(outputs, roots)
        return outputs, [c.array for c in self.copies]

    def _check_bodies(self, known: Mapping[Value, Array]) -> None:
        leaves = (*self.kernels.fused.inputs, *self.kernels.fused.states)
        env = bind_symbols([v.tensor for v in leaves], [known[v].shape for v in leaves])
        try:
            self.bodies.check(known, env)
        except BodyFault as fault:
            region = fault.fusion.regions[0]
            name = kernel_names(self.lowered).get(id(region), "?")
            self._fail_kernel(name, region.outputs[fault.result], region, fault.difference, fault.places)

    def _fail_kernel(
        self, kernel: str, value: Value, region: Graph, difference: Difference, places: Sequence[Place] = ()
    ) -> NoReturn:
        head = f"{self.graph.name}: kernel @{kernel} is not what its ops say: {value.op.name}, {where(value.loc)}"
        computed = ", ".join(lines(v for v in region if v.operands)) or "unknown lines"
        raise CheckError("\n".join([
            head, *(f"  {place}" for place in reversed(places)), f"  {describe(value, 3)}\n  {difference}",
            f"  the kernel computes what stands {computed}\n  no variable was updated",
        ]))  # fmt: skip

    def _fail_pass(self, given: Sequence[Array], root: int, difference: Difference) -> NoReturn:
        value, found = first_rewritten(self.graph, given) or (self.graph.roots[root], difference)
        raise CheckError(
            f"{self.graph.name}: a pass over the graph has changed the meaning of {value.op.name}, "
            f"{where(value.loc)}\n  {describe(value, 3)}\n  {found}\n"
            "  gw.debug.bisect(function, arguments) names the pass and the rule\n  no variable was updated"
        )

    def _compare_program(self, outputs: Sequence[Array], roots: Sequence[Array]) -> None:
        updates = [state for state, _ in self.graph.updates]
        states = dict(zip(self.graph.states, self.copies))
        found = [*outputs, *(states[s].array for s in updates)]
        for value, got, expected in zip(self.graph.roots, found, roots):
            if not np.array_equal(got, expected, equal_nan=got.dtype.kind == "f"):
                wrong = got != expected
                raise CheckError(
                    f"{self.graph.name}: all kernels are right, but not the program that calls them: "
                    f"{value.op.name}, {where(value.loc)}, differs in {int(wrong.sum())} of {wrong.size} elements "
                    "when memory is shared\n  no variable was updated"
                )


def first_rewritten(graph: Graph, given: Sequence[Array]) -> tuple[Value, Difference] | None:
    """The first value of the graph whose form after the passes has another value, by the interpreter."""
    values = [v for v in graph if v.operands and not isinstance(v.type, TupleType)]
    whole = Graph(graph.name, graph.inputs, graph.states, tuple(values))
    optimized = GRAPH.until("dce").run(whole).ir
    leaves = (*graph.inputs, *graph.states)
    env = bind_symbols([v.tensor for v in leaves], [a.shape for a in given])
    arrays = evaluate_values(optimized.outputs, dict(zip(leaves, given)), env)
    found = Reference(graph, given, values).first_difference(arrays)
    return (values[found[0]], found[1]) if found is not None else None
