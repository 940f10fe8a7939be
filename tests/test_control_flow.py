"""Loops and branches, compiled: programs and machine code mean what the graph means."""

from __future__ import annotations

import numpy as np
import pytest
from control_cases import CASES

from graphwright.compiler.driver import compile_graph
from graphwright.compiler.target import CudaTarget
from graphwright.errors import CompileError
from graphwright.ir.interpret_program import interpret_program
from graphwright.ir.interpreter import interpret
from graphwright.ir.parser import parse_graph, parse_program
from graphwright.ir.printer import print_program
from graphwright.ir.verify_program import verify_program
from graphwright.runtime.buffers import Cell

SIZES = [{"T": 0, "N": 2}, {"T": 1, "N": 1}, {"T": 5, "N": 3}, {"T": 6, "N": 0}, {"T": 4, "N": 17}]


def arrays(values, sizes, seed=0):
    """Random arrays; integers from -1 to 6."""
    rng = np.random.default_rng(seed)
    shapes = [[sizes.get(str(d), d) for d in v.tensor.shape] for v in values]
    return [
        rng.integers(-1, 7, shape) if v.tensor.dtype.is_integer
        else rng.normal(size=shape).astype(v.tensor.dtype.numpy)
        for v, shape in zip(values, shapes)
    ]  # fmt: skip


def agree(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize("name", CASES)
def test_compiled_loops_mean_what_the_graph_means(name, optimize):
    graph = parse_graph(CASES[name])
    cells = [Cell(s.attrs["name"], np.zeros([2] * s.tensor.rank, s.dtype.numpy)) for s in graph.states]
    program = compile_graph(graph, cells, optimize=optimize).lowered.program
    assert print_program(parse_program(print_program(program))) == print_program(program)
    for seed, sizes in enumerate(SIZES):
        env = {s: sizes[s] for s in graph.symbols}
        inputs, states = arrays(graph.inputs, sizes, seed), arrays(graph.states, sizes, seed + 1)
        verify_program(program, env)
        outputs, new = interpret(graph, inputs, states)
        expected = [*outputs, *new]
        found, after = interpret_program(program, inputs, states, env)
        agree([*found, *after], expected)
        cells = [Cell(s.attrs["name"], x.copy()) for s, x in zip(graph.states, states)]
        results = compile_graph(graph, cells, optimize=optimize).executable(*inputs)
        results = results if isinstance(results, (list, tuple)) else [results]
        agree([*results, *(c.value for c in cells)], expected)


def test_cuda_refuses_loops_by_name():
    pytest.importorskip("numba_cuda")
    message = "history: the scan cannot be compiled for CUDA, where loops and branches are not supported yet"
    with pytest.raises(CompileError, match=message):
        compile_graph(parse_graph(CASES["history"]), target=CudaTarget())
