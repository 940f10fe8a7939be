"""From a graph to scheduled loops: the texts of each form, and that all forms mean the same.

``tests/lowering/NAME.gwir`` holds a graph; beside it stand, as golden files, what it becomes.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from checks import assert_close

from graphwright.compiler.driver import compile_graph
from graphwright.ir.graph import Graph
from graphwright.ir.interpret_program import interpret_program
from graphwright.ir.interpreter import interpret
from graphwright.ir.loops import Kernel
from graphwright.ir.parser import parse_graph
from graphwright.ir.printer import print_graph, print_kernel, print_program
from graphwright.ir.program import Program
from graphwright.ir.verify import verify_graph, verify_kernel
from graphwright.ir.verify_program import verify_program
from graphwright.passes.cpu_model import CpuModel
from graphwright.passes.fuse import isolate
from graphwright.passes.lower_to_loops import lower_to_loops
from graphwright.passes.lower_to_program import lower_to_program
from graphwright.passes.pipelines import GRAPH
from graphwright.passes.plan_memory import plan_memory
from graphwright.passes.schedule_cpu import schedule_cpu
from graphwright.runtime.buffers import Cell

FOLDER = Path(__file__).parent / "lowering"
NAMES = sorted(p.stem for p in FOLDER.glob("*.gwir"))
CPU = CpuModel()
SIZES = [{"N": n} for n in (0, 1, 3, 17)]


def graph_of(name: str) -> Graph:
    return parse_graph((FOLDER / f"{name}.gwir").read_text())


def optimized(name: str) -> Graph:
    result: Graph = GRAPH.run(graph_of(name), verifiers={Graph: verify_graph}, verify=True).ir
    return result


def kernels(graph: Graph, schedule: bool) -> Program:
    """The planned program of a fused graph, its kernels declarative or scheduled."""

    def lower(region: Graph, name: str) -> Kernel:
        kernel = lower_to_loops(region, name)
        verify_kernel(kernel)
        if schedule:
            kernel = schedule_cpu(kernel, CPU)
            verify_kernel(kernel)
        return kernel

    return plan_memory(lower_to_program(graph, lower))


def operands(graph: Graph, sizes: dict[str, int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random inputs and states."""
    rng = np.random.default_rng(0)

    def make(v: object) -> np.ndarray:
        shape = [sizes.get(str(d), d) for d in v.tensor.shape]
        if v.tensor.dtype.is_integer:
            return rng.integers(-3, 14, shape).astype(v.tensor.dtype.numpy)
        return rng.normal(size=shape).astype(v.tensor.dtype.numpy)

    return [make(v) for v in graph.inputs], [make(v) for v in graph.states]


def without_locations(text: str) -> str:
    """Equal values of other tests that are still alive lend theirs."""
    return re.sub(r" +loc\(.*\)$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_texts(name, golden):
    fused = optimized(name)
    golden(FOLDER / f"{name}.optimized.txt", without_locations(print_graph(fused)))
    golden(FOLDER / f"{name}.program.txt", without_locations(print_program(kernels(fused, schedule=False))))
    scheduled = kernels(fused, schedule=True).kernels
    golden(FOLDER / f"{name}.loops.txt", "\n".join(map(print_kernel, scheduled)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("sizes", SIZES[:3], ids=str)
def test_loops_mean_what_the_graph_means(name, scheduled, sizes):
    graph = graph_of(name)
    inputs, states = operands(graph, sizes)
    expected = interpret(graph, inputs, states)
    for form in (optimized(name), isolate(graph)):
        program = kernels(form, scheduled)
        verify_program(program, sizes)
        outputs, new = interpret_program(program, inputs, states, sizes)
        for actual, value in zip((*outputs, *new), (*expected[0], *expected[1]), strict=True):
            assert_close(actual, value, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("optimize", [False, True])
def test_machine_code_means_what_the_graph_means(name, optimize):
    graph = graph_of(name)
    cells = [Cell(s.attrs["name"], np.zeros(s.tensor.shape, s.tensor.dtype.numpy)) for s in graph.states]
    compiled = compile_graph(graph, cells, ["list", *["*"] * len(graph.outputs)], optimize=optimize)
    for sizes in SIZES:
        inputs, states = operands(graph, sizes)
        for cell, state in zip(cells, states):
            cell.assign(state)
        outputs, new_states = interpret(graph, inputs, states)
        results = compiled.executable(*inputs)
        for actual, value in zip([*results, *(c.value for c in cells)], [*outputs, *new_states], strict=True):
            assert_close(actual, value, name)
